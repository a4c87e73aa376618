"""Futures that wait for the end of their tasks, in one loop.

A `done` event makes a future fast; the stored record is the truth. So a watch looks up the records of futures that
have waited long, and of all of them after the connection was lost: no future hangs because a message was lost. A
record that is missing twice in a row resolves its future with `TaskLost`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..clock import Clock
from ..errors import PqError, ResultExpired, TaskLost, UnreadableMessage
from ..model.task import Task
from .future import TaskFuture
from .loop_tasks import LoopTasks
from .reasons import unserved, workers

logger = logging.getLogger("pq.producer")

LOOK_AFTER = 2.0
"""Seconds a future waits before its record is looked up, and between two such looks."""
WARN_AFTER = 5.0
"""Seconds after which a warning is logged where no worker serves the queue of a task that is awaited."""
LOOK_AT_ONCE = 1000
"""Records looked up in one turn of the watch."""


def late_ids(since: Mapping[str, float], before: float, most: int) -> list[str]:
    """Return the ids, at most `most`, that were last looked up, or queued, not later than `before`."""
    late = []
    for id, at in since.items():
        if at <= before:
            late.append(id)
            if len(late) >= most:
                break
    return late


def longest_waiting(
    tasks: Iterable[Task[Any]], warned: Collection[str | None], before: float
) -> dict[str, Task[Any]]:
    """Return one task of each queue that has waited since `before` and was not warned about. Delayed ones may wait."""
    by_queue: dict[str, Task[Any]] = {}
    for task in tasks:
        if task.queue not in warned and not task.delay and (task.time_queued or 0.0) < before:
            by_queue.setdefault(task.queue or "", task)
    return by_queue


def lost(task: Task[Any], now: float, kept: float) -> TaskLost:
    """Return the error for a task that the store does not know; its age says whether its result may have expired."""
    age = now - (task.time_queued or now) - (task.delay or 0.0)
    if age > kept:
        return ResultExpired(
            f"task {task.id} is not in the store any more: it was queued {age:,.0f} s ago, "
            f"and results are kept {kept:,.0f} s",
            hint="fetch results sooner, or raise result_ttl",
        )
    return TaskLost(
        f"task {task.id} is not in the store any more: deleted, or lost with the store's data",
        hint="for durability see docs/explain/guarantees.md",
    )


class Awaiting:
    """The futures of one engine that wait for the end of a task."""

    def __init__(self, tasks: LoopTasks, clock: Clock, kept: float) -> None:
        self.broker: Broker | None = None
        """Set once the engine is open."""
        self._tasks = tasks
        self._loop = tasks.loop
        self._clock = clock
        self._kept = kept  # seconds that the store keeps a finished task
        self._waiting: dict[str, list[TaskFuture[Any]]] = {}
        self._since: dict[str, float] = {}  # id -> when it was last looked up, or queued
        self._missed: dict[str, int] = {}
        self._watching = False
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, future: TaskFuture[Any], *, look_now: bool = False) -> None:
        """Resolve `future` when its task is done."""
        id = future.task.id
        waiting = self._waiting.get(id)
        if waiting is None:
            self._waiting[id] = [future]
        else:
            waiting.append(future)
        future.forget = self.forget
        if look_now:
            self._since[id] = self._loop.time()
            self._tasks.spawn(self._look([future.task]))
        if not self._watching:
            self._watching = True
            self._tasks.attend(self._watch, self.look_at_all)

    def stored(self, ids: Iterable[str], now: float) -> None:
        """Tasks have a record from now on, so they may be looked up."""
        for id in ids:
            if id in self._waiting:
                self._since[id] = now

    def forget(self, future: TaskFuture[Any]) -> None:
        """A future does not wait any more."""
        future.forget = None
        id = future.task.id
        waiting = self._waiting.get(id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                self._drop(id)

    def look_at_all(self) -> None:
        """Events may have been missed: look up all records in the next turn of the watch."""
        self._since.update(dict.fromkeys(self._since, 0.0))

    def cancel(self) -> None:
        """Cancel all futures that still wait."""
        for waiting in list(self._waiting.values()):
            for future in list(waiting):
                future.cancel()

    def resolve(self, id: str, record: bytes) -> None:
        """A finished record came, by an event or by a look."""
        if id not in self._waiting:
            return
        task: Task[Any] | None = None
        error: UnreadableMessage | None = None
        try:
            task = Task.from_wire(records.message(record))
        except UnreadableMessage as exc:
            error = exc
        for future in self._drop(id):
            future.forget = None
            if future.done():
                continue
            if task is not None:
                future.set_result(task)
            elif error is not None:
                future.set_exception(error)

    def _drop(self, id: str) -> list[TaskFuture[Any]]:
        self._since.pop(id, None)
        self._missed.pop(id, None)
        return self._waiting.pop(id, [])

    async def _watch(self) -> None:
        """Look up the records of futures that have waited long. Ends when no future waits."""
        pause = LOOK_AFTER / 4
        while self._waiting:
            await asyncio.sleep(pause)
            late = late_ids(self._since, self._loop.time() - LOOK_AFTER, LOOK_AT_ONCE)
            if late:
                await self._look([self._waiting[id][0].task for id in late if id in self._waiting])
                await self._warn()
        self._watching = False

    async def _warn(self) -> None:
        """Warn once for each queue that no worker serves: a caller must not wait without a word in the log."""
        assert self.broker is not None
        now = self._clock.time()
        tasks = (futures[0].task for futures in self._waiting.values())
        by_queue = longest_waiting(tasks, self._warned, now - WARN_AFTER)
        try:
            living = await workers(self.broker) if by_queue else []
        except PqError:
            return  # the store is away, which is logged elsewhere
        for queue, task in by_queue.items():
            reason = unserved(queue, living)
            self._warned.add(queue)
            if reason is not None:
                logger.warning(
                    "%s is still waiting after %.0f s: %s [%s]\nhint: %s",
                    task.info(), self._clock.time() - (task.time_queued or 0.0), reason.text, reason.slug, reason.hint,
                )  # fmt: skip

    async def _look(self, tasks: list[Task[Any]]) -> None:
        """Read the records of these tasks, and resolve those that are finished or lost."""
        if self.broker is None:
            return
        by_queue: dict[str, list[str]] = {}
        now = self._loop.time()
        for task in tasks:
            by_queue.setdefault(task.queue or "", []).append(task.id)
            # To the end of the line: a dict keeps the order of insertion, so the watch goes round.
            if self._since.pop(task.id, None) is not None:
                self._since[task.id] = now
        for queue, ids in by_queue.items():
            try:
                found = await self.broker.looks.records(queue, ids)
            except PqError as exc:
                logger.debug("futures are looked up later: %s", exc)
                return
            for id, record in zip(ids, found, strict=True):
                if record is None:
                    self._missing(id)
                elif records.is_finished(record):
                    self.resolve(id, record)
                else:
                    self._missed.pop(id, None)

    def _missing(self, id: str) -> None:
        """A look did not find the record. Once may be a look before the record was stored."""
        self._missed[id] = self._missed.get(id, 0) + 1
        if self._missed[id] < 2:
            return
        for future in self._drop(id):
            future.forget = None
            if not future.done():
                future.set_exception(lost(future.task, self._clock.time(), self._kept))
