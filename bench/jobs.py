"""The jobs that are measured, in the worker's event loop."""

from __future__ import annotations

import asyncio

from pq import api


@api.job()
async def addition(self: api.Job, a: int = 0, b: int = 0) -> int:
    """Next to nothing: what is left is the cost of a task."""
    return a + b


@api.job()
def plain(self: api.Job, a: int = 0, b: int = 0) -> int:
    """The same as a plain `def`."""
    return a + b


@api.job()
async def nap(self: api.Job, seconds: float = 0.1) -> float:
    """A task that only waits."""
    await asyncio.sleep(seconds)
    return seconds
