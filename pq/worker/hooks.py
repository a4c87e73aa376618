"""Call `Manager.store_message` of the user when a task starts and when it has ended."""

from __future__ import annotations

import logging
from typing import Any

from ..loops import HeldTasks
from ..model.ending import Ending
from ..model.manager import Manager
from ..model.observer import TaskObserver
from ..model.operations import ACK, FAIL, REVOKE
from ..model.task import Task

logger = logging.getLogger("pq.worker")


class ManagerHook(TaskObserver):
    """An observer that calls the hook beside the consumer's loop, whatever time that takes."""

    def __init__(self, manager: Manager, beside: HeldTasks) -> None:
        self._manager = manager
        self._beside = beside

    @staticmethod
    def is_wanted(manager: Manager) -> bool:
        """Return whether the user's manager has a hook of its own."""
        return type(manager).store_message is not Manager.store_message

    def started(self, task: Task[Any]) -> None:
        """See `TaskObserver`."""
        self._beside.spawn(self._call(task))

    def ended(self, task: Task[Any], ending: Ending) -> None:
        """See `TaskObserver`."""
        if ending.op in (ACK, FAIL, REVOKE):
            self._beside.spawn(self._call(task))

    async def _call(self, task: Task[Any]) -> None:
        try:
            await self._manager.store_message(task)
        except Exception:
            logger.exception("Manager.store_message raised for %r", task)
