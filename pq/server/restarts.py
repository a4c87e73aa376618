"""Decide how long to wait before a dead worker is replaced.

A worker that could not start will hardly start a moment later: the pauses grow, and where no worker has ever started
the server gives up. A worker that had started and died is replaced at once, because its tasks wait. Only where many
die young, one after the other, a pause keeps crashes at the start of work from using up a processor.
"""

from __future__ import annotations

from collections import deque

YOUNG = 5.0
"""Seconds after its start within which the death of a worker counts as early."""
LONGEST = 30.0
"""Seconds of the longest pause after workers that could not start."""
BETWEEN = 1.0
"""Seconds of the pause after too many early deaths."""
STARTS = 3
"""Workers that may fail to start, with none ever ready, before the server gives up."""


class Restarts:
    """Count the deaths of the workers of one server. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._failed = 0
        self._ever_ready = False
        self._young: deque[float] = deque()
        self._until = float("-inf")

    def ready(self) -> None:
        """Note that a worker has started."""
        self._ever_ready = True
        self._failed = 0

    def died(self, *, ready: bool, lived: float, workers: int, now: float) -> None:
        """Note that a worker ended unexpectedly, after `lived` seconds; `workers` is how many are wanted."""
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
        """Return the seconds until the next worker may start; 0 where it may start now."""
        return max(0.0, self._until - now)

    @property
    def hopeless(self) -> bool:
        """Return True if no worker could start and another try is useless."""
        return not self._ever_ready and self._failed >= STARTS
