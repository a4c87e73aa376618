"""Make `first-contact.svg`, the picture of README.md: `python docs/pictures/make.py`.

It runs `python manage.py demo` in a pseudo-terminal and draws its output, each line at the time when it was printed.
So the picture is a recording with measured times. `tests/docs/test_picture.py` compares the committed picture with
the output of the tour.

CSS moves it, once. Without motion, or with reduced motion, it shows the last state at once.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("first-contact.svg")
COMMAND = ["manage.py", "demo"]
LONGEST = 120.0

COLUMN, LINE, MARGIN = 8.0, 19, 18
CLASSES = {"1": "b", "2": "d", "32": "g"}  # colours of the tour

STYLE = """\
text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328;white-space:pre}
.w{fill:#f6f8fa;stroke:#d1d9e0}.b{font-weight:700}.d{fill:#59636e}.g{fill:#1a7f37}
.l{animation:h 1s step-end}.f{visibility:hidden;animation:s 1s step-end}
@keyframes h{from,to{visibility:hidden}}@keyframes s{from,to{visibility:visible}}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.w{fill:#151b23;stroke:#3d444d}.d{fill:#9198a1}.g{fill:#3fb950}}
@media(prefers-reduced-motion:reduce){.l,.f{animation:none}}"""


@dataclass
class Line:
    """A line of the terminal: its last text, the time of that, and its earlier texts."""

    text: str = ""
    at: float = 0.0
    frames: list[tuple[float, str]] = field(default_factory=list)


def record() -> list[Line]:
    """Run the tour in a pseudo-terminal. Raise `RuntimeError` if it fails."""
    ours, theirs = pty.openpty()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PQ_", "NO_COLOR"))
    }
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *COMMAND],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    lines, rest = [Line()], b""
    try:
        while time.monotonic() - began < LONGEST:
            try:
                data = os.read(ours, 65536)
            except OSError:  # on Linux: the other end of the terminal is closed
                data = b""
            if not data:
                break
            rest += data
            text = rest.decode("utf-8", "ignore")
            rest = rest[len(text.encode()) :]
            _write(lines, text, time.monotonic() - began)
    finally:
        os.close(ours)
        if time.monotonic() - began >= LONGEST:
            process.kill()
        code = process.wait(30)
    if code:
        raise RuntimeError(f"the tour ended with {code}:\n" + "\n".join(line.text for line in lines))
    while lines and not lines[-1].text:
        lines.pop()
    return lines


def _write(lines: list[Line], text: str, now: float) -> None:
    """Apply `text` to the lines like a terminal, as far as the tour needs: new lines and overwritten ones."""
    for part in re.split(r"(\r\n|\r\x1b\[K|\n)", text):
        line = lines[-1]
        if part in ("\r\n", "\n"):
            line.at = now if not line.text else line.at
            lines.append(Line(at=now))
        elif part == "\r\x1b[K":
            if line.text:
                line.frames.append((line.at, line.text))
                line.text = ""
        elif part:
            line.text += part
            line.at = now


def draw(lines: list[Line]) -> str:
    """Return the recording as an SVG."""
    command = Line(f"\x1b[2m$\x1b[0m \x1b[1mpython {' '.join(COMMAND)}\x1b[0m")
    shown = [command, *lines]
    columns = max(len(plain(line.text)) for line in shown)
    width, height = round(columns * COLUMN + 2 * MARGIN), len(shown) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img"><title>A terminal: the tour of pq</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="w" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
    ]
    for number, line in enumerate(shown):
        y = MARGIN + number * LINE + 14
        ends = [at for at, _ in line.frames[1:]] + [line.at]
        for (at, text), end in zip(line.frames, ends, strict=False):
            style = f"animation-delay:{at:.2f}s;animation-duration:{max(0.01, end - at):.2f}s"
            parts.append(f'<g class="f" style="{style}">{_texts(text, y)}</g>')
        style = f'class="l" style="animation-duration:{line.at:.2f}s"' if line.at else ""
        parts.append(f"<g {style}>{_texts(line.text, y)}</g>".replace("<g >", "<g>"))
    return "\n".join([*parts, "</svg>", ""])


def _texts(text: str, y: int) -> str:
    """Return the text of a line, each piece of one colour at its column with a fixed width."""
    found, column, kind = [], 0, ""
    for part in re.split(r"(\x1b\[\d*m)", text):
        if part.startswith("\x1b["):
            kind = CLASSES.get(part[2:-1], "")
            continue
        for piece in re.finditer(r"\S+(?: \S+)*", part):  # pieces between two spaces get their own position
            words, start = piece[0], column + piece.start()
            style = f' class="{kind}"' if kind else ""
            found.append(
                f'<text{style} x="{MARGIN + start * COLUMN:g}" y="{y}" textLength="{len(words) * COLUMN:g}">'
                f"{escape(words, quote=False)}</text>"
            )
        column += len(part)
    return "".join(found)


def plain(text: str) -> str:
    """Return `text` without colours."""
    return re.sub(r"\x1b\[\d*m", "", text)


def words_of(picture: str) -> list[str]:
    """Return the last state of a picture, line by line, with single spaces and without the command."""
    import xml.etree.ElementTree as tree

    groups = tree.fromstring(picture).iter("{http://www.w3.org/2000/svg}g")
    lines = [" ".join(text.text or "" for text in group) for group in groups if group.get("class") != "f"]
    return [" ".join(line.split()) for line in lines[1:]]


def main() -> None:
    """Record the tour and write the picture."""
    picture = draw(record())
    PICTURE.write_text(picture, "utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {len(picture.encode()):,} bytes")


if __name__ == "__main__":
    main()
