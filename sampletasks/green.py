"""A green job: plain, synchronous code that can wait without blocking anybody (extra `green`)."""

import asyncio

from pq import api


@api.job(concurrency=api.GREEN_IO)
def three_naps(self: api.Job, lag: float = 0.1) -> list[str]:
    """Sleep three times. There is no `async` and no `await` here; `self.wait` does it."""
    return [self.wait(nap(number, lag)) for number in (1, 2, 3)]


async def nap(number: int, lag: float) -> str:
    """What is waited for: any awaitable."""
    await asyncio.sleep(lag)
    return f"nap {number}"
