"""The seam at which logs, metrics and traces follow the tasks of a worker."""

from __future__ import annotations

from typing import Any, Protocol

from .ending import Ending
from .task import Task


class TaskObserver(Protocol):
    """Notified of each attempt of a worker, in the worker's event loop.

    Both methods are called once per attempt on the path of every task: they must return at once and must not raise.
    """

    def started(self, task: Task[Any]) -> None:
        """An attempt of `task` starts."""

    def ended(self, task: Task[Any], ending: Ending) -> None:
        """An attempt of `task` ended; `ending` says what follows."""
