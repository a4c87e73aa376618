"""The pytest plugin: an application on a real store for each test, a worker beside it, and time that can be moved.

It is loaded by every pytest that this package is installed for, so nothing heavy is imported until a fixture is
used; each fixture has a module in `pq.testing`.

    pq             the application, in a namespace of its own on the session's embedded Valkey
    pq_worker      a worker in this process, in the loop that the test uses
    run_job        run a job as its attempt would be run, without a queue
    assert_queued  a task with these arguments was queued
    pq_clock       move time on: delays, retries, schedules, time-outs

The application is found by the option `pq_app = manage:app` in pytest's configuration, or by a fixture `pq_app`
of your own, which returns one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..app import PulsarQueue
    from .clock import ClockInHand
    from .harness import Harness, WorkerInTest
    from .queued import AssertQueued
    from .running import RunJob

__all__ = [
    "AssertQueued",
    "ClockInHand",
    "RunJob",
    "WorkerInTest",
    "assert_queued",
    "pq",
    "pq_app",
    "pq_clock",
    "pq_worker",
    "run_job",
]

_TYPES = {"AssertQueued": "queued", "ClockInHand": "clock", "RunJob": "running", "WorkerInTest": "harness"}

_key: pytest.StashKey[Harness] = pytest.StashKey()


def __getattr__(name: str) -> Any:
    """Import a type of the fixtures' values when an annotation names it."""
    module = _TYPES.get(name)
    if module is not None:
        return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("pq_app", "the application under test, as module:attribute", default="manage:app")
    parser.addini("pq_data_store", "URL of the store for tests; default: an embedded server for the session")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pq(**settings): settings of the application in this test")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """An async test ends with the end of its apis and its worker, in its own loop: later there is none."""
    harness = item.stash.get(_key, None)
    function = getattr(item, "obj", None)
    if harness is None or not inspect.iscoroutinefunction(function):
        return (yield)
    item.obj = harness.closing(function)  # type: ignore[attr-defined]
    try:
        return (yield)
    finally:
        item.obj = function  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------ fixtures
@pytest.fixture
def pq_app(request: pytest.FixtureRequest) -> PulsarQueue:
    """The application under test; yours may take its place."""
    from .harness import find

    return find(request.config.getini("pq_app"), request.config.rootpath)


@pytest.fixture(scope="session")
def _pq_store(request: pytest.FixtureRequest) -> Iterator[str]:
    from .harness import session_store

    with session_store(request.config.getini("pq_data_store")) as url:
        yield url


@pytest.fixture
def _pq_harness(request: pytest.FixtureRequest, pq_app: PulsarQueue, _pq_store: str) -> Iterator[Harness]:
    from .harness import Harness

    settings: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("pq"))):
        settings.update(marker.kwargs)
    harness = Harness(pq_app, _pq_store, settings)
    request.node.stash[_key] = harness
    yield harness
    harness.close()


@pytest.fixture
def pq(_pq_harness: Harness) -> PulsarQueue:
    """Your application, in an empty namespace of its own on a real store. `pq.api()` queues to it."""
    return _pq_harness.app


@pytest.fixture
def pq_worker(_pq_harness: Harness) -> WorkerInTest:
    """A worker in this process; it starts with the first api, in the loop of that."""
    return _pq_harness.with_worker()


@pytest.fixture
def run_job(_pq_harness: Harness) -> RunJob:
    """`await run_job(job, *args, **kwargs)`: its result or its error; `.wait()` where no loop runs."""
    from .running import RunJob

    return RunJob(_pq_harness)


@pytest.fixture
def assert_queued(_pq_harness: Harness) -> AssertQueued:
    """`assert_queued(job, *args, **kwargs)`: the last task of that job with these arguments."""
    from .queued import AssertQueued

    return AssertQueued(_pq_harness)


@pytest.fixture
def pq_clock(_pq_harness: Harness) -> ClockInHand:
    """`await pq_clock.advance(seconds)`: what is due by then has run; `.wait()` where no loop runs."""
    from .clock import ClockInHand

    return ClockInHand(_pq_harness)
