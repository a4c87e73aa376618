"""Messages of the children of a worker: to the job's log, to its backend, to the pool.

A message never breaks the pool: a log handler or an observer that raises is logged, and the children go on.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol

from ..model.outcome import FAILED, Outcome
from ..model.task import Task
from . import log_records
from .attempt import Attempt, current_task
from .child_process import Child
from .child_requests import ChildRequests
from .frames import AWAIT, BROKEN, DONE, LOCK, LOG, PROGRESS, QUEUE, READY, RECORD, STREAM, UNLOCK

logger = logging.getLogger("pq.execution")

LogCallback = Callable[[Task[Any] | None, int, str], None]
"""Takes what a child printed or logged: its task (None between tasks), the level, the text."""


class PoolObserver(Protocol):
    """Notified, on the loop, of what the children do and say, by their process ids."""

    def levels(self) -> dict[str, int]:
        """Return the levels of loggers for a task that is about to start (see `log_records.levels`)."""
        ...

    def child_started(self, pid: int) -> None:
        """A child has imported its modules."""

    def child_ended(self, pid: int, done: int, crash: str | None) -> None:
        """A child ended after `done` tasks; `crash` says how it died when it was not asked to end."""

    def began(self, attempt: Attempt, pid: int) -> None:
        """An attempt was sent to a child."""

    def logged(self, record: bytes) -> None:
        """A child sent a log record, for `log_records.unpack`."""

    def printed(self, pid: int, level: int, line: str) -> None:
        """A child printed a line."""


class Pool(Protocol):
    """The part of the pool that messages of children change."""

    def child_ready(self, child: Child) -> None:
        """It has imported its modules."""

    def child_broken(self, child: Child, outcome: Outcome) -> None:
        """It cannot import them; `outcome` says why."""

    def child_done(self, child: Child, number: int, outcome: Outcome) -> None:
        """The task that it got under that number ended."""


class ChildMessages:
    """Hands on what children say.

    Args:
        pool: changed by what children say of themselves.
        app_name: the start of the loggers' names.
        on_log: called with each printed or logged line; default: the logger `<app_name>.<job name>`.
        observer: gets what is logged as whole records, in place of `on_log`.
    """

    def __init__(
        self, pool: Pool, *, app_name: str, on_log: LogCallback | None, observer: PoolObserver | None
    ) -> None:
        self._pool = pool
        self._app_name = app_name
        self._on_log = on_log
        self._observer = observer
        self._requests: dict[Child, ChildRequests] = {}

    def received(self, child: Child, frames: list[list[Any]]) -> None:
        """Handle the frames that came from `child`, in their order."""
        progress: list[Any] | None = None
        for word, *fields in frames:
            if word == PROGRESS:
                progress = fields  # of many that came together the last one says all
                continue
            if progress is not None:
                _report_progress(child, progress)
                progress = None
            if word == DONE:
                self._pool.child_done(child, fields[0], _outcome(fields))
            elif word == LOG:
                self.printed(child, *fields)
            elif word == RECORD:
                if self._observer is not None:
                    notify(self._observer.logged, *fields)
                else:
                    self._recorded(child, *fields)
            elif word in (STREAM, QUEUE, AWAIT, LOCK, UNLOCK):
                self._request(child, word, fields)
            elif word == READY:
                self._pool.child_ready(child)
            elif word == BROKEN:
                text, stack, slug = fields
                self._pool.child_broken(child, Outcome(FAILED, None, text, stack, slug))
        if progress is not None:
            _report_progress(child, progress)

    def printed(self, child: Child, level: int, line: str) -> None:
        """Log a line that the job of `child` logged or printed."""
        if self._observer is not None:
            notify(self._observer.printed, child.pid, level, line)
            return
        task = child.attempt.task if child.attempt is not None else None
        token = current_task.set(task)
        try:
            notify(self._log, child, task, level, line)
        finally:
            current_task.reset(token)

    def _recorded(self, child: Child, data: bytes) -> None:
        """Log a record of the job of `child` by the logger of its own name."""
        task = child.attempt.task if child.attempt is not None else None
        token = current_task.set(task)
        try:
            notify(self._log_record, child, task, data)
        finally:
            current_task.reset(token)

    def end_attempt(self, child: Child) -> None:
        """Release what the job of `child` has asked for: its attempt is over."""
        requests = self._requests.pop(child, None)
        if requests is not None:
            requests.end()

    def _request(self, child: Child, word: int, fields: list[Any]) -> None:
        if child.attempt is None:
            return
        requests = self._requests.get(child)
        if requests is None:
            requests = self._requests[child] = ChildRequests(
                child.attempt, child.send, functools.partial(self._log, child)
            )
        requests.handle(word, fields)

    def _log_record(self, child: Child, task: Task[Any] | None, data: bytes) -> None:
        record = log_records.unpack(data)
        if self._on_log is not None:
            text = record.getMessage() + (f"\n{record.exc_text}" if record.exc_text else "")
            own = record.name.startswith(f"{self._app_name}.")
            self._on_log(task, record.levelno, text if own else f"{record.name}: {text}")
            return
        record.child = child.pid
        taker = logging.getLogger(record.name)
        if taker.isEnabledFor(record.levelno):
            taker.handle(record)

    def _log(self, child: Child, task: Task[Any] | None, level: int, text: str) -> None:
        if self._on_log is not None:
            self._on_log(task, level, text)
            return
        name = f"{self._app_name}.{task.name}" if task is not None else self._app_name
        # The record is made here, so its process id is the worker's; `child` has that of the job.
        logging.getLogger(name).log(level, "%s", text, extra={"child": child.pid})


def notify(call: Callable[..., None], *args: Any) -> None:
    """Call an observer; log what it raises, as it must not break the pool."""
    try:
        call(*args)
    except Exception:
        logger.exception("an observer of child processes raised")


def _outcome(fields: list[Any]) -> Outcome:
    _, kind, encoded, error, stack, reason, _, wait, final = fields
    return Outcome(kind, None, error, stack, reason, encoded, None, wait, final)


def _report_progress(child: Child, fields: list[Any]) -> None:
    if child.attempt is not None:
        done, total, message = fields
        child.attempt.backend.progress(child.attempt.task, done, total, message)
