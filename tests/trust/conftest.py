"""Applications with keys on the test's own store, workers in the test's own loop, and real servers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pq.api import PulsarQueue
from pq.worker.worker import Worker

sys.path.append(str(Path(__file__).parents[1] / "lifecycle"))
from servers import project, serve

__all__ = ["project", "serve"]

MakeApp = Callable[..., PulsarQueue]
StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
def make_app(valkey: Any, request: pytest.FixtureRequest) -> MakeApp:
    """Make an application on the test's own empty store, with the jobs of the test's module."""
    module: ModuleType = request.module

    def make(**settings: Any) -> PulsarQueue:
        defaults = {"data_store": valkey.url, "task_paths": [module.__name__], "node_name": "here"}
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
