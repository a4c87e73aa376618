"""The four steps of the ancestor's README, with a real server; the rest of it is in `fundamentals/test_ancestor`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import ROOT, Serve

pytestmark = pytest.mark.lifecycle

MANAGE = """\
from pq.api import PusarQueue

task_paths = ['sampletasks.*', 'pq.jobs']

def app():
    return PusarQueue(config=__file__)

if __name__ == '__main__':
    app().start()
"""

MYTASKS = """\
import asyncio
import time

from pq import api

@api.job()
def addition(self, a=0, b=0):
    return a + b

@api.job()
async def asynchronous(self, lag=1):
    start = time.time()
    await asyncio.sleep(lag)
    return time.time() - start
"""

SHELL = """\
from manage import app
api = app().api()
task = api.tasks.queue('addition', a=4, b=6)
print(repr(task))
task = task.wait()
print(task.info())
print(task.result, task.status_string)
task = api.tasks.queue('addition', a=4, b=6, callback=False, delay=0.5).wait()
print(task.status_string)
assert task.time_queued
task = task.done_callback.wait()
print(task.status_string, task.time_started - task.time_queued >= 0.5)
print(api.tasks.queue('asynchronous', lag=0.05).wait().result > 0.04)  # loops count milliseconds
print(api.tasks.queue('execute.python', code='print("Hello World!")').wait().result)
"""


@pytest.fixture
def program(project: Path) -> Path:
    """Its files, to the letter; `sampletasks` is a package in the same directory."""
    (project / "config.py").unlink()
    (project / "manage.py").write_text(MANAGE)
    (project / "sampletasks").mkdir()
    (project / "sampletasks" / "__init__.py").touch()
    (project / "sampletasks" / "mytasks.py").write_text(MYTASKS)
    return project


def shell(program: Path) -> list[str]:
    """The lines that are typed in a second terminal, and the output."""
    done = subprocess.run(
        [sys.executable, "-c", SHELL],
        cwd=program,
        env={"PYTHONPATH": f"{program}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def check(said: list[str]) -> None:
    assert re.fullmatch(r"<TaskFuture pending ID=i[0-9a-f]{32}>", said[0])
    assert re.fullmatch(r"task\.addition<i[0-9a-f]{32}><SUCCESS>", said[1])
    assert said[2:] == ["10 SUCCESS", "QUEUED", "SUCCESS True", "True", "Hello World!", ""]


def test_the_four_steps(program: Path, serve: Serve) -> None:
    """A script, two jobs, a server with two workers, a shell; with no Redis anywhere."""
    server = serve("-w", "2").ready(2)
    check(shell(program))
    assert server.stop() == 0


def test_with_every_setting_of_its_readme(program: Path, serve: Serve, valkey: Any) -> None:
    """The numbers that the README shows, JSON on the wire, an own store, and the scheduler on."""
    (program / "manage.py").write_text(
        MANAGE.replace(
            "task_paths", f"data_store = '{valkey.url}'\nmessage_serializer = 'json'\ntask_paths", 1
        )
    )
    (program / "sampletasks" / "beat.py").write_text(
        "from pq import api\n\n@api.job(run_every=1)\ndef beat(self):\n    print('beat of', self.task.name)\n"
    )
    flags = "--concurrent-tasks 5 --max-requests 0 --task-pool-timeout 2 --workers 2 --schedule-periodic"
    server = serve(*flags.split(), "--message-serializer", "json", "--data-store", valkey.url).ready(2)
    check(shell(program))
    server.wait_for("✓ beat|beat of beat")
    assert server.stop() == 0
    assert not (program / ".pq").exists()
