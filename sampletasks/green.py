"""A green job: plain, synchronous code that waits without blocking other tasks (extra `green`)."""

import asyncio

from pq import api


@api.job(concurrency=api.GREEN_IO)
def three_naps(self: api.Job, lag: float = 0.1) -> list[str]:
    """Sleep three times, with `self.wait` instead of `async` and `await`."""
    return [self.wait(nap(number, lag)) for number in (1, 2, 3)]


async def nap(number: int, lag: float) -> str:
    """Sleep and return; any awaitable works."""
    await asyncio.sleep(lag)
    return f"nap {number}"
