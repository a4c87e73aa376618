"""Progress of running tasks: kept with the task and published, at most ten times a second for each."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

from ..broker import records
from ..errors import PqError
from ..model.task import Task
from .context import Context

logger = logging.getLogger("pq.worker")

EVERY = 0.1
"""Seconds between two events of one task."""
KEPT = 86_400_000
"""Milliseconds for which the last report of a task can be looked up, while it runs."""


class Progress:
    """Take reports from any thread; send the latest of each task."""

    name = "progress"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._latest: dict[str, tuple[Task[Any], dict[str, Any]]] = {}
        self._sending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    async def stop(self) -> None:
        self._latest.clear()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
            self._sending = None
        self._loop = None

    def report(self, task: Task[Any], done: float, total: float | None, message: str | None) -> None:
        """Take a report, from any thread. Never blocks, never raises."""
        loop = self._loop
        if loop is None:
            return
        facts: dict[str, Any] = {"done": _number(done), "total": _number(total)}
        if message is not None:
            facts["message"] = str(message)[:500]
        if threading.get_ident() == self._thread:
            # At once: the end of the attempt may follow in this very turn, and the last report counts.
            self._note(task, facts)
            return
        try:
            loop.call_soon_threadsafe(self._note, task, facts)
        except RuntimeError:
            pass  # the loop is closed: the worker has ended

    def _note(self, task: Task[Any], facts: dict[str, Any]) -> None:
        if task.done():
            return
        task.note(progress=facts)
        self._latest[task.id] = (task, facts)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        context = self._context
        while self._latest:
            latest, self._latest = self._latest, {}
            parts: list[bytes] = []
            kept: dict[str, dict[str, bytes]] = {}
            for id, (task, facts) in latest.items():
                if not task.done():
                    parts.append(records.parcel(id, records.live_header(task.priority) + task.to_wire()))
                    kept.setdefault(task.queue or "", {})[id] = json.dumps(facts).encode()
            try:
                for queue, by_id in kept.items():
                    await context.broker.channels.keep_progress(queue, by_id, KEPT)
                if parts:
                    await context.broker.channels.publish(
                        context.keys.task_channel, b"progress\n" + b"".join(parts)
                    )
            except PqError as exc:
                logger.debug("progress not sent: %s", exc)
            await asyncio.sleep(EVERY)


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
