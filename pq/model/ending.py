"""What follows from the end of an attempt: the one place that decides it.

An `Outcome` says how the attempt ended; `conclude` writes that into the task and answers with an
`Ending`, which the broker carries out and which the rules below decide:

| outcome | then |
|---|---|
| returned | SUCCESS |
| raised | again while attempts are left, else FAILURE (dead set) |
| timed out | again while attempts are left, else REVOKED |
| cancelled | REVOKED, never again |
| its process died | again at once, charged as a crash (`max_crashes` ends that), not as an attempt |
| released | again at once, charged with nothing |
| result cannot be stored | FAILURE: the work was done, doing it again would repeat its effects |
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import NotSerializable, PayloadTooLarge, PqError, ResultNotSerializable, TaskCrashed
from .names import LIMITS
from .outcome import CRASHED, FAILED, OK, RELEASED, REVOKED, TIMED_OUT, Outcome
from .retry import retry_wait
from .serializers import dump_payload
from .states import FAILURE, QUEUED, RETRY, SUCCESS
from .states import REVOKED as REVOKED_STATUS
from .task import Task

# What the broker is to do. The letters are those of its protocol.
ACK, FAIL, REVOKE, AGAIN, RELEASE, CRASH = "a", "f", "v", "t", "l", "c"

NEVER_AGAIN = frozenset({"result-not-serializable", "unreadable-message", "bad-arguments"})
"""Reasons for which another attempt would end in the same way."""


class Ending(NamedTuple):
    """What the broker is to do; `wait` are the seconds before the next attempt."""

    op: str
    wait: float = 0.0


def conclude(
    task: Task[Any],
    outcome: Outcome,
    *,
    now: float,
    retry_delay: float | None = None,
    chance: float = 0.5,
    limit: int = LIMITS.size,
) -> Ending:
    """Write the outcome into `task` and say what is to be done with it.

    `retry_delay` is the job's (the task's own counts first), `chance` in [0, 1) spreads retries, `limit`
    is the size of a message in bytes.
    """
    if outcome.kind == OK:
        try:
            encoded = outcome.encoded
            if encoded is None:
                encoded = dump_payload(task.format, outcome.value, what="result", limit=limit)
        except (NotSerializable, PayloadTooLarge) as exc:
            outcome = unstorable(exc)
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
    task.time_ended = now
    task.exception, task.stacktrace, task.reason = outcome.error, outcome.stacktrace, outcome.reason
    if (
        outcome.kind in (FAILED, TIMED_OUT)
        and outcome.reason not in NEVER_AGAIN
        and task.retry <= (task.max_retries or 0)
    ):
        own = task.retry_delay if task.retry_delay is not None else retry_delay
        wait = retry_wait(task.retry, own, chance)
        task.retry += 1
        task.status = RETRY
        return Ending(AGAIN, wait)
    if outcome.kind in (REVOKED, TIMED_OUT):
        task.status = REVOKED_STATUS
        return _REVOKED
    task.status = FAILURE
    return _FAILED


def unstorable(exc: PqError) -> Outcome:
    """The outcome of a task that ran, but whose result cannot be stored."""
    text = f"ResultNotSerializable: the task ran, but its result cannot be stored: {exc.message}"
    if exc.hint:
        text += f" (hint: {exc.hint})"
    return Outcome(FAILED, None, text, None, ResultNotSerializable.slug)


def crashed_too_often(crashes: int) -> Outcome:
    """The outcome of a task that took `crashes` workers with it: it is not given to another."""
    return Outcome(
        FAILED,
        None,
        f"TaskCrashed: {crashes} workers died while they ran this task, so it was set aside",
        None,
        TaskCrashed.slug,
    )


_ACKED = Ending(ACK)
_FAILED = Ending(FAIL)
_REVOKED = Ending(REVOKE)
_RELEASED = Ending(RELEASE)
_CRASHED = Ending(CRASH)
