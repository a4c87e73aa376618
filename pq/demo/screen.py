"""Output of the tour: numbered lines, and a moving bar on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from ..logs.tasks import format_duration

WIDTH = 50
"""Columns of what is done, and of what came of it; then comes the time."""
BAR = 22
QUARTERS = 4
"""A bar that cannot move is printed so often on its way."""

_DIM, _BOLD, _GREEN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[0m"
_CLEAR = "\r\x1b[K"


class Screen:
    """Prints the tour. Colours and moving bars are for terminals; `NO_COLOR` turns the colours off."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        moves = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._moves = moves
        self._colours = moves and not os.environ.get("NO_COLOR")
        self._bar = False
        self._told = 0  # quarters of the bar that were printed
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        try:
            "━·×✓".encode(encoding)
        except UnicodeEncodeError:  # a terminal that has only ASCII shows `?` and loses nothing else
            self._stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    def line(self, text: str = "") -> None:
        """A line of its own."""
        self._write(f"{text}\n")

    def step(self, number: int | None, what: str, came: str = "", seconds: float | None = None) -> None:
        """Print a step, its outcome and its duration."""
        mark = f"{number:>3}  " if number is not None else " " * 5
        took = "" if seconds is None else format_duration(seconds)
        text = f"{what:<{WIDTH}} {came:<{WIDTH // 2}}".rstrip()
        if took:
            text = f"{what:<{WIDTH}} {came:<{WIDTH // 2}} {self._tint(_DIM, f'{took:>8}')}"
        self._write(f"{self._tint(_BOLD, mark)}{text}\n")

    def bar(self, number: int, what: str, share: float) -> None:
        """Show progress: in place on a terminal, else a line at every quarter."""
        share = min(max(share, 0.0), 1.0)
        if not self._moves:
            quarter = int(share * QUARTERS)
            if quarter > self._told and share < 1.0:
                self.step(number, what, f"{share:.0%}")
                self._told = quarter
            return
        full = int(share * BAR)
        bar = self._tint(_GREEN, "━" * full) + self._tint(_DIM, "━" * (BAR - full))
        self._stream.write(f"{_CLEAR}{number:>3}  {what:<{WIDTH}} {bar} {share:>4.0%}")
        self._stream.flush()
        self._bar = True

    def _write(self, text: str) -> None:
        # The next line overwrites the bar.
        self._stream.write(f"{_CLEAR if self._bar else ''}{text}")
        self._bar = False
        self._stream.flush()

    def _tint(self, tint: str, text: str) -> str:
        return f"{tint}{text}{_PLAIN}" if self._colours and text.strip() else text
