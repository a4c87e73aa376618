"""A task that was made goes to the engine of its caller, and its future comes back.

Where the engine is not connected yet, the task waits for that; what makes a connection impossible becomes the error
of the future.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..broker import records
from ..broker.contract.values import Entry
from ..broker.records import NO_KEY, unique_key
from ..clock import Clock
from ..errors import InvalidValue, StoreUnavailable
from ..loops import running_loop
from ..model.events import TaskEvent
from ..model.task import Task
from .connections import Connections
from .engine import Engine
from .future import TaskFuture

Watch = Callable[[TaskFuture[Any]], AsyncIterator[TaskEvent]]
"""Returns the events of the task of a future: `async for event in future`."""


class Submitting:
    """Sends tasks, and makes the futures of their ends."""

    def __init__(self, connections: Connections, clock: Clock, watch: Watch) -> None:
        self._connections = connections
        self._store = connections.store
        self._clock = clock
        self._watch = watch

    def submit(self, task: Task[Any], *, wait_for_end: bool) -> TaskFuture[Any]:
        """Send a task; its future resolves when it is done, or when it is queued. Raises `InvalidValue` when closed."""
        engine = self._connections.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        future.watch = self._watch
        task.reply = engine.reply_channel
        delay = None if task.delay is None else max(1, round(task.delay * 1000))
        priority = task.priority or 0
        limits_text = task.limits_text
        header = records.live_header(priority, "", limits_text)
        unique = bool(limits_text) and unique_key(limits_text) != NO_KEY
        entry = Entry(task.id, header + task.to_wire(), delay, priority, unique)
        task.awaiter = self._await_end
        if engine.tasks.closed:
            raise InvalidValue("this api is closed", hint="make a new one: app().api()")
        if self._store.on_submit is not None:
            self._store.on_submit(task, future)
        if running_loop() is engine.loop:
            self._put(engine, future, entry, wait_for_end)
        else:
            engine.loop.call_soon_threadsafe(self._put, engine, future, entry, wait_for_end)
        return future

    def bind(self, task: Task[Any]) -> Task[Any]:
        """Give a task of the store its `done_callback`, and return it."""
        task.awaiter = self._await_end
        return task

    def _put(self, engine: Engine, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        durable = getattr(future.task, "durability", None) is not None
        if engine.ready and not durable:
            engine.sending.put(future, entry, wait_for_end)
            return
        put = engine.sending.put_durably if durable else engine.sending.put
        act = functools.partial(put, future, entry, wait_for_end)
        engine.tasks.spawn(self._when_open(engine, future, act), first=True)

    def _await_end(self, task: Task[Any]) -> TaskFuture[Any]:
        engine = self._connections.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        future.watch = self._watch
        if task.done():
            engine.loop.call_soon_threadsafe(future.set_result, task)
        elif running_loop() is engine.loop:
            self._expect(engine, future)
        else:
            engine.loop.call_soon_threadsafe(self._expect, engine, future)
        return future

    def _expect(self, engine: Engine, future: TaskFuture[Any]) -> None:
        expect = functools.partial(engine.awaiting.expect, future, look_now=True)
        if engine.ready:
            expect()
        else:
            engine.tasks.spawn(self._when_open(engine, future, expect))

    async def _when_open(self, engine: Engine, future: TaskFuture[Any], act: Callable[[], None]) -> None:
        """Open the engine, then act; what makes that impossible becomes the error of the future."""
        while True:
            try:
                await engine.open()
            except StoreUnavailable as exc:
                if engine.tasks.persistent:
                    await asyncio.sleep(0.5 + self._clock.random())
                    continue
                if not future.done():
                    future.set_exception(exc)
            except asyncio.CancelledError:
                if engine.tasks.persistent:  # by a job that cancels every task of the loop
                    engine.tasks.restart_later(lambda: self._when_open(engine, future, act))
                raise
            except Exception as exc:
                if not future.done():
                    future.set_exception(exc)
            else:
                act()
            return
