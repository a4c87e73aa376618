"""A subscription to channels of a store, and its messages."""

from __future__ import annotations

import asyncio
from typing import Any

from pq.broker.contract.values import Message


async def listen(broker: Any, *channels: str) -> tuple[Any, asyncio.Task[Any], list[Message]]:
    """A subscription that is read from; its messages are in the list."""
    subscription = await broker.channels.subscription()
    messages: list[Message] = []

    async def read() -> None:
        async for message in subscription:
            messages.append(message)  # noqa: PERF401 (it is read while it grows)

    reader = asyncio.ensure_future(read())
    await subscription.subscribe(*channels)
    return subscription, reader, messages
