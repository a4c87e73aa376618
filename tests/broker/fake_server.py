"""A server with the answers that a test gives it, and a proxy that loses replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis

TURNS = 5
"""Of the loop, and one more than it takes from accepting a connection to `accepted`: what was accepted at last is in
the set by then, and ends with the others."""


@asynccontextmanager
async def _serving(path: Path, serve: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    """`serve` for each connection to the unix socket `path`; all of them end with the context."""
    connections: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that was cancelled before it began

    server = await asyncio.start_unix_server(accepted, str(path))
    try:
        yield
    finally:
        server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


class Fake:
    """Answers each command by `answer(command)`: bytes to send as they are, or None to hang up."""

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self.answer = answer
        self.connections = 0
        self.heard: list[list[bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.heard.append(command)
                    reply = self.answer(command)
                    if reply is None:
                        return
                    writer.write(reply)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def fake_server(path: Path, answer: Callable[[list[bytes]], bytes | None]) -> AsyncIterator[Fake]:
    """A `Fake` on the unix socket `path`."""
    fake = Fake(answer)
    async with _serving(path, fake.serve):
        yield fake


class Proxy:
    """Passes bytes on; drops the connection in place of the next `lose` replies (after they were made)."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.lose = 0
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_unix_connection(self.target)

        async def requests() -> None:
            while data := await reader.read(65536):
                to_server.write(data)

        upward = asyncio.ensure_future(requests())
        try:
            while data := await there.read(65536):
                if self.lose:
                    self.lose -= 1
                    self.lost += 1
                    break
                writer.write(data)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            to_server.close()
            writer.close()


@asynccontextmanager
async def proxy(path: Path, target: str) -> AsyncIterator[Proxy]:
    """A `Proxy` on the unix socket `path` to the one at `target`."""
    made = Proxy(target)
    async with _serving(path, made.serve):
        yield made


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def ok(*_: Any) -> bytes:
    return b"+OK\r\n"
