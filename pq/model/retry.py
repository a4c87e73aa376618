"""How long a task waits between two attempts."""

from __future__ import annotations

MAX_BACKOFF = 600.0
"""Seconds; exponential back-off grows no further."""


def retry_wait(attempt: int, retry_delay: float | None, chance: float) -> float:
    """Seconds to wait after `attempt` (from 1) failed.

    A job that names a `retry_delay` gets that, plus at most a tenth. Without one the wait doubles, 1,
    2, 4, … up to ten minutes, and lies anywhere in the upper half of that span. `chance` in [0, 1)
    spreads them: tasks that failed together (a service was down) must not come back together.
    """
    if retry_delay is not None:
        return retry_delay * (1.0 + 0.1 * chance)
    # The exponent is capped before it is used: 2.0 ** 2000 is an OverflowError, not a large number.
    return min(MAX_BACKOFF, 2.0 ** min(attempt - 1, 30)) * (0.5 + 0.5 * chance)
