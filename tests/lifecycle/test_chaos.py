"""No task is lost and none is settled twice, whichever process is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import Serve

from pq.api import Producer

pytestmark = [pytest.mark.lifecycle, pytest.mark.endurance]

JOBS = """\
import asyncio, os, time
from pq import api

def work(n):
    with open("starts.txt", "a") as f:
        f.write(f"{n}\\n")

@api.job()
async def by_loop(n):
    work(n)
    await asyncio.sleep(0.05)
    return n * n

@api.job()
async def slow(n):
    work(f"s{n}")
    await asyncio.sleep(0.7)
    return n

@api.job(max_concurrency=3)
async def three_at_once(n):
    with open("limit.txt", "a") as f:
        f.write(f"begin {n} {os.getpid()}\\n")
    await asyncio.sleep(0.1)
    with open("limit.txt", "a") as f:
        f.write(f"end {n} {os.getpid()}\\n")
    return n

@api.job(concurrency=api.THREAD_IO)
def by_thread(n):
    work(n)
    time.sleep(0.05)
    return n * n

@api.job(concurrency=api.CPUBOUND)
def by_process(n):
    work(n)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    return n * n
"""


@pytest.mark.timeout(180)
def test_200_tasks_in_three_modes_under_12_kills(project: Path, api: Producer, serve: Serve) -> None:
    """Twelve SIGKILLs of workers among 200 tasks: every task is done once, with its own result."""
    seed = int(os.environ.get("PQ_CHAOS_SEED", "1"))
    chance = random.Random(seed)
    server = serve("-w", "2", "--concurrent-tasks", "6", "--max-crashes", "20").ready(2)
    done: Counter[str] = Counter()
    api.on_events("task", "done", lambda channel, event, task: done.update([task.id])).wait(10)
    jobs = ["by.loop", "by.thread", "by.process"]
    futures = api.tasks.queue_many([(jobs[n % 3], {"n": n}) for n in range(200)])
    killed: set[int] = set()
    while len(killed) < 12:
        assert any(not future.done() for future in futures), (
            f"all was done after {len(killed)} kills (seed {seed})"
        )
        pids = [pid for pid in server.worker_pids() if pid not in killed]
        if pids:
            victim = chance.choice(pids)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        time.sleep(chance.uniform(0.02, 0.3))  # lifecycle: the moment of the kill is what varies
    tasks = [future.wait(120) for future in futures]
    assert [task.get() for task in tasks] == [n * n for n in range(200)], f"seed {seed}"
    assert all(task.retry == 1 for task in tasks)
    assert server.stop() == 0
    server.wait_for("died: SIGKILL", count=12)
    starts = Counter((project / "starts.txt").read_text().split())
    assert set(starts) == {str(n) for n in range(200)}
    assert max(done.values()) == 1
    queues = ("default", api.tasks.node_name)
    assert set(api.tasks.size(*queues).wait(10).values()) == {0}


@pytest.mark.timeout(120)
def test_a_worker_that_was_frozen_beyond_its_lease_changes_nothing(
    project: Path, api: Producer, serve: Serve
) -> None:
    """SIGSTOP, its tasks are taken over when the lease is over, SIGCONT: the zombie's results are refused."""
    server = serve("-w", "2", "--lease", "1", "--concurrent-tasks", "4").ready(2)
    done: Counter[str] = Counter()
    api.on_events("task", "done", lambda channel, event, task: done.update([task.id])).wait(10)
    frozen = server.worker_pids()[0]
    futures = api.tasks.queue_many([("slow", {"n": n}) for n in range(8)])
    deadline = time.monotonic() + 20
    while len(starts(project)) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(frozen, signal.SIGSTOP)
    try:
        tasks = [future.wait(60) for future in futures]
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert [task.get() for task in tasks] == list(range(8))
    server.wait_for(r"lost its lease|results were refused")
    again = api.tasks.queue_many([("by.loop", {"n": n}) for n in range(50)])
    assert [future.wait(30).get() for future in again] == [n * n for n in range(50)]
    assert server.stop() == 0
    assert max(done.values()) == 1
    ran_twice = [n for n, count in starts(project).items() if count > 1]
    assert len(ran_twice) == 4, "the frozen worker's four tasks, and no others, ran again"


@pytest.mark.timeout(180)
def test_a_limit_of_three_under_ten_workers_and_ten_kills(project: Path, api: Producer, serve: Serve) -> None:
    """Never more than three run, whichever process is killed, and no task gets stuck."""
    seed = int(os.environ.get("PQ_CHAOS_SEED", "1"))
    chance = random.Random(seed)
    server = serve("-w", "10", "--concurrent-tasks", "5", "--max-crashes", "20").ready(10)
    futures = api.tasks.queue_many([("three.at.once", {"n": n}) for n in range(150)])
    story = project / "limit.txt"
    killed: set[int] = set()
    while len(killed) < 10:
        assert any(not future.done() for future in futures), f"all was done after {len(killed)} kills"
        # Every second time one that is at it just now: an idle worker's death is an easy one.
        busy = list(running_in(story)) if story.exists() else []
        pids = [pid for pid in server.worker_pids() if pid not in killed]
        at_it = [pid for pid in pids if pid in busy] if len(killed) % 2 else []
        if not pids:
            continue
        victim = chance.choice(at_it or pids)
        with story.open("a") as file:
            file.write(f"kill - {victim}\n")  # before it: what is begun elsewhere then is begun after it
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
        time.sleep(chance.uniform(0.05, 0.3))  # lifecycle: the moment of the kill is what varies
    assert [future.wait(120).get() for future in futures] == list(range(150)), f"seed {seed}"
    assert server.stop() == 0
    assert most_at_once(story) == 3
    assert set(api.tasks.size("default").wait(10).values()) == {0}


def running_in(story: Path) -> list[int]:
    """Return the processes that run something, by their files."""
    return [pid for _, pid in follow(story)[0]]


def most_at_once(story: Path) -> int:
    return follow(story)[1]


def follow(story: Path) -> tuple[set[tuple[str, int]], int]:
    """Return the tasks that run at the end, and the most that ran at once."""
    running: set[tuple[str, int]] = set()
    dead: set[int] = set()
    most = 0
    for line in story.read_text().splitlines():
        what, n, pid = line.split()
        if what == "kill":
            dead.add(int(pid))
            running = {(other, its) for other, its in running if its != int(pid)}
        elif what == "begin" and int(pid) not in dead:
            running.add((n, int(pid)))
        else:
            running.discard((n, int(pid)))
        most = max(most, len(running))
    return running, most


def starts(project: Path) -> Counter[str]:
    path = project / "starts.txt"
    return (
        Counter(line for line in path.read_text().split() if line.startswith("s"))
        if path.exists()
        else Counter()
    )
