"""What a producer does within one event loop: send what was queued, hear what is done.

*Sending.* What is queued in one turn of the loop goes out in one call, without a timer: while a call is
under way the next batch piles up, so batches grow with the load by themselves and a lone task leaves
at once.

*Hearing.* One subscription per engine brings the records of our own finished tasks. It is confirmed
before the first task is sent. Events only make futures fast; the stored record is the truth, and a
watch looks it up for futures that wait long, and for all of them after the connection was lost. So no
future hangs because a message was lost; a record that is gone twice in a row resolves its future with
`TaskLost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.channels import Subscription
from ..broker.contract.values import Entry, Queued, UniqueConflict
from ..broker.keys import Keys
from ..clock import SYSTEM, Clock
from ..errors import PqError, QueueFull, ResultExpired, StoreUnavailable, TaskLost, UnreadableMessage
from ..model.task import Task
from . import unique
from .callbacks import Callbacks
from .future import TaskFuture
from .locks import Turns
from .reasons import nobody, workers
from .streams import Nudges

logger = logging.getLogger("pq.producer")

BATCH = 1000
"""Tasks in one enqueue call at most."""
BATCH_BYTES = 1_000_000
LOOK_AFTER = 2.0
"""Seconds a future waits before its record is looked up, and between two such looks."""
WARN_AFTER = 5.0
"""Seconds after which who waits is told that nobody serves the queue; then, that this is so still, once."""
AGAIN_AFTER = 0.5
"""Seconds until a duty that a job has cancelled begins anew: a loop that ends cancels all, and must find nothing new."""
LOOK_AT_ONCE = 1000
"""Records looked up in one turn of the watch."""


_Outgoing = tuple[TaskFuture[Any], Entry, bool]
"""A task on its way, by its future, and whether that waits for the end."""


class EventBus(Protocol):
    """Takes the raw events that an engine receives."""

    def deliver(self, engine: Engine, channel: str, payload: bytes) -> None:
        """An event came on a channel."""


class Engine:
    """The sending and hearing of one producer in one loop. Everything here runs in that loop."""

    def __init__(self, keys: Keys, bus: EventBus, *, kept: float, clock: Clock = SYSTEM) -> None:
        self.loop = asyncio.get_running_loop()
        self.reply_channel = keys.reply(os.urandom(8).hex())
        self._keys = keys
        self._bus = bus
        self._kept = kept  # seconds that the store keeps a finished task
        self._clock = clock
        self._broker: Broker | None = None
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._first: set[asyncio.Task[Any]] = set()
        self._held: set[asyncio.Future[None]] = set()
        self._outbox: deque[_Outgoing] = deque()
        self._durable: dict[str, deque[_Outgoing]] = {}
        self._flushing = False
        self._put_count = 0
        self._sent_count = 0
        self._barriers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._waiting: dict[str, list[TaskFuture[Any]]] = {}
        self._since: dict[str, float] = {}  # id -> when it was last looked up, or queued
        self._missed: dict[str, int] = {}
        self._watching = False
        self._warned: set[str] = set()
        self._opened: asyncio.Future[Broker] | None = None
        self.on_queued: Callable[[Task[Any]], Coroutine[Any, Any, None]] | None = None
        self.turns = Turns()
        self.nudges = Nudges()
        self.run_callback = Callbacks(self.spawn).call
        self.insists = False
        """What was queued must get to the store, however long that takes: see `pq.worker.worker`."""
        self.closed = False

    # ------------------------------------------------------------------------------ life
    @property
    def ready(self) -> bool:
        """True once it is connected and hears its own tasks."""
        return self._broker is not None

    async def open(self, make_broker: Callable[[], Coroutine[Any, Any, Broker]]) -> Broker:
        """Connect and listen; once, however many ask."""
        if self.closed:
            raise PqError("this api is closed", hint="make a new one: app().api()")
        if self._opened is None:
            self._opened = self.loop.create_future()
            broker: Broker | None = None
            try:
                broker = await make_broker()
                await broker.open()
                self._subscription = await broker.channels.subscription()
                self._attend(self._listen)
                await self._subscription.subscribe(self.reply_channel)
            except BaseException as exc:
                opened, self._opened = self._opened, None
                if isinstance(exc, Exception):
                    opened.set_exception(exc)
                    opened.exception()  # seen here; others that await it see it too
                else:
                    opened.cancel()
                if broker is not None:
                    await broker.close()
                raise
            self._broker = broker
            self._opened.set_result(broker)
            return broker
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Send what is left, stop, disconnect. Futures that still wait are cancelled."""
        if self.closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                if self._opened is not None and not self._opened.done():
                    await asyncio.wait([self._opened])
                await self.sent()
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.close()
        if self._broker is not None:
            await self._broker.close()
        for waiting in list(self._waiting.values()):
            for future in list(waiting):
                future.cancel()

    def spawn(self, work: Coroutine[Any, Any, Any], *, first: bool = False) -> asyncio.Task[Any]:
        """A task of this engine: held, and its end looked at. With `first`, `close` waits for it a while."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        if first:
            self._first.add(task)
            task.add_done_callback(self._first.discard)
        task.add_done_callback(self._ended)
        return task

    def later(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Something that was cancelled, once more. Until then what was queued counts as not sent."""
        held: asyncio.Future[None] = self.loop.create_future()
        self._held.add(held)

        def again() -> None:
            if not self.closed:
                self.spawn(work(), first=True)
            self._held.discard(held)
            held.set_result(None)

        self.loop.call_later(AGAIN_AFTER, again)

    def _attend(self, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A duty of this engine. Cancelled by a job that cancels whatever runs in the loop, it begins anew."""

        def ended(task: asyncio.Task[Any]) -> None:
            if task.cancelled() and self.insists and not self.closed:
                self.loop.call_later(AGAIN_AFTER, again)

        def again() -> None:
            if not self.closed:
                # What was said meanwhile is in the records.
                self._since.update(dict.fromkeys(self._since, 0.0))
                self._attend(duty)

        self.spawn(duty()).add_done_callback(ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the producer stumbled: %s: %s", type(error).__name__, error, exc_info=error)

    # ------------------------------------------------------------------------------ sending
    def put(self, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        """Queue the task of `future`, which is resolved when that is done, or when it is queued."""
        if wait_for_end:
            self.expect(future)
        self._outbox.append((future, entry, wait_for_end))
        self._put_count += 1
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._start_flush)

    def put_durably(self, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        """The same for a task with a durability: these go by themselves, so the others do not wait with them."""
        if wait_for_end:
            self.expect(future)
        level = future.task.durability
        box = self._durable.setdefault(level, deque())
        box.append((future, entry, wait_for_end))
        if len(box) == 1:
            self.spawn(self._flush_durably(level), first=True)

    async def _flush_durably(self, level: str) -> None:
        await asyncio.sleep(0)  # what is queued in one turn of the loop goes together
        box = self._durable[level]
        while box:
            await self._send([box.popleft() for _ in range(min(len(box), BATCH))], level)

    async def _send_what_fits(
        self, queue: str, entries: list[Entry], failures: dict[str, Exception], level: str
    ) -> dict[str, UniqueConflict]:
        """Tasks that merely left together are refused one by one: the first of them may still have room."""
        assert self._broker is not None
        full: QueueFull | None = None
        found: dict[str, UniqueConflict] = {}
        for entry in entries:
            if full is None:
                try:
                    found.update((await self._broker.work.enqueue(queue, [entry], level)).conflicts)
                    continue
                except QueueFull as exc:
                    full = exc
            failures[entry.id] = full
        return found

    async def _follow_rivals(
        self, batch: list[_Outgoing], found: dict[str, UniqueConflict], failures: dict[str, Exception]
    ) -> set[str]:
        """Futures of tasks that were not queued, since another has their key, follow that one: its id is among these."""
        assert self._broker is not None
        followed: set[str] = set()
        for future, entry, wait_for_end in batch:
            task = future.task
            if task.id not in found:
                continue
            try:
                wait = getattr(task, "max_wait", None)
                other = await unique.settle(self._broker, task, entry, found[task.id], wait, self._clock)
            except PqError as exc:
                failures[task.id] = exc
                continue
            if other is task:
                continue
            other.awaiter = task.awaiter
            self._forget(future)
            future.task = other
            followed.add(other.id)
            if wait_for_end:
                self.expect(future, look_now=other.done())
        return followed

    @property
    def unsent(self) -> bool:
        """True while something that was queued is not in the store yet."""
        return self._sent_count < self._put_count or bool(self._first) or bool(self._held)

    async def sent(self) -> None:
        """Wait until all that was queued so far is in the store (or was refused by it).

        So whoever queues and then looks sees what he has queued.
        """
        while self._first or self._held:  # what was queued before there was a connection
            await asyncio.wait({*self._first, *self._held})
        if self._sent_count < self._put_count:
            barrier: asyncio.Future[None] = self.loop.create_future()
            self._barriers.append((self._put_count, barrier))
            await barrier

    def _lift_barriers(self) -> None:
        while self._barriers and self._barriers[0][0] <= self._sent_count:
            _, barrier = self._barriers.popleft()
            if not barrier.done():
                barrier.set_result(None)

    def _start_flush(self) -> None:
        self.spawn(self._flush())

    async def _flush(self) -> None:
        try:
            while self._outbox:
                batch = self._take_batch()
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    if self.insists and not self.closed:  # by a job that cancels whatever runs in the loop
                        self._outbox.extendleft(reversed(batch))
                        batch = []
                    raise
                finally:
                    self._sent_count += len(batch)
                    self._lift_barriers()
        finally:
            self._flushing = False
            if self._outbox and self.insists and not self.closed:
                self._flushing = True
                self.loop.call_later(AGAIN_AFTER, self._start_flush)

    def _take_batch(self) -> list[_Outgoing]:
        batch: list[_Outgoing] = []
        size = 0
        while self._outbox and len(batch) < BATCH and size < BATCH_BYTES:
            item = self._outbox.popleft()
            size += len(item[1].record)
            batch.append(item)
        return batch

    async def _enqueue(self, broker: Broker, queue: str, entries: list[Entry], level: str) -> Queued:
        while True:
            try:
                return await broker.work.enqueue(queue, entries, level)
            except StoreUnavailable as exc:
                if not self.insists or self.closed:
                    raise
                logger.debug("%d tasks are not queued yet: %s", len(entries), exc)
            await asyncio.sleep(0.5 + self._clock.random())

    async def _send(self, batch: list[_Outgoing], level: str = "") -> None:
        by_queue: dict[str, list[Entry]] = {}
        for future, entry, _ in batch:
            by_queue.setdefault(future.task.queue or "", []).append(entry)
        failures: dict[str, Exception] = {}
        failures_by_id: dict[str, Exception] = {}
        found: dict[str, UniqueConflict] = {}
        for queue, entries in by_queue.items():
            try:
                if self._broker is None:
                    raise PqError("the producer is closed")
                queued = await self._enqueue(self._broker, queue, entries, level)
                if queued.conflicts:
                    found.update(queued.conflicts)
            except QueueFull as exc:
                if len(entries) == 1:
                    failures[queue] = exc
                else:
                    found.update(await self._send_what_fits(queue, entries, failures_by_id, level))
            except PqError as exc:
                failures[queue] = exc
            except asyncio.CancelledError:
                if not self.insists or self.closed:
                    for future, _, _ in batch:
                        future.cancel()
                raise
        followed: set[str] = set()
        if found:
            followed = await self._follow_rivals(batch, found, failures_by_id)
        now = self.loop.time()
        for future, _, wait_for_end in batch:
            task = future.task
            failure = failures.get(task.queue or "") if failures else None
            if failures_by_id:
                failure = failure or failures_by_id.get(task.id)
            if failure is not None:
                if not future.done():
                    self._forget(future)
                    future.set_exception(failure)
                continue
            if wait_for_end:
                if task.id in self._waiting:
                    self._since[task.id] = now  # it has a record from now on, so it may be looked up
            elif not future.done():
                future.set_result(task)
            if self.on_queued is not None and task.id not in followed:
                self.spawn(self.on_queued(task))

    # ------------------------------------------------------------------------------ hearing
    def expect(self, future: TaskFuture[Any], *, look_now: bool = False) -> None:
        """Resolve `future` when its task is done."""
        id = future.task.id
        waiting = self._waiting.get(id)
        if waiting is None:
            self._waiting[id] = [future]
        else:
            waiting.append(future)
        future.forget = self._forget
        if look_now:
            self._since[id] = self.loop.time()
            self.spawn(self._look([future.task]))
        if not self._watching:
            self._watching = True
            self._attend(self._watch)

    def _forget(self, future: TaskFuture[Any]) -> None:
        future.forget = None
        id = future.task.id
        waiting = self._waiting.get(id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                self._drop(id)

    def _drop(self, id: str) -> list[TaskFuture[Any]]:
        self._since.pop(id, None)
        self._missed.pop(id, None)
        return self._waiting.pop(id, [])

    def _resolve(self, id: str, record: bytes) -> None:
        """A finished record came, by an event or by a look."""
        waiting = self._waiting.get(id)
        if waiting is None:
            return
        try:
            task = Task.from_wire(records.message(record))
        except UnreadableMessage as exc:
            for future in self._drop(id):
                future.forget = None
                if not future.done():
                    future.set_exception(exc)
            return
        for future in self._drop(id):
            future.forget = None
            if not future.done():
                future.set_result(task)

    async def listen_to_tasks(self, channel: str) -> None:
        """Hear a broadcast channel too."""
        if self._subscription is not None:
            await self._subscription.subscribe(channel)

    async def listen_to_locks(self) -> None:
        """Hear which locks are let go."""
        await self.listen_to_tasks(self._keys.lock_channel)

    async def listen_to_streams(self) -> None:
        """Hear which tasks stream."""
        await self.listen_to_tasks(self._keys.stream_channel)

    async def _listen(self) -> None:
        subscription, reply_channel = self._subscription, self.reply_channel
        assert subscription is not None
        async for channel, payload in subscription:
            if channel == reply_channel:
                if payload.startswith(b"done\n"):
                    for id, record in records.parcels(payload[5:]):
                        self._resolve(id, record)
            elif channel == "":
                # The connection was lost and is back: what was said meanwhile is in the records.
                self._since.update(dict.fromkeys(self._since, 0.0))
                self.turns.heard(None)
                self.nudges.heard(None)
            elif channel == self._keys.lock_channel:
                self.turns.heard(payload.decode("utf-8", "replace"))
            elif channel == self._keys.stream_channel:
                self.nudges.heard(payload.decode("utf-8", "replace"))
            else:
                self._bus.deliver(self, channel, payload)

    async def _watch(self) -> None:
        """Look up the records of futures that have waited long. Ends when nobody waits."""
        pause = LOOK_AFTER / 4
        while self._waiting:
            await asyncio.sleep(pause)
            before = self.loop.time() - LOOK_AFTER
            late = []
            for id, since in self._since.items():
                if since <= before:
                    late.append(id)
                    if len(late) >= LOOK_AT_ONCE:
                        break
            if late:
                await self._look([self._waiting[id][0].task for id in late if id in self._waiting])
                await self._warn()
        self._watching = False

    async def _warn(self) -> None:
        """Nobody waits in silence: say of each queue, once, that no worker serves it."""
        assert self._broker is not None
        long_ago = self._clock.time() - WARN_AFTER
        by_queue: dict[str, Task[Any]] = {}
        for futures in self._waiting.values():
            task = futures[0].task
            if task.queue not in self._warned and not task.delay and (task.time_queued or 0.0) < long_ago:
                by_queue.setdefault(task.queue or "", task)
        try:
            living = await workers(self._broker) if by_queue else []
        except PqError:
            return  # the store is away, which is told elsewhere
        for queue, task in by_queue.items():
            reason = nobody(queue, living)
            self._warned.add(queue)
            if reason is not None:
                logger.warning(
                    "%s is still waiting after %.0f s: %s [%s]\nhint: %s",
                    task.info(), self._clock.time() - (task.time_queued or 0.0), reason.text, reason.slug, reason.hint,
                )  # fmt: skip

    async def _look(self, tasks: list[Task[Any]]) -> None:
        """Read the records of these tasks, and resolve those that are finished or gone."""
        if self._broker is None:
            return
        by_queue: dict[str, list[str]] = {}
        now = self.loop.time()
        for task in tasks:
            by_queue.setdefault(task.queue or "", []).append(task.id)
            # To the end of the line: a dict keeps the order of insertion, so the watch goes round.
            if self._since.pop(task.id, None) is not None:
                self._since[task.id] = now
        for queue, ids in by_queue.items():
            try:
                found = await self._broker.looks.records(queue, ids)
            except PqError as exc:
                logger.debug("futures are looked up later: %s", exc)
                return
            for id, record in zip(ids, found, strict=True):
                if record is None:
                    self._missing(id)
                elif records.is_finished(record):
                    self._resolve(id, record)
                else:
                    self._missed.pop(id, None)

    def _missing(self, id: str) -> None:
        self._missed[id] = self._missed.get(id, 0) + 1
        if self._missed[id] < 2:
            return
        for future in self._drop(id):
            future.forget = None
            if not future.done():
                future.set_exception(self._lost(future.task))

    def _lost(self, task: Task[Any]) -> TaskLost:
        """The error for a task that the store does not know; by its age, whether its result may have expired."""
        age = self._clock.time() - (task.time_queued or self._clock.time()) - (task.delay or 0.0)
        if age > self._kept:
            return ResultExpired(
                f"task {task.id} is not in the store any more: it was queued {age:,.0f} s ago, "
                f"and results are kept {self._kept:,.0f} s",
                hint="fetch results sooner, or raise result_ttl",
            )
        return TaskLost(
            f"task {task.id} is not in the store any more: deleted, or lost with the store's data",
            hint="for durability see docs/explain/guarantees.md",
        )
