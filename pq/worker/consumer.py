"""The consumer: reserves tasks, starts their attempts, settles what ended.

One loop, one round trip a turn: what ended since the last turn is settled and the free slots are filled
in the same call. While it is under way attempts go on and end, so batches grow with the load by
themselves; an idle consumer leaves a reservation with the store, which is answered when a task comes.

This module is the loop alone. `dispatch` starts and ends attempts; how much to reserve (`capacity`), what may start
(`admission`) and how an end is settled (`settling`) is decided apart from all calls, and these are in `round_trips`
and `blocking_call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from ..broker.contract.values import Exchange
from ..errors import PqError
from ..execution.attempt import Attempt
from ..execution.executor import Executor
from ..loops import HeldTasks
from ..model import outcome as outcomes
from ..model.backend import Backend, current_backend
from ..model.observer import TaskObserver
from .attempts import Attempts
from .blocking_call import BlockingCall
from .context import Context
from .dispatch import Dispatch
from .draining import Draining
from .load import Load
from .quarantine import Quarantine
from .round_trips import RoundTrips
from .service import Service
from .settling import Settling, strays
from .streams import Streams

logger = logging.getLogger("pq.worker")

ASIDE = 0.05
"""Seconds for which a worker that has released a task of an unknown job stands aside."""
LAST_TIME = 5.0
"""Seconds for the last round trip of a consumer that stops, and for what runs beside it."""


class Consumer(Service):
    """The consumer of one worker.

    Args:
        context: its surroundings.
        attempts: those under way, which other services read.
        backend: the program around the tasks.
        executors: the ways to run them, by mode.
        streams: what tasks have streamed is in the store before their end is.
        beside: what runs beside the loop; `stop` waits for it.
        take_new_lease: called when the lease was lost.
        observers: notified of each attempt.
        on_limit: called when `max_requests` tasks have run: the worker is to be replaced.
    """

    name = "consumer"

    def __init__(
        self,
        context: Context,
        attempts: Attempts,
        *,
        backend: Backend,
        executors: Mapping[str, Executor],
        streams: Streams,
        beside: HeldTasks,
        take_new_lease: Callable[[], Coroutine[Any, Any, str]],
        observers: Sequence[TaskObserver] = (),
        on_limit: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._context = context
        self._attempts = attempts
        self._backend = backend
        self._streams = streams
        self._beside = beside
        self._take_new_lease = take_new_lease
        self._lease_lost = False
        self._reconciled: float | None = None  # the connection on which that was done
        self._signal = asyncio.Event()
        wake = self._signal.set
        self._settling = Settling(context, attempts)
        self._round_trips = RoundTrips(context, self._settling)
        self._blocking = BlockingCall(wake=wake, poke=lambda: beside.spawn(self._poke()))
        self._quarantine = Quarantine(context.cfg.lease, wake)
        self._draining = Draining(attempts)
        self._dispatch = Dispatch(
            context,
            attempts,
            self._settling,
            backend=backend,
            executors=executors,
            streams=streams,
            beside=beside,
            quarantine=self._quarantine,
            draining=self._draining,
            observers=observers,
            wake=wake,
            on_limit=on_limit,
        )

    # ----------------------------------------------------------------------------- for others
    @property
    def running(self) -> int:
        """Attempts under way."""
        return len(self._attempts)

    def attempts(self) -> list[Attempt]:
        """Return the attempts under way."""
        return self._attempts.all()

    def load(self) -> Load:
        """Return how much this worker has to do."""
        return self._dispatch.load()

    def lease_lost(self) -> None:
        """The lease is lost: what runs under it belongs to other workers now."""
        self._lease_lost = True
        self._signal.set()

    # ------------------------------------------------------------------------------- the loop
    async def run(self) -> None:
        """Reserve, start and settle until it is cancelled."""
        # Attempts inherit the context of this very task, so it costs none of them anything.
        current_backend.set(self._backend)
        while True:
            if self._lease_lost:
                await self._abandon_lease()
                continue
            if self._context.broker.connected_since != self._reconciled:
                await self._reconcile()
            self._signal.clear()
            if self._blocking.task is not None:
                await self._attend(self._blocking.task)
                continue
            want = self._want()
            if want == 0 and not self._settling.pending:
                self._dispatch.look_at_limit()  # what it took last may have been abandoned with its lease
                await self._signal.wait()
                continue
            answer = await self._exchange(want)
            if answer is not None and want:
                await self._take(answer)

    def _want(self) -> int:
        """Return how many tasks may be reserved now."""
        if self._draining.begun or self._quarantine.task is not None:
            return 0
        return self._dispatch.wanted()

    async def _exchange(self, want: int) -> Exchange | None:
        """Make one round trip; None where it failed or the lease is lost."""
        return self._valid(await self._round_trips.exchange(want, idle=self._is_idle()))

    def _is_idle(self) -> bool:
        """Return whether this worker may get a task that must run alone."""
        return not self._attempts.running or self._quarantine.blocked_long()

    def _valid(self, answer: Exchange | None) -> Exchange | None:
        if answer is not None and answer.lost_lease:
            self._lease_lost = True
        return None if self._lease_lost else answer

    async def _take(self, answer: Exchange) -> None:
        """Start the tasks of an answer, and see to it that the next ones come."""
        quarantine = self._quarantine
        if answer.tasks:
            unknown = self._dispatch.start(answer.tasks)
            # A suspect that was settled without a start (it crashed too often, it expired) needs no quarantine.
            if answer.solo and (suspect := answer.tasks[-1].id) in self._attempts.running:
                quarantine.begin(suspect)
            if unknown:
                await self._stand_aside()
        if not answer.blocked:
            quarantine.unblocked()
            if answer.more_ready:
                # The next round trip goes out at once, and what was started runs while it is under way.
                return
        elif self._attempts.running:
            quarantine.blocked()
            if not self._settling.pending:
                await self._signal.wait()
            return
        # The queue is empty. What comes next comes by the reservation that is left with the store, so a round trip
        # that settles carries nothing else, and its events go out the sooner.
        if want := self._want():
            poll = float(self._context.cfg.task_pool_timeout)
            call = self._round_trips.call({}, want, idle=self._is_idle(), block=poll)
            self._blocking.begin(call, poll, answer.next_due)
        if answer.tasks:
            await asyncio.sleep(0)  # what is quick ends in this one turn of the loop

    async def _attend(self, blocking: asyncio.Task[Exchange]) -> None:
        """Take one turn of the loop while a reservation is left with the store."""
        if blocking.done():
            self._blocking.end()
            answer = self._valid(await self._round_trips.answer(blocking, {}, reserved=True))
            if answer is not None:
                await self._take(answer)
        elif self._draining.begun:
            await self._blocking.cancel()
            await self._round_trips.withdraw()
        elif self._settling.pending:
            await self._exchange(0)
        else:
            await self._signal.wait()

    async def _stand_aside(self) -> None:
        """Release what is unknown here, and let other workers come first in the line of those that wait for a task.

        A store serves the worker first that has waited for longest. A worker that is woken for the released task
        waits again, so it would stand behind this one each time, and this one would take the task until its tries
        are over.
        """
        if self._settling.pending:
            await self._exchange(0)
        await asyncio.sleep(ASIDE)

    async def _poke(self) -> None:
        """A delayed task is due: have the reservation answered now."""
        try:
            await self._context.broker.work.poke(self._context.queues[0])
        except PqError as exc:
            logger.debug("the queue was not poked: %s", exc)  # the reservation fails too, and that is logged

    # --------------------------------------------------------------------------- the lease, the end
    async def _reconcile(self) -> None:
        """On a new connection: release what the store counts as held here, and is not.

        A store that comes back without its last moments (a failover, a power cut) may know of a claim and not of
        its end any more. The lease is renewed, so no other worker would ever take them over.
        """
        context = self._context
        since = context.broker.connected_since
        if since is None:
            return
        try:
            held = await context.broker.looks.held(context.lease, context.queues)
        except PqError as exc:
            logger.debug("the tasks that the store counts as held are compared later: %s", exc)
            return
        self._reconciled = since
        # Tasks of a reservation under way, or of one that failed, come again by its batch.
        last = self._round_trips.batch - (self._blocking.task is not None)
        found = strays(held, self._attempts.held, self._settling.pending, last)
        for queue, id, batch in found:
            self._settling.release(queue, id, batch)
        if found:
            logger.warning(
                "the store has lost the end of %d tasks: they are released to their queues", len(found)
            )

    async def _abandon_lease(self) -> None:
        """The lease is lost: stop what ran under it, drop its outcomes, begin with a new lease."""
        logger.warning(
            "this worker lost its lease (it did not renew it in time); %d running tasks are abandoned",
            self.running,
        )
        self._settling.abandon()
        lost = self._attempts.clear()
        self._quarantine.clear()
        self._streams.drop_all()
        for attempt in lost:
            attempt.cancel(outcomes.RELEASED)
        self._draining.attempt_ended()
        await self._blocking.cancel()
        try:
            await self._take_new_lease()
        except PqError as exc:
            logger.warning("no new lease yet: %s", exc)
            await asyncio.sleep(0.5 + self._context.clock.random())
            return
        self._lease_lost = False

    async def drain(self, grace: float) -> None:
        """Take no more; let what runs end within `grace` seconds; then stop it and hand it back unspent.

        `grace` may be infinite: then it takes as long as the attempts do, unless `shorten_drain` is called meanwhile.
        """
        self._draining.begun = True
        self._signal.set()
        await self._draining.drain(grace)

    def shorten_drain(self, grace: float) -> None:
        """End a drain that is under way within `grace` seconds."""
        self._draining.shorten(grace)

    async def stop(self) -> None:
        """Settle what has ended, hand back what has not, release the lease."""
        self._draining.begun = True
        await super().stop()
        await self._blocking.cancel()
        with contextlib.suppress(PqError, TimeoutError):
            async with asyncio.timeout(LAST_TIME):
                await self._round_trips.last()
        self._streams.drop_all()  # what waits for the store with a stream's end waits no longer
        await self._beside.wait(LAST_TIME)
