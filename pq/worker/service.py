"""A service: one long-running duty of a worker, with the same three verbs for all.

`start` returns when the duty has begun, `stop` when it has ended; both may be called twice. What runs in
between is held in one asyncio task, and such a task must not end by itself: if it does, that is an error
which the worker hears of, for a worker whose heartbeat or whose renewal has silently ended is worse than
one that is gone. One that was cancelled by somebody else begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger("pq.worker")

PAUSE = 0.5
"""Seconds until one that was cancelled begins anew: a loop that ends cancels all its tasks, and must find no new ones."""


class Service:
    """Base of the services. Subclasses write `run`; those that need more write `start` and `stop` too."""

    name = "service"

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self.on_failure: Callable[[Service, BaseException | None], None] | None = None

    async def start(self) -> None:
        """Begin. Raises what makes it impossible."""
        if self._task is None:
            self._begin()

    def _begin_again(self) -> None:
        logger.warning("the %s was cancelled by somebody else; it goes on", self.name)
        self._again = None
        self._begin()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.run(), name=self.name)
        self._task.add_done_callback(self._ended)

    async def run(self) -> None:
        """The duty itself; goes on until it is cancelled."""

    async def stop(self) -> None:
        """End, within a bounded time."""
        task, self._task = self._task, None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is None:
            return
        if task.cancelled():
            # Not by `stop`: by a job, perhaps, that cancels whatever runs in the loop.
            self._again = asyncio.get_running_loop().call_later(PAUSE, self._begin_again)
            return
        error = task.exception()
        logger.error("the %s has ended: %s", self.name, error or "by itself", exc_info=error)
        if self.on_failure is not None:
            self.on_failure(self, error)
