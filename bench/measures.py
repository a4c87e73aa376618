"""The figures: one function for each group that is measured together.

Each takes a `Stage` and a `Scale` and yields `Figure`s. A figure and its comparison are measured in turn, round by
round, so that other load of the machine affects both; the result is the median of the rounds' ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from machine import cpu_seconds, resident
from stage import LONG, Server, Stage, Store, environment
from work import calibrate


@dataclass(frozen=True)
class Scale:
    """The amount of work for each figure."""

    rounds: int = 5
    drained: int = 40_000
    queued: int = 20_000
    one_by_one: int = 3_000
    calls: int = 2_000
    trips: int = 10_000
    naps: int = 5_000
    nap: float = 0.1
    burns: int = 200
    trifles: int = 2_000
    backlog: int = 100_000
    idle: float = 20.0
    starts: int = 7


QUICK = Scale(
    rounds=1,
    drained=2_000,
    queued=1_000,
    one_by_one=100,
    calls=50,
    trips=500,
    naps=200,
    nap=0.05,
    burns=8,
    trifles=50,
    backlog=1_000,
    idle=2.2,
    starts=1,
)


@dataclass
class Figure:
    """One figure: the median of its rounds, and its comparison."""

    name: str
    about: str
    value: float
    unit: str
    goal: str = ""
    reference: float | None = None
    ratio: float | None = None
    against: str = ""
    rounds: list[float] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return the figure as data for JSON."""
        return asdict(self)


def figure(
    name: str,
    about: str,
    unit: str,
    values: Sequence[float],
    references: Sequence[float] = (),
    against: str = "",
    goal: str = "",
) -> Figure:
    """Return the figure of some rounds. Its ratio is the median of the rounds' ratios."""
    made = Figure(name, about, statistics.median(values), unit, goal, rounds=list(values))
    if references:
        made.reference = statistics.median(references)
        ratios = [ours / theirs for ours, theirs in zip(values, references, strict=True)]
        made.ratio = statistics.median(ratios)
        made.against = against
    return made


Measure = Callable[[Stage, Scale], Iterator[Figure]]


# ------------------------------------------------------------------------------------------ draining
@dataclass
class Drained:
    """The cost of one drain."""

    rate: float
    server_us: float
    worker_us: float


def drain_once(
    stage: Stage, server: Server, n: int, job: str = "addition", store: Store | None = None
) -> Drained:
    """Fill the queue while it is paused, resume it, and measure the drain."""
    where = store or stage.store
    stage.run(stage.preload(((job, {"a": number, "b": 2}) for number in range(n)), store=store))
    pids = server.workers()
    server_cpu, worker_cpu = where.cpu(), cpu_seconds(*pids)
    seconds = stage.run(stage.drain(n, store=store))
    server_cpu, worker_cpu = where.cpu() - server_cpu, cpu_seconds(*pids) - worker_cpu
    where.delete_finished()
    return Drained(n / seconds, server_cpu / n * 1e6, worker_cpu / n * 1e6)


def drain(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure a drain by one worker, of tasks that do almost nothing."""
    floors, ours, plain = [], [], []
    n = scale.drained
    server = stage.server(1)
    drain_once(stage, server, n // 4)
    for _ in range(scale.rounds):
        floors.append(stage.bare_tasks(n))
        ours.append(drain_once(stage, server, n))
        plain.append(drain_once(stage, server, n, "plain"))
    floor = [each["drain"] for each in floors]
    yield figure(
        "drain.one",
        "drain, one worker, async job",
        "tasks/s",
        [d.rate for d in ours],
        floor,
        "floor",
        ">= 60 %",
    )
    yield figure(
        "drain.plain",
        "drain, one worker, plain def",
        "tasks/s",
        [d.rate for d in plain],
        floor,
        "floor",
        ">= 60 %",
    )
    yield figure(
        "drain.server_cpu",
        "CPU of the server a task, draining",
        "µs",
        [d.server_us for d in ours],
        [each["server_us"] for each in floors],
        "floor",
        "<= 10 µs",
    )
    yield figure(
        "drain.worker_cpu",
        "CPU of the worker a task, draining",
        "µs",
        [d.worker_us for d in ours],
        [each["worker_us"] for each in floors],
        "floor",
    )


def drain_heard(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure a drain while another program listens to each `done` event."""
    alone, heard = [], []
    n = scale.drained
    server = stage.server(1)
    drain_once(stage, server, n // 4)
    for _ in range(scale.rounds):
        alone.append(drain_once(stage, server, n).rate)
        with stage.listening() as events:
            heard.append(drain_once(stage, server, n).rate)
        if events != [n]:
            raise RuntimeError(f"the listener got {events} events of {n} tasks")
    yield figure("drain.heard", "drain with a `done` listener", "tasks/s", heard, alone, "without", ">= 70 %")


def drain_two(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure a drain by two workers on one queue."""
    floors, ours = [], []
    n = scale.drained
    server = stage.server(2)
    drain_once(stage, server, n // 4)
    for _ in range(scale.rounds):
        floors.append(stage.bare_tasks(n)["drain"])
        ours.append(drain_once(stage, server, n).rate)
    yield figure("drain.two", "drain, two workers", "tasks/s", ours, floors, "floor")


def drain_append_only(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure a drain by one worker on a store with an append-only file, like the embedded server."""
    if not stage.has_own_store:
        return  # settings of a given store are not changed
    store = stage.append_only_store()
    without, ours = [], []
    n = scale.drained
    for _ in range(min(scale.rounds, 3)):
        without.append(drain_once(stage, _warm(stage, n, None), n).rate)
        ours.append(drain_once(stage, _warm(stage, n, store), n, store=store).rate)
    yield figure("drain.append_only", "drain, append-only file everysec", "tasks/s", ours, without, "without")


def _warm(stage: Stage, n: int, store: Store | None) -> Server:
    server = stage.server(1, store=store)
    drain_once(stage, server, n // 4, store=store)
    return server


# ------------------------------------------------------------------------------------------ queueing
def queueing(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure how many tasks a producer queues in a second, without workers."""
    stage.end_server()
    found: dict[str, list[float]] = {"one": [], "gathered": [], "many": []}
    floors = []

    async def rounds(one: int, many: int) -> dict[str, float]:
        async with stage.api() as api:
            queue = api.tasks.queue
            await queue("addition", a=1, b=2, callback=False)
            started = time.perf_counter()
            for number in range(one):
                await queue("addition", a=number, b=2, callback=False)
            singly = time.perf_counter()
            await asyncio.gather(*[queue("addition", a=i, b=2, callback=False) for i in range(many)])
            gathered = time.perf_counter()
            items = [("addition", {"a": number, "b": 2}) for number in range(many)]
            in_bulk = time.perf_counter()
            await asyncio.gather(*api.tasks.queue_many(items, callback=False))
            ended = time.perf_counter()
        return {
            "one": one / (singly - started),
            "gathered": many / (gathered - singly),
            "many": many / (ended - in_bulk),
        }

    def empty() -> None:
        stage.store.delete("{default}:ready")
        stage.store.delete_finished()

    stage.run(rounds(scale.one_by_one // 5, scale.queued // 5))
    for _ in range(scale.rounds):
        empty()
        floors.append(stage.bare_tasks(scale.queued))
        for name, rate in stage.run(rounds(scale.one_by_one, scale.queued)).items():
            found[name].append(rate)
    empty()
    one_floor = [each["queue_one"] for each in floors]
    floor = [each["queue"] for each in floors]
    yield figure(
        "queue.one", "queueing, awaited one by one", "tasks/s", found["one"], one_floor, "floor, one by one",
        "> 5,600/s",
    )  # fmt: skip
    yield figure(
        "queue.gathered", "queueing, gathered", "tasks/s", found["gathered"], floor, "floor", "> 71,500/s"
    )
    yield figure("queue.many", "queueing, queue_many", "tasks/s", found["many"], floor, "floor", "> 71,500/s")


def backlog(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure the memory of a queued task in the store."""
    stage.end_server()
    n, used = scale.backlog, []
    for _ in range(min(scale.rounds, 3)):
        before = stage.store.memory()
        stage.run(stage.preload(("addition", {"a": number, "b": 2}) for number in range(n)))
        used.append((stage.store.memory() - before) / n)
        stage.store.delete("{default}:ready")
        stage.store.delete_finished()
    yield figure("backlog.memory", "memory of the server a queued task", "bytes", used, goal="<= 300 bytes")


# ------------------------------------------------------------------------------------------- calling
def calling(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure the latency of a call to an idle worker in another process."""
    stage.server(1)
    p50, p99, trips = [], [], []

    async def one_at_a_time(n: int) -> list[float]:
        spans = []
        async with stage.api() as api:
            await (await api.broker()).work.pause("default", False)
            for number in range(n // 10 + n):
                started = time.perf_counter()
                task = await api.tasks.queue("addition", a=number, b=2)
                spans.append(time.perf_counter() - started)
                assert task.result == number + 2
        return sorted(spans[n // 10 :])

    async def at_once(n: int) -> float:
        async with stage.api() as api:
            await api.tasks.queue("addition", a=1, b=2)
            started = time.perf_counter()
            tasks = await asyncio.gather(*[api.tasks.queue("addition", a=i, b=2) for i in range(n)])
            seconds = time.perf_counter() - started
            assert [task.result for task in tasks] == list(range(2, n + 2))
        return n / seconds

    stage.run(at_once(scale.trips // 5))
    for _ in range(scale.rounds):
        spans = stage.run(one_at_a_time(scale.calls))
        p50.append(spans[len(spans) // 2] * 1000)
        p99.append(spans[min(len(spans) - 1, len(spans) * 99 // 100)] * 1000)
        trips.append(stage.run(at_once(scale.trips)))
        stage.store.delete_finished()
    yield figure("call.p50", "queue and await, idle worker, p50", "ms", p50, goal="<= 0.4 ms")
    yield figure("call.p99", "queue and await, idle worker, p99", "ms", p99, goal="<= 1 ms")
    yield figure("call.gathered", f"{scale.trips:,} queued and awaited at once", "tasks/s", trips)


def naps(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure many sleeping tasks on one worker that runs a thousand at a time."""
    at_once = max(1, scale.naps // 5)
    stage.server(1, "--concurrent-tasks", str(at_once))
    ideal = scale.nap * scale.naps / at_once
    spans = []
    for _ in range(min(scale.rounds, 3)):
        stage.run(stage.preload(("nap", {"seconds": scale.nap}) for _ in range(scale.naps)))
        spans.append(stage.run(stage.drain(scale.naps)))
        stage.store.delete_finished()
    about = f"{scale.naps:,} x sleep({scale.nap:g}), {at_once:,} at once"
    yield figure("naps", about, "s", spans, [ideal] * len(spans), "ideal", "<= 1.3 x")


# ----------------------------------------------------------------------------------------- processes
def processes(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Compare process mode on two children with two bare processes that do the same work."""
    stage.server(1, "--processes", "2", PQ_TASK_PATHS="process_jobs")
    rounds = calibrate(0.02)
    ours, bare, trifles = [], [], []

    def spend(job: str, arguments: dict[str, Any], n: int) -> float:
        stage.run(_preload_process_jobs(stage, job, arguments, n))
        seconds = stage.run(stage.drain(n))
        stage.store.delete_finished()
        return seconds

    spend("burning", {"rounds": rounds}, 8)  # until both children are warm
    spend("trifle", {}, scale.trifles // 5)
    for _ in range(min(scale.rounds, 3)):
        bare.append(stage.floor("burn", rounds, scale.burns, 2)["seconds"])
        ours.append(spend("burning", {"rounds": rounds}, scale.burns))
        trifles.append(2 * spend("trifle", {}, scale.trifles) / scale.trifles * 1000)
    yield figure(
        "process.burn", f"{scale.burns} x 20 ms of Python, 2 processes", "s", ours, bare, "bare", "<= 1.06 x"
    )
    yield figure("process.trifle", "trivial process task, time of a child", "ms", trifles, goal="<= 0.3 ms")


async def _preload_process_jobs(stage: Stage, job: str, arguments: dict[str, Any], n: int) -> None:
    application = stage.store.application(task_paths=["process_jobs"])
    async with application.api() as api:
        await (await api.broker()).work.pause("default", True)
        await asyncio.gather(*api.tasks.queue_many([(job, arguments)] * n, callback=False))


# --------------------------------------------------------------------------------------- small things
def idle(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure an idle worker."""
    stage.end_server()
    (pid, *_) = stage.server(1).workers()
    stage.run(_one_call(stage))
    time.sleep(scale.idle / 8)
    before, started = cpu_seconds(pid), time.perf_counter()
    commands = stage.store.commands(scale.idle)
    share = (cpu_seconds(pid) - before) / (time.perf_counter() - started) * 100
    yield figure("idle.memory", "idle worker, resident memory", "MB", [resident(pid)], goal="<= 40 MB")
    yield figure("idle.cpu", "idle worker, part of a core", "%", [share], goal="<= 0.5 %")
    yield figure("idle.commands", "idle worker, commands a second", "/s", [commands], goal="<= 2/s")


async def _one_call(stage: Stage) -> None:
    async with stage.api() as api:
        await (await api.broker()).work.pause("default", False)
        await api.tasks.queue("addition", a=1, b=2)


def starting(stage: Stage, scale: Scale) -> Iterator[Figure]:
    """Measure the start-up times."""
    stage.end_server()
    bare: list[float] = []
    help_, import_, first = [], [], []
    for _ in range(scale.starts + 1):
        bare.append(_wall(stage, "-c", "pass"))
        help_.append(_wall(stage, "-m", "pq", "--help") - bare[-1])
        import_.append(_wall(stage, "-c", "import pq.api") - bare[-1])
        first.append(_start_to_done(stage))
    cold = slice(1, None)  # the first one fills the caches
    against = "bare interpreter"
    yield figure("start.bare", "a bare interpreter", "ms", bare[cold])
    yield figure("start.help", f"--help, over {against}", "ms", help_[cold], goal="<= 100 ms")
    yield figure("start.import", f"import pq.api, over {against}", "ms", import_[cold], goal="<= 120 ms")
    yield figure("start.first", "server start to first task done", "ms", first[cold], goal="<= 350 ms")


def _wall(stage: Stage, *words: str) -> float:
    started = time.perf_counter()
    # A pipe reports the end at once; a wait with a time-out alone would poll at long intervals.
    subprocess.run(
        [sys.executable, *words],
        cwd=stage.directory,
        env=environment(stage.store),
        stdout=subprocess.PIPE,
        check=True,
        timeout=LONG,
    )
    return (time.perf_counter() - started) * 1000


def _start_to_done(stage: Stage) -> float:
    """Return the milliseconds from the start of a server to the end of a task that waited for it."""

    async def first() -> float:
        async with stage.api() as api:
            await (await api.broker()).work.pause("default", False)
            task = await api.tasks.queue("addition", a=1, b=2, callback=False)
            done = task.done_callback
            server = stage.start_server(1)
            try:
                await done
                return (time.perf_counter() - server.started) * 1000
            finally:
                await asyncio.to_thread(server.stop)

    span = stage.run(first())
    stage.store.delete_finished()
    return span


MEASURES: dict[str, Measure] = {
    "drain": drain,
    "heard": drain_heard,
    "calling": calling,
    "two": drain_two,
    "append": drain_append_only,
    "naps": naps,
    "processes": processes,
    "queueing": queueing,
    "backlog": backlog,
    "idle": idle,
    "starting": starting,
}
"""Groups that use the same server follow one another."""
