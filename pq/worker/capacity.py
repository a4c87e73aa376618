"""Decide how many tasks a worker may reserve. Pure: numbers in, a number out.

At most half of the slots are filled in one call. So while the store works on one half, the event loop runs the
other, instead of each waiting for the other.

Only tasks that can start are reserved. When a batch brings more process tasks than there are free children, the
rest goes back to the front at once, and from then on no more is reserved than the children can take. Where process
tasks take milliseconds a few spare ones are reserved too, so that no child waits for a round trip.
"""

from __future__ import annotations

from collections.abc import Callable

SHORT = 0.005
"""Seconds; process tasks that take less on average are short."""
SPARE = 2
"""Short process tasks that may wait for each child."""
WEIGHT = 0.2
"""Weight of the last process task in the average duration."""


def wanted(slots: int, running: int, *, before_limit: int | None, for_children: int | None) -> int:
    """Return how many tasks may be reserved.

    Args:
        slots: tasks that may run at once.
        running: tasks that run.
        before_limit: tasks until the worker is recycled (`max_requests`); None where it never is.
        for_children: tasks that the child processes can take; None while no process task was seen.
    """
    free = slots - running
    if before_limit is not None:
        free = min(free, before_limit)
    if for_children is not None:
        free = min(free, for_children)
    half = (slots + 1) // 2
    return max(0, min(free, half))


class Children:
    """The child processes of a worker, as far as reserving depends on them.

    Args:
        count: child processes.
        slots: tasks that may run at once.
        capacity: how many more attempts their executor could start now; None for any number.

    Attributes:
        running: process tasks that run or wait for a child here.
        mean_time: seconds that process tasks take, a moving average; long until they are seen to be short.
        in_last_batch: the last batch had a process task, so the next one may have some too.
        head_waits: a process task was released because no child was free, and none has become free since.
    """

    __slots__ = ("_capacity", "_slots", "count", "head_waits", "in_last_batch", "mean_time", "running")

    def __init__(self, count: int, slots: int, capacity: Callable[[], int | None]) -> None:
        self.count = count
        self._slots = slots
        self._capacity = capacity
        self.running = 0
        self.mean_time = 1.0
        self.in_last_batch = False
        self.head_waits = False

    def free(self) -> int:
        """Return how many more process tasks may start."""
        capacity = self._capacity()
        if capacity is None:
            return self._slots
        waiting = max(0, self.running - self.count)
        spare = SPARE * self.count if self.mean_time < SHORT else 0
        return max(0, capacity + spare - waiting)

    def wanted(self) -> int | None:
        """Return the limit that the children set on the next batch; None for no limit.

        With all children busy one task is reserved still, until that is a process task too: the next task may be of
        another mode, and one that a busy child waits for.
        """
        if not self.in_last_batch:
            return None
        return self.free() or int(not self.head_waits)

    def ended(self, seconds: float) -> None:
        """Note that a process task has ended, `seconds` after its start."""
        self.running -= 1
        self.head_waits = False
        self.mean_time += WEIGHT * (min(seconds, 1.0) - self.mean_time)
