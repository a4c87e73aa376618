"""Hard cases for a server: hundreds of crashing children, a blocked loop, commands at bad moments, a full store."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import Serve, alive
from stores import Server

from pq.api import Producer, PulsarQueue, QueueFull
from pq.broker.embedded import find_binary

pytestmark = pytest.mark.lifecycle

JOBS = """\
import asyncio, os, signal, time
from pq import api

def note(key):
    with open("runs.txt", "a") as f:
        f.write(f"{key} {os.getpid()} {time.monotonic():.3f}\\n")

@api.job(concurrency=api.CPUBOUND)
def sometimes_segfaults(n):
    if n % 10 == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    return n

@api.job()
async def nap(key, seconds):
    note(key)
    await asyncio.sleep(seconds)
    return key

@api.job()
def holds_the_loop(seconds):
    note("held")
    time.sleep(seconds)
    return seconds

@api.job()
async def large(n):
    return "x" * 20_000
"""


def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def runs(project: Path) -> Counter[str]:
    path = project / "runs.txt"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


@pytest.mark.endurance
@pytest.mark.timeout(240)
def test_a_child_segfaults_100_times_among_1000_tasks(api: Producer, serve: Serve) -> None:
    """Each costs its own task alone: the other 900 have their results, and the worker is the same one."""
    server = serve("-w", "1", "--processes", "2", "--max-crashes", "1").ready(1)
    (worker,) = server.worker_pids()
    futures = api.tasks.queue_many([("sometimes.segfaults", {"n": n}) for n in range(1000)])
    tasks = [future.wait(200) for future in futures]
    for n, task in enumerate(tasks):
        if n % 10:
            assert (task.status_string, task.result) == ("SUCCESS", n)
        else:
            assert (task.status_string, task.reason) == ("FAILURE", "worker-lost"), n
    assert server.worker_pids() == [worker]
    assert server.stop() == 0


@pytest.mark.endurance
@pytest.mark.timeout(120)
def test_a_job_holds_the_loop_for_ten_leases(project: Path, api: Producer, serve: Serve) -> None:
    """It keeps its lease, since a thread renews it, though another worker looks for abandoned tasks: it runs once."""
    server = serve("-w", "2", "--lease", "1.5", "--concurrent-tasks", "1").ready(2)
    future = api.tasks.queue("holds.the.loop", seconds=15)
    until(lambda: runs(project)["held"])
    done = 0
    while not future.done():  # the other one is kept at work, so it sweeps now and then
        assert api.tasks.queue("nap", key="n", seconds=0.05).wait(30).get() == "n"
        done += 1
    assert (future.wait(10).get(), future.wait(10).retry) == (15, 1)
    assert runs(project)["held"] == 1
    assert done > 10, "the other worker went on"
    server.wait_for(r"holds\.the\.loop .* holds the event loop")
    assert server.stop() == 0


@pytest.mark.endurance
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(3))
def test_sigterm_at_any_moment_of_the_work(project: Path, api: Producer, serve: Serve, seed: int) -> None:
    """Stopped again and again while it works: each task ran once to its end, and none is charged with anything."""
    chance = random.Random(seed)
    futures = api.tasks.queue_many([("nap", {"key": str(n), "seconds": 0.02}) for n in range(600)])
    codes = []
    for _ in range(3):
        server = serve("-w", "2", "--concurrent-tasks", "3").ready(1)
        time.sleep(chance.uniform(0.0, 0.6))  # lifecycle: the moment is what is tested
        codes.append(server.stop())
    serve("-w", "2").ready(2)
    tasks = [future.wait(120) for future in futures]
    assert [task.get() for task in tasks] == [str(n) for n in range(600)]
    assert {(task.retry, task.run_info.get("crashes")) for task in tasks} == {(1, None)}
    assert codes == [0, 0, 0]
    assert set(runs(project).values()) == {1}, "drained: nothing was begun twice"


def test_a_second_sigterm_hands_back_now(project: Path, api: Producer, serve: Serve) -> None:
    """The first signal drains, for any time; the second releases the running tasks, unspent."""
    server = serve("-w", "1").ready(1)
    (worker,) = server.worker_pids()
    future = api.tasks.queue("nap", key="long", seconds=600)
    until(lambda: runs(project))
    server.send(signal.SIGTERM)
    server.wait_for("stopping: running tasks get up to 30 s")
    time.sleep(0.4)  # lifecycle: two orders, not one that is delivered twice
    assert alive(worker)
    server.send(signal.SIGTERM)
    server.wait_for("running tasks are released")
    assert server.process.wait(25) == 0
    assert not future.done()
    assert api.tasks.size("default").wait(10) == {"default": 1}
    waiting = api.tasks.get(future.id).wait(10)
    assert (waiting.status_string, waiting.retry) == ("QUEUED", 1)


# ------------------------------------------------------------------------------------------ no room
@pytest.fixture
def small_store() -> Iterator[Server]:
    """A store with room for some megabytes and no more."""
    server = Server(find_binary(), "--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    yield server
    server.close()


@pytest.mark.timeout(180)
def test_a_full_store_is_drained(project: Path, api: Producer, serve: Serve, small_store: Server) -> None:
    """Queueing is refused as a whole, with an error; accepted tasks are all done; then there is space again."""
    app = PulsarQueue(config="config.py", data_store=small_store.url)
    with redis.Redis.from_url(small_store.url) as client:
        producer = app.api()
        taken, refused = [], None
        while refused is None:
            calls = [("nap", {"key": "x" * 2000, "seconds": 0}) for _ in range(50)]
            for future in producer.tasks.queue_many(calls, callback=False):
                try:
                    taken.append(future.wait(30))
                except QueueFull as exc:
                    refused = exc
            assert len(taken) < 20_000
        assert "full" in str(refused)
        assert refused.hint is not None
        assert "maxmemory" in refused.hint
        before = client.llen("pq:{default}:ready")
        assert before == len(taken), "what was refused is not there"
        serve("-w", "1", env={"PQ_DATA_STORE": small_store.url, "PQ_RESULT_TTL": "60"}).ready(1)
        assert [task.done_callback.wait(60).status_string for task in taken] == ["SUCCESS"] * len(taken)
        assert client.llen("pq:{default}:ready") == 0
        client.config_set("maxmemory", "0")
        assert producer.tasks.queue("nap", key="y", seconds=0).wait(30).get() == "y"
        producer.close()


def test_a_store_that_evicts_is_refused(project: Path, api: Producer, serve: Serve) -> None:
    """Such a store would lose tasks without an error: the server does not start."""
    cache = Server(find_binary(), "--maxmemory-policy", "allkeys-lru")
    try:
        server = serve("-w", "1", env={"PQ_DATA_STORE": cache.url})
        assert server.process.wait(30) == 1
        server.wait_for(r"maxmemory-policy allkeys-lru.*\[store-evicts\]")
        server.wait_for("--allow-eviction")
        with redis.Redis.from_url(cache.url) as client:
            client.config_set("maxmemory-policy", "volatile-lru")
        assert serve("-w", "1", env={"PQ_DATA_STORE": cache.url}).ready(1).stop() == 0
    finally:
        cache.close()
