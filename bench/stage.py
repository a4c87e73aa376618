"""The environment of a measurement: the store, the servers, and their clean-up.

`Stage.close` ends everything that is started here, and every wait has a time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import redis
from application import app

from pq.api import PulsarQueue
from pq.broker.connect import plain_url
from pq.broker.embedded import find_binary
from pq.loops import loop_factory

T = TypeVar("T")

HERE = Path(__file__).parent
LONG = 120.0
"""Longest time of one step in seconds."""


class BenchError(Exception):
    """A step failed; the text has the reason."""


class OwnStore:
    """A Valkey of the benchmark on a Unix socket in its own directory; on disk only on request."""

    def __init__(self, *, append_only: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pq-bench-"))
        self.socket = self.directory / "s"
        self.url = f"unix://{self.socket}"
        self.process = subprocess.Popen(
            [
                *(str(find_binary()), "--port", "0", "--unixsocket", str(self.socket)),
                *("--unixsocketperm", "700", "--dir", str(self.directory), "--save", ""),
                *("--appendonly", "yes" if append_only else "no", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(self._answers, 20.0, "the store did not start")
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise BenchError("the store ended at its start")
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(1)
                link.connect(str(self.socket))
                link.sendall(b"PING\r\n")
                return link.recv(16)[:1] == b"+"
        except OSError:
            return False

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)


class Store:
    """A store, and the keys of the benchmark on it."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace
        # A listener or a slow disk may delay the server; a dead server must not block the benchmark.
        self.client = redis.Redis.from_url(plain_url(url), protocol=2, socket_timeout=LONG)
        self.client.ping()

    def application(self, **settings: Any) -> PulsarQueue:
        """Return the application on this store."""
        return app(data_store=self.url, namespace=self.namespace, **settings)

    @property
    def product(self) -> str:
        """Return the name and version of the server."""
        told = self.client.info("server")
        if "valkey_version" in told:
            return f"Valkey {told['valkey_version']}"
        return f"Redis {told.get('redis_version', '?')}"

    def cpu(self) -> float:
        """Return the CPU time of the server in seconds."""
        told = self.client.info("cpu")
        return float(told["used_cpu_user"] + told["used_cpu_sys"])

    def memory(self) -> int:
        """Return the memory of the server in bytes."""
        return int(self.client.info("memory")["used_memory"])

    def delete(self, pattern: str = "*") -> None:
        """Delete the matching keys of the benchmark."""
        batch: list[Any] = []
        for name in self.client.scan_iter(match=f"{self.namespace}:{pattern}", count=5000):
            batch.append(name)
            if len(batch) >= 5000:
                self.client.unlink(*batch)
                batch.clear()
        if batch:
            self.client.unlink(*batch)

    def delete_finished(self) -> None:
        """Delete the records of tasks; only while none is queued or runs."""
        self.delete("{*}:task:*")

    def commands(self, seconds: float) -> float:
        """Return the commands a second of clients, without those of scripts and of the benchmark."""
        link = redis.Redis.from_url(plain_url(self.url), protocol=2)
        try:
            with link.monitor() as monitor:
                connection = monitor.connection
                number, until = 0, time.monotonic() + seconds
                while (left := until - time.monotonic()) > 0:
                    if connection.can_read(timeout=left):
                        number += b"lua]" not in connection.read_response(disable_decoding=True)[:64]
        finally:
            link.close()
        return number / seconds

    def close(self) -> None:
        self.client.close()


class Server:
    """A server process of the application, `python application.py …`, with its log in a file."""

    def __init__(self, arguments: tuple[str, ...], store: Store, directory: Path, **settings: str) -> None:
        self.log = directory / f"server-{time.monotonic_ns()}.log"
        self.started = time.perf_counter()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "application.py"), *arguments],
                cwd=directory,
                env={**environment(store), "TMPDIR": str(directory), **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the benchmark handles Ctrl-C
            )

    def ready(self, workers: int) -> Server:
        """Wait for N ready workers."""
        wait_until(lambda: len(self.workers()) >= workers, 30.0, self._failure)
        return self

    def workers(self) -> list[int]:
        """Return the process ids of workers that have logged `ready`."""
        return [int(pid) for pid in re.findall(r"ready · pid (\d+)", self.log.read_text("utf-8", "replace"))]

    def _failure(self) -> str:
        return f"the server is not ready:\n{self.log.read_text('utf-8', 'replace')[-2000:]}"

    def stop(self) -> None:
        """Stop the server, and kill the rest of its session."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


class Stage:
    """The store, at most one server at a time, and a loop for the producer."""

    def __init__(self, redis_url: str | None) -> None:
        for name in [name for name in os.environ if name.startswith("PQ_")]:
            del os.environ[name]  # set by the user for another application
        self._stack = contextlib.ExitStack()
        self._server: Server | None = None
        self._wanted: tuple[Any, ...] = ()
        self.has_own_store = redis_url is None
        try:
            self.directory = Path(tempfile.mkdtemp(prefix="pq-bench-"))
            self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._runner = self._stack.enter_context(asyncio.Runner(loop_factory=loop_factory()))
            self.store = self._own_store() if redis_url is None else self._foreign(redis_url)
        except BaseException:
            self._stack.close()
            raise

    def _own_store(self, *, append_only: bool = False) -> Store:
        own = OwnStore(append_only=append_only)
        self._stack.callback(own.close)
        store = Store(own.url, "pq")
        self._stack.callback(store.close)
        return store

    def _foreign(self, url: str) -> Store:
        store = Store(url, f"pq-bench-{os.getpid()}")
        self._stack.callback(store.close)
        self._stack.callback(store.delete)
        return store

    def append_only_store(self) -> Store:
        """Start another store with an append-only file that is synced every second, like the embedded one."""
        return self._own_store(append_only=True)

    def close(self) -> None:
        """Stop everything that was started."""
        try:
            self.end_server()
        finally:
            self._stack.close()

    # ------------------------------------------------------------------------------- processes
    def server(self, workers: int, *arguments: str, store: Store | None = None, **settings: str) -> Server:
        """Return a server with N ready workers; the running one, if it fits."""
        wanted = (workers, arguments, store, tuple(settings.items()))
        if self._server is None or self._wanted != wanted:
            self.end_server()
            self._wanted = wanted
            self._server = self.start_server(workers, *arguments, store=store, **settings)
            self._server.ready(workers)
        return self._server

    def start_server(
        self, workers: int, *arguments: str, store: Store | None = None, **settings: str
    ) -> Server:
        """Start a new server; the caller stops it."""
        words = ("-w", str(workers), *arguments)
        return Server(words, store or self.store, self.directory, **settings)

    def end_server(self) -> None:
        """Stop the running server."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def floor(self, *words: object, store: Store | None = None) -> dict[str, float]:
        """Run the floor in another process."""
        return self.script("floor.py", *words, store=store)

    def bare_tasks(self, n: int, *, store: Store | None = None) -> dict[str, float]:
        """Return the rates of the bare protocol."""
        where = store or self.store
        return self.floor("tasks", plain_url(where.url), f"{where.namespace}:floor:", n, store=where)

    def script(self, name: str, *words: object, store: Store | None = None) -> dict[str, float]:
        """Run a script of this directory that prints JSON."""
        done = subprocess.run(
            [sys.executable, str(HERE / name), *map(str, words)],
            cwd=self.directory,
            env=environment(store or self.store),
            capture_output=True,
            text=True,
            timeout=LONG,
        )
        if done.returncode:
            raise BenchError(f"{name} failed:\n{done.stderr[-2000:]}")
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[int]]:
        """Run a listener to every `done` event; afterwards the list has their number."""
        heard: list[int] = []
        process = subprocess.Popen(
            [sys.executable, str(HERE / "listener.py")],
            cwd=self.directory,
            env=environment(self.store),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "listening":
                raise BenchError("the listener did not start")
            yield heard
            said, _ = process.communicate(timeout=LONG)
            heard.append(int(said))
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)

    # ----------------------------------------------------------------------------- in this loop
    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in this process with a time-out."""

        async def bounded() -> T:
            async with asyncio.timeout(LONG):
                return await work

        return self._runner.run(bounded())

    @contextlib.asynccontextmanager
    async def api(self, store: Store | None = None) -> Any:
        """Open a producer on a store, in the running loop."""
        async with (store or self.store).application().api() as api:
            yield api

    async def preload(
        self, items: Iterable[tuple[str, dict[str, Any]]], queue: str = "default", store: Store | None = None
    ) -> int:
        """Fill a paused queue and return its size. The results are not awaited."""
        number = 0
        async with self.api(store) as api:
            await (await api.broker()).work.pause(queue, True)
            for some in _handfuls(items):
                futures = api.tasks.queue_many(some, callback=False, queue=queue)
                number += len(futures)
                await asyncio.gather(*futures)
        return number

    async def drain(self, n: int, queue: str = "default", store: Store | None = None) -> float:
        """Resume a filled queue; return the seconds until all of its `n` tasks are settled."""
        broker = await (store or self.store).application().store.broker(name="pq-bench")
        await broker.open()
        try:
            await broker.looks.state(queue)  # connects
            started = time.perf_counter()
            await broker.work.pause(queue, False)
            while True:
                state = await broker.looks.state(queue)
                now = time.perf_counter()
                left = state.waiting + state.held
                if not left:
                    return now - started
                # A poll costs the server: poll rarely at first, often near the end.
                rate = (n - left) / (now - started)
                await asyncio.sleep(min(0.25, max(0.001, 0.5 * left / rate if rate else 0.002)))
        finally:
            await broker.close()


def environment(store: Store) -> dict[str, str]:
    """Return the environment of a child process that uses this store."""
    return {
        **os.environ,
        "PQ_DATA_STORE": store.url,
        "PQ_NAMESPACE": store.namespace,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "PYTHONUNBUFFERED": "1",
    }


def wait_until(come_true: Any, seconds: float, failure: Any) -> None:
    """Wait with a time-out; `failure` is the text of the error, or a function that makes it."""
    deadline = time.monotonic() + seconds
    while not come_true():
        if time.monotonic() > deadline:
            raise BenchError(failure() if callable(failure) else failure)
        time.sleep(0.002)


def _handfuls(items: Iterable[Any], size: int = 5000) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
