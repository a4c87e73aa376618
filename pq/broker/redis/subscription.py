"""A subscription on Redis or Valkey: channels over a connection of their own.

A channel counts as subscribed only when the server has confirmed it. A connection that breaks is made again, and then
a message says that events may have been missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import redis.exceptions as redis_errors

from ...clock import Clock
from ...errors import StoreError, StoreRefused, StoreUnavailable
from ..contract.values import Message
from .backoff import LONGEST, pause
from .failures import translate
from .wire import Maker, Wire


class RedisSubscription:
    """Channels over one connection, which is made again when it breaks.

    After each new connection a `Message` with an empty channel is delivered: events may have been
    missed meanwhile, so a caller that waits for one should look at the records.
    """

    def __init__(
        self,
        make: Maker,
        *,
        where: str,
        patience: float,
        clock: Clock,
        on_closed: Callable[[RedisSubscription], None],
    ) -> None:
        self._make = make
        self._where = where
        self._patience = patience
        self._clock = clock
        self._on_closed = on_closed
        self._channels: dict[str, asyncio.Event] = {}
        self._wire: Wire | None = None
        self._closed = False
        self._news = asyncio.Event()  # a message, another channel, or the end
        self._messages: deque[Message] = deque()
        self._tell_back = False
        self._heard_count = 0
        self._refused: StoreError | None = None

    async def subscribe(self, *channels: str) -> None:
        """See `Subscription.subscribe`. Raises `StoreUnavailable`, `StoreRefused`."""
        fresh = [channel for channel in channels if channel not in self._channels]
        for channel in fresh:
            self._channels[channel] = asyncio.Event()
        self._news.set()
        if fresh and self._wire is not None:
            self._wire.send("SUBSCRIBE", *fresh)
        for channel in channels:
            try:
                async with asyncio.timeout(self._patience):
                    await self._channels[channel].wait()
            except TimeoutError:
                raise StoreUnavailable(f"no Redis or Valkey at {self._where}: could not subscribe") from None
            if isinstance(self._refused, StoreRefused):
                raise self._refused

    def abandon(self, why: str) -> None:
        """Have a new connection made."""
        if self._wire is not None:
            self._wire.abandon(why)

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._closed = True
        self._news.set()
        self._on_closed(self)
        await self._drop()

    def _is_closed(self) -> bool:
        return self._closed

    async def __aiter__(self) -> AsyncIterator[Message]:
        failures = 0
        first = True
        messages = self._messages
        while not self._closed:
            if not self._channels:
                self._news.clear()
                await self._news.wait()
                continue
            stood_from: float | None = None
            try:
                self._tell_back = not first
                await self._connect()
                first, stood_from = False, self._clock.monotonic()
                while not self._closed:
                    while messages:
                        yield messages.popleft()
                    await self._wait()
            except (OSError, TimeoutError, redis_errors.RedisError, StoreError) as exc:
                await self._drop()
                if self._is_closed():
                    return
                error = translate(exc, self._where)
                if isinstance(error, StoreRefused):
                    raise error from exc
                first = False
                # A connection is not enough: a proxy before a store that is away may accept connections, and drop them.
                stood = stood_from is not None and self._clock.monotonic() - stood_from >= LONGEST
                failures = 1 if stood else failures + 1
                await asyncio.sleep(pause(failures, self._clock.random()))

    async def _connect(self) -> None:
        await self._drop()  # that of an iteration which was cancelled
        self._refused = None
        async with asyncio.timeout(10.0):
            self._wire = await Wire.open(self._make, self._heard)
        self._wire.send("SUBSCRIBE", *self._channels)

    async def _wait(self) -> None:
        """Wait for news. A quiet connection may be dead without a sign, so it is pinged now and then."""
        wire = self._wire
        for silence in (15.0, 10.0):
            if wire is None:
                raise redis_errors.ConnectionError("closed")
            if wire.lost is not None:
                raise wire.lost
            if self._refused is not None:
                raise self._refused
            self._news.clear()
            timer = asyncio.get_running_loop().call_later(silence, self._news.set)
            waiting = self._heard_count
            try:
                await self._news.wait()
            finally:
                timer.cancel()
            if self._heard_count != waiting or self._closed or wire.lost is not None:
                return
            wire.send("PING")
        raise TimeoutError

    def _heard(self, reply: Any) -> None:
        """Take what the server sends by itself: called by the connection, as it arrives."""
        self._heard_count += 1
        self._news.set()
        if isinstance(
            reply, redis_errors.RedisError
        ):  # not all that a server answers is a ResponseError: LOADING is none
            # A channel that was not subscribed would never bring anything: subscribe to all again, or, where there is no
            # right to it, have `subscribe` raise.
            self._refused = translate(reply, self._where)
            if isinstance(self._refused, StoreRefused):
                for waiting in self._channels.values():
                    waiting.set()
        if type(reply) is not list or len(reply) < 3:
            return
        kind, channel, payload = reply[:3]
        if kind == b"message":
            self._messages.append(Message(channel.decode(), payload))
        elif kind == b"subscribe":
            confirmed = self._channels.get(channel.decode())
            if confirmed is not None:
                confirmed.set()
            # Not before all is confirmed: what is sent until then is missed too.
            if self._tell_back and all(event.is_set() for event in self._channels.values()):
                self._tell_back = False
                self._messages.append(Message("", b""))

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        for confirmed in self._channels.values():
            confirmed.clear()
        if wire is not None:
            await wire.close()
