"""What a job says itself about how its attempt ends: `Retry`, `Snooze`, `Cancel`.

Each may be raised, from however deep, or returned; both mean the same. They are exceptions of their own
root and no `PqError`s: a job that catches our errors must not catch its own word by accident.

They live as objects where the job runs, and no longer: the attempt's `Outcome` carries them as data.
"""

from __future__ import annotations

from ..errors import InvalidValue
from .names import LIMITS

SNOOZES = 1_000
"""How often a task may be put off before it fails: a condition that never comes must not run for ever."""


class Verdict(Exception):
    """Root of the three."""


class Retry(Verdict):
    """This attempt failed: try again, if an attempt is left, after `delay` seconds.

    Without `delay` the wait is that of any other failure.
    """

    def __init__(self, delay: float | None = None, reason: str | None = None) -> None:
        super().__init__(reason or "the job asked for another attempt")
        self.delay = None if delay is None else checked_delay("Retry", delay)
        self.reason = reason


class Snooze(Verdict):
    """It is too early: again after `delay` seconds, and this was no attempt."""

    def __init__(self, delay: float) -> None:
        self.delay = checked_delay("Snooze", delay)
        super().__init__(f"again in {self.delay:g} s")


class Cancel(Verdict):
    """Never mind: the task is REVOKED, with this reason, and not tried again."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "the job called it off")
        self.reason = reason


def checked_delay(what: str, delay: object) -> float:
    """`delay` when it is a number of seconds that a task can wait. Raises `InvalidValue`."""
    if type(delay) in (int, float) and 0 <= delay <= LIMITS.delay:  # type: ignore[operator]
        return delay  # type: ignore[return-value]
    raise InvalidValue(
        f"the delay of {what} is {delay!r:.60}, and must be a number of seconds from 0 to {LIMITS.delay:g}"
    )
