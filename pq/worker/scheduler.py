"""The scheduler: queues the tasks of periodic jobs when their ticks come.

Every worker of every server with `schedule_periodic` has one. They do not know of each other and need no
leader: all compute the same ticks, and the store gives each tick to the first scheduler that claims it, in the
step in which its task is queued. So one of them is enough, and any number does no harm.

The store's clock decides what is due. The scheduler's own timer only says when to ask next; it asks every few
seconds, so that it sees schedules that change at run time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from ..broker.contract.values import TOO_EARLY, Tick
from ..errors import PqError, UnreadableMessage
from ..model.plan import MOST, Plan
from ..model.schedule import due
from ..producer.schedules import Schedules, last_ticks, load_plans
from .context import Context
from .service import Service

logger = logging.getLogger("pq.worker")

POLL = 2.0
"""Seconds after which to look for changed schedules at the latest."""
AT_ONCE = 100
"""Ticks in one call."""


@dataclass(slots=True)
class _Line:
    """One schedule: the ticks up to `seen` (ms) are claimed, by this scheduler or another; `next` is the next one."""

    plan: Plan
    seen: int
    next: int | None


class Scheduler(Service):
    """A service that claims the ticks of all schedules."""

    name = "scheduler"

    def __init__(self, context: Context, schedules: Schedules) -> None:
        super().__init__()
        self._context = context
        self._schedules = schedules
        self._lines: list[_Line] = []
        self._version: int | None = None
        self._brought = False
        self._warned: set[str] = set()
        self._turning = asyncio.Lock()

    @property
    def next(self) -> int | None:
        """When the next known tick comes, in ms; None when none does."""
        return min((line.next for line in self._lines if line.next is not None), default=None)

    async def start(self) -> None:
        count = len(self._schedules.of_code())
        logger.info("scheduler on · %d periodic job%s", count, "s" * (count != 1))
        await super().start()

    async def run(self) -> None:
        trouble = ""
        while True:
            try:
                pause = await self.turn()
                trouble = ""
            except PqError as exc:
                # The store is away or full. Ticks are not lost by that: they are due until they are claimed.
                if exc.message != trouble:
                    logger.warning("scheduling is interrupted: %s", exc)
                trouble, pause = exc.message, 1.0
            await asyncio.sleep(pause)

    async def turn(self) -> float:
        """Queue what is due; return the seconds until the next turn. Of two calls at once the second waits."""
        async with self._turning:
            return await self._turn()

    async def _turn(self) -> float:
        broker = self._context.broker
        if not self._brought:
            for name in await self._schedules.bring_code(broker):
                logger.warning("schedule limit of %d reached: %s does not run", MOST, name)
            self._brought = True
        version, now = await broker.schedules.version()
        if version != self._version:
            await self._load()
        claims: dict[str, list[tuple[_Line, Tick]]] = {}
        for line in self._lines:
            if line.next is not None and line.next <= now:
                ticks = self._ticks(line, now)
                claims.setdefault(line.plan.queue, []).extend((line, tick) for tick in ticks)
                if not ticks:
                    self._seen(line, now)
        for queue, claimed in claims.items():
            await self._claim(queue, claimed)
        coming = self.next
        return POLL if coming is None else min(POLL, max(0.001, (coming - now) / 1000))

    def _ticks(self, line: _Line, now: int) -> list[Tick]:
        plan = line.plan
        moments = due(plan.schedule, line.seen, now, plan.catch_up, plan.catch_up_limit)
        try:
            return [self._schedules.tick(plan, at, now) for at in moments]
        except PqError as exc:
            self._warn_once(f"{plan.name} {exc}", "schedule %s queues nothing: %s", plan.name, exc)
            return []

    async def _claim(self, queue: str, claimed: list[tuple[_Line, Tick]]) -> None:
        for start in range(0, len(claimed), AT_ONCE):
            part = claimed[start : start + AT_ONCE]
            answers = await self._context.broker.work.tick(queue, [tick for _, tick in part])
            for (line, tick), answer in zip(part, answers, strict=True):
                if answer == TOO_EARLY:  # the store's clock was set back meanwhile
                    continue
                self._seen(line, tick.at)
                logger.debug("tick %s: %s", tick.id, "queued" if answer else "claimed by another scheduler")

    def _seen(self, line: _Line, until: int) -> None:
        line.seen = max(line.seen, until)
        line.next = line.plan.schedule.next_after(line.seen)

    async def _load(self) -> None:
        """Read the schedules from the store, and the last tick of each."""
        broker = self._context.broker
        version, stored = await broker.schedules.stored()
        unreadable: dict[str, UnreadableMessage] = {}
        plans = load_plans(stored, unreadable)
        for name, error in unreadable.items():
            self._warn_once(f"{name} {error}", "%s", error)
        last = await last_ticks(broker, list(plans.values()))
        lines = []
        for name, plan in plans.items():
            if stored[name].paused:
                continue
            if not self._schedules.runs_here(plan, stored[name]):
                logger.debug("schedule %s skipped: its job %s is unknown here", name, plan.job)
                continue
            seen = max(last[name], stored[name].since)
            lines.append(_Line(plan, seen, plan.schedule.next_after(seen)))
        self._lines, self._version = lines, version

    def _warn_once(self, key: str, text: str, *values: object) -> None:
        """Warn once: the same is found at every tick."""
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(text, *values)
