"""Moving time in a test: from one moment at which something is due to the next.

The clock is that of the system and some seconds more. The store is given the time by its callers, so delays, retries,
schedules, limits and expiry follow; the timers of running attempts are set again. At each moment what is due runs to
its end first: an hour of a job that runs every minute is sixty runs, and a task that fails and is retried after ten
seconds has its second attempt ten seconds later, not at the end of the hour.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..clock import MovedClock
from ..producer.current import Api
from ..worker.worker import Worker

PATIENCE = 1.0
"""Real seconds after which a running attempt counts as waiting for something."""
LOOK = 0.002
"""Seconds between two looks whether all that is due has run."""


class TimeMover:
    """Moves the clock of one worker and of the apis beside it, in the loop in which they live.

    Args:
        clock: the clock of the application.
        apis: return the apis under test.
    """

    def __init__(self, clock: MovedClock, apis: Callable[[], list[Api]]) -> None:
        self._clock = clock
        self._apis = apis
        self._seen: dict[tuple[str, int], float] = {}  # attempts, and the real time of the first look at each

    async def advance(self, worker: Worker | None, seconds: float) -> None:
        """Move on by `seconds` and run what comes due on the way."""
        self._clock.hold()  # what runs on the way takes none of the time
        try:
            target = self._clock.time() + seconds
            await self._let_run(worker)
            while (due := await self._next_due(worker)) is not None and due <= target:
                self._jump(worker, due)
                await self._let_run(worker)
            self._jump(worker, target)
            await self._let_run(worker)
        finally:
            self._set_timers(worker)
            self._clock.go_on()

    def _jump(self, worker: Worker | None, moment: float) -> None:
        self._clock.move(moment - self._clock.time())
        self._set_timers(worker)

    def _set_timers(self, worker: Worker | None) -> None:
        if worker is not None and worker.consumer is not None:
            for attempt in worker.consumer.attempts():
                attempt.rearm(asyncio.get_running_loop(), self._clock.time())

    async def _next_due(self, worker: Worker | None) -> float | None:
        """Return the next moment, after now, at which something comes due: seconds since the epoch."""
        if worker is None or worker.consumer is None or worker.context is None:
            return None
        now = self._clock.time()
        moments = [await worker.context.broker.looks.next_due(worker.context.queues, int(now * 1000))]
        if worker.scheduler is not None:
            moments.append(worker.scheduler.next)
        # Half a millisecond later: what is due then is due, however a float is rounded.
        due = [moment / 1000 + 0.0005 for moment in moments if moment is not None]
        deadlines = [attempt.deadline for attempt in worker.consumer.attempts()]
        due += [deadline for deadline in deadlines if deadline is not None]
        return min((moment for moment in due if moment > now), default=None)

    async def _let_run(self, worker: Worker | None) -> None:
        """Return when nothing that is due is left to run, or what still runs waits for something."""
        before: object = None
        since = time.monotonic()
        while (standing := await self._standing(worker)) is not None:
            now = time.monotonic()
            if standing != before:
                before, since = standing, now
            elif now - since >= PATIENCE:
                return  # a queue whose worker has no slot free
            await asyncio.sleep(LOOK)

    async def _standing(self, worker: Worker | None) -> object:
        """Return None when all is quiet, else a value that changes with each progress."""
        here = asyncio.get_running_loop()
        for api in self._apis():
            if here in api.loops():
                await api.sent()
        if worker is None or worker.consumer is None or worker.context is None:
            return None
        await worker.sent()
        if worker.scheduler is not None:
            await worker.scheduler.turn()
        broker, queues = worker.context.broker, worker.context.queues
        await broker.work.poke(queues[0])
        states = [state for queue in queues if not (state := await broker.looks.state(queue)).paused]
        waiting = sum(state.ready + state.prio for state in states)
        held = sum(state.held for state in states)
        soon = await broker.looks.next_due(queues, 0)
        overdue = soon is not None and soon <= int(self._clock.time() * 1000)
        running = {(attempt.task.id, attempt.task.retry) for attempt in worker.consumer.attempts()}
        now = time.monotonic()
        young = [key for key in running if now - self._seen.setdefault(key, now) < PATIENCE]
        if not young and not waiting and not overdue and held == len(running):
            return None
        return waiting, held, soon, running, worker.counts.processed, worker.counts.retried
