"""`self.shell(…)`: run a command, and end it together with the attempt that started it.

The command gets no input, and its output is read to the end. It is killed when its time is over or its task is
cancelled, with all processes that it started: it runs in a process group of its own. The exception is a job in a child
process, whose own group is killed with the child; there the command must stay in that group.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ShellError


async def run_command(
    command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any], *, own_group: bool
) -> str:
    """Run a command and return its standard output as text.

    A list of arguments is run as it is; a string is given to the system's shell. `options` go to the subprocess.
    Raises `ShellError` for a status other than 0, and `TimeoutError` after `timeout` seconds.
    """
    streams: dict[str, Any] = {
        "stdin": asyncio.subprocess.DEVNULL,
        "stdout": asyncio.subprocess.PIPE,
        "stderr": asyncio.subprocess.PIPE,
        **options,
        "start_new_session": own_group,
    }
    if isinstance(command, str):
        process = await asyncio.create_subprocess_shell(command, **streams)
    else:
        process = await asyncio.create_subprocess_exec(*command, **streams)
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    except BaseException:
        _kill(process.pid, group=own_group)
        await process.wait()
        raise
    stdout, stderr = (text.decode("utf-8", "replace") if text else "" for text in (out, err))
    if process.returncode:
        last = stderr.strip().rsplit("\n", 1)[-1][:500] or "nothing on standard error"
        raise ShellError(
            f"the command ended with status {process.returncode}: {last}",
            returncode=process.returncode,
            stdout=stdout,
            stderr=stderr,
        )
    return stdout


def _kill(pid: int, *, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
