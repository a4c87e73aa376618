"""The application under test: a real store, a real worker, a real producer, in the process of the test.

Two things differ from a server. The worker lives in the test's own process, in the loop of the api that is used
first: the test's own in an async test, the producer's background loop in a plain one. And the application has a
clock that can be moved (`pq.testing.moving`).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..app import PulsarQueue
from ..broker.connect import plain_url
from ..broker.embedded import EmbeddedServer
from ..broker.redis.clearing import remove_namespace
from ..cli import find_app
from ..clock import MovedClock
from ..errors import AppNotFound
from ..loops import running_loop
from ..model.task import Task
from ..producer.current import Api, open_apis
from ..producer.producer import Producer
from ..worker.worker import Worker
from .moving import TimeMover

_numbers = itertools.count(1)


def find(name: str, root: Path) -> PulsarQueue:
    """Return the application `module:attribute`, also where pytest was started outside of its root directory."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        found: Any = find_app(name)
    except AppNotFound as exc:
        raise AppNotFound(
            exc.message,
            hint="set pq_app = module:attribute in pytest's configuration, or write a fixture pq_app",
        ) from exc
    return _application(found)


def _application(found: Any) -> PulsarQueue:
    if not isinstance(found, PulsarQueue):
        raise AppNotFound(
            f"pq_app is of type {type(found).__name__}, which is not an application",
            hint="it is a PulsarQueue: `@pytest.fixture def pq_app(): return PulsarQueue(…)`",
        )
    return found


@contextlib.contextmanager
def session_store(url: str) -> Iterator[str]:
    """Yield the URL of the store for a session: the named one, or a Valkey of its own that leaves nothing."""
    if url:
        yield plain_url(url)
        return
    with tempfile.TemporaryDirectory(prefix="pq-pytest-") as directory:
        server = EmbeddedServer(Path(directory) / "pq")
        server.attach()
        try:
            yield server.url
        finally:
            server.detach()


class Harness:
    """An application for one test, and all that runs of it in this process."""

    def __init__(self, app: PulsarQueue, url: str, settings: Mapping[str, Any]) -> None:
        self.clock = MovedClock()
        self.url = url
        self.queued: list[tuple[Task[Any], asyncio.Future[Task[Any]]]] = []
        self.worker: Worker | None = None
        self._mover = TimeMover(self.clock, self._apis)
        self._wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._guards: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        # Unique per process and test: several pytest processes may share a store.
        namespace = f"test-{os.getpid()}-{next(_numbers)}-{os.urandom(3).hex()}"
        own = copy.copy(_application(app))
        own.configure(
            {
                "schedule_periodic": False,
                "report_mail_to": (),
                "report_webhook": None,
                **settings,
                "data_store": url,
                "message_broker": None,
                "namespace": namespace,
            }
        )
        own.clock = self.clock
        own.companion = self._begin
        own.store.on_submit = lambda task, future: self.queued.append((task, future))
        self.app = own
        # The reference keeps it alive: `addition.queue(…)` finds living apis.
        self.api: Producer = own.api()

    def with_worker(self) -> WorkerInTest:
        """Run tasks from now on."""
        self._wanted = True
        for api in self._apis():  # a fixture may have queued something already
            for loop in api.loops():
                loop.call_soon_threadsafe(self._start_there, loop)
        return WorkerInTest(self)

    def _start_there(self, loop: asyncio.AbstractEventLoop) -> None:
        starting = loop.create_task(self._start_worker())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _begin(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Start what an api needs in this loop; return how to stop it."""
        here = asyncio.get_running_loop()
        if here not in self._guards:
            self._guards[here] = here.create_task(self._guard())
        await self._start_worker()
        return self._end

    async def _end(self) -> None:
        guard = self._guards.pop(asyncio.get_running_loop(), None)
        if guard is not None and guard is not asyncio.current_task():
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
        await self._stop_worker()

    async def _guard(self) -> None:
        """Wait for the end of this loop: `asyncio.run` cancels what is left in it, and waits for that."""
        here = asyncio.get_running_loop()
        try:
            await asyncio.Event().wait()
        finally:
            if self._guards.get(here) is asyncio.current_task():
                await self._close_here()

    async def _start_worker(self) -> None:
        if self._wanted and self.worker is None:
            self._loop = asyncio.get_running_loop()
            worker = self.worker = self.app.worker()
            try:
                await worker.start()
            except BaseException:
                self.worker = None
                raise

    async def _stop_worker(self) -> None:
        worker, loop = self.worker, self._loop
        if worker is None or loop is None or loop.is_closed():
            return
        self.worker = None
        if loop is running_loop():
            await worker.stop(grace=0.0)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(worker.stop(grace=0.0), loop))

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`; return when what comes due by then has run."""
        loop = self._loop
        if self.worker is not None and loop is not None and loop is not running_loop():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.advance(seconds), loop))
            return
        await self._mover.advance(self.worker, seconds)

    def closing(self, test: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return `test` with the end of all that lives in its loop added."""

        @functools.wraps(test)
        async def closing(*args: Any, **kwargs: Any) -> Any:
            try:
                return await test(*args, **kwargs)
            finally:
                await self._close_here()

        return closing

    async def _close_here(self) -> None:
        here = asyncio.get_running_loop()
        await self._end()
        for api in self._apis():
            if here in api.loops():
                await api.close()
            else:
                await asyncio.to_thread(api.close)

    def close(self) -> None:
        """End what a plain test used and what an async one left; no loop runs here."""
        for api in self._apis():
            for loop in api.loops():
                if not loop.is_closed() and not loop.is_running():
                    loop.run_until_complete(api.close())
            api.close()
        remove_namespace(plain_url(self.url), self.app.cfg.namespace)

    def _apis(self) -> list[Api]:
        namespace = self.app.cfg.namespace
        return [api for api in open_apis() if api.cfg.namespace == namespace]


class WorkerInTest:
    """The worker beside a test. It starts with the first api and ends with the test."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    @property
    def worker(self) -> Worker | None:
        """The worker itself; None before an api has been used."""
        return self._harness.worker

    def __repr__(self) -> str:
        worker = self.worker
        return f"<worker {worker.name}, {worker.counts}>" if worker is not None else "<worker, not started>"
