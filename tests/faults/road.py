"""A road to a server, which can be closed, slowed down, and made a dead end, for all connections on it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path


class Road:
    """Listens on `path` and forwards to `target`; both are unix sockets.

    `delay`: seconds for which all data is kept. `open` cleared: nothing gets through, without an error.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.delay = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.used = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._travellers: set[asyncio.Task[None]] = set()
        self._dead_ends: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def __aenter__(self) -> Road:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._travellers):
            task.cancel()
        await asyncio.gather(*self._travellers, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection, at this moment."""
        for writer in list(self._writers):
            writer.transport.abort()

    def strand(self) -> None:
        """Open connections get no more data, and no error; new connections get through."""
        self._dead_ends |= self._writers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._travellers.add(task)
        self.used += 1
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()
            self._travellers.discard(task)
            return
        both = {writer, up_writer}
        self._writers |= both
        there = asyncio.create_task(self._carry(reader, up_writer))
        back = asyncio.create_task(self._carry(up_reader, writer))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            for each in both:
                each.close()
            self._writers -= both
            self._dead_ends -= both
            self._travellers.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                await self.open.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if writer not in self._dead_ends:
                    writer.write(data)
                    await writer.drain()
