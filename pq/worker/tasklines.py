"""The log lines of each task: kept with it in the store, and published.

A handler on the root logger collects what is logged while a task runs (a context variable says which task). A
few times a second the collected lines are sent. Logging itself never waits for the store, and a task that logs
without end loses its own oldest lines.

What a job prints in a child process comes here too, because the worker logs it under the job's name.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from typing import Any

from ..broker import records
from ..broker.contract.values import KEPT_LINES
from ..errors import PqError
from ..execution.attempt import current_task
from ..model.task import Task
from .context import Context
from .service import Service

logger = logging.getLogger("pq.worker")

EVERY = 0.25
"""Seconds between two sendings."""
LONGEST = 4_000
"""Characters of one line."""
OWN = frozenset({"pq.worker", "pq.server", "pq.producer", "pq.execution", "pq.tasks"})
"""Loggers whose records are about tasks, and do not belong to one."""


class TaskLines(Service):
    """A service that sends the lines, and the handler that collects them."""

    name = "task lines"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._ttl = int(context.cfg.kept * 1000)
        self._lines: dict[str, tuple[Task[Any], list[bytes]]] = {}
        self._mutex = threading.Lock()
        self._handler = _Handler(self)
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        logging.getLogger().addHandler(self._handler)
        await super().start()

    async def stop(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        await super().stop()
        await self._send()

    def is_ours(self, task: Task[Any]) -> bool:
        """Return False for a task of another worker in this process, and for one that runs without a queue."""
        return (task.worker, task.node) == (self._context.name, self._context.node)

    def add(self, task: Task[Any], line: bytes) -> None:
        """Collect a line of a task, from any thread."""
        with self._mutex:
            known = self._lines.get(task.id)
            if known is None:
                self._lines[task.id] = known = (task, [])
            lines = known[1]
            lines.append(line)
            if len(lines) > 2 * KEPT_LINES:
                del lines[:KEPT_LINES]
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            pass  # the loop is closed: the worker has ended

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._send()
            await asyncio.sleep(EVERY)

    async def _send(self) -> None:
        with self._mutex:
            taken, self._lines = self._lines, {}
        context = self._context
        for task, lines in taken.values():
            kept = lines[-KEPT_LINES:]
            try:
                event = _event(task, kept)
                async with asyncio.timeout(5.0):
                    await context.broker.channels.keep_lines(task.queue or "", task.id, kept, self._ttl)
                    await context.broker.channels.publish(context.keys.task_channel, b"log\n" + event)
            except (PqError, TimeoutError) as exc:
                logger.debug("log lines of %s not kept: %s", task.id[:9], exc)


def _event(task: Task[Any], lines: list[bytes]) -> bytes:
    """Return the task as event `log` has it: with its new lines, which its record does not keep."""
    shown = copy.copy(task)
    shown._run_info = dict(task.run_info)
    shown.note(log=lines)
    return records.parcel(shown.id, records.live_header(shown.priority) + shown.to_wire())


class _Handler(logging.Handler):
    """Collects what is logged within a task."""

    def __init__(self, lines: TaskLines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        task = current_task.get()
        if task is None or record.name in OWN or not self._lines.is_ours(task):
            return
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text} · {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            elif record.exc_text:  # of a child: its last line is the error
                text = f"{text} · {record.exc_text.rstrip().rpartition(chr(10))[2]}"
            line = f"{record.created:.3f} {record.levelname} {text[:LONGEST]}"
            self._lines.add(task, line.replace("\n", "\\n").encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be made: the handlers of the log have it, or have reported it."""
