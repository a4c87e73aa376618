"""The supervisor: keeps a server's workers alive, and runs no task itself.

It starts worker processes, hears their mailboxes, and replaces those that end. When it sees one die it
hands the tasks of that worker back to their queues at once, so they go on within milliseconds; the lease
(30 s) is only for the case that a whole machine is gone.

With `workers` as a range, how many there are is up to `scaling`; it says a number, and the rest is the same.
A worker that goes because fewer are needed finishes what it runs, however long that takes.

With `reload` it watches the source files, and does what SIGHUP does when one of them changes.

Signals: the first SIGINT, and SIGTERM, drain (no new tasks; running ones get `graceful_timeout` and are
then handed back unspent). A second SIGTERM has them handed back now, and a third, like a second SIGINT, stops
at once. SIGHUP reloads; SIGTTIN and SIGTTOU add and take away a worker, and of a range move its lower end as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..config import Settings
from ..errors import BadSetting, PqError, StoreEvicts
from ..logs import files as logfiles
from ..logs.watching import observer
from ..loops import run
from ..model.manager import Manager
from ..model.registry import Registry
from ..worker.load import Load
from ..worker.worker import Worker
from . import forkserver, sources
from .autoscaling import Scaling
from .mailbox import Mailbox, pair
from .restarts import Restarts
from .worker_process import FAILED_TO_START, WorkerSpec, main

logger = logging.getLogger("pq.server")

PING = 5.0
"""Seconds between two pings."""
ONE_PRESS = 0.3
"""Seconds within which two signals to stop are one: a press of Ctrl-C, or what a process manager sends twice."""


class Application(Protocol):
    """What a server needs to know of its application."""

    manager: type[Manager]
    config: str | None

    @property
    def cfg(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def node_name(self) -> str: ...

    def reload(self) -> Settings:
        """The settings, read anew."""
        ...

    def worker(self, name: str, **options: Any) -> Worker:
        """A worker for a loop of this process."""
        ...


@dataclass(eq=False)
class Member:
    """One worker process, as the supervisor sees it."""

    name: str
    process: Any
    mailbox: Mailbox
    born: float
    leases: list[tuple[str, list[str]]] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    ready: bool = False
    leaving: bool = False
    reason: str | None = None
    load: Load | None = None
    answered: bool = True
    failure: dict[str, Any] | None = None
    heard: float = 0.0
    listening: asyncio.Task[None] | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """One running server."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._cfg = app.cfg
        self._store = app.store  # stays when the settings are reloaded: another store is another server
        self._context = multiprocessing.get_context(forkserver.start_method())
        self._members: dict[str, Member] = {}
        self._wanted = self._cfg.min_workers
        self._scaling: Scaling | None = None
        self._reloading = asyncio.Lock()
        self._count = 0
        self._changed = asyncio.Event()
        self._interrupts = 0
        self._terminations = 0
        self._at_once = False
        self._stop_signal_at = float("-inf")
        self._stopping = False
        self._restarts = Restarts()
        self._succeeded = 0
        self._failed = 0
        self._exit_code = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._broker: Broker | None = None
        self._watching: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------ life
    async def serve(self) -> int:
        """Run until told to stop; the exit code."""
        app, loop = self._app, asyncio.get_running_loop()
        self._broker = await self._store.broker(name="pq-supervisor", patience=2.0)
        await self._broker.open()
        jobs = len(app.registry)
        self._introduce(jobs)
        await self._look_at_the_store()
        for number, handler in (
            (signal.SIGINT, self._interrupt),
            (signal.SIGTERM, self._terminate),
            (signal.SIGHUP, self._reload),
            (signal.SIGTTIN, self._one_more),
            (signal.SIGTTOU, self._one_less),
        ):
            loop.add_signal_handler(number, handler)
        pinging = self._spawn_task(self._ping())
        self._follow_demand()
        self._follow_sources()
        try:
            while not self._stopping:
                self._changed.clear()
                await self._fit()
                await self._changed.wait()
        finally:
            pinging.cancel()
            if self._scaling is not None:
                await self._scaling.stop()
            await self._end_all()
            await self._broker.close()
            await asyncio.to_thread(self._store.detach)
        self._say_goodbye()
        return self._exit_code

    def _introduce(self, jobs: int) -> None:
        server = self._store.server
        if server is not None:
            logger.info(
                "%s %s embedded, data in %s (set PQ_DATA_STORE to use your own)",
                server.product,
                server.version,
                _short(str(server.directory)),
                extra={"who": "pq"},
            )
        else:
            assert self._broker is not None
            logger.info("store %s", self._broker.where, extra={"who": "pq"})
        if not jobs:
            modules = len(self._app.registry.modules)
            logger.warning(
                "task_paths %s matched %d module%s and no job [no-jobs]",
                list(self._cfg.task_paths), modules, "s" * (modules != 1),
                extra={"hint": "decorate a function with @api.job(), or list the module that has them in task_paths"},
            )  # fmt: skip
        least, most = self._cfg.min_workers, self._cfg.max_workers
        logger.info(
            "pid %d · %s worker%s · %d job%s",
            os.getpid(),
            least if least == most else f"{least} to {most}",
            "s" * (most != 1),
            jobs,
            "s" * (jobs != 1),
        )

    async def _look_at_the_store(self) -> None:
        """A store that throws keys away when it is full loses tasks, and nobody would hear of it.

        Raises `StoreEvicts`, unless `allow_eviction` says that this is known.
        """
        assert self._broker is not None
        try:
            facts = await self._broker.looks.facts()
        except PqError as exc:
            logger.debug("the store does not tell its policy: %s", exc)
            return
        for slug, text, hint in facts.get("warnings", ()):
            logger.warning("%s [%s]", text, slug, extra={"hint": hint})
        policy = str(facts["policy"])
        if not policy.startswith("allkeys"):  # what `volatile-*` deletes is finished
            return
        text = (
            f"this store deletes keys when it is full (maxmemory-policy {policy}): tasks can vanish silently"
        )
        hint = "CONFIG SET maxmemory-policy noeviction, or a store of its own"
        if not self._cfg.allow_eviction:
            await self._broker.close()
            raise StoreEvicts(text, hint=f"{hint}; --allow-eviction starts all the same")
        logger.warning("%s [%s]", text, StoreEvicts.slug, extra={"hint": hint})

    def _say_goodbye(self) -> None:
        server = self._store.url
        kept = (
            f" · data kept in {_short(server.removeprefix('embedded://'))}"
            if server.startswith("embedded")
            else ""
        )
        logger.info("stopped · %s done, %s failed%s", f"{self._succeeded:,}", f"{self._failed:,}", kept)

    def _spawn_task(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------------------------ population
    async def _fit(self) -> None:
        """Bring the number of workers to what is wanted."""
        staying = self._staying()
        # A reload has one more on purpose, and takes the old one away itself.
        if not self._reloading.locked():
            # Who has least to finish goes; among equals the youngest.
            staying.sort(key=lambda member: (-_to_finish(member), member.born))
            for member in staying[self._wanted :]:
                self._dismiss(member, math.inf if self._scaling is not None else None)
        missing = self._wanted - len(staying)
        pause = self._restarts.wait(time.monotonic())
        if missing > 0 and pause > 0:
            asyncio.get_running_loop().call_later(pause, self._changed.set)
            return
        for _ in range(missing):
            if not self._stopping:
                await self._start_worker()

    def _staying(self) -> list[Member]:
        """The workers that take tasks, or will when they have started."""
        return [member for member in self._members.values() if not member.leaving]

    async def _start_worker(self) -> Member:
        self._count += 1
        name = f"w{self._count}"
        ours, theirs = pair()
        spec = WorkerSpec(name, self._app.node_name, self._cfg.to_dict(), self._store.url, self._app.manager)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=main, args=(spec, theirs), name=f"pq-{name}"
        )
        process.start()
        theirs.close()
        mailbox = Mailbox(ours)
        await mailbox.open()
        now = time.monotonic()
        member = self._members[name] = Member(name, process, mailbox, now, heard=now)
        member.listening = self._spawn_task(self._listen(member))
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._died, member)
        if self._stopping:  # meanwhile: nobody else would tell it
            self._dismiss(member)
        return member

    def _dismiss(self, member: Member, grace: float | None = None) -> None:
        member.leaving = True
        member.mailbox.send("stop", grace=self._cfg.graceful_timeout if grace is None else grace)

    async def _listen(self, member: Member) -> None:
        async for message in member.mailbox:
            member.heard = time.monotonic()
            kind = message["kind"]
            if kind == "lease":
                member.leases.append((message["lease"], message["queues"]))
            elif kind == "pong":
                if message.get("load"):
                    member.load, member.answered = Load.of(message["load"]), True
            elif kind == "ready":
                member.ready = True
                member.queues = message["queues"]
                self._restarts.ready()
                logger.info(
                    "ready · pid %d · queues %s · %d job%s",
                    member.process.pid,
                    ", ".join(message["queues"]),
                    message["jobs"],
                    "s" * (message["jobs"] != 1),
                    extra={"who": member.name},
                )
            elif kind == "failed":
                member.failure = message
            elif kind == "exit":
                member.reason = message["reason"]
                member.leaving = True
                self._succeeded += message["succeeded"]
                self._failed += message["failed"]
            member.news.set()

    def _died(self, member: Member) -> None:
        asyncio.get_running_loop().remove_reader(member.process.sentinel)
        self._spawn_task(self._bury(member))

    async def _bury(self, member: Member) -> None:
        """A worker process has ended: take in what it said last, hand back its tasks, see what follows."""
        if member.listening is not None:
            await asyncio.wait({member.listening}, timeout=2.0)
        await asyncio.to_thread(member.process.join, 2.0)
        code = member.process.exitcode
        self._members.pop(member.name, None)
        await member.mailbox.close()
        expected = member.reason is not None
        if not expected and code != FAILED_TO_START:
            logger.warning(
                "%s (pid %d) died: %s", member.name, member.process.pid, _how(code), extra={"who": "server"}
            )
            await self._hand_back(member, crashed=not self._at_once)
        if member.failure is not None:
            self._report_failure(member.failure)
        if not expected:
            now = time.monotonic()
            self._restarts.died(ready=member.ready, lived=now - member.born, workers=self._wanted, now=now)
            if self._restarts.hopeless:
                logger.error("no worker could start; the server ends")
                self._exit_code = 1
                self._stopping = True
        member.process.close()
        self._changed.set()

    async def _hand_back(self, member: Member, *, crashed: bool) -> None:
        """What a dead worker held goes to the front of its queues, within milliseconds of its death."""
        broker = self._broker
        if broker is None:
            return
        total = 0
        for lease, queues in member.leases:
            try:
                total += await broker.work.hand_back(lease, queues, crashed=crashed)
            except PqError as exc:
                logger.warning("the tasks of %s come back when its lease ends: %s", member.name, exc)
        if total:
            logger.info("%d task%s of %s back in the queue", total, "s" * (total != 1), member.name)

    def _report_failure(self, failure: dict[str, Any]) -> None:
        logger.error(
            "a worker could not start: %s [%s]",
            failure["message"], failure["slug"], extra={"hint": failure.get("hint")},
        )  # fmt: skip

    async def _ping(self) -> None:
        """A worker that does not answer for very long is as good as dead, and holds its place."""
        number = 0
        limit = max(2 * self._cfg.lease, self._cfg.stall_limit) + 2 * PING
        while True:
            await asyncio.sleep(PING)
            number += 1
            now = time.monotonic()
            for member in list(self._members.values()):
                member.mailbox.send("ping", number=number)
                if now - member.heard > limit:
                    logger.error(
                        "%s has not answered for %.0f s; it is killed", member.name, now - member.heard
                    )
                    _kill(member)

    # --------------------------------------------------------------------------------- scaling
    def _follow_demand(self) -> None:
        """Begin to, where `workers` is a range."""
        cfg = self._cfg
        assert self._broker is not None
        if cfg.min_workers < cfg.max_workers:
            self._scaling = Scaling(
                self,
                self._broker,
                channel=Keys(cfg.namespace).consumer_channel,
                node=self._app.node_name,
                least=cfg.min_workers,
                most=cfg.max_workers,
                idle_timeout=cfg.idle_timeout,
            )
            self._scaling.start()

    @property
    def workers(self) -> int:
        """`scaling.Crew`: the workers that there are to be."""
        return self._wanted

    @property
    def leaving(self) -> int:
        """`scaling.Crew`: those that finish what they run, and end."""
        return sum(member.leaving for member in self._members.values())

    @property
    def settled(self) -> bool:
        """`scaling.Crew`: nobody replaces workers, nor ends them."""
        return not self._stopping and not self._reloading.locked()

    @property
    def queues(self) -> list[str]:
        """`scaling.Crew`: what the workers consume."""
        return next((member.queues for member in self._staying() if member.ready), [])

    async def loads(self, patience: float) -> dict[str, Load | None]:
        """`scaling.Crew`: ask each worker that is ready for its load; None where no answer comes in time."""
        asked = [member for member in self._staying() if member.ready]
        for member in asked:
            member.answered = False
            member.mailbox.send("ping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for member in asked:
                    while not member.answered:
                        member.news.clear()
                        await member.news.wait()
        return {m.name: m.load if m.answered else None for m in asked if not m.leaving}

    def resize(self, workers: int) -> None:
        """`scaling.Crew`: have so many workers."""
        self._wanted = workers
        self._changed.set()

    # --------------------------------------------------------------------------------- signals
    def _interrupt(self) -> None:
        if self._is_repeated():
            return
        self._interrupts += 1
        if self._interrupts == 1:
            self._begin_to_stop("Ctrl-C again to stop at once")
        else:
            self._stop_at_once()

    def _terminate(self) -> None:
        if self._is_repeated():
            return
        self._terminations += 1
        if self._terminations == 1:
            self._begin_to_stop()
        elif self._terminations == 2:
            logger.warning("stopping now: what runs is handed back")
            for member in list(self._members.values()):
                self._dismiss(member, 0.0)
        else:
            self._stop_at_once()

    def _is_repeated(self) -> bool:
        """One Ctrl-C can reach us twice (from the terminal, and from a program that passes it on)."""
        now, before = time.monotonic(), self._stop_signal_at
        self._stop_signal_at = now
        return now - before < ONE_PRESS

    def _begin_to_stop(self, more: str = "") -> None:
        if not self._stopping:
            grace = f"running tasks get up to {self._cfg.graceful_timeout:g} s"
            logger.info("stopping: %s%s", grace, f" ({more})" if more else "")
        self._stopping = True
        self._changed.set()

    def _stop_at_once(self) -> None:
        logger.warning("stopping at once")
        self._at_once = True  # those who die now are not charged with it
        for member in list(self._members.values()):
            member.leaving = True
            _kill(member)

    def _reload(self) -> None:
        self._spawn_task(self._reload_now())

    async def _reload_now(self) -> None:
        """New settings and new code, one reload after the other."""
        async with self._reloading:
            try:
                cfg = self._app.reload()
                logfiles.set_up(cfg, "server", "supervisor", needed=True)
            except PqError as exc:
                logger.error("not reloaded: %s [%s]", exc, exc.slug, extra={"hint": exc.hint})
                return
            logger.info("reloading")
            if self._scaling is not None:
                await self._scaling.stop()
                self._scaling = None
            self._cfg, self._wanted = cfg, min(max(self._wanted, cfg.min_workers), cfg.max_workers)
            self._follow_demand()
            self._follow_sources()
            await self._replace_all()
        self._changed.set()

    def _follow_sources(self) -> None:
        """Begin to, where `reload` is on. It ends by itself when a reload turns it off."""
        if self._cfg.reload and (self._watching is None or self._watching.done()):
            logger.info("workers are restarted when a source file changes (reload is for development)")
            self._watching = self._spawn_task(self._watch_sources())

    async def _watch_sources(self) -> None:
        watched = sources.Sources(self._app.config, lambda: self._cfg.task_paths)
        async for paths in watched.changes():
            if self._stopping:
                return
            logger.info("changed: %s", sources.named(paths))
            await asyncio.to_thread(sources.forget, paths)
            await self._reload_now()
            if not self._cfg.reload:
                return

    async def _replace_all(self) -> None:
        """Worker by worker: each goes when its replacement is ready."""
        for number, old in enumerate(self._staying()):
            if number >= self._wanted:
                self._dismiss(old)
                continue
            new = await self._start_worker()
            deadline = time.monotonic() + 30.0
            while not new.ready and new.name in self._members and time.monotonic() < deadline:
                new.news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await new.news.wait()
            if self._stopping:
                return
            if not new.ready:
                logger.error("the new worker did not become ready; the old ones stay")
                return
            self._dismiss(old)

    def _one_more(self) -> None:
        self._by_hand(1, "one worker more")

    def _one_less(self) -> None:
        self._by_hand(-1, "one worker less")

    def _by_hand(self, step: int, what: str) -> None:
        """One more or one less now; and of a range, its lower end moves along, or it would not last."""
        before, span = self._wanted, ""
        most: float = math.inf
        if self._scaling is not None:
            span = f" ({self._scaling.shift(step)} from now on)"
            most = self._cfg.max_workers
        self._wanted = int(min(max(1, before + step), most))
        if self._wanted != before or span:
            logger.info("%s: %d%s", what if self._wanted != before else "as many workers", self._wanted, span)
            self._changed.set()

    async def _end_all(self) -> None:
        """Drain all workers; those that do not end in time are killed and their tasks handed back."""
        for member in list(self._members.values()):
            self._dismiss(member)  # also one that goes already, and has been given all the time it needs
        deadline = time.monotonic() + self._cfg.graceful_timeout + 10.0
        killed = False
        while self._members:
            self._changed.clear()
            left = deadline - time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, left)):
                    await self._changed.wait()
            except TimeoutError:
                if killed:
                    break
                killed = True
                deadline = time.monotonic() + 5.0
                for member in list(self._members.values()):
                    logger.error("%s did not stop in time; it is killed", member.name)
                    _kill(member)
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()


def serve(app: Application) -> int:
    """Run a server for `app` in this process until it is told to stop; the exit code."""
    cfg = app.cfg
    if cfg.reload and os.environ.get("PQ_ENV", "").lower() == "production":
        raise BadSetting(
            f"reload ({cfg.sources.get('reload', 'Settings')}) is not for production (PQ_ENV=production)",
            hint="leave it out; kill -HUP reloads a server by hand",
        )
    logfiles.set_up(cfg, "server", "supervisor", needed=True)
    # Until the loop listens to signals: leave in order, so that an embedded store is not left running.
    signal.signal(signal.SIGTERM, _leave)
    if app.store.is_memory:
        return run(_serve_here(app))
    forkserver.prepare()
    return run(Supervisor(app).serve())


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


async def _serve_here(app: Application) -> int:
    """With `memory://` nobody else can reach the tasks: one worker, in this process."""
    worker = app.worker("w1", observer=observer("w1"))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await worker.start()
    if app.cfg.reload:
        logger.warning("reload is off: with memory:// there is no worker process to restart")
    logger.info("one worker in this process; the tasks are in its memory and end with it")
    await stop.wait()
    await worker.stop()
    return 0


def _to_finish(member: Member) -> float:
    """Attempts that it had under way when it was last asked. Who does not answer is busy."""
    if not member.answered:
        return math.inf
    return member.load.slots.running if member.load is not None else 0


def _kill(member: Member) -> None:
    try:
        os.kill(member.process.pid, signal.SIGKILL)
    except (ProcessLookupError, TypeError):
        pass


def _how(code: int | None) -> str:
    """What an exit code means to a person."""
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def _short(path: str) -> str:
    """A path as seen from here, when that is shorter."""
    near = os.path.relpath(path)
    return near if len(near) < len(path) and not near.startswith("..") else path
