"""Tells the log of tasks as they start and end, as long as somebody can read along."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..errors import UnreadableMessage
from ..model.ending import Ending
from ..model.operations import ACK, RELEASE
from ..model.operations import RETRY as AGAIN
from ..model.task import Task
from .formatters import TaskLog

logger = logging.getLogger("pq.tasks")


def observer(who: str) -> TaskLogger | None:
    """An observer for the worker `who`, or None where nobody would see what it writes."""
    return TaskLogger(who) if logger.isEnabledFor(logging.INFO) else None


class TaskLogger:
    """Turns attempts into lines of the log; `TaskLog` decides which of them are written."""

    def __init__(self, who: str, log: TaskLog | None = None) -> None:
        self._who = who
        self._log = log or TaskLog(write=self._write)
        self._child: int | None = None  # the process that ran what is being told of
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sum up, once a second, what was not shown one by one."""
        loop = asyncio.get_running_loop()

        def tick() -> None:
            self._log.tick(loop.time(), self._who)
            self._timer = loop.call_later(1.0, tick)

        tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def started(self, task: Task[Any]) -> None:
        if not self._log.is_open:
            return
        try:
            args, kwargs = task.args, task.kwargs
        except UnreadableMessage:
            args, kwargs = [], {}
        self._log.started(self._who, task.name, task.id, args, kwargs)

    def ended(self, task: Task[Any], ending: Ending) -> None:
        failed = ending.op not in (ACK, RELEASE)
        if not self._log.is_open:
            self._log.done(self._who, task.name, task.id, "", "", None, None, "" if failed else None)
            return
        error = None
        if ending.op == RELEASE:
            error = "goes back to its queue"
        elif failed:
            error = (task.exception or "its process died").split("\n", 1)[0]
            if ending.op == AGAIN and task.reason == "snoozed":
                error = f"put off by itself · again in {ending.wait:.1f} s"
            elif ending.op == AGAIN:
                error += f" · attempt {task.retry} in {ending.wait:.1f} s"
        self._child = _process(task)
        started = task.time_started
        waited = None if started is None or task.time_queued is None else max(0.0, started - task.time_queued)
        ran = None if started is None or task.time_ended is None else max(0.0, task.time_ended - started)
        self._log.done(
            self._who,
            task.name,
            task.id,
            task.status_string,
            _result(task) if error is None else "",
            waited,
            ran,
            error,
        )
        self._child = None

    def _write(self, who: str, line: str) -> None:
        extra: dict[str, object] = {"who": who}
        if self._child is not None:
            extra["child"] = self._child
        logger.info("%s", line, extra=extra)


def _process(task: Task[Any]) -> int | None:
    """The process id of the child that ran it."""
    try:
        pid = task.run_info.get("pid")
    except UnreadableMessage:  # nobody notes a run that was handed back, so it may be a foreign message's
        return None
    return pid if isinstance(pid, int) else None


def _result(task: Task[Any]) -> str:
    try:
        return repr(task.result)
    except Exception:
        return "?"
