"""Code blocks of the documentation, and what is to be done with each.

The conventions cannot be seen in a rendered page: they are comments on the line before a block.

    ```python            runs, in the order of the page, in one namespace for the page; `await` works
    ```pycon             runs, and what it prints is compared; `…` and `...` stand for anything
    ```bash, ```console  each command must exist: its flags, verbs, extras (a line of `console` with `$`)
    <!-- file: PATH -->  the block is a file of the project that the pages are about
    <!-- not run: WHY --> neither of it, for the reason given

A block in any other language has to be a file or to say why it is not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^( *)(`{3,})(\w*)\s*$")
_MARK = re.compile(r"^ *<!-- (file|not run): (.+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is that of its first line of code, from 1."""

    page: str
    line: int
    language: str
    source: str
    file: str | None = None
    reason: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """The treatment of the block: file, skipped, python, shell or unknown."""
        if self.file is not None:
            return "file"
        if self.reason is not None:
            return "skipped"
        return {"python": "python", "pycon": "python", "bash": "shell", "console": "shell"}.get(
            self.language, "unknown"
        )

    def commands(self) -> Iterator[tuple[int, str]]:
        """The commands of a shell block, with their lines."""
        lines = self.source.splitlines()
        for number, text in enumerate(lines, self.line):
            if self.language == "console":
                if text.startswith("$ "):
                    yield number, text[2:]
            elif text.strip() and not text.lstrip().startswith("#"):
                yield number, text


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return list(parse(page.read_text("utf-8"), str(page.relative_to(ROOT))))


def parse(text: str, page: str) -> Iterator[Block]:
    """The fenced blocks in `text`. One that is never closed is an error."""
    mark: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if found := _MARK.match(line):
            mark = {found[1]: found[2]}
        elif fence := _FENCE.match(line):
            indent, ticks, language = fence.groups()
            body: list[str] = []
            for _, inner in lines:
                if inner.strip() == ticks:
                    break
                body.append(inner.removeprefix(indent))
            else:
                raise AssertionError(f"{page}:{number}: this block is never closed")
            source = "\n".join(body) + "\n"
            yield Block(page, number + 1, language, source, mark.get("file"), mark.get("not run"))
            mark = {}
        elif line.strip():
            assert not mark, f"{page}:{number}: the comment before it belongs to no block"
