"""A plan: which job is to be queued when, with what, and where. What the store keeps of a schedule.

It is kept as text: a first line that names the ticks, and a JSON object. When the first line changes, ticks
count from that moment; a change of the rest (other arguments, another queue) misses no tick.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidValue, PqError, UnreadableMessage
from .job import Job
from .names import check_name
from .payloads import dump_payload, load_payload
from .schedule import SKIP, Cron, Interval, Schedule, check_catch_up
from .seal import Unopened
from .serializers import JSON

LONGEST_NAME = 100
"""A task's id is made of the name and the tick, and must not be longer than ids may be."""
_FARTHEST = 10**15
"""Milliseconds that an interval is shorter than."""
MOST = 10_000
"""Schedules that one store keeps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One schedule of one job."""

    name: str
    job: str
    schedule: Schedule
    queue: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    catch_up: str = SKIP
    catch_up_limit: int = 100
    defined_at: str = ""

    def task_id(self, tick: int) -> str:
        """Return the id of the task of a tick: every scheduler makes the same."""
        return f"cron.{self.name}.{tick}"

    def dump(self) -> bytes:
        """Return the text that the store keeps. Raises `NotSerializable`, `PayloadTooLarge`."""
        facts: dict[str, Any] = {
            "job": self.job,
            "queue": self.queue,
            "catch_up": self.catch_up,
            "catch_up_limit": self.catch_up_limit,
            "defined_at": self.defined_at,
            "kwargs": self.kwargs,
        }
        if isinstance(self.schedule, Cron):
            facts["cron"], facts["zone"] = self.schedule.line, self.schedule.zone
        elif isinstance(self.schedule, Interval):
            facts["every"], facts["phase"] = self.schedule.every, self.schedule.phase
        return self.schedule.text.encode() + b"\n" + dump_payload(JSON, facts, what="arguments", limit=65_536)


def load_plan(name: str, text: bytes) -> Plan:
    """Read a plan from a text of the store. Raises `UnreadableMessage`, whatever the text is."""
    if isinstance(text, Unopened):
        raise UnreadableMessage(f"the schedule {name!r} cannot be read: {text.why}", hint=text.why.hint)
    try:
        facts = load_payload(JSON, text.partition(b"\n")[2])
        schedule: Schedule
        if "cron" in facts:
            schedule = Cron(facts["cron"], facts["zone"])
        else:
            every, phase = facts["every"], facts["phase"]
            if (
                type(every) is not int
                or type(phase) is not int
                or not 0 < every < _FARTHEST
                or abs(phase) > _FARTHEST
            ):
                raise ValueError("an interval is a number of milliseconds")
            schedule = Interval(every, phase)
        check_catch_up(facts["catch_up"], facts["catch_up_limit"])
        schedule.next_after(0)
        return Plan(
            check_name("schedule name", name),
            check_name("job name", facts["job"]),
            schedule,
            check_name("queue name", facts["queue"]),
            dict(facts["kwargs"]),
            facts["catch_up"],
            facts["catch_up_limit"],
            str(facts["defined_at"]),
        )
    except UnreadableMessage:
        raise
    except (PqError, KeyError, TypeError, ValueError, OSError, ArithmeticError) as exc:
        raise UnreadableMessage(
            f"the schedule {name!r} cannot be read: {type(exc).__name__}: {exc}",
            hint="it may come from a newer version of pq",
        ) from None
    except Exception as exc:  # cronsim's own error has no other root
        raise UnreadableMessage(f"the schedule {name!r} cannot be read: {exc}") from None


def plan_of(job: type[Job], default_queue: str) -> Plan | None:
    """Return the plan that a periodic job states in the code; None for any other job."""
    if job.periodic_schedule is None:
        return None
    facts: Any = job
    return Plan(
        job.name,
        job.name,
        job.periodic_schedule,
        job.default_queue or default_queue,
        {},
        facts.catch_up,
        facts.catch_up_limit,
        job.defined_at,
    )


def check_schedule_name(name: object) -> str:
    """Return `name` when a schedule may have it. Raises `InvalidValue`."""
    checked = check_name("schedule name", name)
    if len(checked) > LONGEST_NAME:
        raise InvalidValue(
            f"the schedule name {checked[:20]}… has {len(checked)} characters, and may have {LONGEST_NAME}"
        )
    return checked


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as the store has it. Times are seconds since the epoch.

    `next` is None for one that is paused, `last` is its last tick that was queued, `by` says where it was stated:
    in the `'code'`, or at `'run time'` (`tasks.schedule`).
    """

    name: str
    job: str
    runs: str
    next: float | None
    last: float | None
    paused: bool
    by: str
    queue: str
    kwargs: dict[str, Any]
    catch_up: str
    defined_at: str

    @property
    def next_run(self) -> dt.datetime | None:
        """`next` as a date, in UTC."""
        return None if self.next is None else dt.datetime.fromtimestamp(self.next, dt.UTC)
