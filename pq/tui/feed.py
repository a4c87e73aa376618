"""Keeps the board right: hears events, and looks at the store in between.

A look costs the store a few commands however many tasks there are. Queues are counted each time; what runs
is read only where the count differs from what the events told, or was not checked for a while; workers tell
of themselves; failures are read again when the dead set has changed without an event, and periodically.

A look that gets no answer is not given up: the broker repeats it until the store is back. Meanwhile the
board says what is wrong. There is never more than one look under way.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..clock import SYSTEM, Clock
from ..errors import PqError
from ..model.task import Task
from ..producer.producer import Producer
from .board import MOST_FAILURES, MOST_RUNNING, Board

PER_QUEUE = 0.1
"""Seconds between two looks for each queue there is: an application with a hundred queues must not burden the store."""
SLOW = 2.0
"""Seconds without an answer after which that is said."""
RUNNING_EVERY = 5.0
FULL_EVERY = 15.0
"""Seconds after which the facts from events, of running tasks and of all else, are checked."""


class Feed:
    """Fills `board` from `api`, at most every `interval` seconds. All of it in the loop that runs."""

    def __init__(self, api: Producer, board: Board, *, interval: float = 1.0, clock: Clock = SYSTEM) -> None:
        self.api = api
        self.board = board
        self.interval = interval
        self._clock = clock
        self._wanted = asyncio.Event()
        self._dead: dict[str, int] = {}
        self._running_at: dict[str, float] = {}
        self._full_at: float | None = None
        self._store_known = False

    async def start(self) -> None:
        """Begin to listen, and take the first look. Raises `PqError`, where the store cannot be seen."""
        await self.api.on_events("task", "started|progress|retry|done", self._on_task)
        await self.api.on_events("consumer", "status", self._on_worker)
        await self.look()

    def stop(self) -> None:
        """Listen no more."""
        self.api.remove_event_callback("task", "started|progress|retry|done", self._on_task)
        self.api.remove_event_callback("consumer", "status", self._on_worker)

    async def run(self) -> None:
        """Look again and again, until it is cancelled. What goes wrong is written on the board."""
        while True:
            pause = max(self.interval, PER_QUEUE * len(self.board.queues))
            try:
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self._look_on()

    def refresh_soon(self) -> None:
        """Look now, at everything: something was changed."""
        self._full_at = None
        self._wanted.set()

    async def _look_on(self) -> None:
        """One look, however long it takes."""
        look = asyncio.get_running_loop().create_task(self.look())
        try:
            while not (await asyncio.wait({look}, timeout=SLOW))[0]:
                self.board.lose("it does not answer")
            look.result()
        except PqError as exc:
            self.board.lose(exc.message)
        else:
            if self.board.find():
                self._store_known = False
                self.refresh_soon()
        finally:
            if not look.done():
                look.cancel()
                await asyncio.gather(look, return_exceptions=True)

    async def look(self) -> None:
        """Ask the store. Raises what the api raises."""
        tasks, board, now = self.api.tasks, self.board, self._clock.monotonic()
        full = self._full_at is None or now - self._full_at >= FULL_EVERY
        if not self._store_known:
            facts = await tasks.store()
            words = (facts.get("kind"), facts.get("version"), facts.get("where"))
            board.store = " ".join(str(word) for word in words if word)
            self._store_known = True
        states = await tasks.queue_states()
        board.take_queues(states)
        await self._look_at_running(full)
        dead = {name: state.dead for name, state in states.items()}
        if full or dead != self._dead:
            board.take_failures(await tasks.dead(count=MOST_FAILURES))
        self._dead = dead
        if full:
            board.take_workers(await tasks.workers())
            self._full_at = now
        board.bury_the_silent()

    async def _look_at_running(self, full: bool) -> None:
        told = dict.fromkeys(self.board.queues, 0)
        for one in self.board.running.values():
            told[one.task.queue or ""] = told.get(one.task.queue or "", 0) + 1
        for queue, state in self.board.queues.items():
            asked = self._clock.monotonic()
            late = asked - self._running_at.get(queue, -RUNNING_EVERY) >= RUNNING_EVERY
            differs = told[queue] != min(state.held, MOST_RUNNING)
            if not state.held:
                if told[queue]:
                    self.board.take_running([queue], [], asked - self.interval)
            elif full or late or differs:
                found = await self.api.tasks.search("started", queue=queue, count=MOST_RUNNING)
                self.board.take_running([queue], found, asked)
                self._running_at[queue] = asked

    # --------------------------------------------------------------------------------- events
    def _on_task(self, channel: str, event: str, task: Task[Any]) -> None:
        self.board.heard(event, task)
        if event == "done" and task.queue in self._dead and task.id in self.board.failures:
            self._dead[task.queue] += 1  # an event is read without a look at the store

    def _on_worker(self, channel: str, event: str, facts: dict[str, Any]) -> None:
        self.board.beat(facts)
