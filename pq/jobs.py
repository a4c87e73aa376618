"""Jobs that run code which they are sent. They exist for an application only when its `task_paths` names `pq.jobs`.

Whoever can queue a task can then run any code as the user of the workers. So this belongs where all who
can reach the store may do that anyway, and nowhere else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pq import api


@api.job()
async def execute_python(self: api.Job, code: str) -> str:
    """Run Python code in a process of its own; the result is what it printed.

    Code that ends with another status than 0 fails the task, with the last line of its traceback.
    """
    # In a file, because an argument of a command may have 128 KB at most, and code may be longer.
    with tempfile.TemporaryDirectory(prefix="pq-") as directory:
        path = Path(directory, "code.py")
        await self.run_in_executor(path.write_text, code, "utf-8")
        return await self.shell([sys.executable, str(path)])


@api.job()
async def execute_python_script(self: api.Job, script: str) -> str:
    """Run a Python file that lies on the worker's host; the result is what it printed."""
    return await self.shell([sys.executable, script])
