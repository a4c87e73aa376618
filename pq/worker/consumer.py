"""The consumer: reserves tasks, starts their attempts, settles what ended.

One loop, one round trip a turn: what ended since the last turn is settled and the free slots are filled
in the same call. While it is under way attempts go on and end, so batches grow with the load by
themselves; an idle consumer leaves a reservation with the store, which is answered when a task comes.

At most half of the slots are filled in one turn. So while the store works on one half, the loop runs the
other, instead of each waiting for the other.

Only what can start is reserved. When a batch brings more process tasks than there are free children, the
rest goes back to the front at once, and from then on no more is reserved than the children can take; and
a few spare ones where they take milliseconds, so that no child waits for a round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from ..broker import records
from ..broker.contract.values import Exchange, ReserveCall, Reserved, Settlement
from ..errors import PayloadMissing, PqError, StoreUnavailable, TaskTimeout, UnreadableMessage
from ..execution.attempt import Attempt
from ..model import outcome as outcomes
from ..model import partitions
from ..model.backend import current_backend
from ..model.ending import Ending, conclude, crashed_too_often, too_many
from ..model.job import Job
from ..model.manager import Manager
from ..model.observer import TaskObserver
from ..model.operations import ACK, FAIL, RELEASE, RETRY, REVOKE
from ..model.options import CPUBOUND
from ..model.outcome import Outcome
from ..model.serializers import MSGPACK
from ..model.states import QUEUED, STARTED, SUCCESS
from ..model.task import Task
from . import weights
from .context import Context
from .load import Load, Use
from .service import Service
from .streams import Streams

logger = logging.getLogger("pq.worker")

SHORT = 0.005
"""Seconds; process tasks that take less on average are short."""
SPARE = 2
"""Short process tasks that may wait for each child."""
ASIDE = 0.05
"""Seconds for which a worker that has handed back what it does not know stands aside."""
UNKNOWN_JOB_TRIES = 8
"""How often a task whose job is unknown here goes back, for a worker that knows it, before it fails."""


def _known_of(exc: UnreadableMessage, id: str) -> Task[Any] | None:
    """What is known of a task whose message is not to be had."""
    try:
        task = Task.from_wire(exc.stub) if isinstance(exc, PayloadMissing) else None
    except UnreadableMessage:
        return None
    return task if task is not None and task.id == id else None


class Consumer(Service):
    """See the module's docstring."""

    name = "consumer"

    def __init__(
        self,
        context: Context,
        *,
        take_new_lease: Callable[[], Coroutine[Any, Any, str]],
        observer: TaskObserver | None = None,
        on_limit: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._context = context
        self._calm = int(context.cfg.lease * 1000)
        self._take_new_lease = take_new_lease
        self._observer = observer
        self._on_limit = on_limit
        self._limit: int = context.cfg.max_requests
        self._slots: int = context.cfg.concurrent_tasks
        self._message_size: int = context.cfg.largest_message
        self._weights: dict[str, int] = context.cfg.weights
        self._cut = (
            context.cfg.queue_partitions.groups(context.queues) if context.cfg.queue_partitions else {}
        )
        self._hook = type(context.manager).store_message is not Manager.store_message
        self._hooks: set[asyncio.Task[None]] = set()
        self._running: dict[str, Attempt] = {}
        self._holding: dict[str, tuple[str, int]] = {}  # id -> (queue, batch)
        self._pending: dict[str, list[Settlement]] = {}
        self._signal = asyncio.Event()
        self._batch = 0
        self._headers: dict[int, bytes] = {}
        self._solo: str | None = None
        self._cpu_bound = False  # process tasks are about: reserve no more than the children can take
        self._saw_cpu_bound = False
        self._cpu_at_head = False  # one of them was handed back for want of a free child
        self._children: int = context.cfg.cpu_processes
        self._cpu_running = 0
        self._cpu_time = 1.0  # seconds, a moving average; long until the contrary is seen
        self._taken = 0
        self._since = context.clock.time()
        self._cpu_before = time.process_time()
        self._done = 0
        self._worked = 0.0  # seconds that the attempts which have ended took, and those of process jobs
        self._cpu_worked = 0.0
        self._lease_lost = False
        self._unfit = False  # a task of a job that is unknown here was taken, and goes back
        self._blocked_since: float | None = None  # a suspect is next, and waits for us to be idle
        self._counted: float | None = None  # the connection on which stock was taken
        self._blocking: asyncio.Task[Exchange] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._draining = False
        self._outage = False
        self._empty: asyncio.Event | None = None  # set when a drain is over
        self._grace: asyncio.Timeout | None = None  # the patience of a drain under way

    # ----------------------------------------------------------------------------- for others
    @property
    def running(self) -> int:
        """Attempts under way."""
        return len(self._running)

    def attempts(self) -> list[Attempt]:
        """The attempts under way."""
        return list(self._running.values())

    def load(self) -> Load:
        """How much there is to do here."""
        now = self._context.clock.time()
        worked, cpu_worked = self._worked, self._cpu_worked
        for attempt in self._running.values():
            took = now - (attempt.task.time_started or now)
            worked += took
            if attempt.job_class.concurrency == CPUBOUND:
                cpu_worked += took
        return Load(
            self._since,
            now,
            self._done,
            Use(len(self._running), self._slots, worked),
            Use(self._cpu_running, self._children, cpu_worked),
            time.process_time() - self._cpu_before,
        )

    def holding(self, task: Task[Any]) -> tuple[str, int] | None:
        """(queue, batch) under which an attempt of `task` is held that runs here; None for any other."""
        attempt = self._running.get(task.id)
        return self._holding.get(task.id) if attempt is not None and attempt.task is task else None

    def lease_lost(self) -> None:
        """The lease is gone: what runs under it is somebody else's now."""
        self._lease_lost = True
        self._signal.set()

    def cancel(self, ids: frozenset[str]) -> None:
        """Stop these tasks, where they run here."""
        for id in ids:
            attempt = self._running.get(id)
            if attempt is not None:
                attempt.cancel(outcomes.REVOKED)

    # ------------------------------------------------------------------------------- the loop
    async def run(self) -> None:
        # Attempts inherit the context of this very task, so it costs none of them anything.
        current_backend.set(self._context.backend)
        while True:
            if self._lease_lost:
                await self._renounce()
                continue
            if self._context.broker.connected_since != self._counted:
                await self._take_stock()
            self._signal.clear()
            if self._blocking is not None:
                await self._attend_blocking(self._blocking)
                continue
            want = self._want()
            if want == 0 and not self._pending:
                self._look_at_limit()  # what it took last may have been given up with its lease
                await self._signal.wait()
                continue
            answer = await self._exchange(want)
            if answer is None or self._lease_lost:
                continue
            if want:
                await self._take(answer)

    async def _take_stock(self) -> None:
        """On a new connection: return what the store says is held here, and is not.

        A store that comes back without its last moments (a failover, a power cut) may know of a claim and not
        of its end any more. Its lease is renewed, so nobody would ever take over what nobody works on.
        """
        context = self._context
        since = context.broker.connected_since
        if since is None:
            return
        try:
            held = await context.broker.looks.held(context.lease, context.queues)
        except PqError as exc:
            logger.debug("stock is taken later: %s", exc)
            return
        self._counted = since
        # What a reservation under way has brought, or one that failed, comes again by its batch.
        known = self._batch - (self._blocking is not None)
        pending = {(s.id, s.batch) for ended in self._pending.values() for s in ended}
        strays = [
            (queue, id, batch)
            for queue, id, batch in held
            if batch <= known and self._holding.get(id) != (queue, batch) and (id, batch) not in pending
        ]
        for queue, id, batch in strays:
            self._pending.setdefault(queue, []).append(Settlement(RELEASE, id, batch))
        if strays:
            logger.warning("the store has lost the end of %d tasks: they go back to their queue", len(strays))

    async def _take(self, answer: Exchange) -> None:
        """Start what was handed out, and see to it that more comes."""
        if answer.tasks:
            self._start_all(answer.tasks)
            # What is settled without having been started (it crashed too often, it expired) is in nobody's way.
            if answer.solo and (suspect := answer.tasks[-1].id) in self._running:
                self._solo = suspect
                asyncio.get_running_loop().call_later(self._context.cfg.lease, self._trust, suspect)
            if self._unfit:
                await self._stand_aside()
        if not answer.blocked:
            self._blocked_since = None
        if answer.more_ready and not answer.blocked:
            # The next round trip goes out at once, and what was started runs while it is under way.
            return
        if answer.blocked and self._running:
            loop = asyncio.get_running_loop()
            if self._blocked_since is None:
                self._blocked_since = loop.time()
                loop.call_later(self._context.cfg.lease, self._signal.set)
            if not self._pending:
                await self._signal.wait()
            return
        # The queue is empty. What comes next comes by the reservation that is left with the store, so
        # a round trip that settles carries nothing else, and its events go out the sooner.
        want = self._want()
        if want:
            self._block(want, answer.next_due)
        if answer.tasks:
            await asyncio.sleep(0)  # what is quick ends in this one turn of the loop

    async def _stand_aside(self) -> None:
        """Hand back what is unknown here, and let others come before us in the line of those that wait for a task.

        A store serves first who has waited for longest. Whoever is told that a task has come back looks and waits
        anew, so he would stand behind us each time, and the same worker would have the task till its tries are over.
        """
        self._unfit = False
        if self._pending:
            await self._exchange(0)
        await asyncio.sleep(ASIDE)

    def _blocked_long(self) -> bool:
        """A suspect has waited a whole lease for what runs here, and that may wait for something behind it."""
        since = self._blocked_since
        return since is not None and asyncio.get_running_loop().time() >= since + self._context.cfg.lease

    def _trust(self, suspect: str) -> None:
        """It has run for a whole lease and killed nobody. It may wait for a task that nobody but us can run."""
        if self._solo == suspect:
            self._solo = None
            self._signal.set()

    # ------------------------------------------------------------------------------- blocking
    def _block(self, want: int, next_due: int | None) -> None:
        """Nothing is there: leave a reservation with the store, which answers when something comes.

        It asks for `want` tasks, and until it is answered nothing else is reserved, so what it brings
        can start: attempts that run meanwhile only become fewer.
        """
        poll = float(self._context.cfg.task_pool_timeout)
        self._blocking = asyncio.get_running_loop().create_task(self._call({}, want, block=poll))
        self._blocking.add_done_callback(lambda _: self._signal.set())
        if next_due is not None and next_due / 1000 < poll:
            # The store's time-outs are coarse; our own timer is not.
            self._due = asyncio.get_running_loop().call_later(next_due / 1000 + 0.0005, self._poke)

    def _poke(self) -> None:
        """A delayed task is due: have the reservation answered now."""
        self._spawn(self._poke_queue())

    async def _poke_queue(self) -> None:
        try:
            await self._context.broker.work.poke(self._context.queues[0])
        except PqError as exc:
            logger.debug("the queue was not poked: %s", exc)  # the reservation meets it too, and says so

    async def _attend_blocking(self, blocking: asyncio.Task[Exchange]) -> None:
        """One turn of the loop while a reservation is left with the store."""
        if not blocking.done():
            if self._draining:
                await self._withdraw()
            elif self._pending:
                await self._exchange(0)
            else:
                await self._signal.wait()
            return
        self._end_blocking()
        answer = await self._outcome_of(blocking, {}, reserved=True)
        if answer is None or self._lease_lost:
            return
        await self._take(answer)

    def _end_blocking(self) -> None:
        self._blocking = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    async def _withdraw(self) -> None:
        """Take the reservation back. What it had brought at this very moment is returned unspent."""
        blocking = self._blocking
        self._end_blocking()
        if blocking is None:
            return
        blocking.cancel()
        await asyncio.gather(blocking, return_exceptions=True)
        context = self._context
        try:
            answer = await context.broker.work.exchange(
                ReserveCall(context.lease, context.queues, 1, self._batch), {}
            )
        except PqError:
            return  # the lease is handed back at the end, with all that it holds
        for reserved in answer.tasks:
            self._pending.setdefault(reserved.queue, []).append(
                Settlement(RELEASE, reserved.id, reserved.batch)
            )

    def _want(self) -> int:
        """How many tasks may be reserved now."""
        if self._draining or self._solo is not None:
            return 0
        free = self._slots - len(self._running)
        if self._limit:
            free = min(free, self._limit - self._taken)
        if self._cpu_bound and free > 0:
            # With all children busy one task is asked for still, until that is a process task too: the next may
            # be of another mode, and one that a busy child waits for.
            free = min(free, self._cpu_room() or int(not self._cpu_at_head))
        half = (self._slots + 1) // 2
        return max(0, min(free, half))

    def _cpu_room(self) -> int:
        """How many more process tasks may be taken."""
        free = self._context.executors[CPUBOUND].capacity()
        if free is None:
            return self._slots
        waiting = max(0, self._cpu_running - self._children)
        spare = SPARE * self._children if self._cpu_time < SHORT else 0
        return max(0, free + spare - waiting)

    async def _exchange(self, want: int) -> Exchange | None:
        """One round trip. None when the store could not be reached: then all of it is tried again."""
        pending, self._pending = self._pending, {}
        # What a job has queued is in the store before its end is: a worker that dies in between must not lose it.
        if pending and (sending := self._context.sending()) is not None:
            try:
                await sending
            except BaseException:
                self._put_back(pending)
                raise
        return await self._outcome_of(self._call(pending, want), pending, reserved=want > 0)

    def _call(
        self, pending: dict[str, list[Settlement]], want: int, *, block: float = 0.0
    ) -> Coroutine[Any, Any, Exchange]:
        """The call of a round trip. One that reserves has a batch number of its own."""
        context = self._context
        queues = context.queues
        if want:
            self._batch += 1
            order: Sequence[str] = list(self._cut) or queues
            if self._weights:
                order = weights.order(order, self._weights, context.clock.random)
            queues = partitions.shuffled(order, self._cut, context.clock.random) if self._cut else list(order)
        return context.broker.work.exchange(
            ReserveCall(
                context.lease,
                queues,
                want,
                self._batch,
                idle=not self._running or self._blocked_long(),
                stable_for=self._calm,
                worker_name=f"{context.name} {context.node}",
                block=block,
            ),
            pending,
        )

    async def _outcome_of(
        self, exchange: Awaitable[Exchange], pending: dict[str, list[Settlement]], *, reserved: bool
    ) -> Exchange | None:
        """The answer of a round trip, and what is to be noted of it."""
        context = self._context
        try:
            answer = await exchange
        except asyncio.CancelledError:
            self._put_back(pending)
            if reserved:
                self._batch -= 1
            raise
        except PqError as exc:
            self._put_back(pending)
            if reserved:
                self._batch -= 1  # the same number again: what was handed out meanwhile comes again
            if isinstance(exc, StoreUnavailable):
                self._say_outage(exc)
            else:
                logger.error("the store refused to settle or reserve: %s", exc)
            await asyncio.sleep(0.25 + 0.5 * context.clock.random())  # not all workers at once
            return None
        if self._outage:
            self._outage = False
            logger.warning("the store is back; work goes on")
        if answer.refused:
            self._refused(answer.refused, pending)
        if answer.vanished:
            context.counts.vanished += answer.vanished
            logger.warning(
                "%d queued tasks had no record: deleted by hand, or evicted by the store", answer.vanished
            )
        if answer.lost_lease:
            self._lease_lost = True
        return answer

    def _put_back(self, pending: dict[str, list[Settlement]]) -> None:
        """Outcomes that were not sent, or not surely: before those that came since."""
        for queue, ended in pending.items():
            self._pending[queue] = ended + self._pending.get(queue, [])

    # ------------------------------------------------------------------------------- starting
    def _start_all(self, tasks: list[Reserved]) -> None:
        self._saw_cpu_bound = False
        # What cannot start goes back to the front, one before the other: so from the last to the first
        # in the settlement, which `_order_released` sees to.
        before = {queue: len(ended) for queue, ended in self._pending.items()}
        for reserved in tasks:
            self._start(reserved)
        self._cpu_bound = self._saw_cpu_bound
        if self._saw_cpu_bound:
            self._order_released(before)

    def _order_released(self, before: dict[str, int]) -> None:
        for queue, ended in self._pending.items():
            since = before.get(queue, 0)
            released = [s for s in ended[since:] if s.op == RELEASE]
            others = [s for s in ended[since:] if s.op != RELEASE]
            ended[since:] = others + released[::-1]

    def _start(self, reserved: Reserved) -> None:
        queue, id, batch, record, crashes, closed = reserved
        self._taken += 1
        # Before the look: a store that lost a claim hands the task out again, under another batch, and it is
        # to be settled under that one.
        self._holding[id] = (queue, batch)
        if id in self._running:
            return  # handed out again because a reply, or the claim, was lost; it runs already
        try:
            task = Task.from_wire(records.message(record))
            if task.id != id:
                raise UnreadableMessage(f"the record of {id} has the message of {task.id}")
        except UnreadableMessage as exc:
            self._unreadable(queue, id, record, exc)
            return
        if record[:1] == b"g":
            task.demands = records.demands(record)
        job = self._context.registry.get(task.name)
        if job is None:
            self._unknown_job(task)
            return
        now = self._context.clock.time()
        if crashes >= self._context.cfg.max_crashes:
            self._settle(task, None, crashed_too_often(crashes))
            return
        if closed:
            self._settle(task, None, too_many(job.name, closed))
            return
        if job.flow is not None and not task.demands and self._limits_unstated(task, job):
            return
        if task.expires is not None and now > (task.expiry or now):
            expired = f"TaskRevoked: it expired: {task.expires:g} s after it was queued nobody had started it"
            self._settle(task, None, Outcome(outcomes.REVOKED, None, expired, None, "revoked"))
            return
        executor = self._context.executors[job.concurrency]
        if job.concurrency == CPUBOUND:
            self._saw_cpu_bound = True
            if self._cpu_room() == 0:
                self._cpu_at_head = True
                self._settle(task, None, Outcome(outcomes.RELEASED))
                self._taken -= 1
                return
        task.queue = queue
        task.status = STARTED
        task.time_started = now
        context = self._context
        task.worker = context.name
        task.node = context.node
        if crashes:
            task.note(crashes=crashes)
        if task.retry > 1 and task.run_info.pop("streamed", None) is not None:
            task.note()  # that was another attempt
        if job.concurrency == CPUBOUND:
            self._cpu_running += 1
        attempt = Attempt(task, job, context.backend, self._finished)
        self._running[id] = attempt
        if self._observer is not None:
            self._observer.started(task)
        if self._hook:
            self._call_hook(task)
        executor.start_attempt(attempt)

    def _unreadable(self, queue: str, id: str, record: bytes, exc: UnreadableMessage) -> None:
        """A record that is no message goes to the dead set with its reason, and stops nothing."""
        task = _known_of(exc, id) or Task(id, "unreadable", queue)
        task.note(raw=record[:4096])
        logger.error("task %s in queue %s cannot be read and was set aside: %s", id, queue, exc)
        text = f"{type(exc).__name__}: {exc}"
        self._settle(task, None, Outcome(outcomes.FAILED, None, text, None, exc.slug))

    def _unknown_job(self, task: Task[Any]) -> None:
        """In a rolling deploy another worker may know the job: back, later and later, then set aside."""
        error = self._context.registry.unknown(task.name)
        tries = int(task.run_info.get("unknown", 0)) + 1
        if tries > UNKNOWN_JOB_TRIES:
            text = f"TaskNotAvailable: {error} on any worker that took it"
            self._settle(task, None, Outcome(outcomes.FAILED, None, text, None, error.slug))
            return
        logger.warning("task %s: %s; it goes back for a worker that knows it", task.id[:9], error)
        self._unfit = True
        task.note(unknown=tries)
        task.status = QUEUED
        self._send(task, Ending(RETRY, min(60.0, 2.0 ** (tries - 1))))

    def _limits_unstated(self, task: Task[Any], job: type[Job]) -> bool:
        """True when its producer did not know the job, so nobody has looked at its limits: it goes back with them."""
        try:
            task.demands = job.demands_of(task)
        except PqError:
            return False  # the attempt itself says what is wrong with its arguments
        if task.demands:
            task.status = QUEUED
            self._send(task, Ending(RETRY))
        return bool(task.demands)

    # ------------------------------------------------------------------------------- settling
    def _finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt ended: the one way out for all of them."""
        task = attempt.task
        if attempt.job_class.concurrency == CPUBOUND:
            self._cpu_running -= 1
            self._cpu_at_head = False
            took = self._context.clock.time() - (task.time_started or 0.0)
            self._cpu_time += 0.2 * (min(took, 1.0) - self._cpu_time)
            self._cpu_worked += took
        if self._running.get(task.id) is not attempt:
            return  # renounced with its lease: somebody else's task now
        streams = self._context.streams
        if streams is not None and streams.outlets and task.id in streams:
            if outcome.kind != outcomes.RELEASED:
                self._spawn(self._end_stream(streams, attempt, outcome))
                return
            streams.drop(task)
        self._settle(task, attempt.job_class, outcome)

    async def _end_stream(self, streams: Streams, attempt: Attempt, outcome: Outcome) -> None:
        """Settle an attempt that has streamed something when all of that is in the store."""
        task = attempt.task
        try:
            await streams.finish(task)
        finally:  # also when a job cancels whatever runs in the loop
            if self._running.get(task.id) is attempt:
                self._settle(task, attempt.job_class, outcome)

    def _settle(self, task: Task[Any], job: type[Job] | None, outcome: Outcome) -> None:
        context = self._context
        clock = context.clock
        now = clock.time()
        if job is not None:
            self._done += 1
            self._worked += now - (task.time_started or now)
        ending = conclude(
            task,
            outcome,
            now=now,
            job=job,
            chance=0.5 if outcome.kind == outcomes.OK else clock.random(),
            limit=self._message_size,
        )
        self._send(task, ending)

    def _send(self, task: Task[Any], ending: Ending) -> None:
        """Put the end of an attempt into the next round trip."""
        id = task.id
        self._running.pop(id, None)
        held = self._holding.pop(id, None)
        if held is None:
            return
        queue, batch = held
        counts = self._context.counts
        op = ending.op
        counts.processed += 1
        if op == ACK:
            header = self._headers.get(batch)
            if header is None:
                header = self._new_header(batch)
            settlement = Settlement(
                ACK, id, batch, header + task.to_wire(), task.reply or "", 0, task.demands != ""
            )
            counts.succeeded += 1
        else:
            settlement = self._rarer(task, ending, batch)
        pending = self._pending.get(queue)
        if pending is None:
            self._pending[queue] = [settlement]
        else:
            pending.append(settlement)
        self._signal.set()
        if self._solo == id:
            self._solo = None
        if self._empty is not None and not self._running:
            self._empty.set()
        if self._observer is not None:
            self._observer.ended(task, ending)
        if self._hook and op in (ACK, FAIL, REVOKE):
            self._call_hook(task)
        if self._limit:
            self._look_at_limit()

    def _look_at_limit(self) -> None:
        if self._limit and self._taken >= self._limit and not self._running and self._on_limit is not None:
            self._on_limit()

    def _rarer(self, task: Task[Any], ending: Ending, batch: int) -> Settlement:
        """The settlement of anything but a success."""
        counts = self._context.counts
        token = f"{self._context.lease}:{batch}"
        if ending.op in (FAIL, REVOKE):
            record = records.finished_header(task.status, token) + task.to_wire()
            counts.failed += ending.op == FAIL
            counts.revoked += ending.op == REVOKE
            report = self._context.report
            if report is not None and (ending.op == FAIL or task.reason == TaskTimeout.slug):
                report(task)
            return Settlement(ending.op, task.id, batch, record, task.reply or "")
        counts.processed -= 1
        if ending.op == RETRY:
            counts.retried += 1
            if task.format is MSGPACK:
                task.result_bytes = None
            record = records.live_header(task.priority, token, task.demands) + task.to_wire()
            return Settlement(RETRY, task.id, batch, record, "", max(0, round(ending.wait * 1000)))
        return Settlement(ending.op, task.id, batch)

    def _new_header(self, batch: int) -> bytes:
        if len(self._headers) > 1000:
            self._headers.clear()
        header = self._headers[batch] = records.finished_header(SUCCESS, f"{self._context.lease}:{batch}")
        return header

    def _refused(self, refused: list[tuple[str, str]], sent: dict[str, list[Settlement]]) -> None:
        ids = {id for _, id in refused}
        self._uncount([s for ended in sent.values() for s in ended if s.id in ids])
        logger.warning(
            "%d results were refused: this worker had lost its lease on them, and others have the tasks (first: %s)",
            len(refused),
            refused[0][1],
        )

    def _uncount(self, dropped: list[Settlement]) -> None:
        """Ends that did not come to count: somebody else has these tasks."""
        counts = self._context.counts
        counts.refused += len(dropped)
        counts.processed -= sum(s.op in (ACK, FAIL, REVOKE) for s in dropped)
        counts.succeeded -= sum(s.op == ACK for s in dropped)
        counts.failed -= sum(s.op == FAIL for s in dropped)
        counts.revoked -= sum(s.op == REVOKE for s in dropped)

    def _call_hook(self, task: Task[Any]) -> None:
        self._spawn(self._store_message(task))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Something beside the loop: held until it has ended; `stop` waits for it."""
        hook = asyncio.get_running_loop().create_task(work)
        self._hooks.add(hook)
        hook.add_done_callback(self._hooks.discard)

    async def _store_message(self, task: Task[Any]) -> None:
        try:
            await self._context.manager.store_message(task)
        except Exception:
            logger.exception("Manager.store_message raised for %r", task)

    def _say_outage(self, exc: StoreUnavailable) -> None:
        if not self._outage:
            self._outage = True
            logger.warning("%s; what runs goes on, and the rest when it is back", exc)

    # --------------------------------------------------------------------------------- endings
    async def _renounce(self) -> None:
        """The lease is lost: stop what ran under it, drop its outcomes, begin anew with a new lease."""
        logger.warning(
            "this worker lost its lease (it did not renew it in time); %d running tasks are given up",
            len(self._running),
        )
        given_up = list(self._running.values())
        for ended in self._pending.values():
            self._uncount(ended)
        self._running.clear()
        self._holding.clear()
        self._pending.clear()
        self._headers.clear()
        self._solo = self._blocked_since = None
        if self._context.streams is not None:
            self._context.streams.drop_all()
        for attempt in given_up:
            attempt.cancel(outcomes.RELEASED)
        if self._blocking is not None:
            self._blocking.cancel()
            await asyncio.gather(self._blocking, return_exceptions=True)
            self._end_blocking()
        try:
            await self._take_new_lease()
        except PqError as exc:
            logger.warning("no new lease yet: %s", exc)
            await asyncio.sleep(0.5 + self._context.clock.random())
            return
        self._lease_lost = False

    async def drain(self, grace: float) -> None:
        """Take no more; let what runs end within `grace` seconds; then stop it and hand it back unspent.

        `grace` may be infinite: then it takes as long as it takes, unless `hurry` is called meanwhile.
        """
        self._draining = True
        self._signal.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if grace == math.inf else grace) as self._grace:
                await self._all_ended()
        self._grace = None
        for attempt in list(self._running.values()):
            attempt.cancel(outcomes.RELEASED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._all_ended()

    def hurry(self, grace: float) -> None:
        """End a drain that is under way within `grace` seconds."""
        end = asyncio.get_running_loop().time() + grace
        limit = self._grace
        if limit is not None and not limit.expired() and (limit.when() or math.inf) > end:
            limit.reschedule(end)

    async def _all_ended(self) -> None:
        if self._running:
            self._empty = asyncio.Event()
            await self._empty.wait()

    async def stop(self) -> None:
        """Settle what has ended, hand back what has not, let the lease go."""
        self._draining = True
        await super().stop()
        if self._blocking is not None:
            self._blocking.cancel()
            await asyncio.gather(self._blocking, return_exceptions=True)
            self._end_blocking()
        with contextlib.suppress(PqError, TimeoutError):
            async with asyncio.timeout(5.0):
                context = self._context
                pending, self._pending = self._pending, {}
                if pending and (sending := context.sending()) is not None:
                    await sending
                if pending:
                    await context.broker.work.exchange(
                        ReserveCall(context.lease, context.queues, 0, self._batch), pending
                    )
                await context.broker.work.hand_back(context.lease, context.queues, crashed=False)
        if self._context.streams is not None:
            self._context.streams.drop_all()  # who waits for the store with a stream's end waits no longer
        if self._hooks:
            await asyncio.wait(list(self._hooks), timeout=5.0)
