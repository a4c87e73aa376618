"""A worker: one process doing work, as an ordered list of services (`pq.worker.services`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..clock import SYSTEM, Clock
from ..config import Settings
from ..model.manager import Manager
from ..model.observer import TaskObserver
from ..model.registry import Registry
from ..producer.producer import Producer
from .consumer import Consumer
from .context import Context, Counts
from .load import Load
from .queues import consumed_queues
from .scheduler import Scheduler
from .services import Services, Startable, make_services

logger = logging.getLogger("pq.worker")


class Worker:
    """One worker in the running loop. `finished` is set when it wants to be replaced.

    Args:
        cfg: the settings.
        store: where the tasks are.
        registry: the jobs.
        name, node: its name, and that of its server.
        manager: the user's hooks, a class.
        observer: notified of each attempt (logs).
        on_lease: called with each lease that it takes and its queues, so that its supervisor can hand the tasks back
            if this process dies.
    """

    def __init__(
        self,
        cfg: Settings,
        store: Store,
        registry: Registry,
        *,
        name: str,
        node: str,
        manager: type[Manager] = Manager,
        observer: TaskObserver | None = None,
        on_lease: Callable[[str, list[str]], None] = lambda lease, queues: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.name = name
        self.finished = asyncio.Event()
        self._cfg = cfg
        self._store = store
        self._registry = registry
        self._node = node
        self._manager_class = manager
        self._observer = observer
        self._on_lease = on_lease
        self._clock = clock
        self._broker: Broker | None = None
        self._producer: Producer | None = None
        self._services: Services | None = None
        self._started: list[Startable] = []
        self.context: Context | None = None
        self.counts = Counts()
        self.failed_service: str | None = None
        """The name of a service that has ended, which none may; the process of the worker is to die then."""

    async def start(self) -> None:
        """Start all services. Raises what makes it impossible, with nothing left running."""
        try:
            context = await self._make_context()
            services = self._services = self._make_services(context)
            await context.manager.start()
            for service in services:
                self._started.append(service)
                await service.start()
        except BaseException:
            await self.stop(grace=0.0)
            raise

    async def _make_context(self) -> Context:
        """Connect to the store; return the surroundings of the services."""
        cfg = self._cfg
        broker = self._broker = await self._store.broker(name=f"pq-{self.name}", patience=1.0)
        await broker.open()
        await broker.check_rights()
        producer = self._producer = Producer(
            cfg, self._store, lambda: self._registry, self._node, self._manager_class, clock=self._clock
        )
        # Tasks are queued and locks worked on in this loop, whichever thread or process has the job.
        # A task's end is settled when what its job queued is in the store. So queueing must not give up in an outage.
        engine = producer.pin_to_loop(retry_forever=True)
        context = self.context = Context(
            name=self.name,
            node=self._node,
            cfg=cfg,
            broker=broker,
            registry=self._registry,
            manager=producer.manager,
            queues=await consumed_queues(producer.tasks.queues(), broker, cfg, self._registry),
            clock=self._clock,
            counts=self.counts,
            sending=lambda: engine.sending.sent() if engine.sending.unsent else None,
        )
        self._store.workers += 1
        return context

    def _make_services(self, context: Context) -> Services:
        assert self._producer is not None
        return make_services(
            context,
            self._producer,
            observer=self._observer,
            on_lease=lambda lease: self._on_lease(lease, context.queues),
            on_finished=self.finished.set,
            on_failure=self._service_failed,
        )

    def _service_failed(self, name: str, error: BaseException | None) -> None:
        self.failed_service = name
        self.finished.set()

    @property
    def services(self) -> list[str]:
        """The names of its services, in the order in which they start."""
        return [service.name for service in self._services or ()]

    @property
    def consumer(self) -> Consumer | None:
        """Its consumer; None before its start."""
        return self._services.consumer if self._services is not None else None

    @property
    def scheduler(self) -> Scheduler | None:
        """Its scheduler; None before its start, and where this server schedules nothing."""
        return self._services.scheduler if self._services is not None else None

    def load(self) -> Load | None:
        """Return how much this worker has to do; None before its start."""
        return self.consumer.load() if self.consumer is not None else None

    def shorten_drain(self, grace: float) -> None:
        """End a drain that is under way within `grace` seconds."""
        if self.consumer is not None:
            self.consumer.shorten_drain(grace)

    async def sent(self) -> None:
        """Wait until all tasks that its jobs have queued so far are in the store."""
        if self._producer is not None:
            await self._producer.sent()

    async def stop(self, grace: float | None = None) -> None:
        """Drain and stop: running tasks get `grace` seconds, then they are handed back unspent."""
        if self.consumer is not None and self.consumer in self._started:
            await self.consumer.drain(self._cfg.graceful_timeout if grace is None else grace)
        while self._started:
            service = self._started.pop()
            try:
                await service.stop()
            except Exception:
                logger.exception("stopping the %s failed", service.name)
        context, self.context = self.context, None
        if context is not None:
            self._store.workers -= 1
            try:
                await context.manager.close()
            except Exception:
                logger.exception("Manager.close raised")
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()
