"""Workers that follow the demand: real servers, real signals."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Serve, of_session

from pq.api import Producer

pytestmark = pytest.mark.lifecycle

JOBS = """\
import asyncio, os
from pathlib import Path
from pq import api

def note(key):
    with open("runs.txt", "a") as f:
        f.write(f"{key} {os.getpid()}\\n")

@api.job()
async def nap(key, seconds=0.1):
    note(key)
    await asyncio.sleep(seconds)
    return key

@api.job()
async def until_let_go(key):
    note(key)
    while not Path("released").exists():
        await asyncio.sleep(0.01)
    return key
"""

FOLLOW = ("-w", "1..3", "--concurrent-tasks", "1", "--idle-timeout", "1")


def until(condition: Callable[[], Any], timeout: float = 40.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def runs(project: Path) -> Counter[str]:
    """Return how often each task began."""
    path = project / "runs.txt"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return Counter(line.split()[0] for line in lines)


@pytest.fixture
def scaled(api: Producer) -> list[dict[str, Any]]:
    """The decisions that were published as events, as they come."""
    heard: list[dict[str, Any]] = []
    api.on_events("consumer", "scaled", lambda channel, event, facts: heard.append(facts)).wait(10)
    return heard


def test_up_with_a_backlog_and_down_under_a_trickle(
    project: Path, api: Producer, serve: Serve, scaled: list[dict[str, Any]]
) -> None:
    """Three workers for a backlog, one for the tasks after it; every task is run once."""
    beating: set[str] = set()
    api.on_events("consumer", "status", lambda channel, event, facts: beating.add(facts["worker"])).wait(10)
    server = serve(*FOLLOW).ready(1)
    futures = api.tasks.queue_many([("nap", {"key": f"b{n}"}) for n in range(120)])
    until(lambda: {"w1", "w2", "w3"} <= beating)
    assert [future.wait(40).get() for future in futures] == [f"b{n}" for n in range(120)]
    assert (scaled[0]["was"], scaled[0]["workers"]) == (1, 3)
    assert scaled[0]["why"] in server.log
    trickle = 0
    while not (scaled[-1]["workers"] == 1 and len(server.worker_pids()) == 1):
        assert api.tasks.queue("nap", key=f"t{trickle}", seconds=0.01).wait(10).get() == f"t{trickle}"
        trickle += 1
        assert trickle < 3000, "the workers stay"
        time.sleep(0.02)  # lifecycle: a trickle, not a flood
    assert [facts["workers"] for facts in scaled] == [3, 2, 1]
    ran = runs(project)
    assert set(ran.values()) == {1}
    assert len(ran) == 120 + trickle
    assert "died" not in server.log
    assert server.stop() == 0
    until(lambda: not of_session(server.process.pid))


@pytest.mark.parametrize("moment", ["decided", "one ready", "all ready"])
def test_sigterm_in_the_middle_of_scaling(project: Path, api: Producer, serve: Serve, moment: str) -> None:
    """Wherever it is with its new workers, the server ends, nothing of it is left, and nothing is lost."""
    server = serve("-w", "1..4", "--concurrent-tasks", "1").ready(1)
    futures = api.tasks.queue_many([("nap", {"key": str(n)}) for n in range(150)])
    server.wait_for("1 → 4 workers")
    if moment != "decided":
        server.ready(2 if moment == "one ready" else 4)
    assert server.stop() == 0
    until(lambda: not of_session(server.process.pid))
    assert "died" not in server.log
    serve("-w", "2").ready(2)
    assert [future.wait(40).get() for future in futures] == [str(n) for n in range(150)]
    assert set(runs(project).values()) == {1}


def two_at_work(project: Path, api: Producer, serve: Serve, *flags: str) -> tuple[Any, list[Any]]:
    """A server of one to two workers, each with a task that ends when it is released."""
    server = serve("-w", "1..2", "--concurrent-tasks", "1", "--graceful-timeout", "0.3", *flags).ready(1)
    futures = [api.tasks.queue("until.let.go", key=key) for key in ("a", "b")]
    until(lambda: len(runs(project)) == 2)
    return server, futures


def test_a_worker_that_is_not_needed_finishes_its_tasks(project: Path, api: Producer, serve: Serve) -> None:
    """A worker that is stopped takes its time, beyond `graceful_timeout`: its task does not begin again."""
    server, futures = two_at_work(project, api, serve)
    server.send(signal.SIGTTOU)
    server.wait_for("one worker less: 1")
    time.sleep(1.0)  # lifecycle: a time that would be over
    assert len(server.worker_pids()) == 2
    (project / "released").touch()
    assert [future.wait(10).get() for future in futures] == ["a", "b"]
    until(lambda: len(server.worker_pids()) == 1)
    assert set(runs(project).values()) == {1}
    assert server.stop() == 0


def test_a_slow_drain_is_shortened_when_the_server_ends(project: Path, api: Producer, serve: Serve) -> None:
    """SIGTERM: `graceful_timeout` counts for it as for the others, and its task goes back unspent."""
    server, futures = two_at_work(project, api, serve)
    server.send(signal.SIGTTOU)
    server.wait_for("one worker less: 1")
    assert server.stop(timeout=8) == 0
    until(lambda: not of_session(server.process.pid))
    assert "killed" not in server.log
    (project / "released").touch()
    serve("-w", "1").ready(1)
    tasks = [future.wait(20) for future in futures]
    assert [(task.get(), task.retry, task.run_info.get("crashes")) for task in tasks] == [
        ("a", 1, None),
        ("b", 1, None),
    ]


def test_a_dead_worker_is_replaced_without_a_decision(
    project: Path, api: Producer, serve: Serve, scaled: list[dict[str, Any]]
) -> None:
    """kill -9: as many as before, no event, and the task goes on."""
    server = serve(*FOLLOW).ready(1)
    future = api.tasks.queue("nap", key="a", seconds=0.5)
    until(lambda: runs(project))
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    assert future.wait(20).get() == "a"
    server.ready(2)
    assert len(server.worker_pids()) == 1
    assert server.stop() == 0
    assert scaled == []
    assert "→ " not in "".join(line for line in server.lines if " server " in line)


def test_signals_move_the_lower_end(api: Producer, serve: Serve) -> None:
    """SIGTTIN is one more now and from now on, up to the most; SIGTTOU takes it back."""
    server = serve("-w", "1..2", "--idle-timeout", "0.1").ready(1)
    server.send(signal.SIGTTIN)
    server.wait_for(r"one worker more: 2 \(2\.\.2 from now on\)")
    server.ready(2)
    server.send(signal.SIGTTIN)
    server.wait_for(r"as many workers: 2 \(2\.\.2 from now on\)")
    server.send(signal.SIGTTOU)
    server.wait_for(r"one worker less: 1 \(1\.\.2 from now on\)")
    until(lambda: len(server.worker_pids()) == 1)
    assert api.tasks.queue("nap", key="a").wait(10).get() == "a"
    assert server.stop() == 0


def test_a_reload_keeps_the_number_and_takes_the_new_range(
    project: Path, api: Producer, serve: Serve, scaled: list[dict[str, Any]]
) -> None:
    """SIGHUP under a backlog: each worker is replaced, no task is lost, and the new range counts."""
    config = 'task_paths = ["jobs"]\nconcurrent_tasks = 1\nidle_timeout = 60\nworkers = "1..3"\n'
    (project / "config.py").write_text(config)
    server = serve().ready(1)
    futures = api.tasks.queue_many([("nap", {"key": str(n)}) for n in range(100)])
    server.ready(3)
    before = set(server.worker_pids())
    (project / "config.py").write_text(config.replace("1..3", "2..4"))
    server.send(signal.SIGHUP)
    until(lambda: len(server.worker_pids()) >= 3 and not before & set(server.worker_pids()))
    assert [future.wait(40).get() for future in futures] == [str(n) for n in range(100)]
    (project / "config.py").write_text(config.replace('"1..3"', "2"))
    server.send(signal.SIGHUP)
    until(lambda: len(server.worker_pids()) == 2)
    assert server.stop() == 0
    assert set(runs(project).values()) == {1}
    assert "died" not in server.log
    assert {(facts["least"], facts["most"]) for facts in scaled} <= {(1, 3), (2, 4)}
    assert 2 not in [facts["was"] for facts in scaled]  # the three that there were went on as three
