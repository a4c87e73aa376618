"""Measured jobs that run in the worker's event loop."""

from __future__ import annotations

import asyncio

from pq import api


@api.job()
async def addition(self: api.Job, a: int = 0, b: int = 0) -> int:
    """Do almost nothing: the rest is the cost of a task."""
    return a + b


@api.job()
def plain(self: api.Job, a: int = 0, b: int = 0) -> int:
    """Do almost nothing, in a plain `def`."""
    return a + b


@api.job()
async def nap(self: api.Job, seconds: float = 0.1) -> float:
    """Sleep only."""
    await asyncio.sleep(seconds)
    return seconds
