"""How long to wait before a dead worker is replaced.

A worker that could not even start will hardly start the next moment: the pauses grow, and where none has ever started
the server gives up. One that had started and was killed is replaced at once, whoever killed it: its tasks wait. Only
where many die young, one after the other, a pause keeps a crash at the beginning of work from eating a processor.
"""

from __future__ import annotations

from collections import deque

YOUNG = 5.0
"""Seconds a worker has to live for its death to be nothing of its beginning."""
LONGEST = 30.0
"""Seconds of the longest pause after workers that could not start."""
BETWEEN = 1.0
"""Seconds of the pause after too many that died young."""
STARTS = 3
"""Workers that may fail to start, with none ever ready, before the server gives up."""


class Restarts:
    """The deaths of one server's workers. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._failed = 0
        self._ever_ready = False
        self._young: deque[float] = deque()
        self._until = float("-inf")

    def ready(self) -> None:
        """A worker has started."""
        self._ever_ready = True
        self._failed = 0

    def died(self, *, ready: bool, lived: float, workers: int, now: float) -> None:
        """A worker has ended that was not meant to; `workers` is how many there are to be."""
        pause = 0.0
        if not ready:
            self._failed += 1
            if self._failed > 1:
                pause = min(LONGEST, 0.25 * 2.0 ** min(self._failed, 10))
        elif lived < YOUNG:
            self._young.append(now)
            while self._young[0] < now - YOUNG:
                self._young.popleft()
            if len(self._young) > 2 * workers + 2:
                pause = BETWEEN
        self._until = max(self._until, now + pause)

    def wait(self, now: float) -> float:
        """Seconds until the next worker may be started; 0 where it may be at once."""
        return max(0.0, self._until - now)

    @property
    def hopeless(self) -> bool:
        """None could start, and no other try is worth it."""
        return not self._ever_ready and self._failed >= STARTS
