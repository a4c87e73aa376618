"""A job: a registered recipe. Its name, its function, its options.

Two ways to write one, with the same result, a subclass of `Job`:

    @api.job(timeout=30)                       class Addition(api.Job):
    def addition(self, a=0, b=0):                  timeout = 30
        return a + b                               def __call__(self, a=0, b=0):
                                                       return a + b

A new instance is made for each attempt (`self.task` differs), so an instance may hold state of the run. What a job
asks of the program around it goes through its `Backend`: this module does no input or output.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, ClassVar, ParamSpec, TypeVar, overload

from ..errors import InvalidValue, PayloadTooLarge, PqError
from .arguments import Shape, shape_of
from .backend import Backend, HeldLock
from .job_checks import Raised, check_options, checked_flow, checked_retries, checked_schedule
from .limits import WAIT, Debounce, Flow, Key, Limit, Unique
from .names import slug
from .options import ASYNC_IO, CPUBOUND, THREAD_IO
from .payloads import dump_payload
from .retry import tries_again_after
from .schedule import SKIP, Schedule
from .serializers import MSGPACK
from .signatures import read_function
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Job:
    """Base of all jobs. Subclass it with `__call__`, or decorate a function with `api.job`.

    Class attributes are the options of the job; the instance attributes `backend`, `task` and `cfg`
    belong to one run.
    """

    abstract: ClassVar[bool] = True
    """An abstract job is not registered. Not inherited: a subclass is concrete unless it says so."""
    name: str = ""
    """The name in the queue. Default: the slug of the class or function name (`process_html` → `process.html`)."""
    concurrency: str = ASYNC_IO
    """The concurrency mode: `ASYNC_IO`, `THREAD_IO`, `CPUBOUND`, `GREEN_IO`."""
    default_queue: str | None = None
    """The queue of its tasks where none is named; None: the first queue of the settings."""
    timeout: float | None = None
    """Seconds one attempt may run; None: no limit."""
    max_retries: int | None = None
    """Attempts that may follow the first; None: none."""
    retry_delay: float | None = None
    """Seconds between attempts; None: as `backoff` has it."""
    backoff: Any = None
    """The wait between attempts: a `Backoff`, or a function of the attempt that failed. None: 1, 2, 4, …
    seconds with jitter."""
    retry_on: tuple[Raised, ...] | None = None
    """Classes of the only exceptions after which another attempt is made; None: all."""
    no_retry_on: tuple[Raised, ...] | None = None
    """Classes of exceptions after which no other attempt is made."""
    max_concurrency: int | None = None
    """Tasks of this job that may run at once, over all workers; more wait in their order."""
    limits: Limit | Sequence[Limit] = ()
    """Further limits, by key or in time: `Concurrency(…)`, `Rate(…)`."""
    on_limit: str = WAIT
    """The fate of a task at a limit: `'wait'` or `'revoke'` (`TooManyTasksForJob`)."""
    unique: bool | Unique | None = None
    """Queue a task once while an equal one is there: True, or a `Unique`."""
    debounce: float | dt.timedelta | Debounce | None = None
    """Run once no further call came for N seconds, with the arguments of the last call: seconds, or a `Debounce`."""
    partition_key: Key | None = None
    """Tasks with the same key keep their order, where their queue has partitions: the name of an argument, several
    names, or a function of all arguments."""
    durability: str | None = None
    """Where a task has to be before its queueing counts: `'none'`, `'replica'`, `'fsync'`; None: as the settings say."""
    expires: float | None = None
    """Seconds after queueing past which a task is not started any more."""
    priority: int | None = None
    """Higher runs first, from -1000 to 1000; None: 0."""
    doc_syntax: str = "markdown"
    """The markup of its docstring."""
    type: ClassVar[str] = "regular"

    # Set per class by __init_subclass__: looked at for every task, so worked out once.
    is_async: ClassVar[bool] = False
    signature: ClassVar[inspect.Signature]
    defined_at: ClassVar[str] = ""
    function: ClassVar[Callable[..., Any] | None] = None
    function_object: ClassVar[Any] = None
    """The decorated function; None for a class."""
    periodic_schedule: ClassVar[Schedule | None] = None
    flow: ClassVar[Flow | None] = None
    secrets: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are annotated as `Secret`."""
    argument_shape: ClassVar[Shape]
    """The names that keyword arguments are compared with first (`pq.model.arguments.plainly_fits`)."""

    # Of one run.
    backend: Backend
    task: Task[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "abstract" not in cls.__dict__:
            cls.abstract = False
        if cls.__call__ is Job.__call__:
            cls.abstract = True
            return
        if not cls.__dict__.get("name"):
            cls.name = slug(cls.__name__.lower())
        check_options(cls, cls.name)
        cls.retry_on, cls.no_retry_on = checked_retries(
            f"job {cls.__name__}", cls.backoff, cls.retry_delay, cls.retry_on, cls.no_retry_on
        )
        own = cls.__dict__.get("function")
        facts = read_function(own or cls.__call__, skip_first=own is None or cls.takes_self())
        cls.is_async, cls.signature, cls.secrets, cls.defined_at = facts
        cls.argument_shape = shape_of(cls.signature, cls.secrets)
        cls.flow = checked_flow(
            cls.name,
            cls.signature,
            max_concurrency=cls.max_concurrency,
            limits=cls.limits,
            on_limit=cls.on_limit,
            unique=cls.unique,
            debounce=cls.debounce,
            partition_key=cls.partition_key,
        )

    @classmethod
    def takes_self(cls) -> bool:
        """Return True when the function takes the job as its first argument."""
        return not isinstance(cls.__dict__.get("__call__"), staticmethod)

    @classmethod
    def tries_again_after(cls, kind: Raised) -> bool:
        """Return True where another attempt may follow one that ended with an exception of class `kind`."""
        return tries_again_after(kind, cls.retry_on, cls.no_retry_on)

    @classmethod
    def limits_text_of(cls, task: Task[Any]) -> str:
        """Return the limits of a task that is in the store already; its unique key is not asked for again.

        Raises `BadArguments` and `UnreadableMessage`, where its arguments are not what the limits need.
        """
        if cls.flow is None:
            return ""
        most = task.meta.get("max_concurrency")
        return cls.flow.limits_text(task.name, cls.signature, task.args, task.kwargs, most, unique=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise PqError(f"{type(self).__name__} has no __call__", hint="write `def __call__(self, …)` in it")

    # --------------------------------------------------------------------------- of one run
    @property
    def cfg(self) -> Any:
        """The settings of the program, frozen."""
        return self.backend.cfg

    @property
    def logger(self) -> logging.Logger:
        """The logger `<name of the application>.<name of the job>`."""
        return logging.getLogger(f"{getattr(self.cfg, 'name', 'pq')}.{self.name}")

    def queue(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Queue another job from this one; its task has this one's id as `meta['from_task']`."""
        kwargs["meta_params"] = {**(kwargs.get("meta_params") or {}), "from_task": self.task.id}
        return self.backend.tasks.queue(job, *args, **kwargs)

    def queue_local(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Queue another job to the queue of this node; otherwise as `queue`."""
        kwargs["queue"] = self.backend.tasks.node_name
        return self.queue(job, *args, **kwargs)

    @overload
    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None: ...
    @overload
    def progress(
        self, done: AsyncIterable[T], total: float | None = None, message: str | None = None
    ) -> AsyncIterator[T]: ...
    @overload
    def progress(
        self, done: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]: ...

    def progress(self, done: Any, total: float | None = None, message: str | None = None) -> Any:
        """Publish how far the task is. Cheap, never blocks, works in every concurrency mode.

        Given an iterable instead of a number, it counts by itself: `for row in self.progress(rows)`, or `async for`.
        `total` is then its length, where it has one.
        """
        if isinstance(done, (int, float)):
            self.backend.progress(self.task, done, total, message)
            return None
        if total is None and hasattr(done, "__len__"):
            total = len(done)
        if hasattr(done, "__aiter__"):
            return self._over_async(done, total, message)
        if hasattr(done, "__iter__"):
            return self._over(done, total, message)
        raise InvalidValue(
            f"self.progress() expects a number or an iterable, got {done!r:.60}",
            hint="self.progress(3, 10), or: for row in self.progress(rows)",
        )

    def _over(self, items: Iterable[T], total: float | None, message: str | None) -> Iterator[T]:
        count = 0
        for count, item in enumerate(items, 1):
            yield item
            self.backend.progress(self.task, count, total, message)
        if not count:
            self.backend.progress(self.task, 0, total, message)

    async def _over_async(
        self, items: AsyncIterable[T], total: float | None, message: str | None
    ) -> AsyncIterator[T]:
        count = 0
        async for item in items:
            yield item
            count += 1
            self.backend.progress(self.task, count, total, message)

    def stream(self, part: Any) -> Awaitable[None]:
        """Publish a part of the result while the task runs; `api.tasks.stream(task)` reads them.

            async for word in model(text):
                await self.stream(word)

        A part is anything that a result may be. In an async job `await` it, so that a slow store slows the job
        down; in a thread, a process or a green job the call itself waits. Parts are kept for as long as a
        result, the last 10,000 and 16 MB of them. Raises `NotSerializable`, `PayloadTooLarge`, `QueueFull`.
        """
        limit: int = self.cfg.max_message_size
        try:
            body = dump_payload(MSGPACK, part, what=f"part that {self.name!r} streams", limit=limit)
        except PayloadTooLarge as exc:
            raise PayloadTooLarge(
                exc.message, hint="stream more and smaller parts, or raise max_message_size"
            ) from None
        block = None if self.is_async else self.__dict__.get("wait")  # that of a green job's instance
        return self.backend.stream(self.task, body, block)

    @property
    def http(self) -> Any:
        """An HTTP client, shared by all tasks of the program (extra `http`, or the Manager's own).

        In an asyncio and a green job it is an `httpx2.AsyncClient`, in a thread and a process job an
        `httpx2.Client`. Do not close it.
        """
        return self.backend.http(self.concurrency in (THREAD_IO, CPUBOUND))

    def lock(self, name: str | None = None, *, ttl: float = 30.0, wait: float | None = None) -> HeldLock:
        """Return a lock that one holder at a time has, over all servers; default name: that of the job.

            async with self.lock("accounts", wait=10) as lock:
                …  # lock.fence, lock.lost

        In a thread, a process or a green job `with` works as well. `ttl`: seconds after which the lock
        of a holder that died is free; it is renewed while it is held. `wait`: the longest wait, then
        `LockTimeout`; 0 asks once, None waits without end.
        """
        # In a green job an instance's `wait` stands in place of the class's.
        return self.backend.lock(name or self.name, ttl=ttl, wait=wait, block=self.__dict__.get("wait"))

    async def run_in_executor(self, function: Callable[..., R], *args: Any) -> R:
        """Run blocking `function(*args)` in a thread, in the job's context, and await its result."""
        return await asyncio.to_thread(function, *args)

    async def shell(
        self, command: str | Sequence[str], *, timeout: float | None = None, **options: Any
    ) -> str:
        """Run a command and return its standard output as text.

        `command` is a list of arguments (no shell is involved), or one string for the system's shell:
        never put untrusted text into a string. `options` go to the subprocess (`cwd`, `env`, …).
        Raises `ShellError` (with `returncode`, `stdout`, `stderr`) when it ends with another status
        than 0, `TimeoutError` after `timeout` seconds. The command is killed when the task is cancelled.
        """
        return await self.backend.run_command(command, timeout, options)

    def wait(self, awaitable: Awaitable[R]) -> R:
        """Wait for `awaitable` from the synchronous code of a GREEN_IO job.

        The executor of green jobs puts the working method in place of this one.
        """
        raise PqError(
            f"{self.name} runs as {self.concurrency!r}, where nothing can wait like this",
            hint="write `await` in an async job, or use @api.job(concurrency=api.GREEN_IO)",
        )


class PeriodicJob(Job):
    """A job that a scheduler queues by the clock.

    `run_every` is seconds, a `timedelta` or a cron line; `anchor` (`api.anchorDate()`) fixes the phase.
    A scheduler passes no arguments, so each must have a default.
    """

    abstract = True
    type = "periodic"
    run_every: float | dt.timedelta | str | None = None
    """Seconds, a `timedelta` or a cron line."""
    anchor: dt.datetime | None = None
    """A time at which it runs, from which `run_every` counts."""
    timezone: str | None = None
    """The zone of a cron line, and of an anchor without one; None: UTC."""
    catch_up: str = SKIP
    """The fate of runs missed while no scheduler was alive: `'skip'`, `'once'` or `'all'`."""
    catch_up_limit: int = 100
    """The largest number of missed runs that are caught up, the last ones; for `'all'`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.abstract:
            cls.periodic_schedule = checked_schedule(
                cls.name,
                cls.signature,
                run_every=cls.run_every,
                timezone=cls.timezone,
                anchor=cls.anchor,
                catch_up=cls.catch_up,
                catch_up_limit=cls.catch_up_limit,
            )
