"""A command of a job: its output, its failure, and its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pq.errors import ShellError
from pq.execution.command import run_command


@pytest.mark.parametrize("command", [["echo", "a  b"], "echo 'a  b'"], ids=["list", "shell"])
async def test_the_output_is_returned(command: str | list[str]) -> None:
    """The command is a list of arguments, or a line for the shell."""
    assert await run_command(command, None, {}, own_group=True) == "a  b\n"


async def test_a_failure_has_the_last_line_of_its_errors() -> None:
    """The error also has all of both outputs as attributes."""
    with pytest.raises(ShellError, match="ended with status 3: second") as caught:
        await run_command("echo out; echo first >&2; echo second >&2; exit 3", None, {}, own_group=True)
    error = caught.value
    assert (error.returncode, error.stdout, error.stderr) == (3, "out\n", "first\nsecond\n")


async def test_a_silent_failure_says_so() -> None:
    with pytest.raises(ShellError, match="ended with status 1: nothing on standard error"):
        await run_command(["false"], None, {}, own_group=True)


async def test_options_go_to_the_process(tmp_path: Path) -> None:
    """A directory, an environment; there is no input."""
    options = {"cwd": tmp_path, "env": {"WORD": "hello"}}
    found = await run_command("pwd; echo $WORD; wc -c", None, options, own_group=True)
    assert found.split() == [str(tmp_path.resolve()), "hello", "0"]


@pytest.mark.parametrize("own_group", [True, False])
async def test_a_command_that_takes_too_long_is_killed(tmp_path: Path, own_group: bool) -> None:
    """In a group of its own with all processes that it started."""
    pid = tmp_path / "pid"
    command = f"sleep 60 & echo $! > {pid}; exec >&- 2>&-; wait" if own_group else ["sleep", "60"]
    with pytest.raises(TimeoutError):
        await run_command(command, 0.5, {}, own_group=own_group)
    if own_group:
        async with asyncio.timeout(5):
            while _lives(int(pid.read_text())):
                await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    os.kill(pid, 0)
    return state != "Z"
