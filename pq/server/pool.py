"""The pool: the worker processes of a server, as many as are wanted.

It starts workers, replaces those that end, and hands the tasks of a dead worker back to their queues at once,
so they go on within milliseconds; the lease (30 s) is only for the case that a whole machine is gone. How many
workers there are to be is decided by others: signals, a reload, the autoscaler. A worker that is not needed
any more finishes its tasks first, however long that takes where the autoscaler decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import time
from typing import Any

from ..broker.contract.broker import Broker
from ..config import Settings
from ..errors import PqError
from ..loops import HeldTasks
from ..worker.load import Load
from . import forkserver
from .application import Application
from .handle import WorkerHandle, exit_text
from .mailbox import Mailbox, pair
from .restarts import Restarts
from .worker_process import FAILED_TO_START, WorkerSpec, main

logger = logging.getLogger("pq.server")

PING = 5.0
"""Seconds between two pings."""


class WorkerPool:
    """The workers of one server; an `autoscaling.Pool`.

    Attributes:
        changed: set when `fit` may have something to do.
        replacing: held while a reload replaces the workers; there is one more of them meanwhile.
        stopping: no worker is started any more.
        hopeless: no worker could start, and another try is useless.
        scaled: the autoscaler decides how many workers there are.
        succeeded, failed: tasks of the workers that have ended.
    """

    def __init__(self, app: Application, broker: Broker) -> None:
        self._app = app
        self._cfg = app.cfg
        self._broker = broker
        self._context = multiprocessing.get_context(forkserver.start_method())
        self._handles: dict[str, WorkerHandle] = {}
        self._wanted = self._cfg.min_workers
        self._count = 0
        self._killed = False
        self._restarts = Restarts()
        self._tasks = HeldTasks("the supervisor", logger=logger)
        self.changed = asyncio.Event()
        self.replacing = asyncio.Lock()
        self.stopping = False
        self.hopeless = False
        self.scaled = False
        self.succeeded = 0
        self.failed = 0

    # ---------------------------------------------------------------------- for the autoscaler
    @property
    def workers(self) -> int:
        """Return the wanted number of workers."""
        return self._wanted

    @property
    def leaving(self) -> int:
        """Return the number of workers that drain."""
        return sum(handle.leaving for handle in self._handles.values())

    @property
    def settled(self) -> bool:
        """Return True if the number of workers may be changed: no reload is under way, and the server does not end."""
        return not self.stopping and not self.replacing.locked()

    @property
    def queues(self) -> list[str]:
        """The queues that the workers consume; empty while no worker is ready."""
        return next((handle.queues for handle in self.staying() if handle.ready), [])

    async def loads(self, patience: float) -> dict[str, Load | None]:
        """Return the load of each worker that is ready; None for one that does not answer in `patience` seconds."""
        asked = [handle for handle in self.staying() if handle.ready]
        for handle in asked:
            handle.answered = False
            handle.ping()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for handle in asked:
                    while not handle.answered:
                        await handle.news()
        return {
            handle.name: handle.load if handle.answered else None for handle in asked if not handle.leaving
        }

    def resize(self, workers: int) -> None:
        """Have that many workers."""
        self._wanted = workers
        self.changed.set()

    # ------------------------------------------------------------------------------ population
    def configure(self, cfg: Settings) -> None:
        """Take new settings, for the workers that start from now on."""
        self._cfg = cfg
        self._wanted = min(max(self._wanted, cfg.min_workers), cfg.max_workers)

    def staying(self) -> list[WorkerHandle]:
        """Return the workers that take tasks, or will when they have started."""
        return [handle for handle in self._handles.values() if not handle.leaving]

    async def fit(self) -> None:
        """Bring the number of workers to what is wanted."""
        staying = self.staying()
        # A reload has one more on purpose, and stops the old one itself.
        if not self.replacing.locked():
            # The worker with the least to finish goes; among equals the youngest.
            staying.sort(key=lambda handle: (-handle.to_finish, handle.born))
            for handle in staying[self._wanted :]:
                self.stop_worker(handle, math.inf if self.scaled else None)
        missing = self._wanted - len(staying)
        pause = self._restarts.wait(time.monotonic())
        if missing > 0 and pause > 0:
            asyncio.get_running_loop().call_later(pause, self.changed.set)
            return
        for _ in range(missing):
            if not self.stopping:
                await self.start_worker()

    async def start_worker(self) -> WorkerHandle:
        """Start a worker process; it is not ready yet."""
        self._count += 1
        name = f"w{self._count}"
        ours, theirs = pair()
        app = self._app
        spec = WorkerSpec(name, app.node_name, self._cfg.to_dict(), app.store.url, app.manager)
        process = self._context.Process(  # type: ignore[attr-defined]  # each start method has it, the base class does not
            target=main, args=(spec, theirs), name=f"pq-{name}"
        )
        process.start()
        theirs.close()
        mailbox = Mailbox(ours)
        await mailbox.open()
        handle = self._handles[name] = WorkerHandle(name, process, mailbox)
        handle.listening = self._tasks.spawn(handle.listen(self._received))
        asyncio.get_running_loop().add_reader(process.sentinel, self._died, handle)
        if self.stopping:  # since meanwhile: whatever stopped the others did not know this one
            self.stop_worker(handle)
        return handle

    async def replace_all(self) -> None:
        """Replace worker by worker: each stops when its replacement is ready."""
        for number, old in enumerate(self.staying()):
            if number >= self._wanted:
                self.stop_worker(old)
                continue
            new = await self.start_worker()
            deadline = time.monotonic() + 30.0
            while not new.ready and new.name in self._handles and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await new.news()
            if self.stopping:
                return
            if not new.ready:
                logger.error("the new worker did not become ready; the old workers stay")
                return
            self.stop_worker(old)

    def stop_worker(self, handle: WorkerHandle, grace: float | None = None) -> None:
        """Have a worker drain and end within `grace` seconds, `graceful_timeout` where that is None."""
        handle.stop(self._cfg.graceful_timeout if grace is None else grace)

    def release_all(self) -> None:
        """Have all workers release their tasks now, and end."""
        for handle in list(self._handles.values()):
            self.stop_worker(handle, 0.0)

    def kill_all(self) -> None:
        """Kill all workers. Their tasks are handed back and not charged with a crash."""
        self._killed = True
        for handle in list(self._handles.values()):
            handle.leaving = True
            handle.kill()

    async def end(self) -> None:
        """Drain all workers; those that do not end in time are killed and their tasks handed back."""
        for handle in list(self._handles.values()):
            self.stop_worker(handle)  # also one that leaves already, and was given any time that it needs
        deadline = time.monotonic() + self._cfg.graceful_timeout + 10.0
        killed = False
        while self._handles:
            self.changed.clear()
            left = deadline - time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, left)):
                    await self.changed.wait()
            except TimeoutError:
                if killed:
                    break
                killed = True
                deadline = time.monotonic() + 5.0
                for handle in list(self._handles.values()):
                    logger.error("%s did not stop in time; it is killed", handle.name)
                    handle.kill()
        self._tasks.cancel()

    # -------------------------------------------------------------------------- life of a worker
    def _received(self, handle: WorkerHandle, message: dict[str, Any]) -> None:
        if message["kind"] == "ready":
            self._restarts.ready()
            logger.info(
                "ready · pid %d · queues %s · %d job%s",
                handle.process.pid,
                ", ".join(message["queues"]),
                message["jobs"],
                "s" * (message["jobs"] != 1),
                extra={"who": handle.name},
            )
        elif message["kind"] == "exit":
            self.succeeded += message["succeeded"]
            self.failed += message["failed"]

    def _died(self, handle: WorkerHandle) -> None:
        asyncio.get_running_loop().remove_reader(handle.process.sentinel)
        self._tasks.spawn(self._remove(handle))

    async def _remove(self, handle: WorkerHandle) -> None:
        """A worker process has ended: take in its last messages, hand back its tasks, decide what follows."""
        if await handle.gone():
            logger.warning("%s outlived its fork server, and has ended now", handle.name)
        code = await handle.ended()
        self._handles.pop(handle.name, None)
        await handle.mailbox.close()
        expected = handle.reason is not None
        if not expected and code != FAILED_TO_START:
            logger.warning(
                "%s (pid %d) died: %s",
                handle.name,
                handle.process.pid,
                exit_text(code),
                extra={"who": "server"},
            )
            await self._hand_back(handle, crashed=not self._killed)
        if (failure := handle.failure) is not None:
            logger.error(
                "a worker could not start: %s [%s]",
                failure["message"], failure["slug"], extra={"hint": failure.get("hint")},
            )  # fmt: skip
        if not expected:
            now = time.monotonic()
            self._restarts.died(ready=handle.ready, lived=now - handle.born, workers=self._wanted, now=now)
            if self._restarts.hopeless:
                logger.error("no worker could start; the server ends")
                self.hopeless = self.stopping = True
        handle.process.close()
        self.changed.set()

    async def _hand_back(self, handle: WorkerHandle, *, crashed: bool) -> None:
        """Return what a dead worker held to the front of its queues, within milliseconds of its death."""
        total = 0
        for lease, queues in handle.leases:
            try:
                total += await self._broker.work.hand_back(lease, queues, crashed=crashed)
            except PqError as exc:
                logger.warning("the tasks of %s will be released when its lease ends: %s", handle.name, exc)
        if total:
            logger.info("%d task%s of %s released to the queue", total, "s" * (total != 1), handle.name)

    async def ping(self) -> None:
        """Kill workers that stopped answering pings: they are stuck and occupy a slot. Never ends."""
        number = 0
        while True:
            await asyncio.sleep(PING)
            number += 1
            limit = max(2 * self._cfg.lease, self._cfg.stall_limit) + 2 * PING
            now = time.monotonic()
            for handle in list(self._handles.values()):
                handle.ping(number)
                if now - handle.heard > limit:
                    logger.error(
                        "%s has not answered for %.0f s; it is killed", handle.name, now - handle.heard
                    )
                    handle.kill()
