"""The backoff between attempts to reach a store that is away.

When it comes back, every client is waiting for it: each worker with three or four connections, each producer with two.
They must not all come at the same moment, or the store gets more connections than it can accept. They lost it at the
same moment, so only chance can spread them: a pause is random between 0 and a span, and the span doubles with each
failure in a row, up to two seconds. So a connection that was merely cut is made again within a few hundredths of a
second; a client that waited for a minute comes at any moment of the two seconds after the store's return; and a store
that is away is tried by each connection once a second on average.
"""

from __future__ import annotations

FIRST = 0.05
"""Seconds that the first pause takes at most."""
LONGEST = 2.0
"""Seconds that any of them takes at most."""


def pause(failures: int, chance: float) -> float:
    """Return the seconds until the next attempt, after `failures` in a row; `chance` is in [0, 1)."""
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 30)) * chance
