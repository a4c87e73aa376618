"""What the fixtures of `pq.testing` are made of: an application under test, and what a test does to it.

All parts are the real ones: the store, the worker, the producer, the children of process jobs. Only two things
differ from a server. The worker lives in the test's own process, in the loop of whichever api is used first: the
test's own in an async test, the producer's background loop in a plain one. And the application has a clock that
can be moved on.

*Moving time.* The clock is that of the system and some seconds more. The store is told the time by its callers
then, so delays, retries, schedules, limits and expiry follow; the timers of running attempts are set again. Time
moves from one moment at which something is due to the next, and at each of them what is due is run to its end
first: so an hour of a job that runs every minute is sixty runs, and a task that fails and is tried again after ten
seconds has its second attempt ten seconds later, not at the end of the hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import functools
import inspect
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from ..app import PulsarQueue
from ..broker.connect import plain_url
from ..broker.embedded import EmbeddedServer
from ..cli import find_app
from ..clock import MovedClock
from ..errors import AppNotFound, InvalidValue, PqError
from ..execution.attempt import Attempt
from ..loops import running_loop
from ..model.job import Job
from ..model.names import LIMITS
from ..model.operations import RETRY as AGAIN
from ..model.outcome import OK, Outcome
from ..model.task import Task
from ..model.verdict import Verdict
from ..producer.current import Api, open_apis
from ..producer.future import LoopFuture
from ..producer.producer import Producer
from ..producer.typed import JobFunction
from ..worker.worker import Worker

P = ParamSpec("P")
C = ParamSpec("C")
R = TypeVar("R")
A = TypeVar("A")

PATIENCE = 1.0
"""Seconds, real ones, after which an attempt that still runs is taken to wait for something."""
LOOK = 0.002
"""Seconds between two looks whether all that is due has run."""
_numbers = itertools.count(1)


def find(name: str, root: Path) -> PulsarQueue:
    """The application `module:attribute`, also where pytest was started in another directory than its root."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        found: Any = find_app(name)
    except AppNotFound as exc:
        raise AppNotFound(
            exc.message,
            hint="set pq_app = module:attribute in pytest's configuration, or write a fixture pq_app",
        ) from exc
    return _application(found)


def _application(found: Any) -> PulsarQueue:
    if not isinstance(found, PulsarQueue):
        raise AppNotFound(
            f"pq_app is of type {type(found).__name__}, which is no application",
            hint="it is a PulsarQueue: `@pytest.fixture def pq_app(): return PulsarQueue(…)`",
        )
    return found


@contextlib.contextmanager
def session_store(url: str) -> Iterator[str]:
    """The URL of the store for a session: the one that is named, or a Valkey of its own that leaves nothing."""
    if url:
        yield plain_url(url)
        return
    with tempfile.TemporaryDirectory(prefix="pq-pytest-") as directory:
        server = EmbeddedServer(Path(directory) / "pq")
        server.attach()
        try:
            yield server.url
        finally:
            server.detach()


class Harness:
    """An application for one test, and all that runs of it in this process."""

    def __init__(self, app: PulsarQueue, url: str, settings: Mapping[str, Any]) -> None:
        self.clock = MovedClock()
        self.url = url
        self.queued: list[tuple[Task[Any], asyncio.Future[Task[Any]]]] = []
        self.worker: Worker | None = None
        self._seen: dict[tuple[str, int], float] = {}  # attempts, and since when they run, really
        self._wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._guards: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        # Of the process and the test: several pytests may share a store.
        namespace = f"test-{os.getpid()}-{next(_numbers)}-{os.urandom(3).hex()}"
        own = copy.copy(_application(app))
        own.configure(
            {
                "schedule_periodic": False,
                "report_mail_to": (),
                "report_webhook": None,
                **settings,
                "data_store": url,
                "message_broker": None,
                "namespace": namespace,
            }
        )
        own.clock = self.clock
        own.companion = self._begin
        own.store.on_submit = lambda task, future: self.queued.append((task, future))
        self.app = own
        # Held, so that `addition.queue(…)` finds it.
        self.api: Producer = own.api()

    # ------------------------------------------------------------------------------- the worker
    def with_worker(self) -> WorkerInTest:
        """From now on tasks are worked on."""
        self._wanted = True
        for api in self._apis():  # a fixture may have queued something already
            for loop in api.loops():
                loop.call_soon_threadsafe(self._start_there, loop)
        return WorkerInTest(self)

    def _start_there(self, loop: asyncio.AbstractEventLoop) -> None:
        starting = loop.create_task(self._start_worker())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _begin(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """An api begins to work in this loop."""
        here = asyncio.get_running_loop()
        if here not in self._guards:
            self._guards[here] = here.create_task(self._guard())
        await self._start_worker()
        return self._end

    async def _end(self) -> None:
        guard = self._guards.pop(asyncio.get_running_loop(), None)
        if guard is not None and guard is not asyncio.current_task():
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
        await self._stop_worker()

    async def _guard(self) -> None:
        """Wait for the end of this loop: `asyncio.run` cancels what is left in it, and waits for that."""
        here = asyncio.get_running_loop()
        try:
            await asyncio.Event().wait()
        finally:
            if self._guards.get(here) is asyncio.current_task():
                await self._close_here()

    async def _start_worker(self) -> None:
        if self._wanted and self.worker is None:
            self._loop = asyncio.get_running_loop()
            worker = self.worker = self.app.worker()
            try:
                await worker.start()
            except BaseException:
                self.worker = None
                raise

    async def _stop_worker(self) -> None:
        worker, loop = self.worker, self._loop
        if worker is None or loop is None or loop.is_closed():
            return
        self.worker = None
        if loop is running_loop():
            await worker.stop(grace=0.0)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(worker.stop(grace=0.0), loop))

    # ------------------------------------------------------------------------------------ the end
    def closing(self, test: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """`test`, and after it the end of all that lives in its loop."""

        @functools.wraps(test)
        async def closing(*args: Any, **kwargs: Any) -> Any:
            try:
                return await test(*args, **kwargs)
            finally:
                await self._close_here()

        return closing

    async def _close_here(self) -> None:
        here = asyncio.get_running_loop()
        await self._end()
        for api in self._apis():
            if here in api.loops():
                await api.close()
            else:
                await asyncio.to_thread(api.close)

    def close(self) -> None:
        """The end, where no loop runs: of what a plain test used, and of what an async one left."""
        for api in self._apis():
            for loop in api.loops():
                if not loop.is_closed() and not loop.is_running():
                    loop.run_until_complete(api.close())
            api.close()
        self._remove_keys()

    def _apis(self) -> list[Api]:
        namespace = self.app.cfg.namespace
        return [api for api in open_apis() if api.cfg.namespace == namespace]

    def _remove_keys(self) -> None:
        import redis

        with redis.Redis.from_url(plain_url(self.url)) as client:
            keys = list(client.scan_iter(match=f"{self.app.cfg.namespace}:*", count=1000))
            for start in range(0, len(keys), 1000):
                client.unlink(*keys[start : start + 1000])

    # ----------------------------------------------------------------------------------- the time
    async def advance(self, seconds: float) -> None:
        """Move time on, with all that comes due on the way."""
        loop = self._loop
        if self.worker is not None and loop is not None and loop is not running_loop():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.advance(seconds), loop))
            return
        self.clock.hold()  # so that what is run on the way takes none of it
        try:
            target = self.clock.time() + seconds
            await self._let_run()
            while (due := await self._next_due()) is not None and due <= target:
                self._jump(due)
                await self._let_run()
            self._jump(target)
            await self._let_run()
        finally:
            self._set_timers()
            self.clock.go_on()

    def _jump(self, moment: float) -> None:
        self.clock.move(moment - self.clock.time())
        self._set_timers()

    def _set_timers(self) -> None:
        if self.worker is not None and self.worker.consumer is not None:
            for attempt in self.worker.consumer.attempts():
                attempt.rearm(asyncio.get_running_loop(), self.clock.time())

    async def _next_due(self) -> float | None:
        """When, after now, something comes due for this worker: seconds since the epoch."""
        worker = self.worker
        if worker is None or worker.consumer is None or worker.context is None:
            return None
        now = self.clock.time()
        moments = [await worker.context.broker.looks.next_due(worker.context.queues, int(now * 1000))]
        if worker.scheduler is not None:
            moments.append(worker.scheduler.next)
        # Half a millisecond later: what is due then is due, however a float is rounded.
        due = [moment / 1000 + 0.0005 for moment in moments if moment is not None]
        deadlines = [attempt.deadline for attempt in worker.consumer.attempts()]
        due += [deadline for deadline in deadlines if deadline is not None]
        return min((moment for moment in due if moment > now), default=None)

    async def _let_run(self) -> None:
        """Let run what is due, until nothing is or what still runs waits for something."""
        before: object = None
        since = time.monotonic()
        while (standing := await self._standing()) is not None:
            now = time.monotonic()
            if standing != before:
                before, since = standing, now
            elif now - since >= PATIENCE:
                return  # a queue whose worker has no slot free
            await asyncio.sleep(LOOK)

    async def _standing(self) -> object:
        """None when all is quiet; else how things stand, to be compared with later."""
        here = asyncio.get_running_loop()
        for api in self._apis():
            if here in api.loops():
                await api.sent()
        worker = self.worker
        if worker is None or worker.consumer is None or worker.context is None:
            return None
        await worker.sent()
        if worker.scheduler is not None:
            await worker.scheduler.turn()
        broker, queues = worker.context.broker, worker.context.queues
        await broker.work.poke(queues[0])
        states = [state for queue in queues if not (state := await broker.looks.state(queue)).paused]
        waiting = sum(state.ready + state.prio for state in states)
        held = sum(state.held for state in states)
        soon = await broker.looks.next_due(queues, 0)
        overdue = soon is not None and soon <= int(self.clock.time() * 1000)
        running = {(attempt.task.id, attempt.task.retry) for attempt in worker.consumer.attempts()}
        now = time.monotonic()
        young = [key for key in running if now - self._seen.setdefault(key, now) < PATIENCE]
        if not young and not waiting and not overdue and held == len(running):
            return None
        return waiting, held, soon, running, worker.counts.processed, worker.counts.retried


class WorkerInTest:
    """The worker beside a test. It starts with the first api, and ends with the test."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    @property
    def worker(self) -> Worker | None:
        """The worker itself; None before an api has been used."""
        return self._harness.worker

    def __repr__(self) -> str:
        worker = self.worker
        return f"<worker {worker.name}, {worker.counts}>" if worker is not None else "<worker, not started>"


# ------------------------------------------------------------------------------------------ one job
class _Recorded(Attempt):
    """An attempt that keeps the exception itself."""

    __slots__ = ("error",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.error: BaseException | None = None

    def raised(self, exc: BaseException) -> Outcome:
        self.error = exc
        return super().raised(exc)


class RunJob:
    """Runs a job as an attempt of it would be run: in its mode, with its `self`, its time-out; without a queue."""

    def __init__(self, harness: Harness) -> None:
        self._api = harness.api

    @overload
    def __call__(
        self, job: JobFunction[P, R, C, A], /, *args: P.args, **kwargs: P.kwargs
    ) -> LoopFuture[R]: ...
    @overload
    def __call__(self, job: str | type[Job], /, *args: Any, **kwargs: Any) -> LoopFuture[Any]: ...
    @overload
    def __call__(self, job: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> LoopFuture[R]: ...
    def __call__(self, job: Any, /, *args: Any, **kwargs: Any) -> LoopFuture[Any]:
        """Resolves to what the job returns, as whoever awaits the task would get it; raises what it raises.

        The error of a process job is a `TaskError` with its text. There is one attempt: no retries.
        Raises what queueing it would raise.
        """
        task = self._api.tasks.make(job, kwargs, args=args)
        if task.name not in self._api.registry:
            raise self._api.registry.unknown(task.name)
        return self._api.call(self._run(task))

    async def _run(self, task: Task[Any]) -> Any:
        api = self._api
        job = api.registry[task.name]
        task.queue = None
        attempt, outcome = await api.inline.run_attempt(task, job, _Recorded)
        if attempt.error is not None and not attempt.why:
            raise attempt.error
        if outcome.kind == OK and isinstance(outcome.value, Verdict):
            return outcome.value
        task.max_retries = None
        ending = api.inline.conclude(task, outcome, job)
        if ending.op == AGAIN or not task.done():
            raise PqError(f"{task.full_name} did not end: {task.exception or outcome.error or task.reason}")
        return task.get()


# ------------------------------------------------------------------------------------ what was queued
class AssertQueued:
    """Knows what this process has queued."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    @property
    def tasks(self) -> list[Task[Any]]:
        """All tasks that were queued, in that order, without those that the store refused."""
        return [
            task
            for task, future in self._harness.queued
            if not future.done() or future.cancelled() or future.exception() is None
        ]

    def __call__(self, job: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """The last task of `job` with these arguments; those that are not named may be anything.

        Raises `AssertionError`, which shows what was queued instead, and `TaskNotAvailable`.
        """
        __tracebackhide__ = True
        name, kind = self._harness.api.tasks.resolve(job)
        wanted = _bound(kind, args, kwargs)
        task: Task[Any]
        for task in reversed(self.tasks):
            if task.name == name:
                got = _bound(kind, task.args, task.kwargs, defaults=True)
                if all(key in got and got[key] == value for key, value in wanted.items()):
                    return task
        raise AssertionError(f"no {_call(name, args, kwargs)} was queued{self._instead(name)}")

    def _instead(self, name: str) -> str:
        tasks = self.tasks
        if not tasks:
            return "; nothing was"
        same = [task for task in tasks if task.name == name]
        shown = same or tasks
        lines = [f"  {_call(task.name, task.args, task.kwargs)}" for task in shown[-20:]]
        what = f"; of {name} were" if same else f", and no {name} at all; queued were"
        return f"{what}\n" + "\n".join(lines)


def _bound(
    kind: type[Job] | None, args: Any, kwargs: Mapping[str, Any], *, defaults: bool = False
) -> dict[str, Any]:
    """Arguments by their names, as far as the signature is known."""
    if kind is None:
        return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    try:
        bound = kind.signature.bind_partial(*args, **kwargs)
    except TypeError as exc:
        raise InvalidValue(f"{kind.name}{kind.signature} has no such arguments: {exc}") from None
    if defaults:
        bound.apply_defaults()
    found = dict(bound.arguments)
    for parameter in kind.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(found.pop(parameter.name, {}))
    return found


def _call(name: str, args: Any, kwargs: Mapping[str, Any]) -> str:
    shown = [f"{value!r:.80}" for value in args] + [f"{key}={value!r:.80}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


# ------------------------------------------------------------------------------------------ the clock
class ClockInHand:
    """The application's clock: it goes on by itself, and can be moved on."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._harness.clock.time()

    def now(self) -> dt.datetime:
        """The same as a date and time in UTC."""
        return dt.datetime.fromtimestamp(self.time(), dt.UTC)

    def advance(self, seconds: float | dt.timedelta) -> LoopFuture[None]:
        """Move on, from one thing that comes due to the next; resolves when what is due by then has run.

        An attempt that still runs after a second, a real one, is taken to wait for something: time goes on
        without it, and its time-out comes. Raises `InvalidValue`: time does not go back.
        """
        if isinstance(seconds, dt.timedelta):
            seconds = seconds.total_seconds()
        if type(seconds) not in (int, float) or not 0 <= seconds <= LIMITS.delay:
            raise InvalidValue(
                f"advance({seconds!r:.60}), and time moves on by a number of seconds from 0",
                hint="each test begins at the present: advance to what you want to see",
            )
        return self._harness.api.call(self._advance(float(seconds)))

    async def _advance(self, seconds: float) -> None:
        await self._harness.api.broker()  # with the worker, if there is to be one
        await self._harness.advance(seconds)

    def advance_to(self, moment: dt.datetime) -> LoopFuture[None]:
        """The same, to that moment, which has a time zone."""
        if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
            raise InvalidValue(
                f"advance_to({moment!r:.60}) needs a date and time with its zone",
                hint="datetime(2030, 1, 1, 3, tzinfo=UTC)",
            )
        return self.advance(max(0.0, moment.timestamp() - self.time()))
