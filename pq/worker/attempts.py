"""The attempts that a worker has under way, and the batch under which the store counts each of them as held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ..execution.attempt import Attempt
from ..model import outcome as outcomes
from ..model.task import Task


class Attempts:
    """Shared by the services of one worker, in its event loop; the consumer alone adds and removes.

    Attributes:
        running: by id, the attempts under way.
        held: by id, (queue, batch) of each task that this worker holds; it is settled under that batch. A task is
            held a little longer than it runs, and one that never started is held too until it is settled.
    """

    __slots__ = ("held", "running")

    def __init__(self) -> None:
        self.running: dict[str, Attempt] = {}
        self.held: dict[str, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self.running)

    def all(self) -> list[Attempt]:
        """Return the attempts under way."""
        return list(self.running.values())

    def held_under(self, task: Task[Any]) -> tuple[str, int] | None:
        """Return (queue, batch) under which a running attempt of this very `task` is held; None for any other."""
        attempt = self.running.get(task.id)
        return self.held.get(task.id) if attempt is not None and attempt.task is task else None

    def cancel(self, ids: Iterable[str], why: int = outcomes.REVOKED) -> None:
        """Stop the attempts of these tasks, where they run here."""
        for id in ids:
            attempt = self.running.get(id)
            if attempt is not None:
                attempt.cancel(why)

    def job_of(self, running: asyncio.Task[Any] | None) -> str | None:
        """Return the name and id of the task whose attempt runs in that asyncio task."""
        for attempt in self.all():
            if running is not None and attempt.handle is running:
                return f"{attempt.task.name} {attempt.task.id[:9]}"
        return None

    def clear(self) -> list[Attempt]:
        """Forget all attempts, because the lease is lost; return those that ran."""
        lost = self.all()
        self.running.clear()
        self.held.clear()
        return lost
