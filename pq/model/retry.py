"""Rules of retries: the wait between two attempts, and the errors after which there is another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import BadSetting
from .names import LIMITS

MAX_BACKOFF = 600.0
"""Seconds; exponential back-off grows no further, unless a job says so."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A wait that grows: `base`, then `factor` times as much each time, never more than `cap` seconds.

    With `jitter` it is anywhere in the upper half of that: tasks that failed together (a service was down) must not
    come back together.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = MAX_BACKOFF
    jitter: bool = True

    def __post_init__(self) -> None:
        for name, low in (("base", 0.0), ("factor", 1.0), ("cap", 0.0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= LIMITS.delay:
                raise BadSetting(
                    f"Backoff: {name} is {value!r:.60}, and must be a number from {low:g} to {LIMITS.delay:g}"
                )

    def wait(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after `attempt` (from 1) failed; `chance` is in [0, 1)."""
        try:
            span: float = min(self.cap, self.base * self.factor ** float(attempt - 1))
        except OverflowError:  # 2.0 ** 2000 is not a large number but an error
            span = self.cap if self.base else 0.0
        return span * (0.5 + 0.5 * chance) if self.jitter else span


DEFAULT_BACKOFF = Backoff()


def retry_wait(attempt: int, retry_delay: float | None, chance: float, backoff: Any = None) -> float:
    """Return the seconds to wait after `attempt` (from 1) failed.

    A `retry_delay` counts first; at most a tenth is added to it. Then `backoff`, a `Backoff` or a
    function; without both the wait doubles, 1, 2, 4, … up to ten minutes. `chance` in [0, 1) spreads them.

    Raises `ValueError` for a function that does not return a number of seconds, and the errors of that function.
    """
    if retry_delay is not None:
        return retry_delay * (1.0 + 0.1 * chance)
    if backoff is None:
        backoff = DEFAULT_BACKOFF
    if isinstance(backoff, Backoff):
        return backoff.wait(attempt, chance)
    wait = backoff(attempt)
    if type(wait) not in (int, float) or not 0 <= wait <= LIMITS.delay:
        raise ValueError(f"backoff({attempt}) is {wait!r:.60}, and must be a number of seconds")
    return float(wait)


def tries_again_after(
    kind: type[BaseException],
    retry_on: tuple[type[BaseException], ...] | None,
    no_retry_on: tuple[type[BaseException], ...] | None,
) -> bool:
    """Return True where another attempt may follow one that ended with an exception of class `kind`.

    Where both lists have an ancestor of `kind`, the nearer ancestor decides.
    """
    if no_retry_on is None and retry_on is None:
        return True
    for ancestor in kind.__mro__:
        if no_retry_on is not None and ancestor in no_retry_on:
            return False
        if retry_on is not None and ancestor in retry_on:
            return True
    return retry_on is None
