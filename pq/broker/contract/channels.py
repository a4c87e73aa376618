"""The verbs for what tasks and workers say: events, heartbeats, log lines, progress, streams; and the locks.

Writing and reading of one kind stand together, so a layer that seals them has both in one place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from .values import Locked, Message, Part, Streamed


class Subscription(Protocol):
    """An open subscription. Iterating ends when it is closed."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    async def subscribe(self, *channels: str) -> None:
        """Add channels; returns when the store has confirmed it."""

    async def close(self) -> None:
        """End it, and the iteration over it. Twice is harmless."""


class Channels(Protocol):
    """Publish and receive events, keep what tasks say of themselves, take locks."""

    # ---------------------------------------------------------------------------------- events
    async def publish(self, channel: str, payload: bytes) -> None:
        """Send an event; it is lost where no program listens."""

    async def subscription(self) -> Subscription:
        """Return a new, empty subscription."""
        ...

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        """Store a consumer's heartbeat for `ttl` seconds and announce it."""

    async def consumers(self) -> list[bytes]:
        """Return the stored heartbeats of the live consumers."""
        ...

    # --------------------------------------------------------------------------- what tasks say
    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        """Add to the log lines of a task, of which the last `KEPT_LINES` are kept for `ttl` ms."""

    async def lines(self, queue: str, id: str) -> list[bytes]:
        """Return the log lines of a task that are kept."""
        ...

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        """Keep how far running tasks are, by id, for `ttl` ms."""

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """Return how far tasks are; None for each that has said nothing."""
        ...

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        """Keep what tasks stream for `ttl` ms, and announce it; for each whether it was accepted.

        Only what is held under `lease` and its batch is. The parts of an attempt take the place of those of the
        one before. Raises `QueueFull`.
        """
        ...

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        """Return the first `count` kept parts after one (attempt, number) that a task has streamed."""
        ...

    # ----------------------------------------------------------------------------------- locks
    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        """Take a lock for `ttl` ms, or push its deadline where `token` has it already.

        `keep`: push the deadline, and take nothing. A deadline that has passed loses nothing as long as
        no other token took the lock.
        """
        ...

    async def unlock(self, name: str, token: str) -> bool:
        """Release a lock and announce that; False when `token` does not have it."""
        ...
