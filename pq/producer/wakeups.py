"""Waiters of one event loop, and what wakes them: a released lock, a new part of a stream.

Both are a fast path only. A notification may be lost with its connection, so a waiter also looks by itself after a
while, and after a reconnection `notify(None)` wakes them all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator


class LockWaiters:
    """The tasks that wait for locks in one loop. Of those that wait for the same lock only the first asks the store."""

    def __init__(self) -> None:
        self._waiters: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}
        self._released: dict[str, asyncio.Event] = {}

    def notify(self, name: str | None) -> None:
        """A lock was released; None: notifications may have been missed."""
        for event in [self._released.get(name)] if name is not None else list(self._released.values()):
            if event is not None:
                event.set()

    async def take(
        self,
        name: str,
        attempt: Callable[[], Awaitable[tuple[int, float]]],
        listen: Callable[[], Awaitable[None]],
    ) -> int:
        """Wait for the lock `name`; return its fence.

        `attempt` returns the fence, or 0 and the seconds to wait at most; `listen` subscribes to releases.
        """
        turn = self._waiters.setdefault(name, asyncio.Lock())
        self._users[name] = self._users.get(name, 0) + 1
        try:
            async with turn:
                released = self._released[name] = asyncio.Event()
                fence, wait = await attempt()
                if not fence:
                    await listen()
                while not fence:
                    # Before the question: a release that comes while it is under way is not missed.
                    released.clear()
                    fence, wait = await attempt()
                    if fence:
                        break
                    try:
                        async with asyncio.timeout(wait + 0.005):
                            await released.wait()
                    except TimeoutError:
                        pass
                return fence
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._waiters[name]
                self._released.pop(name, None)


class StreamWaiters:
    """The readers of streams in one loop, by the id of the task."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, id: str | None) -> None:
        """A task has streamed a part; None: notifications may have been missed."""
        for events in [self._waiting.get(id, ())] if id is not None else list(self._waiting.values()):
            for event in events:
                event.set()

    @contextlib.contextmanager
    def waiting(self, id: str) -> Iterator[asyncio.Event]:
        """An event that is set with each notification about this task."""
        event = asyncio.Event()
        self._waiting.setdefault(id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]
