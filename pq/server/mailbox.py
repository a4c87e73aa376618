"""A mailbox: messages between two processes of one server.

Messages are small dictionaries, packed with msgpack and framed by their length, over a socket pair. The end
of the stream says that the process at the other end is gone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgpack

_LENGTH = struct.Struct(">I")
LARGEST = 1 << 20
"""Bytes of the largest message; a longer one means that the stream is out of sync."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends, for two processes."""
    return socket.socketpair()


class Mailbox:
    """One end of a mailbox, in an event loop."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Begin to send and receive in the running loop."""
        self._end.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=self._end)

    def send(self, kind: str, **facts: Any) -> None:
        """Send a message; dropped when the other end is closed, because no process would read it."""
        if self._writer is None or self._writer.is_closing():
            return
        data = msgpack.packb({"kind": kind, **facts})
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Yield messages until the other end is closed."""
        assert self._reader is not None
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                if length > LARGEST:
                    return
                yield msgpack.unpackb(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return

    async def close(self) -> None:
        """Send what is buffered and close; twice is harmless."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            async with asyncio.timeout(1.0):
                await writer.drain()
            writer.close()
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass
