"""The two jobs of the tutorial."""

import asyncio
import time

from pq import api


@api.job()
def addition(self: api.Job, a: float = 0, b: float = 0) -> float:
    """Add two numbers."""
    return a + b


@api.job()
async def asynchronous(self: api.Job, lag: float = 1) -> float:
    """Sleep for `lag` seconds without blocking other tasks; return the elapsed time."""
    start = time.time()
    await asyncio.sleep(lag)
    return time.time() - start
