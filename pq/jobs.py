"""Ready-made jobs that run Python code. Listed in `task_paths` only where that is wanted.

With these, any program that may queue a task can run anything on the workers. So they are registered only in
applications that name `pq.jobs` in their `task_paths`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import textwrap
from typing import Any

from . import api


@api.job(concurrency=api.CPUBOUND)
def execute_python(self: api.Job, code: str) -> Any:
    """Run Python code in a child process.

    The result is the value of a global named `result`, when the code sets one, else what it printed.

        api.tasks.queue("execute.python", code="result = sum(range(10))")
    """
    scope: dict[str, Any] = {"__name__": "__pq__", "job": self}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(textwrap.dedent(code), "<execute.python>", "exec"), scope)  # noqa: S102  what it is for
    return scope["result"] if "result" in scope else printed.getvalue()


@api.job()
async def execute_python_script(self: api.Job, script: str, *arguments: str) -> str:
    """Run a Python script, by its path, in a process of its own; the result is what it printed.

    A script that ends with another status than 0 fails the task with `ShellError`.
    """
    return await self.shell([sys.executable, script, *arguments])
