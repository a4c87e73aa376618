"""A proxy before a server that breaks one call in a way of the test's choice, and then is honest again."""

from __future__ import annotations

import asyncio
from pathlib import Path

BEFORE = "cut before the request"
AFTER = "cut after it was applied"
INSIDE = "cut inside the reply"
HOLE = "no answer at all"


class Proxy:
    """Listens on `path`, forwards to `target`; both are unix sockets.

    `arm(fault)`: the next request that calls a script meets it; with INSIDE `at` bytes of the reply come through.
    A fault that begins with `-` is an error which every command of the request is answered with.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self._fault: str | None = None
        self._at = 0
        self.met = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self, fault: str, at: int = 0) -> None:
        self._fault, self._at = fault, at

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        back: asyncio.Task[None] | None = None
        try:
            back = asyncio.create_task(self._pump(up_reader, writer))
            while data := await reader.read(1 << 20):
                fault = self._fault if b"EVALSHA" in data else None
                if fault is None:
                    up_writer.write(data)
                    await up_writer.drain()
                    continue
                self._fault = None
                self.met += 1
                if fault.startswith("-"):
                    writer.write(f"{fault}\r\n".encode() * commands_in(data))
                    continue
                if fault == BEFORE:
                    return
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                up_writer.write(data)
                reply = await up_reader.read(1 << 20)
                if fault == INSIDE:
                    writer.write(reply[: max(0, min(self._at, len(reply) - 1))])
                    await writer.drain()
                elif fault == HOLE:
                    await asyncio.sleep(3600)
                return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            if back is not None:
                back.cancel()
            for each in (writer, up_writer):
                each.close()
            self._tasks.discard(task)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 20):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def commands_in(data: bytes) -> int:
    """Return the number of commands of a request (RESP arrays of bulk strings)."""
    count = at = 0
    while at < len(data):
        line = data.index(b"\r\n", at)
        parts, at = int(data[at + 1 : line]), line + 2
        for _ in range(parts):
            line = data.index(b"\r\n", at)
            at = line + 2 + int(data[at + 1 : line]) + 2
        count += 1
    return count
