"""The bytes of one connection: commands out, replies in, and nothing between them and us.

redis-py connects and logs in (TCP, TLS, Unix socket, user and password, database). Then its place on the
transport is taken by a protocol of ours, which has hiredis parse what arrives as it arrives. For a call
that waits for one reply the library's own way, through a stream reader, costs several turns of the event
loop, a quarter of the whole time from queueing a task to its result (docs/decisions/0009).

redis-py has no public way to its transport. The one private name that this takes is used in `open`, and
`tests/broker/test_wire.py` fails when it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import redis.exceptions as redis_errors
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection

Maker = Callable[[], AbstractConnection | Awaitable[AbstractConnection]]
"""Makes a connection, not yet connected; or looks the server up first, and returns a connected one."""

_NOTHING: Any = object()
_error = BaseParser.parse_error


class Wire(asyncio.Protocol):
    """One connection that has been made. It is used for calls, or for what the server sends by itself:
    then `on_push` gets that, and in the end the error that the connection ended with.
    """

    def __init__(self, connection: AbstractConnection, on_push: Callable[[Any], None] | None) -> None:
        self._connection = connection  # held: its end would close the transport
        self._on_push = on_push
        self._reader = hiredis.Reader(
            protocolError=redis_errors.InvalidResponse, replyError=_error, notEnoughData=_NOTHING
        )
        self._transport: asyncio.WriteTransport | None = None
        self._replies: list[Any] = []
        self._expected = 0
        self._answer: asyncio.Future[list[Any]] | None = None
        self.lost: BaseException | None = None
        """Why it is gone; None while it stands."""

    @classmethod
    async def open(cls, make: Maker, on_push: Callable[[Any], None] | None = None) -> Wire:
        """Connect, log in, and take the transport over. Raises the errors of redis-py and of the socket."""
        made: Any = make()
        connection: AbstractConnection = made if isinstance(made, AbstractConnection) else await made
        try:
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]
            writer = connection._writer
            if writer is None:
                raise redis_errors.ConnectionError("the connection was closed at once")
            wire = cls(connection, on_push)
            wire._transport = writer.transport
            writer.transport.set_protocol(wire)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return wire

    def call(self, packed: list[bytes]) -> asyncio.Future[list[Any]]:
        """Send packed commands in one write; the future gets their replies, errors as values.

        One call at a time.
        """
        answer = self._answer = asyncio.get_running_loop().create_future()
        if self.lost is not None or self._transport is None:
            answer.set_exception(self.lost or redis_errors.ConnectionError("not connected"))
            return answer
        self._replies = []
        self._expected = len(packed)
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        return answer

    def send(self, *command: Any) -> None:
        """Send a command whose reply comes as a push."""
        if self._transport is not None and self.lost is None:
            self._transport.write(hiredis.pack_command(command))

    def abandon(self, why: str) -> None:
        """Have it count as broken: a call under way on it ends with that error."""
        self._lose(redis_errors.ConnectionError(why))

    async def close(self) -> None:
        """Drop the connection, whatever is under way on it; twice is harmless."""
        if self.lost is None:
            self.lost = redis_errors.ConnectionError("closed")
        if self._transport is not None:
            self._transport.abort()  # TLS would say goodbye and wait for an answer, with a loop that may end now
        try:
            await self._connection.disconnect(nowait=True)
        except (OSError, redis_errors.RedisError, asyncio.CancelledError):
            pass  # it was broken already

    # ------------------------------------------------------------------------ of the transport
    def data_received(self, data: bytes) -> None:
        """Parse what came (`asyncio.Protocol`)."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                if self._on_push is not None:
                    self._on_push(reply)
                    continue
                self._replies.append(reply)
                if len(self._replies) == self._expected:
                    answer, self._answer = self._answer, None
                    if answer is not None and not answer.done():
                        answer.set_result(self._replies)
        except redis_errors.InvalidResponse as exc:
            self._lose(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lose(exc or redis_errors.ConnectionError("the server closed the connection"))

    def _lose(self, why: BaseException) -> None:
        if self.lost is None:
            self.lost = why
            if self._on_push is not None:
                self._on_push(why)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(why)
        if self._transport is not None:
            self._transport.abort()
