"""The verbs that only read: where tasks are, and what the store says of itself.

A look is not a promise: what it found may be somewhere else by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .values import QueueState


class Looks(Protocol):
    """Look at queues, tasks and the store."""

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """Return the stored records; None for each that is unknown."""
        ...

    async def peek(self, queue: str, count: int) -> list[str]:
        """Return the first ids of a queue, in the order in which they would be handed out.

        Then those that are parked at limits, then the delayed ones.
        """
        ...

    async def state(self, queue: str) -> QueueState:
        """Return how many tasks are in each place of a queue."""
        ...

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        """Return ids of tasks in one place: what comes next first, of what has ended the youngest first.

        Of what has ended the last thousand are known.
        """
        ...

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return (queue, id, batch) of all that is held under a lease."""
        ...

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        """Return the dead set, youngest first: (id, seconds since the epoch)."""
        ...

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        """Return (queue, id) of tasks, live or finished, whose id begins so. It goes through the whole store."""
        ...

    async def next_due(self, queues: Sequence[str], after: int) -> int | None:
        """Return when the next delayed task or limit in time is due after that moment, ms; None for never."""
        ...

    async def queue_names(self) -> list[str]:
        """Return all queues that were ever used."""
        ...

    async def facts(self) -> dict[str, Any]:
        """Return what the store says of itself.

        kind, version, where, memory, round_trip (s), append_only, policy, now (s); `warnings` where it has any.
        """
        ...

    async def now(self) -> int:
        """Return the store's clock, ms since the epoch."""
        ...
