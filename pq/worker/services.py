"""The services of a worker, as one ordered list.

They are started in their order and stopped in reverse. So what a service needs is there before it starts, and
still there after it has stopped: the lease is kept before the first task is taken, and until the last was settled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..execution.executor import Executor
from ..execution.executors import executors_of
from ..loops import HeldTasks
from ..model.backend import Backend
from ..model.observer import TaskObserver
from ..model.options import CPUBOUND
from ..producer.producer import Producer
from .attempts import Attempts
from .backend import WorkerBackend
from .canceller import Canceller
from .consumer import Consumer
from .context import Context
from .heartbeat import Heartbeat
from .hooks import ManagerHook
from .lease import LeaseKeeper
from .progress import Progress
from .scheduler import Scheduler
from .service import Service
from .streams import Streams
from .sweeper import Sweeper
from .tasklines import TaskLines

if TYPE_CHECKING:
    from .reporter import Reporter

logger = logging.getLogger("pq.worker")


class Startable(Protocol):
    """An element of the list of services: a `Service`, or an object with the same methods."""

    name: str

    async def start(self) -> None:
        """Begin the duty. Raises what makes it impossible."""

    async def stop(self) -> None:
        """End the duty, within a bounded time."""


class Executors:
    """All executors as one service."""

    name = "executors"

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = executors

    async def start(self) -> None:
        """See `Startable`."""
        for executor in self._executors.values():
            await executor.start()

    async def stop(self) -> None:
        """See `Startable`."""
        await asyncio.gather(*(executor.stop() for executor in self._executors.values()))


@dataclass(slots=True)
class Services:
    """The services of one worker, in their order; those that others ask something are named."""

    ordered: list[Startable]
    consumer: Consumer
    scheduler: Scheduler | None

    def __iter__(self) -> Iterator[Startable]:
        return iter(self.ordered)


def make_services(
    context: Context,
    producer: Producer,
    *,
    observer: TaskObserver | None,
    on_lease: Callable[[str], None],
    on_finished: Callable[[], None],
    on_failure: Callable[[str, BaseException | None], None],
) -> Services:
    """Make the services of a worker.

    Args:
        context: its surroundings.
        producer: queues what its jobs queue.
        observer: notified of each attempt.
        on_lease: called with each lease that it takes, before it is taken.
        on_finished: called when the worker is to be replaced: after `max_requests` tasks.
        on_failure: called with the name of a service that has ended, and its exception; that is the end of the worker.
    """
    cfg, attempts, beside = context.cfg, Attempts(), HeldTasks("the consumer", logger=logger)
    progress = Progress(context)
    streams = Streams(context, attempts.held_under)
    backend = WorkerBackend(
        cfg, producer.tasks, progress.report, streams.stream, producer.lock, producer.http
    )
    executors = _executors(context, backend)
    reporter = _reporter(context)
    hook = ManagerHook(context.manager, beside) if ManagerHook.is_wanted(context.manager) else None
    keeper = LeaseKeeper(
        context,
        on_lease=on_lease,
        on_lost=lambda: consumer.lease_lost(),
        on_cancel=attempts.cancel,
        job_of=attempts.job_of,
    )
    consumer = Consumer(
        context,
        attempts,
        backend=backend,
        executors=executors,
        streams=streams,
        beside=beside,
        take_new_lease=keeper.take_new_lease,
        observers=[each for each in (observer, hook, reporter) if each is not None],
        on_limit=on_finished,
    )
    scheduler = Scheduler(context, producer.schedules) if cfg.schedule_periodic else None
    ordered: list[Startable | None] = [
        reporter,
        Sweeper(context) if cfg.large_dir else None,
        Executors(executors),
        keeper,
        progress,
        streams,
        TaskLines(context),
        Canceller(context, attempts.cancel),
        Heartbeat(context, attempts.__len__),
        scheduler,
        consumer,
    ]
    services = [service for service in ordered if service is not None]
    for service in services:
        if isinstance(service, Service):  # the others have no task that could end
            service.on_failure = lambda service, error: on_failure(service.name, error)
    return Services(services, consumer, scheduler)


def _reporter(context: Context) -> Reporter | None:
    """Return the reporter of failures, where the settings name a way for reports."""
    cfg = context.cfg
    if not (cfg.report_mail_to or cfg.report_webhook):
        return None
    from .reporter import Reporter  # smtplib and its like take some time to import

    return Reporter(cfg, worker=context.name, node=context.node)


def _executors(context: Context, backend: Backend) -> dict[str, Executor]:
    """Return the ways to run an attempt, by mode; one child starts early where a job needs one."""
    has_processes = any(job.concurrency == CPUBOUND for job in context.registry)
    return executors_of(context.cfg, backend, warm=1 if has_processes else 0)
