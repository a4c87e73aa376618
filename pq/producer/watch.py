"""`async for event in future`: what happens to one task, until it is done.

Events are published and not kept, so what happened before the first look is taken from the record. The end never
depends on an event, since the future is resolved in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ..model.events import TaskEvent, log_lines
from ..model.task import Task
from .connections import Connections
from .events import Events
from .future import TaskFuture
from .lookup import Lookup


async def events_of(
    connections: Connections, events: Events, lookup: Lookup, future: TaskFuture[Any]
) -> AsyncIterator[TaskEvent]:
    """Yield the events of the task of `future`. Raises the error of the future (`QueueFull`, `TaskLost`)."""
    received: asyncio.Queue[TaskEvent | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(event: TaskEvent | None) -> None:
        loop.call_soon_threadsafe(received.put_nowait, event)

    def on_event(channel: str, event: str, task: Task[Any]) -> None:
        if task.id == future.task.id and event != "done":
            put(TaskEvent(event, task, log_lines(task) if event == "log" else []))

    def ended(_: object) -> None:
        put(None)

    await events.on("task", "*", on_event)
    future.add_done_callback(ended)
    seen: set[str] = set()
    try:
        now = await connections.call(lookup.get(future.task.id))
        if now is not None and now.status_string in ("QUEUED", "STARTED"):
            for name in ("queued", "started")[: 1 + (now.status_string == "STARTED")]:
                seen.add(name)
                yield TaskEvent(name, now)
        while (event := await received.get()) is not None:
            if event.name in seen:
                seen.discard(event.name)  # the record had it; of another attempt it is an event again
                continue
            yield event
        task = await future
        while not task.done():  # it was resolved when it was queued
            task = await task.done_callback
        yield TaskEvent("done", task)
    finally:
        future.remove_done_callback(ended)
        events.remove("task", "*", on_event)
