"""`async for event in future`: what happens to one task, until it is done.

Events are told and not kept, so what happened before the first look is told from the record; and the end
never depends on an event, since the future is resolved in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ..model.events import TaskEvent, log_lines
from ..model.task import Task
from .future import TaskFuture

if TYPE_CHECKING:
    from .producer import Producer


async def events_of(producer: Producer, future: TaskFuture[Any]) -> AsyncIterator[TaskEvent]:
    """The events of the task of `future`. Raises what the future raises (`QueueFull`, `TaskLost`)."""
    heard: asyncio.Queue[TaskEvent | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def hear(channel: str, event: str, task: Task[Any]) -> None:
        if task.id == future.task.id and event != "done":
            tell(TaskEvent(event, task, log_lines(task) if event == "log" else []))

    def tell(event: TaskEvent | None) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, event)

    def ended(_: object) -> None:
        tell(None)

    await producer.on_events("task", "*", hear)
    future.add_done_callback(ended)
    seen: set[str] = set()
    try:
        now = await producer.tasks.get(future.task.id)
        if now is not None and now.status_string in ("QUEUED", "STARTED"):
            for name in ("queued", "started")[: 1 + (now.status_string == "STARTED")]:
                seen.add(name)
                yield TaskEvent(name, now)
        while (event := await heard.get()) is not None:
            if event.name in seen:
                seen.discard(event.name)  # it was told from the record; another attempt tells it anew
                continue
            yield event
        task = await future
        while not task.done():  # it was resolved when it was queued
            task = await task.done_callback
        yield TaskEvent("done", task)
    finally:
        future.remove_done_callback(ended)
        producer.remove_event_callback("task", "*", hear)
