"""`pq.jobs`: run code and scripts, where the application has asked for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer


@pq.job()
async def shell_of(self: Job, command: Any, **options: Any) -> str:
    return await self.shell(command, **options)


@pytest.fixture
def app(make_app: Any) -> pq.PulsarQueue:
    """An application that lists `pq.jobs`."""
    app: pq.PulsarQueue = make_app(task_paths=[__name__, "pq.jobs"])
    return app


async def test_python_code_runs_in_a_child_process(serving: Producer) -> None:
    """`execute.python` returns the global `result`, or the printed text."""
    task = await serving.tasks.queue("execute.python", code="import os\nresult = os.getpid()")
    assert task.get() != os.getpid()
    printed = await serving.tasks.queue("execute.python", code="    print('indented')")
    assert printed.get() == "indented\n"
    failed = await serving.tasks.queue("execute.python", code="1 / 0")
    assert failed.exception == "ZeroDivisionError: division by zero"
    assert "<execute.python>" in (failed.stacktrace or "")


async def test_a_script_runs_in_a_process_of_its_own(serving: Producer, tmp_path: Path) -> None:
    """`execute.python.script` returns the output of the script; a bad end is the task's failure."""
    script = tmp_path / "hello.py"
    script.write_text("import sys\nprint('hello', *sys.argv[1:])\nsys.exit(len(sys.argv) - 2)")
    task = await serving.tasks.queue("execute.python.script", str(script), "you")
    assert task.get() == "hello you\n"
    failed = await serving.tasks.queue("execute.python.script", str(script), "a", "b", "c")
    assert (failed.status_string, failed.reason) == ("FAILURE", "shell")
    assert "ended with status 2" in (failed.exception or "")


async def test_they_are_not_there_unless_listed(make_app: Any) -> None:
    """An application that does not list `pq.jobs` cannot be made to run code."""
    async with make_app().api() as api:
        with pytest.raises(pq.TaskNotAvailable):
            api.tasks.queue("execute.python", code="1")


async def test_a_command_of_a_cancelled_task_is_killed(serving: Producer, tmp_path: Path) -> None:
    """`self.shell` takes a list or a line for the shell, and ends with its task."""
    assert (await serving.tasks.queue("shell.of", ["echo", "a b"])).get() == "a b\n"
    assert (await serving.tasks.queue("shell.of", "echo $((1 + 1))")).get() == "2\n"
    pid_file = tmp_path / "pid"
    future = serving.tasks.queue("shell.of", f"echo $$ > '{pid_file}'; sleep 600")
    async with asyncio.timeout(10):
        while not pid_file.exists() or not pid_file.read_text().strip():
            await asyncio.sleep(0.01)
    pid = int(pid_file.read_text())
    assert await serving.tasks.cancel(future.id)
    assert (await future).status_string == "REVOKED"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
