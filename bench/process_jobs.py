"""Jobs of process mode, in a module of their own: a worker with such jobs keeps children warm."""

from __future__ import annotations

from work import burn

from pq import api


@api.job(concurrency=api.CPUBOUND)
def burning(self: api.Job, rounds: int) -> int:
    """Compute in pure Python on one core."""
    return burn(rounds)


@api.job(concurrency=api.CPUBOUND)
def trifle(self: api.Job, a: int = 0) -> int:
    """Do almost nothing, in another process."""
    return a
