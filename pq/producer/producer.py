"""The producer api: what `app().api()` returns.

One producer serves any number of loops and threads. Inside a running loop it works in that loop, as
fast as can be. Without one, in a plain shell or in the threads of a synchronous web application, it
keeps one event loop in a background thread, so futures resolve and callbacks fire while the prompt
waits. Each loop has its own `Engine`, with its own connections.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import msgpack

from ..broker import records
from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..broker.contract.values import Entry
from ..broker.keys import Keys
from ..broker.records import NO_KEY, unique_key
from ..clock import SYSTEM, Clock
from ..config import redact
from ..errors import InvalidValue, StoreUnavailable, UnreadableMessage
from ..execution.attempt import Attempt
from ..execution.command import run_command
from ..execution.executor import Executor
from ..execution.executors import make_executors
from ..execution.http import HttpClients
from ..loops import LoopThread, in_notebook, running_loop
from ..model.backend import NO_WAIT, Backend, NoWait, current_backend
from ..model.ending import conclude
from ..model.events import Callback, Listeners, TaskEvent
from ..model.manager import Manager
from ..model.operations import RETRY as AGAIN
from ..model.outcome import Outcome
from ..model.partitions import Partitions
from ..model.registry import Registry
from ..model.serializers import serializer
from ..model.states import FAILURE, STARTED
from ..model.task import Task
from .engine import Engine
from .future import LoopFuture, TaskFuture
from .locks import Lock
from .tasks import Tasks
from .watch import events_of

logger = logging.getLogger("pq.producer")
T = TypeVar("T")


class Producer:
    """Queue messages, hear events. Use it as `async with api:`, or just use it: it starts by itself.

    `companion` starts what does the work where nobody else can, with `memory://`; it answers with the
    way to stop it.
    """

    def __init__(
        self,
        cfg: Any,
        store: Store,
        registry: Callable[[], Registry],
        node_name: str,
        manager: type[Manager] = Manager,
        clock: Clock = SYSTEM,
        companion: Callable[[], Coroutine[Any, Any, Callable[[], Coroutine[Any, Any, None]]]] | None = None,
        background: bool = False,
    ) -> None:
        self._in_background = background or in_notebook()
        self.cfg = cfg
        self.clock = clock
        self.keys = Keys(cfg.namespace)
        self.node_name = node_name
        self.serializer = serializer(cfg.message_serializer)
        self.durability: str = cfg.durability
        self.max_message_size: int = cfg.max_message_size
        self.largest_message: int = cfg.largest_message
        self.default_queue: str = cfg.default_queue
        self.checked_queues: set[str] = {self.default_queue}
        self.partitions: Partitions = cfg.queue_partitions
        self.manager = manager(self)
        self.tasks = Tasks(self)
        self._http = HttpClients(self.manager.http)
        self.consumers: list[str] = ["tasks"]
        """The kinds of message that this api can queue and execute."""
        self._store = store
        self._load_registry = registry
        self._registry: Registry | None = None
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Engine] = (
            weakref.WeakKeyDictionary()
        )
        self._calls: weakref.WeakKeyDictionary[Engine, set[asyncio.Task[Any]]] = weakref.WeakKeyDictionary()
        self._home: Engine | None = None
        self._thread: LoopThread | None = None
        self._mutex = threading.Lock()
        self._listeners = Listeners()
        self._executors: dict[str, Executor] = {}
        self._pid = os.getpid()
        self._companion = companion
        self._stop_companion: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._queued_hook = type(self.manager).store_message is not Manager.store_message
        self.closed = False
        """True when it was closed: make another one."""
        self._outer: Backend | None = None

    @property
    def store_url(self) -> str:
        """Where its tasks are."""
        return self._store.url

    @property
    def where(self) -> str:
        """The same for people: without a password."""
        return redact(self._store.url)

    @property
    def registry(self) -> Registry:
        """The jobs of the application; their modules are imported when this is first asked for."""
        if self._registry is None:
            self._registry = self._load_registry()
        return self._registry

    # ----------------------------------------------------------------------------------- life
    def start(self) -> LoopFuture[Producer]:
        """Connect and listen to events; resolves to this api."""
        return self.call(self._start())

    async def _start(self) -> Producer:
        await self.broker()
        return self

    def close(self) -> LoopFuture[None]:
        """Send what is left and let go of everything. Awaitable; twice is harmless."""
        loop = running_loop()
        engine = self._engines.get(loop) if loop is not None else None
        self.closed = True
        if engine is not None:
            return self.call(self._close_here(engine))
        self._close_thread()
        return _resolved(None)

    async def _close_here(self, engine: Engine) -> None:
        # This very coroutine is no task of the engine's, or it would cancel itself.
        self._engines.pop(engine.loop, None)
        await self._close_in_loop(engine)
        await asyncio.to_thread(self._close_thread)

    async def _close_companion(self) -> None:
        stop, self._stop_companion = self._stop_companion, None
        if stop is not None:
            await stop()

    async def _close_in_loop(self, engine: Engine) -> None:
        for executor in self._executors.values():
            await executor.stop()
        self._executors.clear()
        await self._close_companion()
        await self._http.close()
        await engine.close()
        # What was asked of the store and has no answer: nobody would give one any more.
        left = [task for task in self._calls.pop(engine, ()) if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _close_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None and thread.alive:
            engine = self._engines.get(thread.loop)
            if engine is not None:
                asyncio.run_coroutine_threadsafe(self._close_in_loop(engine), thread.loop).result(10.0)
                # Not before: what was begun in that loop a moment ago must find this engine, and no new one.
                self._engines.pop(thread.loop, None)
            thread.stop()
        atexit.unregister(self._close_thread)
        self._store.leave(self)

    async def __aenter__(self) -> Producer:
        await self.start()
        # Here and not in `start`, which works in a task of its own, and so in a context of its own.
        self._outer = current_backend.get()
        current_backend.set(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if current_backend.get() is self:
            current_backend.set(self._outer)
        await self.close()

    def __await__(self) -> Generator[Any, None, Producer]:
        return self.start().__await__()

    # -------------------------------------------------------------------------------- engines
    def engine(self) -> Engine:
        """The engine of the running loop, or that of the background thread."""
        if self._home is not None:
            return self._home
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
        executing = _executing.get()
        if executing is not None and executing[0] is self:
            return executing[1]
        return self._new_engine(loop)

    def stay(self) -> Engine:
        """Work in the running loop from now on, whoever asks.

        So it is in a worker, whose jobs ask from threads and from loops of their own, which end with the job.
        """
        self._home = self.engine()
        return self._home

    def _background(self) -> LoopThread:
        with self._mutex:
            if self._pid != os.getpid():  # the child of a fork: the thread stayed with the parent
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
        engine = self._engines[loop] = Engine(self.keys, self, clock=self.clock, kept=self.cfg.kept)
        if self._queued_hook:
            engine.on_queued = self._store_message
        return engine

    async def _store_message(self, message: Task[Any]) -> None:
        try:
            await self.manager.store_message(message)
        except Exception:
            logger.exception("Manager.store_message raised for %r", message)

    async def _make_broker(self) -> Broker:
        if self._companion is not None and self._stop_companion is None and not self._store.workers:
            self._stop_companion = await self._companion()
        self._store.join(self)
        return await self._store.broker(name=f"pq-producer-{os.getpid()}")

    async def broker(self) -> Broker:
        """The broker of the running loop's engine, open, with all in it that was queued before."""
        engine = self.engine()
        broker = await engine.open(self._make_broker)
        await engine.sent()
        return broker

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The loops that it works in."""
        return list(self._engines)

    async def sent(self) -> None:
        """Wait until all that was queued in the running loop so far is in the store, or was refused by it."""
        engine = self._engines.get(asyncio.get_running_loop())
        if engine is not None and engine.ready:
            await engine.sent()

    def likely_queues(self) -> list[str]:
        """Where a task most likely is, to be looked at first."""
        return [self.default_queue]

    # ------------------------------------------------------------------------------ any setting
    def call(self, work: Coroutine[Any, Any, T]) -> LoopFuture[T]:
        """Run a coroutine in this setting's loop; the future is for `await` and for `.wait()`."""
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
                    future.exception()  # whoever does not await it was not interested
            else:
                if not future.done():
                    future.set_result(result)

        # Not `engine.spawn`: closing the engine cancels its tasks, and `close` itself runs here.
        task: asyncio.Task[Any] = engine.loop.create_task(follow())
        calls = self._calls.setdefault(engine, set())
        calls.add(task)
        task.add_done_callback(calls.discard)

    def gather(self, futures: Sequence[TaskFuture[Any]]) -> LoopFuture[list[Task[Any]]]:
        """One future of many; the first error of theirs is its own, however many are not done yet."""

        async def all_of() -> list[Task[Any]]:
            return await asyncio.gather(*futures)

        return self.call(all_of())

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any]
    ) -> Awaitable[str]:
        """Run a command for a job, in a process group of its own."""
        return run_command(command, timeout, options, own_group=True)

    # ------------------------------------------------------------------------------- messages
    def queue(self, message: Any, callback: bool = True) -> TaskFuture[Any]:
        """Queue a message (a `Task`): resolved when it is done (`True`), or once it is queued (`False`)."""
        if not isinstance(message, Task):
            raise InvalidValue(
                f"{message!r:.60} is not a message", hint="api.queue takes a Task; api.tasks.queue makes one"
            )
        if message.queue is None:
            message.queue = self.default_queue
        if self.partitions:
            self.tasks.place(message)
        return self.submit(message, wait_for_end=callback)

    def execute(self, message: Any) -> TaskFuture[Any]:
        """Run a message (a `Task`) here and now, without a queue."""
        if not isinstance(message, Task):
            raise InvalidValue(f"{message!r:.60} is not a message", hint="api.execute takes a Task")
        message.queue = None
        return self.execute_task(message)

    def submit(self, task: Task[Any], *, wait_for_end: bool) -> TaskFuture[Any]:
        """Send a task that `Tasks` has made."""
        engine = self.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        future.watch = self._watch
        task.reply = engine.reply_channel
        delay = None if task.delay is None else max(1, round(task.delay * 1000))
        priority = task.priority or 0
        demands = task.demands
        header = records.live_header(priority, "", demands)
        unique = bool(demands) and unique_key(demands) != NO_KEY
        entry = Entry(task.id, header + task.to_wire(), delay, priority, unique)
        self.adopt(task)
        if engine.closed:
            raise InvalidValue("this api is closed", hint="make a new one: app().api()")
        if self._store.on_submit is not None:
            self._store.on_submit(task, future)
        if running_loop() is engine.loop:
            self._put(engine, future, entry, wait_for_end)
        else:
            engine.loop.call_soon_threadsafe(self._put, engine, future, entry, wait_for_end)
        return future

    def _put(self, engine: Engine, future: TaskFuture[Any], entry: Entry, wait_for_end: bool) -> None:
        if getattr(future.task, "durability", None) is not None:
            put = functools.partial(engine.put_durably, future, entry, wait_for_end)
            engine.spawn(self._when_open(engine, future, put), first=True)
        elif engine.ready:
            engine.put(future, entry, wait_for_end)
        else:
            put = functools.partial(engine.put, future, entry, wait_for_end)
            engine.spawn(self._when_open(engine, future, put), first=True)

    def adopt(self, task: Task[Any]) -> Task[Any]:
        """Give a task its way to `done_callback`."""
        task.awaiter = self._await_done
        return task

    def _await_done(self, task: Task[Any]) -> TaskFuture[Any]:
        engine = self.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        future.watch = self._watch
        if task.done():
            engine.loop.call_soon_threadsafe(future.set_result, task)
        elif running_loop() is engine.loop:
            self._expect(engine, future)
        else:
            engine.loop.call_soon_threadsafe(self._expect, engine, future)
        return future

    def _watch(self, future: TaskFuture[Any]) -> AsyncIterator[TaskEvent]:
        return events_of(self, future)

    def _expect(self, engine: Engine, future: TaskFuture[Any]) -> None:
        if engine.ready:
            engine.expect(future, look_now=True)
        else:
            engine.spawn(self._when_open(engine, future, lambda: engine.expect(future, look_now=True)))

    async def _when_open(self, engine: Engine, future: TaskFuture[Any], act: Callable[[], None]) -> None:
        """Open the engine, then act; what makes that impossible becomes the future's error."""
        while True:
            try:
                await engine.open(self._make_broker)
            except StoreUnavailable as exc:
                if engine.insists and not engine.closed:
                    await asyncio.sleep(0.5 + self.clock.random())
                    continue
                if not future.done():
                    future.set_exception(exc)
            except asyncio.CancelledError:
                if engine.insists and not engine.closed:  # by a job that cancels whatever runs in the loop
                    engine.later(lambda: self._when_open(engine, future, act))
                raise
            except Exception as exc:
                if not future.done():
                    future.set_exception(exc)
            else:
                act()
            return

    # ------------------------------------------------------------------------- without a queue
    def execute_task(self, task: Task[Any]) -> TaskFuture[Any]:
        """Run a task in this program, in the mode of its job."""
        engine = self.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        self.registry  # noqa: B018  imported in the caller's thread, where its errors belong
        if running_loop() is engine.loop:
            engine.spawn(self._execute(task, future))
        else:
            asyncio.run_coroutine_threadsafe(self._execute(task, future), engine.loop)
        return future

    async def _execute(self, task: Task[Any], future: TaskFuture[Any]) -> None:
        _executing.set((self, self.engine()))
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        job = self.registry[task.name]
        task.status, task.time_started = STARTED, self.clock.time()
        task.worker, task.node = "here", self.node_name

        def finished(_: Attempt, outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        self.start_attempt(Attempt(task, job, self, finished))
        outcome = await ended
        ending = conclude(task, outcome, now=self.clock.time(), job=job, limit=self.largest_message)
        while ending.op == AGAIN:
            await asyncio.sleep(ending.wait)
            ended = asyncio.get_running_loop().create_future()
            self.start_attempt(Attempt(task, job, self, finished))
            ending = conclude(task, await ended, now=self.clock.time(), job=job, limit=self.largest_message)
        if not task.done():  # its process died, or this program stops: there is no queue to go back to
            task.status, task.exception, task.reason = (
                FAILURE,
                outcome.error or "the task was not run",
                outcome.reason,
            )
        if not future.done():
            future.set_result(task)

    def start_attempt(self, attempt: Attempt) -> None:
        """Run an attempt in this program, in the mode of its job."""
        contextvars.copy_context().run(self._start_attempt, attempt)

    def _start_attempt(self, attempt: Attempt) -> None:
        current_backend.set(self)  # for the job alone, and not for whoever has it run
        self._executor(attempt.job_class.concurrency).start_attempt(attempt)

    def _executor(self, mode: str) -> Executor:
        if not self._executors:
            cfg = self.cfg
            self._executors = make_executors(
                backend=self,
                task_paths=cfg.task_paths,
                app_name=cfg.name,
                settings=cfg.to_dict(),
                threads=cfg.concurrent_tasks,
                processes=cfg.cpu_processes,
                idle_time=cfg.idle_timeout,
                limit=cfg.largest_message,
            )
        return self._executors[mode]

    # --------------------------------------------------------------------------------- events
    def on_events(self, message_type: str, event_re: str, callback: Callback) -> LoopFuture[None]:
        """Call `callback(channel, event, message)` on every matching event, in this setting's loop.

        `message_type` is `'task'` or `'consumer'`; `event_re` is `'*'` or words like `'started|done'`.
        Awaiting what this returns makes sure that the subscription stands. A callback may be a
        coroutine function; one that raises is logged, and stops nothing.
        """
        self._listeners.add(message_type, event_re, callback)
        return self.call(self._subscribe(message_type))

    def remove_event_callback(self, message_type: str, event_re: str, callback: Callback) -> LoopFuture[None]:
        """Undo `on_events`, at once; safe when it was never done. It may be awaited, and need not be."""
        self._listeners.remove(message_type, event_re, callback)
        thread = self._thread
        return _resolved(None, thread.loop if thread is not None and thread.alive else None)

    async def _subscribe(self, message_type: str) -> None:
        engine = self.engine()
        await engine.open(self._make_broker)
        channel = self.keys.task_channel if message_type == "task" else self.keys.consumer_channel
        await engine.listen_to_tasks(channel)

    def deliver(self, engine: Engine, channel: str, payload: bytes) -> None:
        """A raw event came: call whoever wants it."""
        head, _, body = payload.partition(b"\n")
        words = head.decode("utf-8", "replace").split(" ")
        if channel == self.keys.consumer_channel:
            try:
                facts = msgpack.unpackb(payload)
                event = facts.pop("event", "status")
            except (
                ValueError,
                msgpack.UnpackException,
                AttributeError,
                TypeError,
                LookupError,
                RecursionError,
            ):
                return  # not from a worker of ours
            if type(event) is not str:
                return
            for callback in self._listeners.wanted("consumer", event):
                engine.run_callback(callback, "consumer", event, dict(facts))
            return
        callbacks = self._listeners.wanted("task", words[0])
        if not callbacks:
            return
        for _, record in records.parcels(body):
            try:
                task = Task.from_wire(records.message(record))
            except UnreadableMessage:
                continue
            if words[0] == "started" and len(words) >= 4 and words[1].isdecimal() and len(words[1]) < 18:
                task.status, task.time_started = STARTED, int(words[1]) / 1000
                task.worker, task.node = words[2], words[3]
            for callback in callbacks:
                engine.run_callback(callback, "task", words[0], task)

    # --------------------------------------------------------------------------------- backend
    def queues(self) -> list[str]:
        """The queues that this application's servers consume."""
        return self.tasks.queues()

    def progress(self, task: Task[Any], done: float, total: float | None, message: str | None) -> None:
        """Progress of a task that is executed here without a queue: noted on the task."""
        task.note(progress={"done": done, "total": total, "message": message})

    def stream(self, task: Task[Any], part: bytes, block: object = None) -> NoWait:
        """What a task streams that is executed here without a queue: nobody can read it."""
        return NO_WAIT

    def lock(self, name: str, *, ttl: float = 30.0, wait: float | None = None, block: Any = None) -> Lock:
        """A lock on the store, for `async with`, or `with` in a thread.

        Args:
            ttl: seconds after which it is free when its holder is no more; renewed while it is held.
            wait: the longest wait for it in seconds; 0 asks once, None waits without end.
            block: how a job in a greenlet waits.
        """
        return self.lock_in(self.engine(), name, ttl=ttl, wait=wait, block=block)

    def lock_in(self, engine: Engine, name: str, **options: Any) -> Lock:
        """The same, to be worked on in the loop of that engine, whichever thread uses it."""
        return Lock(engine, functools.partial(engine.open, self._make_broker), name, **options)

    def http(self, blocking: bool = False) -> Any:
        """The HTTP client of jobs: a blocking one, or the async one of the running loop."""
        return self._http.get(blocking)


_executing: ContextVar[tuple[Producer, Engine] | None] = ContextVar("pq_executing", default=None)
"""Whose engine an executed job uses, when a loop of its own runs it, which ends with the job."""


def _resolved(value: T, loop: asyncio.AbstractEventLoop | None = None) -> LoopFuture[T]:
    """A future that is resolved already, for a setting that may have no loop at all."""
    known = running_loop() or loop
    # It has nothing to wait for, so a closed loop is as good as any, and leaves nothing open.
    its = known or asyncio.new_event_loop()
    future: LoopFuture[T] = LoopFuture(loop=its)
    future.set_result(value)
    if known is None:
        its.close()
    return future
