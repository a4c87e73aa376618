"""The consequence of an attempt: the one place that decides what follows.

An `Outcome` says how the attempt ended; `conclude` writes that into the task and answers with an
`Ending`, which the broker carries out and which the rules below decide:

| outcome | then |
|---|---|
| returned | SUCCESS |
| raised | again while attempts are left and the job wants it after this error, else FAILURE (dead set) |
| timed out | again while attempts are left and the job wants it, else REVOKED |
| asked for a retry | again while attempts are left, else FAILURE |
| snoozed | again, and it was no attempt; the thousandth time FAILURE |
| cancelled, by itself or by others | REVOKED, never again |
| its process died | again at once, charged as a crash (`max_crashes` ends that), not as an attempt |
| released | again at once, charged with nothing |
| result cannot be stored | FAILURE: the work was done, doing it again would repeat its effects |
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import (
    NotSerializable,
    PayloadTooLarge,
    PqError,
    ResultNotSerializable,
    TaskCrashed,
    TooManyTasksForJob,
)
from .job import Job
from .names import LIMITS
from .operations import ACK, CRASH, FAIL, RELEASE, REVOKE
from .operations import RETRY as AGAIN
from .outcome import CRASHED, FAILED, OK, RELEASED, RETRIED, REVOKED, SNOOZED, TIMED_OUT, Outcome, verdict
from .payloads import dump_payload
from .retry import retry_wait
from .states import FAILURE, QUEUED, RETRY, SUCCESS
from .states import REVOKED as REVOKED_STATUS
from .task import Task
from .verdict import SNOOZES, Verdict

NEVER_AGAIN = frozenset({"result-not-serializable", "unreadable-message", "bad-arguments"})
"""Reasons for which another attempt would end in the same way."""


class Ending(NamedTuple):
    """The operation for the store; `wait` are the seconds before the next attempt."""

    op: str
    wait: float = 0.0


def conclude(
    task: Task[Any],
    outcome: Outcome,
    *,
    now: float,
    job: type[Job] | None = None,
    chance: float = 0.5,
    limit: int = LIMITS.size,
) -> Ending:
    """Write the outcome into `task` and say what is to be done with it.

    `job` says how long to wait between attempts (the task's own `retry_delay` counts first), `chance`
    in [0, 1) spreads retries, `limit` is the size of a message in bytes.
    """
    if outcome.kind == OK:
        try:
            encoded = outcome.encoded
            if encoded is None:
                encoded = dump_payload(task.format, outcome.value, what="result", limit=limit)
        except (NotSerializable, PayloadTooLarge) as exc:
            # A verdict is looked for here alone: it cannot be stored either, and a job that returns none pays nothing.
            said = outcome.value
            outcome = (
                verdict(said)._replace(info=outcome.info) if isinstance(said, Verdict) else unstorable(exc)
            )
        else:
            task.result_bytes = encoded
            task.status = SUCCESS
            task.time_ended = now
            task.exception = task.stacktrace = task.reason = None
            if outcome.info:
                task.note(**outcome.info)
            return _ACKED
    if outcome.kind == RELEASED:
        task.status = QUEUED
        return _RELEASED
    if outcome.info:
        task.note(**outcome.info)
    if outcome.kind == CRASHED:
        task.status = QUEUED
        return _CRASHED
    if outcome.kind == SNOOZED:
        snoozes = _count(task, "snoozes")
        if snoozes <= SNOOZES:
            task.status = RETRY
            task.exception, task.stacktrace, task.reason = None, None, "snoozed"
            return Ending(AGAIN, outcome.wait or 0.0)
        outcome = Outcome(
            FAILED, None, f"the task was snoozed {SNOOZES:,} times", None, "snoozed", final=True
        )
    task.time_ended = now
    task.exception, task.stacktrace, task.reason = outcome.error, outcome.stacktrace, outcome.reason
    if task.max_retries is None and job is not None:
        task.max_retries = job.max_retries  # its producer did not know the job
    if (
        outcome.kind in (FAILED, TIMED_OUT, RETRIED)
        and not outcome.final
        and outcome.reason not in NEVER_AGAIN
        and task.retry <= (task.max_retries or 0)
    ):
        wait = outcome.wait if outcome.wait is not None else _wait(task, job, chance)
        task.retry += 1
        task.status = RETRY
        return Ending(AGAIN, wait)
    if outcome.kind in (REVOKED, TIMED_OUT):
        task.status = REVOKED_STATUS
        return _REVOKED
    task.status = FAILURE
    return _FAILED


def _wait(task: Task[Any], job: type[Job] | None, chance: float) -> float:
    """Return the seconds before the next attempt: those of the task, else those of the job."""
    delay = task.retry_delay
    if job is None:
        return retry_wait(task.retry, delay, chance)
    if delay is None:
        delay = job.retry_delay
    try:
        return retry_wait(task.retry, delay, chance, job.backoff)
    except Exception as exc:
        # The user's function failed. That must not cost the task its attempts; the error is noted on the task.
        task.note(backoff=f"{type(exc).__name__}: {exc}"[:500])
        return retry_wait(task.retry, None, chance)


def _count(task: Task[Any], what: str) -> int:
    """Add one to a count in `run_info`; return it."""
    count = noted_count(task, what) + 1
    task.note(**{what: count})
    return count


def noted_count(task: Task[Any], what: str) -> int:
    """Return a count in `run_info`; 0 for a note that is not a count, as a foreign message may have."""
    value = task.run_info.get(what)
    return value if type(value) is int and value > 0 else 0


def unstorable(exc: PqError) -> Outcome:
    """Return the outcome of a task that ran, but whose result cannot be stored."""
    text = f"ResultNotSerializable: the task ran, but its result cannot be stored: {exc.message}"
    if exc.hint:
        text += f" (hint: {exc.hint})"
    return Outcome(FAILED, None, text, None, ResultNotSerializable.slug)


def crashed_too_often(crashes: int) -> Outcome:
    """Return the outcome of a task that took `crashes` workers with it: no other worker gets it."""
    return Outcome(
        FAILED,
        None,
        f"TaskCrashed: {crashes} workers died while they ran this task, so it was set aside",
        None,
        TaskCrashed.slug,
        final=True,
    )


def too_many(job: str, limit: str) -> Outcome:
    """Return the outcome of a task at a limit that is not to wait (`on_limit="revoke"`)."""
    text = f'TooManyTasksForJob: concurrency limit {limit!r} of {job} reached; not queued to wait (on_limit="revoke")'
    return Outcome(REVOKED, None, text, None, TooManyTasksForJob.slug)


_ACKED = Ending(ACK)
_FAILED = Ending(FAIL)
_REVOKED = Ending(REVOKE)
_RELEASED = Ending(RELEASE)
_CRASHED = Ending(CRASH)
