"""One schedule: workers, producers and a supervisor on a store, what chance does to them, and how it ends.

A schedule has a bad time, in which everything may happen, and then a quiet one, in which nothing does: all must be
done within it, since a system that only never does anything wrong may do nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import redis.exceptions
import stores
from history import History, broken_rules
from simulated_jobs import JOBS, oracle, ticking
from simulated_loop import Program, SimulatedLoop, here
from simulated_store import SimulatedBroker, SimulatedStore, SimulatedWire

import pq.broker.redis.calls
import pq.broker.redis.failures
import pq.broker.redis.link
import pq.broker.redis.subscription
import pq.execution.async_io
import pq.producer.awaiting
import pq.producer.connections
import pq.producer.loop_tasks
import pq.producer.sending
import pq.producer.wakeups
import pq.worker.services
from pq.app import PulsarQueue
from pq.broker.connect import Store
from pq.broker.contract.values import Renewal
from pq.broker.redis.codec import read_renewal
from pq.broker.redis.link import Link
from pq.broker.redis.scripts import script
from pq.errors import PqError, StoreUnavailable, StreamRestarted
from pq.model.registry import Registry
from pq.producer.producer import Producer
from pq.worker.lease import LOOK, LeaseKeeper
from pq.worker.worker import Worker

QUEUE = "default"


class Ordered(dict[Any, None]):
    """A set that keeps its order: that of addresses is another one in each run."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def update(self, items: Any) -> None:  # type: ignore[override]
        for item in items:
            self[item] = None


class SimulatedKeeper(LeaseKeeper):
    """The lease keeper without its thread: a task does the work of the thread, with the same decisions."""

    _renewing: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._renew_for_ever(), name="thread")

    async def _end(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None

    async def _renew_for_ever(self) -> None:
        renewer = SimulatedRenewer(self._context.broker)
        self._plan(self._context.clock.monotonic())
        while True:
            await asyncio.sleep(self._until_next_look())
            if self._is_due(self._context.clock.monotonic()):
                lease = self._context.lease
                answer: Any
                try:
                    answer = await renewer.renew(lease, self._context.queues, self._ttl)
                except PqError as exc:
                    answer = exc
                self._renewed(lease, answer)


class SimulatedRenewer:
    """Does the work of `RedisRenewer`, over the simulated network."""

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker
        self._link = Link(broker.server.maker(), where="simulated", timeout=5.0)

    async def renew(self, lease: str, queues: list[str], ttl: int) -> tuple[Renewal, int]:
        prefixes = [self._broker.keys.prefix(queue) for queue in queues]
        (time,) = await self._link.call([("TIME",)])
        seconds, micros = pq.broker.redis.failures.checked(time, "simulated")
        command = ("EVALSHA", script("renew").digest, len(prefixes), *prefixes, "", lease, ttl)
        (reply,) = await self._link.call([command])
        if isinstance(reply, redis.exceptions.NoScriptError):
            await self._link.call([("SCRIPT", "LOAD", script("renew").source)])
            (reply,) = await self._link.call([command])
        return read_renewal(pq.broker.redis.failures.checked(reply, "simulated")), int(seconds) * 1000 + int(
            micros
        ) // 1000


class ProgramStore(Store):
    """A store as one program of the simulation sees it."""

    def __init__(self, settings: Any, store: SimulatedStore, program: Program) -> None:
        super().__init__(settings, url="redis://simulated", clock=program)
        self._simulated = (store, program)

    async def broker(self, *, name: str = "pq", patience: float = 30.0) -> Any:
        settings = self._settings
        return SimulatedBroker(
            *self._simulated, namespace=settings.namespace, name=name, patience=patience,
            result_ttl=settings.result_ttl, dead_ttl=settings.dead_ttl,
        )  # fmt: skip


class WorkerHandle:
    """The place of one worker, which a supervisor keeps taken."""

    def __init__(self, number: int, node: str) -> None:
        self.number = number
        self.node = node
        self.program: Program | None = None
        self.worker: Worker | None = None
        self.leases: list[tuple[str, list[str]]] = []
        self.main: asyncio.Task[Any] | None = None
        self.lives = 0


class World:
    """All of one schedule."""

    def __init__(self, seed: int, path: str, force: dict[str, Any] | None = None) -> None:
        force = force or {}
        self.seed = seed
        self.jobs: tuple[str, ...] = force.get("jobs", ())
        self.chance = chance = random.Random(seed)
        self.history = History()
        self.loop = SimulatedLoop(random.Random(chance.random()), shuffled=chance.random() < 0.3)
        self.store = SimulatedStore(path, self.loop, random.Random(chance.random()), self.history)
        self.store.on_call = self._sample
        self.lease = chance.choice((1.5, 3.0, 3.0, 5.0))
        self.periodic = chance.random() < 0.25
        self.listens = chance.random() < 0.25
        settings = PulsarQueue(
            data_store="redis://simulated", lease=self.lease, node_name="here", task_pool_timeout=2,
            concurrent_tasks=chance.choice((1, 2, 3, 8)), max_crashes=chance.choice((3, 3, 20)),
            max_requests=chance.choice((0, 0, 0, 3)), schedule_periodic=self.periodic,
            graceful_timeout=1.0, namespace="pq", task_queues=[QUEUE], task_paths=[],
        )  # fmt: skip
        self.settings = PulsarQueue(**{**settings.kwargs, **force.get("settings", {})}).cfg
        self.registry = Registry([*JOBS, *([ticking] if self.periodic else [])])
        handles = chance.choice((1, 2, 2, 3))
        self.handles = [WorkerHandle(n, f"host{n % 2}") for n in range(force.get("handles", handles))]
        self.programs = 0
        self.quiet = False
        self.over = False
        self.waits = 0
        self.long_work = 0.0
        self.behind = 0.0  # seconds by which the store's clock was set back in all
        self.deaths: dict[str, int] = {}
        self.disorder: list[str] = []
        self.sampling = random.Random(chance.random())
        self.faults = [fault for fault in FAULTS if chance.random() < 0.4]
        if chance.random() < 0.2:
            # Faults of the store alone: no worker did anything wrong, so none may lose what it has.
            self.store.days.end()
            self.faults = [fault for fault in self.faults if fault in OF_THE_STORE]
            self.note("world", "healthy")
        if "faults" in force:
            self.faults = list(force["faults"])
            self.store.days.end()
            vars(self.store.days).update(force.get("days", {}))
        self.supervisor = self.program("supervisor")

    # ----------------------------------------------------------------------------------- parts
    def program(self, name: str) -> Program:
        self.programs += 1
        program = Program(self.loop, name, random.Random(self.chance.random()))
        self.loop.add_program(program)
        return program

    def note(self, process: str, op: str, phase: str = "info", **facts: Any) -> None:
        self.history.note(self.loop.time(), process, op, phase, **facts)

    def _sample(self, name: str) -> None:
        if self.sampling.random() < 0.02:
            self._look_over()

    def _look_over(self) -> dict[str, stores.QueueDump]:
        queues, strangers = stores.dump_server(_Raw(self.store))
        found = [
            f"{name}: {text}" for name, queue in queues.items() for text in stores.broken_invariants(queue)
        ]
        self.disorder += [*found, *strangers]
        return queues

    # --------------------------------------------------------------------------------- workers
    def fill(self, handle: WorkerHandle) -> None:
        """Start a worker at this handle."""
        handle.lives += 1
        program = handle.program = self.program(f"w{handle.number}.{handle.lives}")
        handle.leases = []
        store = ProgramStore(self.settings, self.store, program)

        def took(lease: str, queues: list[str]) -> None:
            handle.leases.append((lease, list(queues)))
            self.note(program.name, "lease", lease=lease)

        worker = handle.worker = Worker(
            self.settings,
            store,
            self.registry,
            name=program.name,
            node=handle.node,
            on_lease=took,
            clock=program,
        )
        handle.main = program.spawn(self._work(handle, worker, program))
        handle.main.set_name("main")
        self.loop.world.spawn(self._attend(handle, handle.main, program))

    async def _work(self, handle: WorkerHandle, worker: Worker, program: Program) -> None:
        try:
            await worker.start()
            await worker.finished.wait()
        finally:
            await worker.stop(0.5)

    async def _attend(self, handle: WorkerHandle, main: asyncio.Task[Any], program: Program) -> None:
        """A worker that ends by itself is followed by another."""
        ended, _ = await asyncio.wait({main})
        for task in ended:
            error = task.exception() if not task.cancelled() else None
            if error is not None and not isinstance(error, PqError):
                self.note(program.name, "crashed", what=f"the worker ended with {error!r}")
        if handle.program is program and not self.over:
            handle.program = None
            program.kill()
            self.store.gone(program)
            await asyncio.sleep(0.3)
            if handle.program is None and not self.over:
                self.fill(handle)

    def kill(self, handle: WorkerHandle, *, seen: bool) -> None:
        """SIGKILL. `seen`: its supervisor lives, and releases the tasks that it held."""
        program = handle.program
        if program is None:
            return
        handle.program = None
        program.kill()
        self.store.gone(program)
        self.note("world", "fault", what=f"kill {program.name}", seen=seen)
        if seen:
            self.supervisor.spawn(self._hand_back(list(handle.leases)))
        self.loop.world.spawn(self._follow(handle, self.chance.uniform(0.05, 2.0)))

    async def _follow(self, handle: WorkerHandle, after: float) -> None:
        await asyncio.sleep(after)
        if handle.program is None and not self.over:
            self.fill(handle)

    async def _hand_back(self, leases: list[tuple[str, list[str]]]) -> None:
        await asyncio.sleep(self.chance.uniform(0.005, 0.2))
        broker = SimulatedBroker(self.store, self.supervisor, patience=2.0)
        for lease, queues in leases:
            with contextlib.suppress(PqError):
                await broker.work.hand_back(lease, queues, crashed=True)
        await broker.close()

    def _deadly(self, id: str, deaths: int, program: Program | None) -> bool:
        """A body that kills its worker, so often."""
        if self.deaths.get(id, 0) >= deaths:
            return False
        handle = next((handle for handle in self.handles if handle.program is program), None)
        if handle is None:
            return False
        self.deaths[id] = self.deaths.get(id, 0) + 1
        self.loop.world.context.run(self.loop.call_soon, lambda: self._kill_now(handle, program))
        return True

    def _kill_now(self, handle: WorkerHandle, program: Program | None) -> None:
        if handle.program is program:
            self.kill(handle, seen=True)

    # ------------------------------------------------------------------------------- producers
    async def produce(self, program: Program, chance: random.Random, tasks: int) -> None:
        api = Producer(
            self.settings,
            ProgramStore(self.settings, self.store, program),
            lambda: self.registry,
            "here",
            clock=program,
        )
        if self.listens:
            await self._patiently(lambda: api.on_events("task", "*", lambda *_: None))
        waits = []
        for _ in range(tasks):
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.2, 0.5, 1.5)))
            name, facts, options = self._any_task(chance)
            waits.append(asyncio.create_task(self._one(api, program, chance, name, facts, options)))
        await asyncio.gather(*waits)
        program.producer_done = True  # type: ignore[attr-defined]
        # The probes come later, by the same api.
        program.api = api  # type: ignore[attr-defined]

    async def _patiently(self, what: Callable[[], Any]) -> Any:
        while True:
            try:
                return await what()
            except PqError:
                await asyncio.sleep(0.5)

    def _any_task(self, chance: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
        name = chance.choice(
            ("work", "work", "work", "work", "flaky", "slow", "parent", "parent", "waiting", "two.at.once",
             "two.at.once", "four.a.second", "once", "deadly", "long")
        )  # fmt: skip
        if self.jobs:
            name = chance.choice(self.jobs)
        facts: dict[str, Any] = {}
        options: dict[str, Any] = {}
        if name == "waiting" and (self.settings.concurrent_tasks < 8 or self.settings.max_requests):
            name = "parent"  # with so few slots those that wait may take them all, which is not a fault
        if name == "long":
            name, facts = "work", {"seconds": self.lease * chance.uniform(0.8, 2.0)}
            self.long_work += facts["seconds"]
        elif name == "work":
            facts = {"seconds": chance.choice((0.0, 0.0, 0.05, 0.5))}
            if chance.random() < 0.2:
                options["delay"] = chance.uniform(0.1, 3.0)
            elif chance.random() < 0.2:
                options["meta_params"] = {"priority": chance.choice((-3, 5))}
        elif name == "flaky":
            facts = {"failures": chance.choice((1, 2, 9))}
        elif name == "slow":
            facts = {"seconds": chance.choice((0.2, 3.0))}
        elif name == "once":
            facts = {"name": chance.choice("ab")}
        elif name == "streaming":
            facts = {"parts": chance.choice((0, 1, 4, 9)), "failures": chance.choice((0, 0, 1))}
        elif name == "deadly":
            facts = {"deaths": chance.choice((0, 1, 2, 3))}
        if "stop everything" in self.faults and not self.jobs and chance.random() < 0.1:
            name, facts, options = "crowd.stopper", {}, {}
        return name, facts, options

    async def _one(
        self, api: Producer, program: Program, chance: random.Random, name: str, facts: Any, options: Any
    ) -> None:
        """Queue one task, wait for its end, perhaps ask for it to be stopped."""
        try:
            future = api.tasks.queue(name, callback=False, **options, **facts)
        except PqError as exc:
            self.note(program.name, "crashed", what=f"queueing {name}: {exc!r}")
            return
        id = future.task.id
        self.note(program.name, "enqueue", "invoke", id=id, name=name, facts=facts)
        try:
            queued = await future
        except PqError as exc:
            self.note(program.name, "enqueue", "fail", id=id, error=type(exc).__name__)
            return
        self.note(program.name, "enqueue", "ok", id=queued.id)
        cancelling = None
        if chance.random() < 0.12:
            cancelling = asyncio.create_task(self._cancel(api, program, queued.id, chance.uniform(0.0, 1.0)))
        reading = None
        if name == "streaming":
            reading = asyncio.create_task(self._read(api, program, queued, chance.choice((0.0, 0.0, 1.0))))
        self.waits += 1
        wait = f"{queued.id[:9]}/{self.waits}"
        self.note(program.name, "await", "invoke", id=wait)
        try:
            task = await queued.done_callback
        except PqError as exc:
            self.note(program.name, "await", "fail", id=wait, error=f"{type(exc).__name__} {exc}")
        else:
            value = task.result if task.status_string == "SUCCESS" else None
            self.note(
                program.name, "await", "ok", id=wait, task=task.id, status=task.status_string, value=value
            )
        if cancelling is not None:
            await cancelling
        if reading is not None:
            await reading

    async def _read(self, api: Producer, program: Program, task: Any, after: float) -> None:
        """Read the stream of a task to its end, from its beginning wherever it is broken."""
        await asyncio.sleep(after)
        self.note(program.name, "read", "invoke", id=task.id)
        stream = api.tasks.stream(task)
        parts: list[Any] = []
        while True:
            try:
                async for part in stream:
                    parts.append(part)  # noqa: PERF401  parts before a break are dropped
                break
            except StreamRestarted:
                parts.clear()
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            except PqError as exc:
                self.note(program.name, "read", "fail", id=task.id, error=type(exc).__name__)
                return
        self.note(program.name, "read", "ok", id=task.id, parts=parts)

    async def _cancel(self, api: Producer, program: Program, id: str, after: float) -> None:
        await asyncio.sleep(after)
        self.note(program.name, "cancel", "invoke", id=id)
        try:
            answer = await api.tasks.cancel(id)
            self.note(program.name, "cancel", "ok", id=id, answer=answer)
        except PqError as exc:
            self.note(program.name, "cancel", "info", id=id, error=type(exc).__name__)

    # ------------------------------------------------------------------------------- the whole
    async def run(self) -> None:
        chance = self.chance
        for handle in self.handles:
            self.fill(handle)
        producers = [self.program(f"p{n}") for n in range(chance.choice((1, 1, 2)))]
        mains = [
            p.spawn(self.produce(p, random.Random(chance.random()), chance.randint(5, 10))) for p in producers
        ]
        self._all_programs = producers
        driver = asyncio.create_task(self._trouble())
        await asyncio.sleep(self.lease * chance.uniform(2.0, 5.0))
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)
        await self._calm_down()
        within = 3 * self.lease + 30.0 + 2 * self.long_work
        self.note("world", "quiesce", within=within, told=4.0, behind=self.behind)
        deadline = self.loop.time() + within + self.behind + 10.0
        while self.loop.time() < deadline:
            await asyncio.sleep(0.5)
            if (
                all(main.done() for main in mains)
                and self.store.known <= self.store.ended.keys() | self._ticks()
            ):
                break
        await self._swept()
        for main in mains:
            if main.done() and not main.cancelled() and main.exception() is not None:
                self.note("world", "crashed", what=f"a producer ended with {main.exception()!r}")
        well = [
            p for p, main in zip(producers, mains, strict=True) if main.done() and main.exception() is None
        ]
        await asyncio.gather(*(self._probe(program) for program in well))
        await self._swept()
        self._finish()

    async def _swept(self) -> None:
        """Wait until the leases of the dead are gone, and only those of the living are left."""
        deadline = self.loop.time() + 3 * self.lease + 5.0
        while self.loop.time() < deadline and self._foreign():
            await asyncio.sleep(0.5)

    def _ticks(self) -> set[str]:
        """Tasks of ticks: there is always another one, so the last ones are not waited for."""
        if not self.periodic:
            return set()
        return {id for id in self.store.known if id.startswith("cron.")}

    async def _calm_down(self) -> None:
        """End all faults: nothing goes wrong from here on."""
        self.quiet = True
        store = self.store
        store.heal()
        if not store.up:
            store.start()
        if store.frozen:
            store.thaw()
        for program in [*self._all_programs, *(handle.program for handle in self.handles if handle.program)]:
            program.go_on()
        self.supervisor.go_on()

    async def _probe(self, program: Program) -> None:
        api: Producer = program.api  # type: ignore[attr-defined]

        async def one() -> None:
            await asyncio.sleep(4.0)  # until the last late word has come
            began = self.loop.time()
            await api.tasks.queue("work")
            self.note(program.name, "probe", what="a task", took=round(self.loop.time() - began, 4))

        probe = program.spawn(one())
        await asyncio.wait({probe}, timeout=20.0)
        if not probe.done():
            self.note(program.name, "probe", what="a task", took=20.0)
            probe.cancel()

    def _living(self) -> set[str]:
        return {
            handle.worker.context.lease
            for handle in self.handles
            if handle.program is not None and handle.worker is not None and handle.worker.context is not None
        }

    def _foreign(self) -> list[tuple[str, str]]:
        queues, _ = stores.dump_server(_Raw(self.store))
        living = self._living()
        served = {QUEUE, *(handle.node for handle in self.handles)}
        return [
            (name, lease)
            for name, q in queues.items()
            if name in served
            for lease in q.leases
            if lease not in living
        ]

    def _finish(self) -> None:
        queues = self._look_over()
        foreign = self._foreign()
        for name, queue in queues.items():
            held = [(lease, m) for lease, members in sorted(queue.held.items()) for m in sorted(members)]
            held = [pair for pair in held if pair[1].rpartition(":")[0] in self.store.known - self._ticks()]
            theirs = [lease for q, lease in foreign if q == name]
            if held or theirs:
                self.note("store", "left", queue=name, held=held, foreign=theirs)
        for text in sorted(set(self.disorder)):
            self.note("store", "crashed", what=f"disorder: {text}")
        for name, what in self.loop.troubles:
            self.note(name, "crashed", what=what)
        self.over = True

    # ---------------------------------------------------------------------------------- trouble
    async def _trouble(self) -> None:
        chance = self.chance
        while True:
            await asyncio.sleep(chance.uniform(0.1, self.lease))
            if self.faults:
                name = chance.choice(self.faults)
                self.note("world", "fault", what=name)
                self.loop.world.spawn(FAULTS[name](self))


async def kill_a_worker(world: World) -> None:
    handle = world.chance.choice(world.handles)
    world.kill(handle, seen=world.chance.random() < 0.5)


async def pause_a_worker(world: World) -> None:
    handle = world.chance.choice(world.handles)
    program = handle.program
    if program is None:
        return
    program.pause()
    await asyncio.sleep(world.lease * world.chance.uniform(0.3, 3.0))
    program.go_on()


async def pause_a_producer(world: World) -> None:
    program = world.chance.choice(world._all_programs)
    program.pause()
    await asyncio.sleep(world.chance.uniform(0.3, 5.0))
    program.go_on()


async def outage(world: World) -> None:
    world.store.stop()
    await asyncio.sleep(world.lease * world.chance.choice((0.1, 0.5, 1.5, 3.0)))
    world.store.start()


async def standstill(world: World) -> None:
    world.store.freeze()
    await asyncio.sleep(world.lease * world.chance.choice((0.1, 0.5, 1.5, 3.0)))
    if world.store.frozen:
        world.store.thaw()


async def jump(world: World) -> None:
    seconds = world.chance.choice((-60.0, -2.0 * world.lease, 2.0 * world.lease, 60.0))
    world.store.ahead += seconds
    world.behind += max(0.0, -seconds)


async def cut_everything(world: World) -> None:
    world.store.cut_all()


async def partition(world: World) -> None:
    handle = world.chance.choice(world.handles)
    if handle.program is not None:
        name = handle.program.name
        world.store.cut_off(name, True)
        await asyncio.sleep(world.lease * world.chance.uniform(0.2, 2.5))
        world.store.cut_off(name, False)


async def forget_scripts(world: World) -> None:
    world.store.flush_scripts()


async def stop_everything(world: World) -> None:
    """It is a job that does that; see `_any_task`."""


OF_THE_STORE = ("kill", "outage", "standstill", "jump", "cut", "forget scripts")
FAULTS: dict[str, Callable[[World], Any]] = {
    "kill": kill_a_worker,
    "pause": pause_a_worker,
    "pause a producer": pause_a_producer,
    "outage": outage,
    "standstill": standstill,
    "jump": jump,
    "cut": cut_everything,
    "partition": partition,
    "forget scripts": forget_scripts,
    "stop everything": stop_everything,
}


class _Raw:
    """The part of a client that `stores.dump_server` needs."""

    def __init__(self, store: SimulatedStore) -> None:
        self._store = store

    def eval(self, text: str, keys: int, *args: Any) -> Any:
        (reply,) = self._store.look(("EVAL", text, keys, *args))
        reply.sort()
        return reply


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Everything that pq takes from the system comes from the seed."""
    chance = random.Random(world.seed)
    handlers = list(logging.getLogger().handlers)
    ordered = [
        pq.broker.redis.calls, pq.execution.async_io, pq.producer.awaiting, pq.producer.connections,
        pq.producer.loop_tasks, pq.producer.sending, pq.producer.wakeups, pq.loops,
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context
        patch(mock.patch.object(pq.broker.redis.link, "Wire", SimulatedWire))
        patch(mock.patch.object(pq.broker.redis.subscription, "Wire", SimulatedWire))
        patch(mock.patch.object(pq.worker.services, "LeaseKeeper", SimulatedKeeper))
        patch(mock.patch.object(os, "urandom", chance.randbytes))
        for module in ordered:
            patch(mock.patch.object(module, "set", Ordered, create=True))
        try:
            yield
        finally:
            logging.getLogger().handlers[:] = handlers


def simulate(seed: int, path: str, force: dict[str, Any] | None = None) -> tuple[History, list[str]]:
    """Run one schedule; return its history and the rules that it broke. `force`: options that are not left to chance."""
    world = World(seed, path, force)
    try:
        with simulated(world):
            oracle.reset(world.history, world._deadly)
            asyncio.set_event_loop(None)
            main = world.loop.world.spawn(world.run())
            try:
                world.loop.run_until_complete(main)
            finally:
                world.over = True
                world.loop.throw_away()
    finally:
        world.store.close()
        oracle.reset(None, None)
    return world.history, broken_rules(world.history)


__all__ = ["LOOK", "here", "simulate"]
