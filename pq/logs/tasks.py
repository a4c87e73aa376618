"""Log the tasks of a worker: a line when an attempt starts and a line when it ends.

`TaskLogger` observes the attempts of a worker and makes their lines. `TaskLog` writes each line while tasks
come slowly, and counts tasks when they come fast. A value that cannot be shown costs its own words in the
line and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UnreadableMessage
from ..model.ending import Ending
from ..model.observer import TaskObserver
from ..model.operations import ACK, RELEASE, RETRY
from ..model.task import Task
from .formatters import short_repr

logger = logging.getLogger("pq.tasks")

RATE = 20
"""Lines a second of each kind (starts, ends) that are written; the rest is counted."""
LONGEST = 200
"""Characters of a result or an error in a line."""
MOST_ARGUMENTS = 8
"""Positional arguments in a line, and keyword arguments."""


def format_duration(seconds: float) -> str:
    """Return a time span for people: `3 ms`, `1.2 s`, `4 min`, `2.5 h`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def observer(worker: str) -> TaskLogger | None:
    """Return an observer for the worker of that name, or None where its lines would be discarded."""
    return TaskLogger(worker) if logger.isEnabledFor(logging.INFO) else None


class TaskLog:
    """Write a line for each start and each end of an attempt, unless there are too many to read.

    At 70,000 tasks a second, formatting two lines for each would cost more than the tasks. So the first
    `rate` of every second are written and the rest is counted: above the rate a call is one addition and one
    comparison. `tick(now)`, called about once a second, reports the count. After a second above the rate no
    line is written until a second is below it, because twenty lines out of thousands say nothing.

    `write` gets (worker, line). Time comes in through `tick` alone, so a test needs no clock.
    """

    def __init__(self, write: Callable[[str, str], None] | None = None, *, rate: int = RATE) -> None:
        self._write = _log_line if write is None else write
        self._rate = rate
        self._limit = rate
        self._started = 0
        self._done = 0
        self._failed = 0
        self._since: float | None = None

    @property
    def is_open(self) -> bool:
        """Return True if the next `done` will be written: a caller can skip the `repr` of a result."""
        return self._done < self._limit

    def started(
        self,
        worker: str,
        name: str,
        id: str,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        """Log that an attempt starts, with the first arguments."""
        self._started += 1
        if self._started > self._limit:
            return
        words = [short_repr(value) for value in args[:MOST_ARGUMENTS]]
        words += [
            f"{key}={short_repr(value)}" for key, value in list((kwargs or {}).items())[:MOST_ARGUMENTS]
        ]
        self._write(worker, f"→ {name} {_short_id(id)} {' '.join(words)}".rstrip())

    def done(
        self,
        worker: str,
        name: str,
        id: str,
        status_string: str,
        result_repr: str = "",
        waited: float | None = None,
        ran: float | None = None,
        error: str | None = None,
    ) -> None:
        """Log that an attempt ended. `waited` and `ran` are seconds."""
        self._done += 1
        if self._done > self._limit:
            if error is not None:
                self._failed += 1
            return
        times = [
            f"{word} {format_duration(span)}"
            for word, span in (("waited", waited), ("ran", ran))
            if span is not None
        ]
        mark, text = ("✓", result_repr) if error is None else ("✗", f"{status_string} {error}")
        if len(text) > LONGEST:
            text = text[: LONGEST - 3] + "..."
        self._write(
            worker, f"{mark} {name} {_short_id(id)} {text}" + (f"  ({', '.join(times)})" if times else "")
        )

    def tick(self, now: float, worker: str = "pq") -> None:
        """Report the tasks that were counted, if a second has passed since the last report."""
        if self._since is None:
            self._since = now
        span = now - self._since
        if span < 1.0:
            return
        if (more := self._done - self._limit) > 0:
            tasks = "task" if more == 1 else "tasks"
            failed = f", {self._failed:,} failed" if self._failed else ""
            period = "second" if span < 1.5 else f"{span:.0f} s"
            self._write(worker, f"… {more:,} more {tasks}{failed}, in the last {period}")
        self._limit = 0 if max(self._started, self._done) > self._rate else self._rate
        self._started = self._done = self._failed = 0
        self._since = now


class TaskLogger(TaskObserver):
    """Make lines of the attempts of one worker; `TaskLog` decides which of them are written."""

    def __init__(self, worker: str, log: TaskLog | None = None) -> None:
        self._worker = worker
        self._log = log or TaskLog(write=self._write)
        self._child: int | None = None  # process id of the child whose attempt the next line is about
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to report, once a second, the tasks that were only counted."""
        loop = asyncio.get_running_loop()

        def tick() -> None:
            self._log.tick(loop.time(), self._worker)
            self._timer = loop.call_later(1.0, tick)

        tick()

    def stop(self) -> None:
        """End the reports; twice is harmless."""
        if self._timer is not None:
            self._timer.cancel()

    def started(self, task: Task[Any]) -> None:
        """Log that an attempt of `task` starts."""
        if not self._log.is_open:
            return
        try:
            args, kwargs = task.args, task.kwargs
        except UnreadableMessage:
            args, kwargs = [], {}
        self._log.started(self._worker, task.name, task.id, args, kwargs)

    def ended(self, task: Task[Any], ending: Ending) -> None:
        """Log how an attempt of `task` ended and what follows."""
        failed = ending.op not in (ACK, RELEASE)
        if not self._log.is_open:
            self._log.done(self._worker, task.name, task.id, "", "", None, None, "" if failed else None)
            return
        error = None if ending.op == ACK else _failure(task, ending)
        self._child = _child_of(task)
        started = task.time_started
        waited = None if started is None or task.time_queued is None else max(0.0, started - task.time_queued)
        ran = None if started is None or task.time_ended is None else max(0.0, task.time_ended - started)
        self._log.done(
            self._worker,
            task.name,
            task.id,
            task.status_string,
            _result(task) if error is None else "",
            waited,
            ran,
            error,
        )
        self._child = None

    def _write(self, worker: str, line: str) -> None:
        extra: dict[str, object] = {"who": worker}
        if self._child is not None:
            extra["child"] = self._child
        logger.info("%s", line, extra=extra)


def _failure(task: Task[Any], ending: Ending) -> str:
    """Return why an attempt did not succeed, and when the next one starts."""
    if ending.op == RELEASE:
        return "released to its queue"
    if ending.op == RETRY and task.reason == "snoozed":
        return f"snoozed · retrying in {ending.wait:.1f} s"
    error = (task.exception or "its process died").split("\n", 1)[0]
    if ending.op == RETRY:
        return f"{error} · attempt {task.retry} in {ending.wait:.1f} s"
    return error


def _child_of(task: Task[Any]) -> int | None:
    """Return the process id of the child that ran the attempt, or None where no child did."""
    try:
        pid = task.run_info.get("pid")
    except (
        UnreadableMessage
    ):  # a released task keeps the notes that came with its message, which may be foreign
        return None
    return pid if isinstance(pid, int) else None


def _result(task: Task[Any]) -> str:
    try:
        return repr(task.result)
    except Exception:
        return "?"


def _short_id(id: str) -> str:
    """Return enough of an id to tell tasks apart; one made of words (`cron.report.1795457366000`) stays whole."""
    return id if "." in id else id[:8]


def _log_line(worker: str, line: str) -> None:
    logger.info("%s", line, extra={"who": worker})
