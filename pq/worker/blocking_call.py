"""The blocking call: the reservation that an idle consumer leaves with the store.

The store answers it when a task comes, or when the poll interval is over. Until then nothing else is reserved, so
what it brings can start: attempts that run meanwhile only become fewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..broker.contract.values import Exchange

LATE = 0.0005
"""Seconds after a delayed task is due at which the store is asked for it: its clock and ours differ a little."""


class BlockingCall:
    """The reservation that one consumer has left with the store, if any.

    Args:
        wake: called when the store has answered.
        poke: called when a delayed task is due: the store's time-outs are coarse, the loop's timer is not.
    """

    __slots__ = ("_due", "_poke", "_wake", "task")

    def __init__(self, *, wake: Callable[[], None], poke: Callable[[], object]) -> None:
        self.task: asyncio.Task[Exchange] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._wake = wake
        self._poke = poke

    def begin(self, call: Coroutine[Any, Any, Exchange], poll: float, next_due: int | None) -> None:
        """Leave a reservation with the store for `poll` seconds; `next_due`: ms to the next delayed task."""
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(call)
        self.task.add_done_callback(lambda _: self._wake())
        if next_due is not None and next_due / 1000 < poll:
            self._due = loop.call_later(next_due / 1000 + LATE, self._poke)

    def end(self) -> None:
        """Forget the reservation: it was answered, or its answer does not count."""
        self.task = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    async def cancel(self) -> None:
        """Give up the reservation, where one is left; its answer, should it come, is dropped."""
        task = self.task
        self.end()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
