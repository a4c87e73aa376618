"""Decide whether a reserved task may start: a record goes in, an `Attempt` or a `Refused` comes out.

No input or output: the consumer starts the attempt, or settles the refused task with the ending that it has here.
`CHECKS` are the questions to a task, in their order; the first answer that is not None refuses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..broker import records
from ..broker.contract.values import Reserved
from ..config import Settings
from ..errors import PayloadMissing, PqError, UnreadableMessage
from ..execution.attempt import Attempt
from ..model import outcome as outcomes
from ..model.backend import Backend
from ..model.ending import Ending, conclude, crashed_too_often, noted_count, too_many
from ..model.job import Job
from ..model.operations import RETRY
from ..model.options import CPUBOUND
from ..model.outcome import Outcome
from ..model.registry import Registry
from ..model.states import QUEUED, STARTED
from ..model.task import Task

logger = logging.getLogger("pq.worker")

UNKNOWN_JOB_TRIES = 8
"""Releases of a task whose job is unknown here, for a worker that knows it, before it fails."""
LONGEST_WAIT = 60.0
"""Seconds of the longest wait between two such tries."""

UNKNOWN_JOB = "unknown job"
NO_FREE_CHILD = "no free child"


class Refused(NamedTuple):
    """A task that does not start. `ending`: what becomes of it; `why`: a reason that the consumer reacts to."""

    task: Task[Any]
    ending: Ending
    why: str = ""


@dataclass(slots=True)
class Case:
    """A readable task of a known job, and the circumstances that decide whether it may start."""

    task: Task[Any]
    job: type[Job]
    crashes: int
    """Workers that died with it so far."""
    limit: str
    """The limit that is reached, where the task is not to wait for it."""
    now: float
    max_crashes: int
    has_child: bool
    """A child process can take it, or it needs none."""


def check_crashes(case: Case) -> Outcome | None:
    """Fail a task that took `max_crashes` workers with it."""
    return crashed_too_often(case.crashes) if case.crashes >= case.max_crashes else None


def check_limit(case: Case) -> Outcome | None:
    """Revoke a task that found a limit reached and does not wait for it."""
    return too_many(case.job.name, case.limit) if case.limit else None


def check_stated_limits(case: Case) -> Ending | None:
    """Release a task whose producer did not know its job, with the limits that it lacked: they count from then on."""
    task = case.task
    if case.job.flow is None or task.limits_text:
        return None
    try:
        task.limits_text = case.job.limits_text_of(task)
    except PqError:
        return None  # the attempt itself reports what is wrong with its arguments
    return Ending(RETRY) if task.limits_text else None


def check_expiry(case: Case) -> Outcome | None:
    """Revoke a task that was not started in time."""
    task = case.task
    if task.expires is None or case.now <= (task.expiry or case.now):
        return None
    text = f"TaskRevoked: it expired: {task.expires:g} s after it was queued no worker had started it"
    return Outcome(outcomes.REVOKED, None, text, None, "revoked")


def check_child(case: Case) -> Outcome | None:
    """Release a process task for which no child process is free."""
    return None if case.has_child else Outcome(outcomes.RELEASED)


CHECKS: tuple[Callable[[Case], Outcome | Ending | None], ...] = (
    check_crashes,
    check_limit,
    check_stated_limits,
    check_expiry,
    check_child,
)
"""In their order: what can never run is ended first, so it is not released again and again for want of a child."""


def is_plain(reserved: Reserved, task: Task[Any], job: type[Job]) -> bool:
    """Return True if no check can refuse the task: so for nearly every task, which skips the checks."""
    return not (
        reserved.crashes
        or reserved.limit
        or task.expires is not None
        or job.flow is not None
        or job.concurrency == CPUBOUND
    )


class Admission:
    """The admission of one worker.

    Args:
        registry: the jobs that it knows.
        cfg: the settings.
        worker, node: written into each task that starts.
        backend, finished: of the attempts that are made here.
        free_children: how many more process tasks may start.
        time: seconds since the epoch.
        chance: numbers in [0, 1), which spread retries.
    """

    def __init__(
        self,
        registry: Registry,
        cfg: Settings,
        *,
        worker: str,
        node: str,
        backend: Backend,
        finished: Callable[[Attempt, Outcome], None],
        free_children: Callable[[], int],
        time: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._max_crashes = cfg.max_crashes
        self._message_size = cfg.largest_message
        self._worker = worker
        self._node = node
        self._backend = backend
        self._finished = finished
        self._free_children = free_children
        self._time = time
        self._chance = chance

    def admit(self, reserved: Reserved) -> Attempt | Refused:
        """Return the attempt to start, or the ending that the task has without one. Never raises."""
        try:
            return self._admit(reserved)
        except UnreadableMessage as exc:
            return self._unreadable(reserved, exc)
        except Exception as exc:
            # One record that no check foresees must not end the loop that all others go through: its task would be
            # released, and end the next worker too.
            logger.exception("task %s in queue %s cannot be admitted", reserved.id, reserved.queue)
            return self._set_aside(reserved, _outline(reserved), exc, "not-admitted")

    def _admit(self, reserved: Reserved) -> Attempt | Refused:
        record = reserved.record
        task: Task[Any] = Task.from_wire(records.message(record))
        if task.id != reserved.id:
            raise UnreadableMessage(f"the record of {reserved.id} has the message of {task.id}")
        if record[:1] == b"g":
            task.limits_text = records.limits_text(record)
        job = self._registry.get(task.name)
        if job is None:
            return self._unknown_job(task)
        now = self._time()
        if not is_plain(reserved, task, job) and (refused := self._checked(reserved, task, job, now)):
            return refused
        task.queue = reserved.queue
        task.status = STARTED
        task.time_started = now
        task.worker = self._worker
        task.node = self._node
        if reserved.crashes:
            task.note(crashes=reserved.crashes)
        if task.retry > 1 and task.run_info.pop("streamed", None) is not None:
            task.note()  # what another attempt streamed does not count for this one
        return Attempt(task, job, self._backend, self._finished)

    def _checked(self, reserved: Reserved, task: Task[Any], job: type[Job], now: float) -> Refused | None:
        has_child = job.concurrency != CPUBOUND or self._free_children() > 0
        case = Case(task, job, reserved.crashes, reserved.limit, now, self._max_crashes, has_child)
        for check in CHECKS:
            found = check(case)
            if found is None:
                continue
            if isinstance(found, Outcome):
                return Refused(
                    task, self._concluded(task, found), NO_FREE_CHILD if check is check_child else ""
                )
            task.status = QUEUED
            return Refused(task, found)
        return None

    def _unreadable(self, reserved: Reserved, exc: UnreadableMessage) -> Refused:
        """A record that is not a message fails with its reason, and stops no other task."""
        queue, id = reserved.queue, reserved.id
        task = _known_of(exc, id) or _outline(reserved)
        logger.error("task %s in queue %s cannot be read and was set aside: %s", id, queue, exc)
        return self._set_aside(reserved, task, exc, exc.slug)

    def _set_aside(self, reserved: Reserved, task: Task[Any], exc: Exception, slug: str) -> Refused:
        """Fail a task for good, with the beginning of its record."""
        task.note(raw=reserved.record[:4096])
        outcome = Outcome(outcomes.FAILED, None, f"{type(exc).__name__}: {exc}", None, slug, final=True)
        return Refused(task, self._concluded(task, outcome))

    def _unknown_job(self, task: Task[Any]) -> Refused:
        """In a rolling deploy another worker may know the job: released, later and later, then failed."""
        error = self._registry.unknown(task.name)
        tries = noted_count(task, "unknown") + 1
        if tries > UNKNOWN_JOB_TRIES:
            text = f"TaskNotAvailable: {error} on any worker that took it"
            outcome = Outcome(outcomes.FAILED, None, text, None, error.slug)
            return Refused(task, self._concluded(task, outcome))
        logger.warning("task %s: %s; released for a worker that knows it", task.id[:9], error)
        task.note(unknown=tries)
        task.status = QUEUED
        return Refused(task, Ending(RETRY, min(LONGEST_WAIT, 2.0 ** (tries - 1))), UNKNOWN_JOB)

    def _concluded(self, task: Task[Any], outcome: Outcome) -> Ending:
        return conclude(task, outcome, now=self._time(), chance=self._chance(), limit=self._message_size)


def _outline(reserved: Reserved) -> Task[Any]:
    """Return a new task with what its message surely says: name and reply channel, so that its caller is notified."""
    task: Task[Any] = Task(reserved.id, "unreadable", reserved.queue)
    try:
        read: Task[Any] = Task.from_wire(records.message(reserved.record))
    except UnreadableMessage:
        return task
    if read.id == reserved.id:
        task.name, task.reply, task.time_queued = read.name, read.reply, read.time_queued
    return task


def _known_of(exc: UnreadableMessage, id: str) -> Task[Any] | None:
    """Return what is known of a task whose message is lost, from the stub in its record."""
    try:
        task = Task.from_wire(exc.stub) if isinstance(exc, PayloadMissing) else None
    except UnreadableMessage:
        return None
    return task if task is not None and task.id == id else None
