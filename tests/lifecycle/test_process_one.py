"""A server as process 1, as in a container: it reaps what dies with its workers and jobs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ServerProcess

from pq.api import Producer

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
_works = shutil.which("unshare") and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
pytestmark = [
    pytest.mark.lifecycle,
    pytest.mark.skipif(not _works, reason="no right to make a process namespace"),
]

JOBS = """\
import os, signal, subprocess
from pathlib import Path
from pq import api

@api.job()
async def die(self):
    os.kill(os.getpid(), signal.SIGKILL)

@api.job()
async def leave_orphans(self, n):
    for _ in range(n):
        subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"])

@api.job(concurrency="process")
def crunch(self):
    return os.getpid()

@api.job()
async def zombies(self):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and parent == "1":
            found.append(stat.parent.name)
    return found
"""


@pytest.fixture
def server(project: Path, api: Producer) -> Iterator[ServerProcess]:
    """A server in a process namespace of its own. `api` first, so that the store lives outside of that."""
    api.tasks.queues()
    api.tasks.store().wait(20)
    server = ServerProcess(project, "-w", "1", prefix=UNSHARE).ready(1)
    yield server
    server.kill()


def test_no_zombie_stays(api: Producer, server: ServerProcess) -> None:
    """Neither of a killed worker's children nor of what jobs started and left behind."""
    assert api.tasks.queue("crunch").wait(30).status_string == "SUCCESS"
    api.tasks.queue("leave_orphans".replace("_", "."), 5).wait(30)
    assert api.tasks.queue("die").wait(60).status_string == "FAILURE"
    for _ in range(60):  # each look is a task of a living worker; it takes no longer than the next one
        if api.tasks.queue("zombies", delay=0.25).wait(30).get() == []:
            break
    else:
        raise AssertionError("zombies stay")
    assert api.tasks.queue("crunch").wait(30).status_string == "SUCCESS"
