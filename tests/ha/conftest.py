"""Applications and workers for the tests on fleets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from pq.api import PulsarQueue
from pq.worker.worker import Worker

MakeApp = Callable[..., PulsarQueue]
StartWorker = Callable[..., Awaitable[Worker]]


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
