"""One connection to the store, used with care.

redis-py makes the connection (TCP, TLS, Unix socket, login). What goes over it is ours to decide
(`pq.broker.redis.wire`), because the client library is part of the protocol:

* Nothing is repeated by the client library. `Calls` repeats, and knows what may be repeated.
* A call that does not end normally (cancelled, timed out, broken) leaves a reply under way, and the
  next caller would read it as its own. So the connection is always dropped, and the next call makes a new one.
* Each call has an end: `timeout` seconds.

Several commands go out in one write, and their replies are read in one go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import hiredis
import redis.exceptions as redis_errors

from .failures import translate
from .wire import Maker, Wire

Command = tuple[Any, ...]


class Caller(Protocol):
    """Where calls go: one connection, or one to each node of a cluster."""

    failures: int
    """Attempts that had failed in a row when the last call was given up: the next one goes on from there."""

    def stands_since(self, keys: Iterable[str]) -> float | None:
        """Return since when, by the loop's clock, the connections to the servers of these keys have stood unbroken.

        None while one of them does not.
        """
        ...

    async def call(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send commands in one write; return their replies, errors included as values.

        Raises `StoreUnavailable` when a connection fails: then any of them may have been applied.
        """
        ...

    async def reset(self) -> None:
        """Have the next call make a new connection, or look up again where the servers are."""

    async def close(self) -> None:
        """Close the connections; twice is harmless."""

    def abandon(self, why: str) -> None:
        """Have the next call make a new connection, and one that is under way fail."""


class Link:
    """A connection, made on first use and again after each failure. Calls take turns."""

    def __init__(
        self,
        make: Maker,
        *,
        where: str,
        stated: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._make = make
        self._where = where
        self._stated = stated
        self._timeout = timeout
        self._wire: Wire | None = None
        self._since = 0.0
        self._turn = asyncio.Lock()
        self.failures = 0

    @property
    def connected_since(self) -> float | None:
        """When this connection was made, by the loop's clock; None while there is none."""
        return self._since if self._wire is not None and self._wire.lost is None else None

    def stands_since(self, keys: Iterable[str]) -> float | None:
        """See `Caller.stands_since`: all keys are at this server."""
        return self.connected_since

    async def call(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """See `Caller.call`."""
        async with self._turn:
            try:
                wire = self._wire
                if wire is None or wire.lost is not None:
                    wire = await self._connect(timeout or self._timeout)
                answer = wire.call([hiredis.pack_command(command) for command in commands])
                # A timer by hand: `asyncio.timeout` costs four times as much, and each round trip pays it.
                timer = answer.get_loop().call_later(timeout or self._timeout, _expire, answer)
                try:
                    return await answer
                finally:
                    timer.cancel()
            except BaseException as exc:
                await self._drop()
                if isinstance(exc, (TimeoutError, OSError, redis_errors.RedisError)):
                    raise translate(exc, self._where, self._stated) from exc
                raise

    async def close(self) -> None:
        """Close the connection; twice is harmless."""
        await self._drop()

    async def reset(self) -> None:
        """Have the next call make a new connection."""
        async with self._turn:
            await self._drop()

    def abandon(self, why: str) -> None:
        """Have the next call make a new connection, and one that is under way fail."""
        if self._wire is not None:
            self._wire.abandon(why)

    async def _connect(self, timeout: float) -> Wire:
        await self._drop()
        async with asyncio.timeout(timeout):
            wire = self._wire = await Wire.open(self._make)
        self._since = asyncio.get_running_loop().time()
        return wire

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()


def _expire(answer: asyncio.Future[list[Any]]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
