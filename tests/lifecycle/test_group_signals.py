"""Signals that reach more processes than the supervisor, as a service manager sends them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from servers import Serve, ServerProcess, alive, of_session

from pq.api import Producer

pytestmark = pytest.mark.lifecycle

JOBS = """\
import asyncio, time
from pathlib import Path
from pq import api

def run(key):
    with open(f"ran.{key}", "a") as file:
        file.write("x")

@api.job()
async def nap(key, seconds):
    run(key)
    await asyncio.sleep(seconds)

@api.job(concurrency="thread")
def nap_thread(key, seconds):
    run(key)
    time.sleep(seconds)

@api.job(concurrency="process")
def nap_process(key, seconds):
    run(key)
    time.sleep(seconds)
"""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def fork_server(server: ServerProcess) -> int:
    """Return the process id of the supervisor's fork server."""
    own = [pid for pid in of_session(server.process.pid) if "multiprocessing.forkserver" in command_of(pid)]
    (found,) = [pid for pid in own if parent_of(pid) == server.process.pid]
    return found


def begin(api: Producer, project: Path) -> list[str]:
    """Queue a task of each mode; return their ids when all run."""
    jobs = {"a": "nap", "b": "nap.thread", "c": "nap.process", "d": "nap"}
    ids = [api.tasks.queue(job, key, 6.0, callback=False).wait(20).id for key, job in jobs.items()]
    deadline = time.monotonic() + 30
    while not all((project / f"ran.{key}").exists() for key in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return ids


def check_once(api: Producer, project: Path, ids: list[str]) -> None:
    """Each task succeeded, and ran once."""
    assert [api.tasks.get(id).wait(20).status_string for id in ids] == ["SUCCESS"] * 4
    assert [(project / f"ran.{key}").read_text() for key in "abcd"] == ["x"] * 4


def test_sigterm_to_every_process_drains(api: Producer, serve: Serve, project: Path) -> None:
    """systemd's default, KillMode=control-group: running tasks of each mode finish, none runs twice."""
    server = serve("-w", "1").ready(1)
    ids = begin(api, project)
    for pid in [server.process.pid, *of_session(server.process.pid)]:
        if "valkey" not in command_of(pid) and alive(pid):
            os.kill(pid, signal.SIGTERM)
    assert server.process.wait(40) == 0, server.log
    check_once(api, project, ids)


def test_a_fork_server_survives_sigterm(api: Producer, serve: Serve) -> None:
    server = serve("-w", "1").ready(1)
    helper = fork_server(server)
    os.kill(helper, signal.SIGTERM)
    assert api.tasks.queue("nap", "a", 0.0).wait(20).status_string == "SUCCESS"
    assert alive(helper)
    assert server.stop() == 0


def test_a_worker_outlives_its_fork_server(api: Producer, serve: Serve, project: Path) -> None:
    """It runs its tasks to their end, none is handed back, and the next workers come from a new fork server."""
    server = serve("-w", "1").ready(1)
    ids = begin(api, project)
    (worker,) = server.worker_pids()
    os.kill(fork_server(server), signal.SIGKILL)
    check_later = time.monotonic() + 20
    while any(not api.tasks.get(id).wait(20).done() for id in ids):
        assert time.monotonic() < check_later
        time.sleep(0.05)
    check_once(api, project, ids)
    assert alive(worker), server.log
    os.kill(worker, signal.SIGKILL)
    server.wait_for(r"ready · pid", count=2)
    assert api.tasks.queue("nap", "e", 0.0).wait(30).status_string == "SUCCESS"
    assert server.stop() == 0
