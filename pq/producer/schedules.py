"""Schedules as a program sees them: state one, look at them, make the tasks of their ticks.

What the code states (`run_every` of a job) is brought to the store by the schedulers. What is stated at run time goes
there at once, takes precedence, and outlives restarts. `Tasks` has the calls for users; the scheduler of a worker
takes plans and tasks from here too, with its own connection.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import (
    CHANGE,
    CODE,
    DROP,
    FORGET,
    NO_SCHEDULE,
    PAUSE,
    RESUME,
    TOO_MANY,
    UNDO,
    StoredSchedule,
    Tick,
)
from ..errors import BadSetting, InvalidValue, QueueFull, UnreadableMessage, did_you_mean
from ..model.job import PeriodicJob
from ..model.names import check_name
from ..model.plan import MOST, Plan, ScheduleInfo, check_schedule_name, load_plan, plan_of
from ..model.registry import Registry
from ..model.schedule import check_catch_up, make_schedule
from ..model.task import Task
from .connections import Connections
from .making import Making
from .submitting import Submitting


class Schedules:
    """The schedules of one program's jobs."""

    def __init__(
        self,
        connections: Connections,
        making: Making,
        submitting: Submitting,
        registry: Callable[[], Registry],
        default_queue: str,
        node_name: str,
    ) -> None:
        self._connections = connections
        self._making = making
        self._submitting = submitting
        self._registry = registry
        self._default_queue = default_queue
        self._node_name = node_name

    # ----------------------------------------------------------------------- what the code states
    def of_code(self) -> list[Plan]:
        """Return the plans of the periodic jobs of this program."""
        plans = [plan_of(job, self._default_queue) for job in self._registry()]
        return [plan for plan in plans if plan is not None]

    def next(self, jobnames: Sequence[str] | None, now: float) -> tuple[str, float] | None:
        """Return the job of the code that is due next, and the seconds to it."""
        registry = self._registry()
        jobs = list(registry) if jobnames is None else [registry[name] for name in jobnames]
        ms = int(now * 1000)
        ticks = [
            (job.periodic_schedule.next_after(ms), job.name)
            for job in jobs
            if job.periodic_schedule is not None
        ]
        coming = [(tick, name) for tick, name in ticks if tick is not None]
        if not coming:
            return None
        tick, name = min(coming)
        return name, tick / 1000 - now

    async def bring_code(self, broker: Broker) -> list[str]:
        """Bring what the code states to the store, and remove what it does not state any more.

        Returns the names for which the store has no room left.
        """
        answers = {
            plan.name: await broker.schedules.change(CODE, plan.name, plan.dump(), most=MOST)
            for plan in self.of_code()
        }
        _, stored = await broker.schedules.stored()
        for name, schedule in stored.items():
            job = self._registry().get(name)
            if schedule.in_code and job is not None and job.periodic_schedule is None:
                await broker.schedules.change(FORGET, name)
        return [name for name, answer in answers.items() if answer == TOO_MANY]

    # ------------------------------------------------------------------------------ for a scheduler
    def runs_here(self, plan: Plan, stored: StoredSchedule) -> bool:
        """Return True where this program may queue the task: it knows the job, and its code does not differ."""
        job = self._registry().get(plan.job)
        return job is not None and (stored.changed or job.periodic_schedule is not None)

    def tick(self, plan: Plan, at: int, now: int) -> Tick:
        """Return the tick at `at` with its task. Raises what is wrong with the arguments."""
        task = self._task(plan, {"schedule": plan.name, "tick": at / 1000})
        task.id, task.time_queued = plan.task_id(at), now / 1000
        record = records.live_header(task.priority, "", task.limits_text) + task.to_wire()
        return Tick(plan.name, at, task.id, record)

    def _task(self, plan: Plan, meta: dict[str, Any]) -> Task[Any]:
        # Not in a partition: the store queues a tick only once because all schedulers name the same queue.
        return self._making.make(
            plan.job, (), plan.kwargs, queue=plan.queue, meta_params=meta, to_partition=False
        )

    # ---------------------------------------------------------------------------------- for users
    def plan(
        self,
        job: Any,
        run_every: float | dt.timedelta | str,
        kwargs: dict[str, Any] | None,
        timezone: str | None,
        name: str | None,
        anchor: dt.datetime | None,
        catch_up: str | None,
        catch_up_limit: int | None,
        queue: str | None,
    ) -> Plan:
        """Return the plan that `tasks.schedule` was asked for, all of it checked."""
        registry = self._registry()
        task = self._making.make(job, (), kwargs or {}, queue=queue, to_partition=False)
        kind: Any = registry.get(task.name)
        name = check_schedule_name(task.name if name is None else name)
        owner = registry.get(name)
        if name != task.name and owner is not None and owner.periodic_schedule is not None:
            raise InvalidValue(
                f"{name!r} is the schedule of the job {name}, and this is {task.name}",
                hint="give another name=",
            )
        options: Any = kind if kind is not None and issubclass(kind, PeriodicJob) else PeriodicJob
        policy: str = options.catch_up if catch_up is None else catch_up
        limit: int = options.catch_up_limit if catch_up_limit is None else catch_up_limit
        try:
            schedule = make_schedule(run_every, timezone, anchor)
            check_catch_up(policy, limit)
        except BadSetting as exc:
            raise InvalidValue(exc.message, hint=exc.hint) from None
        plan = Plan(
            name,
            task.name,
            schedule,
            task.queue or self._default_queue,
            dict(kwargs or {}),
            policy,
            limit,
            f"run time, {self._node_name}",
        )
        plan.dump()  # what cannot be kept is an error here and now
        return plan

    async def change(self, plan: Plan) -> ScheduleInfo:
        """State a schedule at run time. Raises `QueueFull` where the store has too many."""
        broker = await self._connections.broker()
        if await broker.schedules.change(CHANGE, plan.name, plan.dump(), most=MOST) == TOO_MANY:
            raise QueueFull(
                f"the store has {MOST:,} schedules, and keeps no more",
                hint="take some away with tasks.unschedule(name)",
            )
        return await self._info_of(broker, plan.name)

    async def remove(self, name: str) -> ScheduleInfo | None:
        """Remove what was stated at run time; what the code states counts again, if anything."""
        broker = await self._connections.broker()
        _, stored = await broker.schedules.stored()
        found = stored.get(name)
        job = self._registry().get(name)
        said = job is not None and job.periodic_schedule is not None
        if found is None and not said:
            raise self._unknown(name, stored)
        if said and (found is None or not found.changed):
            assert job is not None
            raise InvalidValue(
                f"the schedule {name!r} is in the code, at {job.defined_at}",
                hint=f"take run_every out there, or pause it: tasks.pause_schedule({name!r})",
            )
        await broker.schedules.change(UNDO if said else DROP, name)
        _, stored = await broker.schedules.stored()
        return await self._info_of(broker, name) if name in stored else None

    async def pause(self, name: str, paused: bool) -> ScheduleInfo:
        """Pause or resume."""
        broker = await self._connections.broker()
        for plan in self.of_code():
            if plan.name == name:  # perhaps no scheduler has brought it yet
                await broker.schedules.change(CODE, name, plan.dump(), most=MOST)
        if await broker.schedules.change(PAUSE if paused else RESUME, name) == NO_SCHEDULE:
            raise self._unknown(name, (await broker.schedules.stored())[1])
        return await self._info_of(broker, name)

    async def run_now(self, name: str) -> Task[Any]:
        """Queue a task as a tick would; the ticks are not affected."""
        broker = await self._connections.broker()
        _, stored = await broker.schedules.stored()
        if name in stored:
            plan = load_plan(name, stored[name].text)
        else:
            plans = {plan.name: plan for plan in self.of_code()}
            if name not in plans:
                raise self._unknown(name, stored)
            plan = plans[name]
        return await self._submitting.submit(self._task(plan, {"schedule": name}), wait_for_end=False)

    async def infos(self) -> list[ScheduleInfo]:
        """Return all schedules of the store, by name. Unreadable ones are left out."""
        broker = await self._connections.broker()
        _, stored = await broker.schedules.stored()
        return await self._infos(broker, stored)

    async def _info_of(self, broker: Broker, name: str) -> ScheduleInfo:
        _, stored = await broker.schedules.stored()
        if name not in stored:
            raise self._unknown(name, stored)
        infos = await self._infos(broker, {name: stored[name]})
        if not infos:
            load_plan(name, stored[name].text)  # raises what is wrong with it
        return infos[0]

    async def _infos(self, broker: Broker, stored: dict[str, StoredSchedule]) -> list[ScheduleInfo]:
        plans = load_plans(stored)
        last = await last_ticks(broker, list(plans.values()))
        now = await broker.looks.now()
        infos = []
        for name, plan in sorted(plans.items()):
            one = stored[name]
            coming = None if one.paused else plan.schedule.next_after(max(now, last[name]))
            infos.append(
                ScheduleInfo(
                    name,
                    plan.job,
                    plan.schedule.text,
                    None if coming is None else coming / 1000,
                    last[name] / 1000 if last[name] else None,
                    one.paused,
                    "run time" if one.changed else "code",
                    plan.queue,
                    plan.kwargs,
                    plan.catch_up,
                    plan.defined_at,
                )
            )
        return infos

    def _unknown(self, name: str, stored: dict[str, StoredSchedule]) -> InvalidValue:
        known = sorted({*stored, *(plan.name for plan in self.of_code())})
        hint = did_you_mean(name, known) or (
            "there are " + ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            if known
            else "none is stored yet: tasks.schedule(job, run_every=60) makes one"
        )
        return InvalidValue(f"no schedule named {name!r}", hint=hint)


def load_plans(
    stored: dict[str, StoredSchedule], unreadable: dict[str, UnreadableMessage] | None = None
) -> dict[str, Plan]:
    """Return the plans that can be read; the errors of the others go into `unreadable`."""
    plans: dict[str, Plan] = {}
    for name, schedule in stored.items():
        try:
            plans[name] = load_plan(name, schedule.text)
        except UnreadableMessage as exc:
            if unreadable is not None:
                unreadable[name] = exc
    return plans


async def last_ticks(broker: Broker, plans: Sequence[Plan]) -> dict[str, int]:
    """Return the last tick of each plan that was claimed; 0 for none."""
    by_queue: dict[str, list[str]] = {}
    for plan in plans:
        by_queue.setdefault(plan.queue, []).append(plan.name)
    last: dict[str, int] = {}
    for queue, names in by_queue.items():
        last.update(zip(names, await broker.schedules.last_ticks(queue, names), strict=True))
    return last


def checked(name: str) -> str:
    """Return `name` when a schedule may have it. Raises `InvalidValue`."""
    return check_name("schedule name", name)
