"""A stream of tasks, and the account of the end of each."""

from __future__ import annotations

import asyncio
from typing import Any

from pq.errors import StoreUnavailable, TaskLost

LONG = 90.0


class Load:
    """Queues one task after the other, some at once, while servers die; each must have one end."""

    def __init__(
        self, api: Any, job: str, *, queues: tuple[str | None, ...] = (None,), at_once: int = 8
    ) -> None:
        self._api = api
        self._job = job
        self._queues = queues
        self._at_once = at_once
        self._feeding: asyncio.Task[None] | None = None
        self._stopped = False
        self.futures: list[Any] = []
        self.refused = 0
        """Tasks of which it is unknown whether they were queued: their future said so at once."""
        self.done = 0
        self.lost = 0
        self._ends: dict[str, int] = {}

    def __str__(self) -> str:
        return f"{len(self.futures)} tasks: {self.done} done, {self.lost} lost, {self.refused} not queued"

    def start(self) -> None:
        self._feeding = asyncio.ensure_future(self._feed())

    async def _feed(self) -> None:
        running: set[asyncio.Future[None]] = set()
        n = 0
        while not self._stopped:
            while len(running) < self._at_once:
                running.add(asyncio.ensure_future(self._one(n)))
                n += 1
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.005)
        if running:
            await asyncio.wait(running)

    async def _one(self, n: int) -> None:
        queue = self._queues[n % len(self._queues)]
        future = self._api.tasks.queue(self._job, n, queue=queue)
        self.futures.append(future)
        try:
            task = await future
        except TaskLost:
            self.lost += 1
        except StoreUnavailable:
            self.refused += 1
        else:
            assert (task.status_string, task.result) == ("SUCCESS", n), task
            self.done += 1
        self._ends[future.id] = self._ends.get(future.id, 0) + 1

    async def goes_on(self, more: int = 30) -> None:
        """Wait until some more tasks have been done."""
        goal = self.done + more
        async with asyncio.timeout(LONG):
            while self.done < goal:
                assert self._feeding is None or not self._feeding.done(), self._feeding
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """No more of them; wait until each has its end."""
        self._stopped = True
        assert self._feeding is not None
        async with asyncio.timeout(LONG):
            await self._feeding

    async def check(self) -> None:
        """Check that each had one end; nothing waits, and no worker holds anything."""
        assert len(self._ends) == len(self.futures) == self.done + self.lost + self.refused, str(self)
        assert set(self._ends.values()) == {1}
        async with asyncio.timeout(LONG):
            while any(
                (state.held, state.waiting) != (0, 0)
                for state in (await self._api.tasks.queue_states()).values()
            ):
                await asyncio.sleep(0.05)
