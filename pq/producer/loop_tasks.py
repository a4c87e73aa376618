"""The asyncio tasks of one engine: each is held until its end, and its error is logged.

A job may cancel every task of the loop that it runs in. In a worker (`retry_forever`) what the engine has to do is
started again then: what was queued must get to the store, however long that takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..loops import RESTART_AFTER, HeldTasks

logger = logging.getLogger("pq.producer")


class LoopTasks:
    """Spawns tasks in one loop, restarts what must go on, and cancels all of it at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.retry_forever = False
        """Never give up what was queued: set in a worker (`pq.worker.worker`)."""
        self.closed = False
        self._all = HeldTasks("the producer", logger=logger)
        self._first: set[asyncio.Task[Any]] = set()
        self._restarting: set[asyncio.Future[None]] = set()

    @property
    def persistent(self) -> bool:
        """True where cancelled or failed work is to be tried again."""
        return self.retry_forever and not self.closed

    def spawn(self, work: Coroutine[Any, Any, Any], *, first: bool = False) -> asyncio.Task[Any]:
        """Start a task and hold it. With `first`, what it does counts as not sent yet until it ends."""
        task = self._all.spawn(work, self.loop)
        if first:
            self._first.add(task)
            task.add_done_callback(self._first.discard)
        return task

    def restart_later(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start cancelled work again. Until then it counts as not sent yet."""
        held: asyncio.Future[None] = self.loop.create_future()
        self._restarting.add(held)

        def restart() -> None:
            if not self.closed:
                self.spawn(work(), first=True)
            self._restarting.discard(held)
            held.set_result(None)

        self.loop.call_later(RESTART_AFTER, restart)

    def attend(self, duty: Callable[[], Coroutine[Any, Any, None]], missed: Callable[[], None]) -> None:
        """Start a duty of the engine. Cancelled in a worker, it starts again, after `missed()`."""

        def ended(task: asyncio.Task[Any]) -> None:
            if task.cancelled() and self.persistent:
                self.loop.call_later(RESTART_AFTER, restart)

        def restart() -> None:
            if not self.closed:
                missed()
                self.attend(duty, missed)

        self.spawn(duty()).add_done_callback(ended)

    @property
    def opening(self) -> bool:
        """True while something that was queued waits for a connection, or for its restart."""
        return bool(self._first) or bool(self._restarting)

    async def opened(self) -> None:
        """Wait until nothing waits for a connection or for its restart."""
        while self._first or self._restarting:
            await asyncio.wait({*self._first, *self._restarting})

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end; nothing restarts."""
        self.closed = True
        await self._all.end()
