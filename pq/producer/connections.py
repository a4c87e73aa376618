"""The engines of one producer, one for each event loop, and how a call finds its own.

- *In a running loop* the engine of that loop is used: nothing crosses a thread.
- *Without one*, in a plain shell or in the threads of a synchronous web application, an event loop in a background
  thread does the work, so futures resolve and callbacks fire while the prompt waits.
- *In the child of a fork* the thread stayed with the parent: the child gets another thread and other connections.
- *Pinned* (`pin_to_loop`), as in a worker, every call goes to one engine: jobs ask from threads and from loops of
  their own, which end with the job.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..clock import Clock
from ..loops import LoopThread, in_notebook, running_loop
from ..model.task import Task
from .engine import Deliver, Engine
from .future import LoopFuture, TaskFuture

T = TypeVar("T")

Stop = Callable[[], Coroutine[Any, Any, None]]
Companion = Callable[[], Coroutine[Any, Any, Stop]]
"""Starts a worker in the loop of the producer, where no other process can do the work; returns how to stop it."""


class Connections:
    """Opens one engine for each loop, on its first use, and closes them all.

    Args:
        keys, store, kept, clock: of the application; `kept` are the seconds that finished tasks are kept.
        deliver: gets the events of the channels that were subscribed to.
        on_queued: called with each task that the store has taken, where the application has such a hook.
        companion: started before the first connection where no worker of this process is on the store.
        background: never use the running loop.
        release: called before an engine is closed, in its loop.
    """

    def __init__(
        self,
        keys: Keys,
        store: Store,
        deliver: Deliver,
        *,
        kept: float,
        clock: Clock,
        release: Callable[[], Awaitable[None]],
        on_queued: Callable[[Task[Any]], Coroutine[Any, Any, None]] | None = None,
        companion: Companion | None = None,
        background: bool = False,
    ) -> None:
        self.store = store
        self._keys = keys
        self._deliver = deliver
        self._kept = kept
        self._clock = clock
        self._release = release
        self._on_queued = on_queued
        self._companion = companion
        self._stop_companion: Stop | None = None
        self._in_background = background or in_notebook()
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Engine] = (
            weakref.WeakKeyDictionary()
        )
        self._calls: weakref.WeakKeyDictionary[Engine, set[asyncio.Task[Any]]] = weakref.WeakKeyDictionary()
        self._pinned: Engine | None = None
        self._thread: LoopThread | None = None
        self._mutex = threading.Lock()
        self._pid = os.getpid()

    # -------------------------------------------------------------------------------- engines
    def engine(self) -> Engine:
        """Return the engine of the running loop, or that of the background thread."""
        if self._pinned is not None:
            return self._pinned
        loop = None if self._in_background else running_loop()
        if loop is None:
            loop = self._background().loop
            engine = self._engines.get(loop)
            if engine is None:
                engine = asyncio.run_coroutine_threadsafe(self._make_engine(), loop).result(10.0)
            return engine
        engine = self._engines.get(loop)
        if engine is not None:
            return engine
        lent = _lent.get()
        if lent is not None and lent[0] is self:
            return lent[1]
        return self._new_engine(loop)

    def pin_to_loop(self, *, retry_forever: bool = False) -> Engine:
        """Work in the running loop from now on, whatever the thread or loop of a call; return its engine.

        `retry_forever`: never give up what was queued, however long the store is away.
        """
        self._pinned = self.engine()
        self._pinned.tasks.retry_forever = retry_forever
        return self._pinned

    def lend_engine(self) -> None:
        """Let the code of this context, and what it starts, use this engine in any loop.

        So a job that is run here without a queue works in a loop of its own, which ends with the job.
        """
        _lent.set((self, self.engine()))

    @property
    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The loops that have an engine."""
        return list(self._engines)

    @property
    def background_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the background thread, where there is one."""
        thread = self._thread
        return thread.loop if thread is not None and thread.alive else None

    def _background(self) -> LoopThread:
        with self._mutex:
            if self._pid != os.getpid():  # the child of a fork
                self._thread, self._pid = None, os.getpid()
                self._engines = weakref.WeakKeyDictionary()
            if self._thread is None or not self._thread.alive:
                self._thread = LoopThread("pq-producer")
                atexit.register(self._close_thread)
            return self._thread

    async def _make_engine(self) -> Engine:
        loop = asyncio.get_running_loop()
        return self._engines.get(loop) or self._new_engine(loop)

    def _new_engine(self, loop: asyncio.AbstractEventLoop) -> Engine:
        engine = self._engines[loop] = Engine(
            self._keys, self._make_broker, self._deliver, kept=self._kept, clock=self._clock
        )
        engine.sending.on_queued = self._on_queued
        return engine

    async def _make_broker(self) -> Broker:
        if self._companion is not None and self._stop_companion is None and not self.store.workers:
            self._stop_companion = await self._companion()
        self.store.join(self)
        return await self.store.broker(name=f"pq-producer-{os.getpid()}")

    async def broker(self) -> Broker:
        """Return the broker of this loop's engine, open, with all in the store that was queued before."""
        engine = self.engine()
        broker = await engine.open()
        await engine.sending.sent()
        return broker

    async def sent(self) -> None:
        """Wait until all that was queued in the running loop so far is in the store, or was refused by it."""
        engine = self._engines.get(asyncio.get_running_loop())
        if engine is not None and engine.ready:
            await engine.sending.sent()

    # ---------------------------------------------------------------------------------- calls
    def call(self, work: Coroutine[Any, Any, T]) -> LoopFuture[T]:
        """Run a coroutine in the loop of the engine; return a future for `await` and for `.wait()`."""
        engine = self.engine()
        future: LoopFuture[T] = LoopFuture(loop=engine.loop)
        if running_loop() is engine.loop:
            self._follow(engine, work, future)
        else:
            engine.loop.call_soon_threadsafe(self._follow, engine, work, future)
        return future

    def _follow(self, engine: Engine, work: Coroutine[Any, Any, T], future: LoopFuture[T]) -> None:
        async def follow() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                future.cancel()
                raise
            except Exception as exc:
                if not future.done():
                    future.set_exception(exc)
                    future.exception()  # a caller that does not await it asked for no error
            else:
                if not future.done():
                    future.set_result(result)

        # Not of the engine's own tasks: closing the engine cancels those, and `close` itself runs here.
        task: asyncio.Task[Any] = engine.loop.create_task(follow())
        calls = self._calls.setdefault(engine, set())
        calls.add(task)
        task.add_done_callback(calls.discard)

    def gather(self, futures: Sequence[TaskFuture[Any]]) -> LoopFuture[list[Task[Any]]]:
        """Return one future of many. It fails with the first error among them, however many are not done yet."""

        async def all_of() -> list[Task[Any]]:
            return await asyncio.gather(*futures)

        return self.call(all_of())

    # ------------------------------------------------------------------------------------ end
    def close(self) -> LoopFuture[None]:
        """Send what is left and disconnect. Awaitable; twice is harmless."""
        loop = running_loop()
        engine = self._engines.get(loop) if loop is not None else None
        if engine is not None:
            return self.call(self._close_here(engine))
        self._close_thread()
        return resolved(None)

    async def _close_here(self, engine: Engine) -> None:
        # This very coroutine is not a task of the engine's, or it would cancel itself.
        self._engines.pop(engine.loop, None)
        await self._close_engine(engine)
        await asyncio.to_thread(self._close_thread)

    async def _close_engine(self, engine: Engine) -> None:
        await self._release()
        stop, self._stop_companion = self._stop_companion, None
        if stop is not None:
            await stop()
        await engine.close()
        # Calls to the store without an answer: none would come any more.
        left = [task for task in self._calls.pop(engine, ()) if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _close_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None and thread.alive:
            engine = self._engines.get(thread.loop)
            if engine is not None:
                asyncio.run_coroutine_threadsafe(self._close_engine(engine), thread.loop).result(10.0)
                # Not before: what was started in that loop a moment ago must find this engine, and not a new one.
                self._engines.pop(thread.loop, None)
            thread.stop()
        atexit.unregister(self._close_thread)
        self.store.leave(self)


_lent: ContextVar[tuple[Connections, Engine] | None] = ContextVar("pq_lent_engine", default=None)
"""The engine that a job uses which is run here, in the loop of its own that it may be run by."""


def resolved(value: T, loop: asyncio.AbstractEventLoop | None = None) -> LoopFuture[T]:
    """Return a future that is resolved already, for a setting that may have no loop at all."""
    known = running_loop() or loop
    # It has nothing to wait for, so a closed loop is as good as any, and leaves nothing open.
    its = known or asyncio.new_event_loop()
    future: LoopFuture[T] = LoopFuture(loop=its)
    future.set_result(value)
    if known is None:
        its.close()
    return future
