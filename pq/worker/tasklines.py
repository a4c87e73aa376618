"""The log lines of each task: kept with it in the store, and told to whoever listens.

A handler on the root logger looks at what is logged while a task runs (a context variable says which) and
puts it aside; twice in a second or so what has come is sent. Logging itself never waits for the store, and a
task that logs without end costs its own oldest lines.

What a job prints in a child process comes here as well, since the worker logs it under the job's name.
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
"""Loggers that tell of tasks, and are no part of one."""


class TaskLines(Service):
    """A service, and the handler that feeds it."""

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
        """False for a task of another worker in this process, and for one that runs without a queue."""
        return (task.worker, task.node) == (self._context.name, self._context.node)

    def add(self, task: Task[Any], line: bytes) -> None:
        """From any thread."""
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
            pass  # the loop is closed: nobody is left to send them

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
                told = _telling(task, kept)
                async with asyncio.timeout(5.0):
                    await context.broker.channels.keep_lines(task.queue or "", task.id, kept, self._ttl)
                    await context.broker.channels.publish(context.keys.task_channel, b"log\n" + told)
            except (PqError, TimeoutError) as exc:
                logger.debug("log lines of %s were not kept: %s", task.id[:9], exc)


def _telling(task: Task[Any], lines: list[bytes]) -> bytes:
    """The task as event `log` has it: with its new lines, which its record does not keep."""
    told = copy.copy(task)
    told._run_info = dict(task.run_info)
    told.note(log=lines)
    return records.parcel(told.id, records.live_header(told.priority) + told.to_wire())


class _Handler(logging.Handler):
    """Puts aside what is logged within a task."""

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
            line = f"{record.created:.3f} {record.levelname} {text[:LONGEST]}"
            self._lines.add(task, line.replace("\n", "\\n").encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be made is lost here; the log itself has it, or has complained."""
