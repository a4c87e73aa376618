"""A worker: one process doing work, as an ordered list of services.

They are started in the order in which they stand here and stopped in reverse; so what a service leans on
is there before it, and still there after it:

    reporter      mails and web hooks about failures, where they are wanted
    executors     the ways to run an attempt
    lease keeper  the right to hold tasks
    progress      reports of running tasks
    streams       parts of their results
    canceller     requests to stop one
    heartbeat     the world knows of us
    scheduler     ticks of periodic jobs, where the server has to see to them
    consumer      and only now tasks are taken
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..broker.connect import Store
from ..broker.contract.broker import Broker, Renewer
from ..clock import SYSTEM, Clock
from ..errors import did_you_mean
from ..execution.executor import Executor
from ..execution.executors import make_executors
from ..model.manager import Manager
from ..model.names import new_lease
from ..model.observer import TaskObserver
from ..model.options import CPUBOUND
from ..model.registry import Registry
from ..producer.producer import Producer
from .canceller import Canceller
from .consumer import Consumer
from .context import Context, Counts, WorkerBackend
from .heartbeat import Heartbeat
from .lease import LeaseKeeper
from .load import Load
from .progress import Progress
from .scheduler import Scheduler
from .service import Service
from .streams import Streams
from .sweeper import Sweeper
from .tasklines import TaskLines

logger = logging.getLogger("pq.worker")


class Startable(Protocol):
    """What the list of services is made of."""

    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Executors:
    """All executors as one service."""

    name = "executors"

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = executors

    async def start(self) -> None:
        for executor in self._executors.values():
            await executor.start()

    async def stop(self) -> None:
        await asyncio.gather(*(executor.stop() for executor in self._executors.values()))


class Worker:
    """One worker in the running loop. `finished` is set when it wants to be replaced.

    Args:
        cfg: the settings.
        store: where the tasks are.
        registry: the jobs.
        name, node: what it is called.
        manager: the user's hooks, a class.
        observer: notified of each attempt (logs).
        on_lease: is told of each lease it takes, so that somebody can hand it back if this process dies.
    """

    def __init__(
        self,
        cfg: Any,
        store: Store,
        registry: Registry,
        *,
        name: str,
        node: str,
        manager: type[Manager] = Manager,
        observer: TaskObserver | None = None,
        on_lease: Callable[[str, list[str]], None] | None = None,
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
        self._started: list[Startable] = []
        self._producer: Producer | None = None
        self.context: Context | None = None
        self.counts = Counts()
        self.consumer: Consumer | None = None
        self.scheduler: Scheduler | None = None

    async def start(self) -> None:
        """Start all services. Raises what makes it impossible, with nothing left running."""
        cfg = self._cfg
        broker = await self._store.broker(name=f"pq-{self.name}", patience=1.0)
        try:
            await broker.open()
            await broker.check_rights()
        except BaseException:
            await broker.close()
            raise
        progress = Progress()
        producer = self._producer = Producer(
            cfg, self._store, lambda: self._registry, self._node, self._manager_class, clock=self._clock
        )
        # Tasks are queued and locks worked on in this loop, whichever thread or process has the job.
        # A job's end is told when what it queued is in the store. So that must not be given up in an outage.
        engine = producer.pin_to_loop(retry_forever=True)
        backend = WorkerBackend(
            cfg,
            producer.tasks,
            progress.report,
            lambda *args: streams.stream(*args),
            producer.lock,
            producer.http,
        )
        has_processes = any(job.concurrency == CPUBOUND for job in self._registry)
        executors = make_executors(
            backend=backend,
            task_paths=cfg.task_paths,
            app_name=cfg.name,
            settings=cfg.to_dict(),
            threads=cfg.concurrent_tasks,
            processes=cfg.cpu_processes,
            warm=1 if has_processes else 0,
            idle_time=cfg.idle_timeout,
            limit=cfg.largest_message,
        )
        queues = await self._queues(broker, producer)
        context = self.context = Context(
            name=self.name,
            node=self._node,
            cfg=cfg,
            broker=broker,
            registry=self._registry,
            manager=producer.manager,
            backend=backend,
            queues=queues,
            executors=executors,
            clock=self._clock,
            counts=self.counts,
            sending=lambda: engine.sending.sent() if engine.sending.unsent else None,
        )
        progress.attach(context)
        keeper = LeaseKeeper(
            context,
            self._renewer,
            new_lease=self._new_lease,
            on_lost=lambda: consumer.lease_lost(),
            on_cancel=lambda ids: consumer.cancel(ids),
            who_runs=self._who_runs,
        )
        consumer = self.consumer = Consumer(
            context,
            take_new_lease=keeper.take_new_lease,
            observer=self._observer,
            on_limit=self.finished.set,
        )
        streams = context.streams = Streams(context, consumer.holding)
        if cfg.schedule_periodic:
            self.scheduler = Scheduler(context, producer.schedules)
        services: list[Startable] = [
            Executors(executors),
            keeper,
            progress,
            streams,
            TaskLines(context),
            Canceller(context, consumer.cancel),
            Heartbeat(context, lambda: consumer.running),
            *([self.scheduler] if self.scheduler is not None else []),
            consumer,
        ]
        if cfg.large_dir and not self._store.is_memory:
            services.insert(0, Sweeper(context))
        if cfg.report_mail_to or cfg.report_webhook:
            from .reporter import Reporter  # smtplib and its like take some time to import

            reporter = Reporter(cfg, worker=self.name, node=self._node)
            context.report = reporter.report
            services.insert(0, reporter)
        for service in services:
            if isinstance(service, Service):
                service.on_failure = lambda service, error: self.finished.set()
        self._store.workers += 1
        try:
            await context.manager.start()
            for service in services:
                self._started.append(service)
                await service.start()
        except BaseException:
            await self.stop(grace=0.0)
            raise

    async def _queues(self, broker: Broker, producer: Producer) -> list[str]:
        """What it consumes: also what lies in partitions that are too many since their number was made smaller."""
        queues, partitions = producer.tasks.queues(), producer.partitions
        served = [queue for queue in queues if queue in partitions]
        elsewhere = {job.default_queue for job in self._registry} | {self._cfg.default_queue}
        for queue in partitions.queues:
            if queue not in served and queue not in elsewhere:
                hint = did_you_mean(queue, {*queues, *filter(None, elsewhere)})
                logger.warning(
                    "partitions: no job queues to %r, and this worker does not serve it%s",
                    queue, f"; {hint}" * bool(hint),
                )  # fmt: skip
        if not served:
            return queues
        known = await broker.looks.queue_names()
        for queue in served:
            former = [name for name in partitions.all_of(queue, known) if name not in queues]
            left = sum([(await broker.looks.state(name)).waiting for name in former])
            if left:
                logger.warning(
                    "queue %s is cut into %d partitions, and %d tasks wait in others (%s): they are run too, "
                    "and their keys may lie in two partitions until then",
                    queue, len(partitions.of(queue)), left, ", ".join(former),
                )  # fmt: skip
            queues += former
        return queues

    def _new_lease(self) -> str:
        lease = new_lease()
        if self._on_lease is not None and self.context is not None:
            self._on_lease(lease, self.context.queues)
        return lease

    def _renewer(self) -> Renewer:
        assert self.context is not None
        return self.context.broker.renewer()

    def _who_runs(self, running: asyncio.Task[Any] | None) -> str | None:
        """The name of the job whose attempt is that asyncio task."""
        if self.consumer is None:
            return None
        for attempt in self.consumer.attempts():
            if running is not None and attempt.seat is running:
                return f"{attempt.task.name} {attempt.task.id[:9]}"
        return None

    def load(self) -> Load | None:
        """How much there is to do here; None while it does not run."""
        return self.consumer.load() if self.consumer is not None else None

    def hurry(self, grace: float) -> None:
        """It stops, and is now to do so within `grace` seconds."""
        if self.consumer is not None:
            self.consumer.hurry(grace)

    async def sent(self) -> None:
        """Wait until all that its jobs have queued so far is in the store."""
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
        if self.context is not None:
            self._store.workers -= 1
            try:
                await self.context.manager.close()
            except Exception:
                logger.exception("Manager.close raised")
            await self.context.broker.close()
            self.context = None
        if self._producer is not None:
            await self._producer.close()
            self._producer = None
