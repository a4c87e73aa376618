"""The output of a job: whole lines, at most as many as a reader can follow.

A job that prints in a loop makes hundreds of megabytes a second. All of it is taken from the job, so
that it is never blocked; `Allowance` decides what is kept, and what is not kept is counted and told in
one line. Both sides use it: the child for its log records, the worker for what comes out of the pipes
that are the child's standard output and error.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import SYSTEM, Clock

LINES = 1_000
"""Lines that pass in one second."""
SIZE = 262_144
"""Characters that pass in one second."""
LINE = 8_192
"""Characters of the longest line; the rest of it is cut off."""


class Allowance:
    """The lines and characters that may still pass in this second."""

    def __init__(self, *, lines: int = LINES, size: int = SIZE, clock: Clock = SYSTEM) -> None:
        self.dropped = 0
        self._limits = (lines, size)
        self._clock = clock
        self._lines, self._size = lines, size
        self._until = 0.0

    @property
    def spent(self) -> bool:
        """True while nothing more passes."""
        self._renew()
        return self._lines <= 0 or self._size <= 0

    def take(self, size: int) -> bool:
        """True when a line of `size` characters may pass; else it counts as dropped."""
        if self.spent:
            self.dropped += 1
            return False
        self._lines -= 1
        self._size -= size
        return True

    def report(self) -> str | None:
        """The line that tells what was dropped since the last report, or None."""
        if not self.dropped:
            return None
        count, self.dropped = self.dropped, 0
        return f"… {count:,} line{'s' * (count != 1)} dropped"

    def _renew(self) -> None:
        now = self._clock.monotonic()
        if now >= self._until:
            self._until = now + 1.0
            self._lines, self._size = self._limits


def shorten(text: str, limit: int = LINE) -> str:
    """`text`, no longer than `limit` characters, in valid Unicode."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit:,} more characters)"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Lines:
    """Makes lines of a stream of bytes and hands on those that the allowance lets pass."""

    def __init__(self, allowance: Allowance, emit: Callable[[str], None]) -> None:
        self._allowance = allowance
        self._emit = emit
        self._rest = b""
        self._cut = 0  # bytes of the unfinished line that were not kept

    @property
    def flooded(self) -> bool:
        """True while more comes than passes."""
        return self._allowance.spent

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._allowance.spent and b"\n" in data:
            # The path of a flood: count what goes by, without making text of it.
            self._allowance.dropped += data.count(b"\n")
            self._rest, self._cut = data[data.rfind(b"\n") + 1 :][:LINE], 0
            return
        *whole, rest = (self._rest + data).split(b"\n")
        for done, line in enumerate(whole):
            if self._allowance.spent:
                self._allowance.dropped += len(whole) - done
                break
            self._line(line)
        self._rest = rest[: LINE * 4]
        self._cut += len(rest) - len(self._rest)

    def flush(self) -> None:
        """End the output of a task: emit an unfinished line, and the number of dropped ones."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        report = self._allowance.report()
        if report:
            self._emit(report)

    def _line(self, line: bytes) -> None:
        cut, self._cut = self._cut, 0
        text = line.decode("utf-8", "replace").rstrip("\r")
        if not text.strip() or not self._allowance.take(len(text)):
            return
        report = self._allowance.report()
        if report:
            self._emit(report)
        text = shorten(text)
        self._emit(f"{text}… ({cut:,} more bytes)" if cut else text)
