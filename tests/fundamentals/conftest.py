"""A server within the test: a real store, a real worker in the test's own loop, a producer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest

from pq.api import Producer, PulsarQueue

MakeApp = Callable[..., PulsarQueue]


@pytest.fixture
def make_app(valkey: Any, request: pytest.FixtureRequest) -> MakeApp:
    """Make an application on the test's own empty store, with the jobs of the test's module."""
    module: ModuleType = request.module

    def make(**settings: Any) -> PulsarQueue:
        defaults = {"data_store": valkey.url, "task_paths": [module.__name__], "node_name": "here"}
        manager = settings.pop("manager", None)
        arguments = [manager] if manager is not None else []
        return PulsarQueue(*arguments, **{**defaults, **settings})

    return make


@pytest.fixture
def app(make_app: MakeApp) -> PulsarQueue:
    """An application with default settings."""
    return make_app()


@pytest.fixture
async def api(app: PulsarQueue) -> AsyncIterator[Producer]:
    """A producer; no worker consumes."""
    async with app.api() as producer:
        yield producer


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start afterwards send their heartbeat 50 times as often: name this fixture before `serving`."""
    monkeypatch.setattr("pq.worker.heartbeat.EVERY", 0.1)


@pytest.fixture
async def serving(app: PulsarQueue, start_worker: Any, api: Producer) -> Producer:
    """A producer whose tasks are consumed by one worker."""
    await start_worker(app)
    return api
