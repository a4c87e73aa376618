"""A worker process: one worker, and the mailbox to its supervisor.

It receives `stop` (drain within `grace` seconds; a second one may shorten them) and `ping`. It sends `lease`
(a right to hold tasks that it took, so that the supervisor can hand them back should it die), `ready`, `pong`
with its load, `failed` where it could not start, and at its end `exit` with the reason. When the supervisor is
gone it drains and ends: no process would restart it, and none would stop it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, NamedTuple, NoReturn

from ..broker.connect import Store
from ..config import Settings
from ..errors import PqError
from ..execution.signals import restore_in_forks
from ..logs import files as logfiles
from ..logs.tasks import observer
from ..loops import loop_factory
from ..model.manager import Manager
from ..model.registry import Registry
from ..worker.context import Counts
from ..worker.worker import Worker
from .mailbox import Mailbox

logger = logging.getLogger("pq.worker")

LAST_WORDS = 3.0
"""Seconds that a stopped worker gets for an orderly exit."""
FAILED_TO_START = 3
"""Exit code of a worker that could not start and has sent the reason."""
SERVICE_FAILED = 4
"""Exit code of a worker one of whose services has ended."""


class WorkerSpec(NamedTuple):
    """The arguments of a new worker process: plain values, and the manager's class."""

    name: str
    node: str
    settings: dict[str, Any]
    store_url: str
    manager: type[Manager]


def main(spec: WorkerSpec, end: socket.socket) -> None:
    """Run a worker process from its start to its exit."""
    # Ctrl-C at a terminal reaches every process of its group; the supervisor alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(other, signal.SIG_IGN)
    # `terminate()` of a process that a job forks must end that process, and not drain this worker.
    restore_in_forks(signal.SIGTERM)
    cfg = Settings.from_dict(spec.settings)
    logfiles.set_up(cfg, spec.name, f"worker-{spec.name.removeprefix('w')}")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(WorkerProcess(spec, cfg, Mailbox(end)).run())
    # A thread that a job left behind must not keep the process: everything is sent already.
    threading.Thread(target=_end_after, args=(LAST_WORDS, code), daemon=True).start()
    sys.exit(code)


def _end_after(seconds: float, code: int) -> None:
    time.sleep(seconds)
    os._exit(code)


class WorkerProcess:
    """One worker and its mailbox."""

    def __init__(self, spec: WorkerSpec, cfg: Settings, mailbox: Mailbox) -> None:
        self._spec = spec
        self._cfg = cfg
        self._mailbox = mailbox
        self._stop = asyncio.Event()
        self._grace = cfg.graceful_timeout
        self._worker: Worker | None = None
        self._reason = "stopped"

    async def run(self) -> int:
        """Work until a message, a signal or the worker itself stops it; return the exit code."""
        mailbox = self._mailbox
        await mailbox.open()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end, None)
        listening = asyncio.create_task(self._listen())
        store = Store(self._cfg, url=self._spec.store_url)
        try:
            counts = await self._work(store)
        except PqError as exc:
            mailbox.send("failed", message=exc.message, hint=exc.hint, slug=exc.slug)
            await mailbox.close()
            return FAILED_TO_START
        finally:
            store.detach()
        mailbox.send(
            "exit", reason=self._reason, succeeded=counts.succeeded, failed=counts.failed + counts.revoked
        )
        listening.cancel()
        await mailbox.close()
        return 0

    async def _work(self, store: Store) -> Counts:
        """Run the worker from its start to its end; return what it has done."""
        spec, mailbox = self._spec, self._mailbox
        log = observer(spec.name)
        registry = Registry.from_paths(self._cfg.task_paths)
        worker = self._worker = Worker(
            self._cfg,
            store,
            registry,
            name=spec.name,
            node=spec.node,
            manager=spec.manager,
            observer=log,
            on_lease=lambda lease, queues: mailbox.send("lease", lease=lease, queues=queues),
        )
        try:
            if log is not None:
                log.start()
            await worker.start()
            queues = worker.context.queues if worker.context else []
            mailbox.send("ready", jobs=len(registry), queues=queues)
            await self._until_stopped(worker)
        finally:
            await worker.stop(self._grace)
            if log is not None:
                log.stop()
        return worker.counts

    async def _until_stopped(self, worker: Worker) -> None:
        """Wait for a request to stop, or for the worker's wish to be replaced."""
        stop = asyncio.create_task(self._stop.wait())
        finished = asyncio.create_task(worker.finished.wait())
        await asyncio.wait({stop, finished}, return_when=asyncio.FIRST_COMPLETED)
        if worker.failed_service is not None:
            self._die(worker.failed_service)
        if not stop.done():
            self._reason = "recycled"
        stop.cancel()
        finished.cancel()

    def _die(self, service: str) -> NoReturn:
        """Exit now, without a drain: the end of a service is the death of its worker.

        The supervisor charges a crash to the tasks that were held, so a task that ends the consumer is set aside after
        `max_crashes`; handed back unspent it would end one worker after the other, forever.
        """
        logger.critical("the %s of %s has ended; the worker process exits", service, self._spec.name)
        logging.shutdown()
        os._exit(SERVICE_FAILED)

    async def _listen(self) -> None:
        async for message in self._mailbox:
            if message["kind"] == "stop":
                self._end(message.get("grace"))
            elif message["kind"] == "ping":
                load = self._worker.load() if self._worker is not None else None
                self._mailbox.send("pong", number=message.get("number"), load=load)
        if not self._stop.is_set():
            logger.warning("the supervisor is gone; this worker drains and ends")
        self._end(None)

    def _end(self, grace: float | None) -> None:
        """Drain and end; where the drain is under way already, within `grace` seconds from now."""
        grace = self._cfg.graceful_timeout if grace is None else grace
        if not self._stop.is_set():
            self._grace = grace
            self._stop.set()
            return
        self._grace = min(self._grace, grace)
        if self._worker is not None:
            self._worker.shorten_drain(grace)
