"""`self.http`: a client that fits the mode of the job, one for all tasks, closed with the worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Job, Manager, Producer

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}
every_mode = pytest.mark.parametrize("mode", list(MODES))


async def fetch_async(self: Job, url: str) -> tuple[int, str, str]:
    answer = await self.http.get(url)
    return answer.status_code, answer.text, type(self.http).__name__


def fetch(self: Job, url: str) -> tuple[int, str, str]:
    answer = self.wait(self.http.get(url)) if self.concurrency == GREEN_IO else self.http.get(url)
    return answer.status_code, answer.text, type(self.http).__name__


for _mode in MODES:
    _made = pq.job(name=f"{_mode}.fetch", concurrency=MODES[_mode], timeout=20)(
        fetch_async if _mode == "asyncio" else fetch
    )
    globals()[f"job_{_mode}"] = _made


class Site:
    """A server that answers with its path, and counts connections and requests."""

    def __init__(self) -> None:
        self.connections = self.requests = self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                body = head.split(b" ", 2)[1]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield site
    server.close()


@every_mode
async def test_in_every_mode(serving: Producer, site: Site, mode: str) -> None:
    """Async where a job can await, blocking where it cannot; connections are used again."""
    for n in range(3):
        task = await serving.tasks.queue(f"{mode}.fetch", f"{site.url}/{n}")
        kind = "AsyncClient" if mode in ("asyncio", "green") else "Client"
        assert task.get() == (200, f"/{n}", kind)
    assert (site.requests, site.connections) == (3, 1)


async def test_many_at_once(serving: Producer, site: Site) -> None:
    """One client serves them all, in threads too."""
    futures = [serving.tasks.queue(f"{mode}.fetch", f"{site.url}/x") for mode in ("thread", "asyncio") * 20]
    assert {(await future).get()[:2] for future in futures} == {(200, "/x")}


async def test_closed_with_the_worker(
    app: pq.PulsarQueue, api: Producer, site: Site, start_worker: Any
) -> None:
    """No connection is left behind."""
    worker = await start_worker(app)
    for mode in ("asyncio", "thread"):
        (await api.tasks.queue(f"{mode}.fetch", site.url)).get()
    assert site.open == 2
    await worker.stop()
    while site.open:
        await asyncio.sleep(0.01)


async def test_without_a_queue(api: Producer, site: Site) -> None:
    """`execute` has the same client."""
    assert (await api.tasks.execute("asyncio.fetch", site.url)).get()[0] == 200
    assert (await api.tasks.execute("thread.fetch", site.url)).get()[0] == 200


closed: list[bool] = []


class Answer:
    status_code, text = 418, "tea"


class Own:
    def __init__(self, blocking: bool) -> None:
        self.blocking = blocking

    def get(self, url: str) -> Any:
        if self.blocking:
            return Answer()

        async def answer() -> Answer:
            return Answer()

        return answer()

    def close(self) -> None:
        closed.append(self.blocking)


class Hooks(Manager):
    def http(self) -> Any:
        return Own


async def test_the_manager_s_factory_wins(make_app: Any, start_worker: Any) -> None:
    """The factory is called once for each kind; its client is closed at the end."""
    closed.clear()
    app = make_app(manager=Hooks)
    worker = await start_worker(app)
    async with app.api() as api:
        for mode in ("asyncio", "thread", "green", "asyncio"):
            assert (await api.tasks.queue(f"{mode}.fetch", "anywhere")).get() == (418, "tea", "Own")
    await worker.stop()
    assert sorted(closed) == [False, True]


async def test_without_the_library(serving: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job fails, and the error has the command to type."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    task = await serving.tasks.queue("asyncio.fetch", "http://localhost")
    assert task.reason == "extra-needed"
    assert "needs httpx2" in (task.exception or "")
    assert "pip install 'pq-tasks[http]'" in (task.stacktrace or "")
