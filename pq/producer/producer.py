"""The producer api: what `app().api()` returns.

One producer serves any number of loops and threads (`connections.py`). This module puts its parts together, starts
and closes them, and is the `Backend` of the jobs that it runs itself.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, TypeVar

from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..clock import SYSTEM, Clock
from ..config import Settings, redact
from ..errors import InvalidValue
from ..execution.command import run_command
from ..execution.http import HttpClients
from ..model.backend import NO_WAIT, Backend, NoWait, current_backend
from ..model.events import Callback, TaskEvent
from ..model.manager import Manager
from ..model.partitions import Partitions
from ..model.registry import Registry
from ..model.serializers import Serializer
from ..model.task import Task
from .actions import Actions
from .connections import Companion, Connections
from .engine import Engine
from .events import Delivery, Events
from .future import LoopFuture, TaskFuture
from .inline import Inline
from .locks import Lock
from .lookup import Lookup
from .making import Making
from .schedules import Schedules
from .submitting import Submitting
from .tasks import Tasks
from .watch import events_of

logger = logging.getLogger("pq.producer")
T = TypeVar("T")


class Producer:
    """Queue messages, listen to events. Use it as `async with api:`, or just use it: it starts by itself.

    `tasks` queues and looks at tasks, `lock` takes a lock on the store. Made by `app().api()`.
    """

    def __init__(
        self,
        cfg: Settings,
        store: Store,
        registry: Callable[[], Registry],
        node_name: str,
        manager: type[Manager] = Manager,
        clock: Clock = SYSTEM,
        companion: Companion | None = None,
        background: bool = False,
    ) -> None:
        self.cfg: Settings = cfg
        self.clock = clock
        self.keys = Keys(cfg.namespace)
        self.node_name = node_name
        self.partitions: Partitions = cfg.queue_partitions
        self.max_message_size: int = cfg.max_message_size
        self.manager = manager(self)
        self.consumers: list[str] = ["tasks"]
        """The kinds of message that this api can queue and execute."""
        self.closed = False
        """True when it was closed: make another one."""
        self._outer: Backend | None = None
        self._store = store
        self._http = HttpClients(self.manager.http)
        jobs = self._jobs = functools.cache(registry)

        self.delivery = Delivery(self.keys)
        self.connections = Connections(
            self.keys,
            store,
            self.delivery.deliver,
            kept=cfg.kept,
            clock=clock,
            release=self._release,
            on_queued=_queued_hook(self.manager),
            companion=companion,
            background=background,
        )
        self._events = Events(self.connections, self.delivery, self.keys)
        self._making = Making(cfg, jobs, clock)
        self.submitting = Submitting(self.connections, clock, self._watch)
        self.inline = Inline(self.connections, cfg, jobs, self, clock)
        self._lookup = Lookup(
            self.connections, self.submitting.bind, self.partitions, cfg.default_queue, clock
        )
        self.schedules = Schedules(
            self.connections, self._making, self.submitting, jobs, cfg.default_queue, node_name
        )
        actions = Actions(
            self.connections, self._lookup, self._making, jobs, self.partitions, self.keys, clock
        )
        self.tasks = Tasks(
            self.connections,
            self._making,
            self.submitting,
            self.inline,
            self._lookup,
            actions,
            self.schedules,
            registry=jobs,
            manager=self.manager,
            node_name=node_name,
            partitions=self.partitions,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"<api of {self.where}>"

    @property
    def store_url(self) -> str:
        """The URL of the store of its tasks."""
        return self._store.url

    @property
    def where(self) -> str:
        """The URL of the store without a password, to be shown."""
        return redact(self._store.url)

    @property
    def registry(self) -> Registry:
        """The jobs of the application; their modules are imported when this is first asked for."""
        return self._jobs()

    @property
    def serializer(self) -> Serializer:
        """The format of its messages."""
        return self._making.serializer

    # ----------------------------------------------------------------------------------- life
    def start(self) -> LoopFuture[Producer]:
        """Connect and listen to events; resolves to this api. Raises `StoreUnavailable`."""
        return self.connections.call(self._start())

    async def _start(self) -> Producer:
        await self.connections.broker()
        return self

    def close(self) -> LoopFuture[None]:
        """Send what is left and release everything. Awaitable; twice is harmless."""
        self.closed = True
        return self.connections.close()

    async def _release(self) -> None:
        await self.inline.stop()
        await self._http.close()

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

    def pin_to_loop(self, *, retry_forever: bool = False) -> Engine:
        """Work in the running loop from now on, whatever the thread of a call; return the engine of this loop.

        `retry_forever`: never give up what was queued, however long the store is away.
        """
        return self.connections.pin_to_loop(retry_forever=retry_forever)

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """Return the loops that it works in."""
        return self.connections.loops

    async def broker(self) -> Broker:
        """Return the broker of this loop, open, with all in the store that was queued before."""
        return await self.connections.broker()

    async def sent(self) -> None:
        """Wait until all that was queued in the running loop so far is in the store, or was refused by it."""
        await self.connections.sent()

    def call(self, work: Coroutine[Any, Any, T]) -> LoopFuture[T]:
        """Run a coroutine in the loop of this producer; the future is for `await` and for `.wait()`."""
        return self.connections.call(work)

    # ------------------------------------------------------------------------------- messages
    def queue(self, message: Any, callback: bool = True) -> TaskFuture[Any]:
        """Queue a message (a `Task`): resolved when it is done (`True`), or once it is queued (`False`).

        Raises `InvalidValue` for anything but a `Task`; the future may raise `QueueFull`, `StoreUnavailable`.
        """
        if not isinstance(message, Task):
            raise InvalidValue(
                f"{message!r:.60} is not a message", hint="api.queue takes a Task; api.tasks.queue makes one"
            )
        if message.queue is None:
            message.queue = self.cfg.default_queue
        self._making.place(message)
        return self.submitting.submit(message, wait_for_end=callback)

    def execute(self, message: Any) -> TaskFuture[Any]:
        """Run a message (a `Task`) here and now, without a queue. Raises `InvalidValue` for anything else."""
        if not isinstance(message, Task):
            raise InvalidValue(f"{message!r:.60} is not a message", hint="api.execute takes a Task")
        message.queue = None
        return self.inline.execute(message)

    def queues(self) -> list[str]:
        """Return the queues that this application's servers consume."""
        return self.tasks.queues()

    # --------------------------------------------------------------------------------- events
    def on_events(self, message_type: str, event_re: str, callback: Callback) -> LoopFuture[None]:
        """Call `callback(channel, event, message)` on every matching event, in the loop of this producer.

        `message_type` is `'task'` or `'consumer'`; `event_re` is `'*'` or words like `'started|done'`.
        The future resolves once the subscription stands; it need not be awaited. A callback may be a
        coroutine function; one that raises is logged, and stops nothing. Raises `InvalidValue`.
        """
        return self._events.on(message_type, event_re, callback)

    def remove_event_callback(self, message_type: str, event_re: str, callback: Callback) -> LoopFuture[None]:
        """Undo `on_events`, at once; harmless when it was never done. It may be awaited, and need not be."""
        return self._events.remove(message_type, event_re, callback)

    def _watch(self, future: TaskFuture[Any]) -> AsyncIterator[TaskEvent]:
        return events_of(self.connections, self._events, self._lookup, future)

    # ------------------------------------------------------------------------- backend of jobs
    def progress(self, task: Task[Any], done: float, total: float | None, message: str | None) -> None:
        """Note the progress of a task that is executed here without a queue."""
        task.note(progress={"done": done, "total": total, "message": message})

    def stream(self, task: Task[Any], part: bytes, block: object = None) -> NoWait:
        """Drop a part of a task that is executed here without a queue: it has no reader."""
        return NO_WAIT

    def lock(self, name: str, *, ttl: float = 30.0, wait: float | None = None, block: Any = None) -> Lock:
        """Return a lock on the store, for `async with`, or `with` in a thread.

        Args:
            ttl: seconds after which it is free when its holder died; it is renewed while it is held.
            wait: the longest wait for it in seconds; 0 asks once, None waits without end.
            block: how a job in a greenlet waits.

        Taking it raises `LockTimeout`.
        """
        return Lock(self.connections.engine(), name, ttl=ttl, wait=wait, block=block)

    def http(self, blocking: bool = False) -> Any:
        """Return the HTTP client of jobs: a blocking one, or the async one of the running loop."""
        return self._http.get(blocking)

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any]
    ) -> Awaitable[str]:
        """Run a command for a job, in a process group of its own."""
        return run_command(command, timeout, options, own_group=True)


def _queued_hook(manager: Manager) -> Callable[[Task[Any]], Coroutine[Any, Any, None]] | None:
    """Return what is to be called with each queued task; None where the manager has no such hook."""
    if type(manager).store_message is Manager.store_message:
        return None

    async def on_queued(task: Task[Any]) -> None:
        try:
            await manager.store_message(task)
        except Exception:
            logger.exception("Manager.store_message raised for %r", task)

    return on_queued
