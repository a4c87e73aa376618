"""Output of the verbs: lines, tables, JSON, colours, a question.

Data go to standard output, everything else to standard error, so a verb can stand in a pipe. Colours are for
terminals; `NO_COLOR` turns them off.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from ..cli import UsageError
from ..logs.formatters import escape

_TINTS = {"dim": "\x1b[2m", "bold": "\x1b[1m", "red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}


def say(text: str = "") -> None:
    """Write a line of data to standard output."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Write a line for the reader to standard error."""
    sys.stderr.write(f"{text}\n")


def colours(stream: TextIO | None = None) -> bool:
    """Return True where colours are wanted."""
    where: TextIO = sys.stdout if stream is None else stream
    return where.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def tint(text: str, name: str | None) -> str:
    """Return `text` in a colour, where colours are wanted."""
    return f"{_TINTS[name]}{text}\x1b[0m" if name and text and colours() else text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], tints: Sequence[str | None] = ()) -> None:
    """Write a table; its last column is cut at the edge of the terminal."""
    if not rows:
        return
    cells = [[escape(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(heads), *cells]) for n in range(len(heads))]
    say(
        tint("  ".join(f"{head:<{width}}" for head, width in zip(heads, widths, strict=True)).rstrip(), "dim")
    )
    left = terminal_width() - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for number, row in enumerate(cells):
        if left >= 10 and len(row[-1]) > left:
            row[-1] = row[-1][: left - 1] + "…"
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        say(tint(line, tints[number] if tints else None))


def terminal_width() -> int:
    """Return the columns of the terminal; a pipe has no limit."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def as_json(value: Any) -> None:
    """Write `value` as JSON; values unknown to JSON become text."""
    say(json.dumps(value, indent=2, default=str, ensure_ascii=False))


# ------------------------------------------------------------------------------------------- words


def sure(question: str, *, yes: bool, act: Callable[[], int]) -> int:
    """Ask before an act that cannot be undone. Raises `UsageError` without a terminal and without `--yes`."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{question} There is no terminal to ask on", hint="add --yes")
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was done")
            return 1
    return act()
