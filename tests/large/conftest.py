"""Applications on the test's own store that put large messages into a directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pq.api import PulsarQueue
from pq.worker.worker import Worker

MakeApp = Callable[..., PulsarQueue]
StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory that is shared."""
    place = tmp_path / "large"
    place.mkdir()
    return place


@pytest.fixture
def make_app(valkey: Any, place: Path, request: pytest.FixtureRequest) -> MakeApp:
    """Make an application with the jobs of the test's module; `aside=False`: one without the setting."""
    module: ModuleType = request.module

    def make(*, aside: bool = True, **settings: Any) -> PulsarQueue:
        defaults = {"data_store": valkey.url, "task_paths": [module.__name__], "node_name": "here"}
        if aside:
            defaults |= {"large_above": 10_000, "large_dir": str(place)}
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
