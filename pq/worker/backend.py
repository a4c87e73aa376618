"""The program around the tasks of a worker, as their jobs see it (`self.backend`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ..config import Settings
from ..execution.command import run_command
from ..model.backend import HeldLock, TasksApi
from ..model.task import Task


class WorkerBackend:
    """A `pq.model.backend.Backend`."""

    closed = False

    def __init__(
        self,
        cfg: Settings,
        tasks: TasksApi,
        report: Callable[[Task[Any], float, float | None, str | None], None],
        stream: Callable[..., Awaitable[None]],
        lock: Callable[..., HeldLock],
        http: Callable[[bool], Any],
    ):
        self.cfg = cfg
        self.lock = lock
        self.stream = stream
        self.http = http
        self._tasks = tasks
        self._report = report

    @property
    def tasks(self) -> TasksApi:
        """The tasks producer of the worker's own program."""
        return self._tasks

    @property
    def node_name(self) -> str:
        """The name of this server, and of its local queue."""
        return self._tasks.node_name

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any]
    ) -> Awaitable[str]:
        """Run a command for a job, in a process group of its own."""
        return run_command(command, timeout, options, own_group=True)

    def progress(self, task: Task[Any], done: float, total: float | None, message: str | None) -> None:
        """Publish how far the task is; from any thread."""
        self._report(task, done, total, message)
