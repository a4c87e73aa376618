"""Verdicts: a job decides the end of its own attempt with `Retry`, `Snooze`, `Cancel`.

Each may be raised, at any depth, or returned; both mean the same. They are exceptions of a root of their own, not
`PqError`s: a job that catches our errors must not catch its own decision by accident.

They are objects only where the job runs; from there on the `Outcome` of the attempt carries them as data.
"""

from __future__ import annotations

from ..errors import InvalidValue
from .names import LIMITS

SNOOZES = 1_000
"""Snoozes of a task before it fails: a condition that never comes must not run forever."""


class Verdict(Exception):
    """Root of the three decisions."""


class Retry(Verdict):
    """This attempt failed: make another one, if one is left, after `delay` seconds.

    Without `delay` the wait is that of any other failure.
    """

    def __init__(self, delay: float | None = None, reason: str | None = None) -> None:
        super().__init__(reason or "the job asked for another attempt")
        self.delay = None if delay is None else checked_delay("Retry", delay)
        self.reason = reason


class Snooze(Verdict):
    """Too early: run it again after `delay` seconds. This does not count as an attempt."""

    def __init__(self, delay: float) -> None:
        self.delay = checked_delay("Snooze", delay)
        super().__init__(f"retrying in {self.delay:g} s")


class Cancel(Verdict):
    """Give up: the task is REVOKED, with this reason, and not retried."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "the job cancelled itself")
        self.reason = reason


def checked_delay(what: str, delay: object) -> float:
    """Return `delay` when it is a number of seconds that a task can wait. Raises `InvalidValue`."""
    if type(delay) in (int, float) and 0 <= delay <= LIMITS.delay:  # type: ignore[operator]
        return delay  # type: ignore[return-value]
    raise InvalidValue(
        f"the delay of {what} is {delay!r:.60}, and must be a number of seconds from 0 to {LIMITS.delay:g}"
    )
