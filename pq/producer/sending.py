"""Tasks on their way to the store, in one loop.

What is queued in one turn of the loop goes out in one call, without a timer: while a call is under way the next batch
piles up. So batches grow with the load by themselves, and a lone task leaves at once.

A task whose unique key is another one's is not queued; its future follows the other task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..broker.contract.broker import Broker
from ..broker.contract.values import Entry, Queued, UniqueConflict
from ..clock import Clock
from ..errors import PqError, QueueFull, StoreUnavailable
from ..loops import RESTART_AFTER
from ..model.task import Task
from . import unique
from .awaiting import Awaiting
from .future import TaskFuture
from .loop_tasks import LoopTasks

logger = logging.getLogger("pq.producer")

BATCH = 1000
"""Tasks in one enqueue call at most."""
BATCH_BYTES = 1_000_000

Outgoing = tuple[TaskFuture[Any], Entry, bool]
"""A task on its way: its future, its entry, and whether the future waits for the end of the task."""


def take_batch(outbox: deque[Outgoing]) -> list[Outgoing]:
    """Take what goes out in the next call: `BATCH` tasks at most, and none once `BATCH_BYTES` are reached."""
    batch: list[Outgoing] = []
    size = 0
    while outbox and len(batch) < BATCH and size < BATCH_BYTES:
        item = outbox.popleft()
        size += len(item[1].record)
        batch.append(item)
    return batch


def by_queue(batch: Sequence[Outgoing]) -> dict[str, list[Entry]]:
    """Return the entries of a batch by queue, in their order."""
    found: dict[str, list[Entry]] = {}
    for future, entry, _ in batch:
        found.setdefault(future.task.queue or "", []).append(entry)
    return found


@dataclass(slots=True)
class Answers:
    """The answer of the store to a batch."""

    refused_queues: dict[str, Exception] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    conflicts: dict[str, UniqueConflict] = field(default_factory=dict)

    def error_of(self, task: Task[Any]) -> Exception | None:
        """Return why a task was not queued: with its whole queue, or by itself; None where it was."""
        return self.refused_queues.get(task.queue or "") or self.refused.get(task.id)


class Sending:
    """The tasks of one engine that are not in the store yet."""

    def __init__(self, tasks: LoopTasks, awaiting: Awaiting, clock: Clock) -> None:
        self.broker: Broker | None = None
        """Set once the engine is open."""
        self.on_queued: Callable[[Task[Any]], Coroutine[Any, Any, None]] | None = None
        """Called with each task that the store has taken."""
        self._tasks = tasks
        self._loop = tasks.loop
        self._awaiting = awaiting
        self._clock = clock
        self._outbox: deque[Outgoing] = deque()
        self._durable: dict[str, deque[Outgoing]] = {}
        self._flushing = False
        self._put_count = 0
        self._sent_count = 0
        self._barriers: deque[tuple[int, asyncio.Future[None]]] = deque()

    # ------------------------------------------------------------------------------ putting
    def put(self, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        """Queue the task of `future`, which resolves when the task is done, or when it is queued."""
        if wait_for_end:
            self._awaiting.expect(future)
        self._outbox.append((future, entry, wait_for_end))
        self._put_count += 1
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._start_flush)

    def put_durably(self, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        """Queue a task with a durability. These go by themselves, so that the others do not wait with them."""
        if wait_for_end:
            self._awaiting.expect(future)
        level = future.task.durability
        box = self._durable.setdefault(level, deque())
        box.append((future, entry, wait_for_end))
        if len(box) == 1:
            self._tasks.spawn(self._flush_durably(level), first=True)

    # ------------------------------------------------------------------------------ waiting
    @property
    def unsent(self) -> bool:
        """True while something that was queued is not in the store yet."""
        return self._sent_count < self._put_count or self._tasks.opening

    async def sent(self) -> None:
        """Wait until all that was queued so far is in the store, or was refused by it.

        A caller that queues and then looks must see what it has queued.
        """
        await self._tasks.opened()
        if self._sent_count < self._put_count:
            barrier: asyncio.Future[None] = self._loop.create_future()
            self._barriers.append((self._put_count, barrier))
            await barrier

    def _lift_barriers(self) -> None:
        while self._barriers and self._barriers[0][0] <= self._sent_count:
            _, barrier = self._barriers.popleft()
            if not barrier.done():
                barrier.set_result(None)

    # ------------------------------------------------------------------------------ sending
    def _start_flush(self) -> None:
        self._tasks.spawn(self._flush())

    async def _flush(self) -> None:
        try:
            while self._outbox:
                batch = take_batch(self._outbox)
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    if self._tasks.persistent:  # by a job that cancels every task of the loop
                        self._outbox.extendleft(reversed(batch))
                        batch = []
                    raise
                finally:
                    self._sent_count += len(batch)
                    self._lift_barriers()
        finally:
            self._flushing = False
            if self._outbox and self._tasks.persistent:
                self._flushing = True
                self._loop.call_later(RESTART_AFTER, self._start_flush)

    async def _flush_durably(self, level: str) -> None:
        await asyncio.sleep(0)  # what is queued in one turn of the loop goes together
        box = self._durable[level]
        while box:
            await self._send([box.popleft() for _ in range(min(len(box), BATCH))], level)

    async def _send(self, batch: list[Outgoing], level: str = "") -> None:
        answers = await self._enqueue(batch, level)
        followed = await self._follow_others(batch, answers) if answers.conflicts else set()
        any_refused = bool(answers.refused_queues or answers.refused)
        stored: list[str] = []
        for future, _, wait_for_end in batch:
            task = future.task
            if any_refused and (error := answers.error_of(task)) is not None:
                if not future.done():
                    self._awaiting.forget(future)
                    future.set_exception(error)
                continue
            if wait_for_end:
                stored.append(task.id)
            elif not future.done():
                future.set_result(task)
            if self.on_queued is not None and task.id not in followed:
                self._tasks.spawn(self.on_queued(task))
        self._awaiting.stored(stored, self._loop.time())

    async def _enqueue(self, batch: list[Outgoing], level: str) -> Answers:
        """Enqueue a batch, queue by queue."""
        answers = Answers()
        for queue, entries in by_queue(batch).items():
            try:
                if self.broker is None:
                    raise PqError("the producer is closed")
                queued = await self._persistently(self.broker, queue, entries, level)
                if queued.conflicts:
                    answers.conflicts.update(queued.conflicts)
            except QueueFull as exc:
                if len(entries) == 1:
                    answers.refused_queues[queue] = exc
                else:
                    await self._enqueue_what_fits(queue, entries, answers, level)
            except PqError as exc:
                answers.refused_queues[queue] = exc
            except asyncio.CancelledError:
                if not self._tasks.persistent:
                    for future, _, _ in batch:
                        future.cancel()
                raise
        return answers

    async def _persistently(self, broker: Broker, queue: str, entries: list[Entry], level: str) -> Queued:
        """Enqueue; in a worker again and again while the store is away."""
        while True:
            try:
                return await broker.work.enqueue(queue, entries, level)
            except StoreUnavailable as exc:
                if not self._tasks.persistent:
                    raise
                logger.debug("%d tasks are not queued yet: %s", len(entries), exc)
            await asyncio.sleep(0.5 + self._clock.random())

    async def _enqueue_what_fits(
        self, queue: str, entries: list[Entry], answers: Answers, level: str
    ) -> None:
        """Enqueue one by one: tasks that merely left together are refused alone, the first of them may still fit."""
        assert self.broker is not None
        full: QueueFull | None = None
        for entry in entries:
            if full is None:
                try:
                    queued = await self.broker.work.enqueue(queue, [entry], level)
                    answers.conflicts.update(queued.conflicts)
                    continue
                except QueueFull as exc:
                    full = exc
            answers.refused[entry.id] = full

    async def _follow_others(self, batch: list[Outgoing], answers: Answers) -> set[str]:
        """Let the futures of tasks whose key is another one's follow that task; return the ids of those."""
        assert self.broker is not None
        followed: set[str] = set()
        for future, entry, wait_for_end in batch:
            task = future.task
            if task.id not in answers.conflicts:
                continue
            try:
                wait = getattr(task, "max_wait", None)
                conflict = answers.conflicts[task.id]
                other = await unique.settle(self.broker, task, entry, conflict, wait, self._clock)
            except PqError as exc:
                answers.refused[task.id] = exc
                continue
            if other is task:
                continue
            other.awaiter = task.awaiter
            self._awaiting.forget(future)
            future.task = other
            followed.add(other.id)
            if wait_for_end:
                self._awaiting.expect(future, look_now=other.done())
        return followed
