"""Jobs of process mode. Apart from the others, because a worker that has such jobs keeps children warm."""

from __future__ import annotations

from work import burn

from pq import api


@api.job(concurrency=api.CPUBOUND)
def burning(self: api.Job, rounds: int) -> int:
    """Pure Python on one core."""
    return burn(rounds)


@api.job(concurrency=api.CPUBOUND)
def trifle(self: api.Job, a: int = 0) -> int:
    """Next to nothing, in another process."""
    return a
