"""Two servers on two hosts with one store between them; their clocks are two hours apart.

The hosts are network namespaces (see `network`). The tests' own api reaches the same store by a Unix socket.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import network
import pytest
from network import PORT, STORE, Network
from stores import Server

from pq.api import Producer, PulsarQueue
from pq.broker.embedded import find_binary

sys.path.append(str(Path(__file__).parents[1]))
from servers import MANAGE, ROOT, ServerProcess

_missing = network.why_not()
pytestmark = [
    pytest.mark.endurance,
    pytest.mark.lifecycle,
    pytest.mark.timeout(180),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
]
LEASE = 3.0
PASSWORD = "between-us"

JOBS = """\
import asyncio, os, time
from pq import api

NODE = os.environ.get("PQ_NODE_NAME", "")

def note(what):
    with open("runs.txt", "a") as f:
        f.write(f"{what} {NODE} {os.getpid()}\\n")

@api.job()
async def nap(self, n, seconds=0.05):
    note(n)
    await asyncio.sleep(seconds)
    return [n, self.task.node]

@api.job()
async def stays(self):
    child = await self.queue_local("nap", n="child")
    return [NODE, child.result[1], child.queue]

@api.job(run_every=1.0)
def every_second(self):
    note(f"tick-{self.task.id}")
"""


def until(condition: Callable[[], Any], what: str = "it", seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    """A store's host, and `left` and `right`."""
    made = Network("left", "right")
    yield made
    made.close()


class Place:
    """A project on both hosts, and the store between them."""

    def __init__(self, directory: Path, hosts: Network, store: Server) -> None:
        self.directory = directory
        self.hosts = hosts
        self.store = store
        self.servers: dict[str, ServerProcess] = {}
        self.started: list[ServerProcess] = []

    def serve(self, host: str, *arguments: str, skew: float = 0.0, workers: int = 1) -> ServerProcess:
        """A server on that host, whose clock is wrong by `skew` seconds."""
        path = os.pathsep.join([str(network.wrong_clock(self.directory)), str(ROOT)])
        server = self.servers[host] = ServerProcess(
            self.directory,
            *("-w", str(workers), "--lease", f"{LEASE:g}", "--concurrent-tasks", "5", *arguments),
            env={
                "PQ_DATA_STORE": f"redis://:{PASSWORD}@{STORE}:{PORT}/0",
                "PQ_NODE_NAME": host,
                "PQ_TEST_SKEW": str(skew),
                "PYTHONPATH": path,
            },
            prefix=self.hosts.on(host),
        )
        self.started.append(server)
        return server

    def both(self, *arguments: str) -> None:
        """A server on either host; their clocks are an hour slow, and an hour fast."""
        self.serve("left", *arguments, skew=-3600)
        self.serve("right", *arguments, skew=3600)
        for server in self.servers.values():
            server.ready(1)

    def runs(self) -> list[tuple[str, str]]:
        """Return the jobs that began, and on which host."""
        path = self.directory / "runs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines if len(line.split()) == 3]


@pytest.fixture
def place(tmp_path: Path, hosts: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "config.py").write_text('task_paths = ["jobs"]\n')
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    store = Server(
        find_binary(), "--bind", STORE, "--port", str(PORT), "--requirepass", PASSWORD, "--protected-mode", "yes",
        start=False,
    )  # fmt: skip
    store.command = [*hosts.on("store"), *store.command]
    store.start()
    made = Place(tmp_path, hosts, store)
    yield made
    for name in hosts.names:
        hosts.plug(name)
    for server in made.started:
        server.kill()
    store.close()


@pytest.fixture
def api(place: Place) -> Iterator[Producer]:
    url = place.store.url.replace("unix://", f"unix://:{PASSWORD}@")
    producer = PulsarQueue(task_paths=[], data_store=url, node_name="here").api()
    yield producer
    producer.close()


def test_they_share_the_work(place: Place, api: Producer) -> None:
    """Both take from one queue; each task runs once, whatever their clocks say."""
    place.both()
    tasks = [f.wait(60) for f in api.tasks.queue_many([("nap", {"n": n}) for n in range(200)])]
    assert [task.result[0] for task in tasks] == list(range(200))
    by_host = Counter(task.result[1] for task in tasks)
    assert by_host.keys() == {"left", "right"}
    assert set(Counter(what for what, _ in place.runs()).values()) == {1}
    assert [server.stop() for server in place.servers.values()] == [0, 0]


def test_a_local_queue_is_of_one_host(place: Place, api: Producer) -> None:
    """A task that a job queues with `queue_local` runs on its own host, and a host can be named as a queue."""
    place.both()
    for task in [f.wait(60) for f in api.tasks.queue_many([("stays", {})] * 4)]:
        here, there, queue = task.get()
        assert here == there == queue
    assert api.tasks.queue("nap", n=1, queue="right").wait(60).result == [1, "right"]


def test_clocks_that_are_wrong_decide_nothing(place: Place, api: Producer) -> None:
    """Delays go by the store's clock, no lease is taken from its holder, and a tick runs once."""
    place.both("--schedule-periodic")
    begun = time.monotonic()
    delayed = [api.tasks.queue("nap", n=n, delay=2) for n in range(10)]
    long = [api.tasks.queue("nap", n=f"long{n}", seconds=2.5 * LEASE) for n in range(4)]
    assert [f.wait(60).result[0] for f in delayed] == list(range(10))
    assert time.monotonic() - begun >= 2
    assert [f.wait(60).retry for f in long] == [1] * 4
    ticks = Counter(what for what, _ in place.runs() if what.startswith("tick-"))
    assert len(ticks) >= 5
    assert set(ticks.values()) == {1}, "no tick ran twice"
    assert {
        n for what, n in Counter(what for what, _ in place.runs()).items() if what.startswith("long")
    } == {1}


def test_one_host_is_drained(place: Place, api: Producer) -> None:
    """SIGTERM there: its running tasks end, the other goes on, nothing is lost and nothing is charged."""
    place.both()
    futures = api.tasks.queue_many([("nap", {"n": n, "seconds": 0.1}) for n in range(150)])
    until(lambda: {host for _, host in place.runs()} == {"left", "right"}, "both at work")
    assert place.servers["left"].stop() == 0
    tasks = [future.wait(60) for future in futures]
    assert {(task.status_string, task.retry) for task in tasks} == {("SUCCESS", 1)}
    assert set(Counter(what for what, _ in place.runs()).values()) == {1}
    place.serve("left").ready(1)
    assert api.tasks.queue("nap", n="again", queue="left").wait(60).result == ["again", "left"]


def test_a_host_is_cut_off(place: Place, api: Producer) -> None:
    """Its cable is pulled: the other has its tasks when the lease is over; it comes back and changes nothing."""
    place.both()
    futures = api.tasks.queue_many([("nap", {"n": n, "seconds": 3 * LEASE}) for n in range(10)])
    until(lambda: len(place.runs()) == 10, "all of them at work")
    place.hosts.unplug("left")
    there = {what for what, host in place.runs() if host == "left"}
    assert there
    tasks = [future.wait(90) for future in futures]
    assert [task.result[0] for task in tasks] == list(range(10))
    assert {task.result[1] for task in tasks if str(task.result[0]) in there} == {"right"}
    place.hosts.plug("left")
    place.servers["left"].wait_for("lost its lease|results were refused|the store is back", timeout=60)
    assert api.tasks.queue("nap", n="back", queue="left").wait(60).result == ["back", "left"]
    assert {f.wait(1).result[1] for f in futures if str(f.wait(1).result[0]) in there} == {"right"}


def test_a_short_cut_costs_nothing(place: Place, api: Producer) -> None:
    """Off the network for a third of a lease: each task still runs once, where it was begun."""
    place.both()
    futures = api.tasks.queue_many([("nap", {"n": n, "seconds": 1.5}) for n in range(10)])
    until(lambda: len(place.runs()) == 10, "all of them at work")
    place.hosts.unplug("left")
    time.sleep(LEASE / 3)  # lifecycle: as long as it takes is what is tested
    place.hosts.plug("left")
    tasks = [future.wait(90) for future in futures]
    assert {task.retry for task in tasks} == {1}
    assert len(place.runs()) == 10


def test_a_host_dies(place: Place, api: Producer) -> None:
    """All of its processes at one moment: its tasks go on elsewhere when the lease is over."""
    place.both()
    futures = api.tasks.queue_many([("nap", {"n": n, "seconds": 1.0}) for n in range(10)])
    until(lambda: len(place.runs()) == 10, "all of them at work")
    os.killpg(place.servers["left"].process.pid, signal.SIGKILL)
    tasks = [future.wait(90) for future in futures]
    assert [task.result[0] for task in tasks] == list(range(10))
    assert {host for what, host in place.runs()[10:]} == {"right"}
