"""The verbs about periodic schedules. Their tasks are queued by `Work.tick`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .values import StoredSchedule


class Schedules(Protocol):
    """Read and change the schedules that all programs of an application share."""

    async def last_ticks(self, queue: str, names: Sequence[str]) -> list[int]:
        """Return the last tick of each schedule whose task was queued there; 0 for none."""
        ...

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        """State, change, remove or pause a schedule; see the verbs in `values`. At most `most` are kept.

        Its ticks count from the moment in which its text first stood with this first line, or in which
        it was resumed. Raises `QueueFull`.
        """
        ...

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        """Return all schedules by name, and the version they have at least."""
        ...

    async def version(self) -> tuple[int, int]:
        """Return the version of the schedules, which grows with each change, and the store's clock in ms."""
        ...
