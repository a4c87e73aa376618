"""A job: a registered recipe. Its name, its function, its options.

Two ways to write one, with the same result, a subclass of `Job`:

    @api.job(timeout=30)                       class Addition(api.Job):
    def addition(self, a=0, b=0):                  timeout = 30
        return a + b                               def __call__(self, a=0, b=0):
                                                       return a + b

A new instance is made for each attempt (`self.task` differs), so an instance may hold state of the run.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
import logging
import os
import signal
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from ..errors import BadArguments, BadSetting, InvalidValue, PayloadTooLarge, PqError, ShellError
from .backend import Backend, HeldLock
from .limits import WAIT, Debounce, Flow, Key, Limit, Unique, check_partition_key, flow_of
from .names import LIMITS, check_name, slug
from .retry import Backoff, tries_again_after
from .schedule import SKIP, Schedule, check_catch_up, make_schedule
from .secret import Secret, is_secret
from .serializers import MSGPACK, dump_payload
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ASYNC_IO = "asyncio"
"""In the worker's event loop (the default); a plain `def` runs inline."""
THREAD_IO = "thread"
"""In a bounded pool of threads: for blocking input and output."""
CPUBOUND = "process"
"""In a warm child process: for long computations; a time-out or a cancel kills it for real."""
GREEN_IO = "green"
"""In a greenlet on the loop: synchronous code may `self.wait(awaitable)` (extra `green`)."""

CONCURRENCY = (ASYNC_IO, THREAD_IO, CPUBOUND, GREEN_IO)


_Raised = type[BaseException]


class Job:
    """Base of all jobs. Subclass it with `__call__`, or decorate a function with `api.job`.

    Class attributes are the options of the job; the instance attributes `backend`, `task` and `cfg`
    belong to one run.
    """

    abstract: ClassVar[bool] = True
    """An abstract job is not registered. Not inherited: a subclass is concrete unless it says so."""
    name: str = ""
    """How it is queued. Default: the slug of the class or function name (`process_html` → `process.html`)."""
    concurrency: str = ASYNC_IO
    default_queue: str | None = None
    """Where its tasks go when no queue is named; None: the first queue of the settings."""
    timeout: float | None = None
    """Seconds an attempt may run; None means no limit."""
    max_retries: int | None = None
    """Attempts that may follow the first; None means none."""
    retry_delay: float | None = None
    """Seconds between attempts; None means that `backoff` says it."""
    backoff: Any = None
    """A `Backoff`, or a function of the attempt that failed; None: 1, 2, 4, … seconds with jitter."""
    retry_on: tuple[_Raised, ...] | None = None
    """Classes of the only exceptions after which another attempt is made; None means all."""
    no_retry_on: tuple[_Raised, ...] | None = None
    """Classes of exceptions after which none is."""
    max_concurrency: int | None = None
    """Tasks of this job that may run at once, over all workers; more wait in their order."""
    limits: Limit | Sequence[Limit] = ()
    """Further limits, by key or in time: `Concurrency(…)`, `Rate(…)`."""
    on_limit: str = WAIT
    """What becomes of a task that finds a limit reached: `'wait'`, or `'revoke'` (`TooManyTasksForJob`)."""
    unique: bool | Unique | None = None
    """True, or a `Unique`: a second task that is the same one is not queued beside the first."""
    debounce: float | dt.timedelta | Debounce | None = None
    """Seconds, or a `Debounce`: run when so long no further call came, with the arguments of the last."""
    partition_key: Key | None = None
    """Where its queue is cut: tasks with the same value of this argument (or these, or this function) keep their order."""
    durability: str | None = None
    """Where a task has to be before its queueing counts: `'none'`, `'replica'`, `'fsync'`; None: as the settings say."""
    expires: float | None = None
    """Seconds after queueing past which a task is not started any more."""
    priority: int | None = None
    """Higher runs first; None is 0."""
    doc_syntax: str = "markdown"
    type: ClassVar[str] = "regular"

    # Set per class by __init_subclass__: looked at for every task, so worked out once.
    is_async: ClassVar[bool] = False
    signature: ClassVar[inspect.Signature]
    defined_at: ClassVar[str] = ""
    function: ClassVar[Callable[..., Any] | None] = None
    function_object: ClassVar[Any] = None
    """What the decorator left in place of the function; None for a class."""
    periodic_schedule: ClassVar[Schedule | None] = None
    flow: ClassVar[Flow | None] = None
    secrets: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are annotated as `Secret`."""

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
        _check_options(cls)
        function = inspect.unwrap(cls.__dict__.get("function") or cls.__call__)
        cls.is_async = inspect.iscoroutinefunction(function)
        parameters = list(inspect.signature(function).parameters.values())
        if cls.__dict__.get("function") is None or cls.takes_self():
            parameters = parameters[1:]
        cls.secrets = frozenset(each.name for each in parameters if is_secret(each.annotation))
        cls.signature = inspect.Signature([_readable(parameter) for parameter in parameters])
        cls.defined_at = _place(function)
        _check_flow(cls)
        if issubclass(cls, PeriodicJob):
            _check_schedule(cls)

    @classmethod
    def takes_self(cls) -> bool:
        """True when the function wants the job as its first argument."""
        return not isinstance(cls.__dict__.get("__call__"), staticmethod)

    @classmethod
    def tries_again_after(cls, kind: _Raised) -> bool:
        """Whether this job wants another attempt after one that ended with an exception of class `kind`."""
        return tries_again_after(kind, cls.retry_on, cls.no_retry_on)

    @classmethod
    def demands_of(cls, task: Task[Any]) -> str:
        """The limits that a task which is there already has to keep; its unique key is not asked for again.

        Raises `BadArguments` and `UnreadableMessage`, where its arguments are not what the limits need.
        """
        if cls.flow is None:
            return ""
        most = task.meta.get("max_concurrency")
        return cls.flow.demands(task.name, cls.signature, task.args, task.kwargs, most, unique=False)

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
        """The same, to the queue of this node."""
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
        """Say how far the task is. Cheap, never blocks, works in every concurrency mode.

        Given something to go over instead of a number, it says so itself: `for row in self.progress(rows)`,
        or `async for`. `total` is then its length, where it has one.
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
            f"progress of {done!r:.60}, which is neither a number nor something to go over",
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
        """Hand out a part of the result while the task runs; `api.tasks.stream(task)` reads them.

            async for word in model(text):
                await self.stream(word)

        A part is anything that a result may be. In an async job `await` it, so that a slow store slows the job
        down; in a thread, a process and a green job the call itself waits. Parts are kept for as long as a
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
        """A lock that one holder at a time has, over all servers; default name: that of the job.

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
        streams: dict[str, Any] = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE}
        streams["stderr"] = asyncio.subprocess.PIPE
        # A group of its own, to be killed whole; but in a process job, whose group is killed with it.
        own_group = not self.backend.own_process_group
        streams.update(options, start_new_session=own_group)
        if isinstance(command, str):
            process = await asyncio.create_subprocess_shell(command, **streams)
        else:
            process = await asyncio.create_subprocess_exec(*command, **streams)
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate()
        except BaseException:
            _kill(process.pid, group=own_group)
            await process.wait()
            raise
        stdout, stderr = (text.decode("utf-8", "replace") if text else "" for text in (out, err))
        if process.returncode:
            last = stderr.strip().rsplit("\n", 1)[-1][:500] or "nothing on standard error"
            raise ShellError(
                f"the command ended with status {process.returncode}: {last}",
                returncode=process.returncode,
                stdout=stdout,
                stderr=stderr,
            )
        return stdout

    def wait(self, awaitable: Awaitable[R]) -> R:
        """Wait for `awaitable` from the synchronous code of a GREEN_IO job.

        The executor of green jobs puts the working method in place of this one.
        """
        raise PqError(
            f"{self.name} runs as {self.concurrency!r}, where nothing can wait like this",
            hint="write `await` in an async job, or use @api.job(concurrency=api.GREEN_IO)",
        )


class PeriodicJob(Job):
    """A job that a scheduler queues again and again.

    `run_every` is seconds, a `timedelta` or a cron line; `anchor` (`api.anchorDate()`) fixes the phase.
    A scheduler passes no arguments, so each must have a default.
    """

    abstract = True
    type = "periodic"
    run_every: float | dt.timedelta | str | None = None
    anchor: dt.datetime | None = None
    timezone: str | None = None
    """The zone of a cron line, and of an anchor without one; None is UTC."""
    catch_up: str = SKIP
    """What becomes of runs that were missed while no scheduler lived: `'skip'`, `'once'` or `'all'`."""
    catch_up_limit: int = 100
    """How many of them at most, with `'all'`; the last ones."""


# ------------------------------------------------------------------------------------ the decorator
class DecoratedFunction(Generic[P, R]):
    """What the decorator leaves in place of a function: still callable as before, and a job.

    `job_class` is the `Job` subclass that is registered; `name` its name.
    """

    def __init__(self, function: Callable[P, R], job_class: type[Job]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.job_class = job_class
        self.name = job_class.name
        job_class.function_object = self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, as a unit test would; nothing is queued."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __repr__(self) -> str:
        return f"<job {self.name!r} at {self.job_class.defined_at}>"


@overload
def job(name: Callable[P, R], /) -> DecoratedFunction[P, R]: ...


@overload
def job(
    name: str | None = None, run_every: float | dt.timedelta | str | None = None, **options: Any
) -> Callable[[Callable[P, R]], DecoratedFunction[P, R]]: ...


def job(name: Any = None, run_every: float | dt.timedelta | str | None = None, **options: Any) -> Any:
    """Make a job of a function.

        @api.job()
        def addition(self, a=0, b=0):
            return a + b

    A first parameter named `self` receives the `Job` instance; a function without one is a job too.
    Args:
        name: how it is queued; default: the function's name with `_` as `.`.
        run_every: makes it periodic: seconds, a `timedelta`, or a cron line.
        options: any class attribute of `Job`: `concurrency`, `timeout`, `max_retries`, …

    Raises `BadSetting` for an option that does not exist or does not fit.
    """
    if callable(name):  # `@api.job` without parentheses, perhaps of a `partial` with options
        return job(None, run_every, **options)(name)

    def decorate(function: Callable[P, R]) -> DecoratedFunction[P, R]:
        base = Job if run_every is None else PeriodicJob
        for option in options:
            if option.startswith("_") or option not in _OPTIONS:
                raise BadSetting(
                    f"jobs have no option {option!r} ({_place(function)})",
                    hint="options are " + ", ".join(sorted(_OPTIONS)),
                )
        parameters = list(inspect.signature(function).parameters)
        with_self = bool(parameters) and parameters[0] == "self"
        body: dict[str, Any] = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__call__": function if with_self else staticmethod(function),
            "function": staticmethod(function),
            "name": name or slug(function.__name__),
            **options,
        }
        if run_every is not None:
            body["run_every"] = run_every
        elif misplaced := sorted(_PERIODIC.intersection(options)):
            raise BadSetting(
                f"{misplaced[0]} is for periodic jobs, and this one has no run_every ({_place(function)})",
                hint="say how often: @api.job(run_every=60), or a cron line",
            )
        made: Any = type(function.__name__, (base,), body)
        return DecoratedFunction(function, made)

    return decorate


# ---------------------------------------------------------------------------------- small helpers
_OPTIONS = frozenset(
    {
        "abstract", "concurrency", "default_queue", "timeout", "max_retries", "retry_delay", "max_concurrency",
        "expires", "priority", "doc_syntax", "backoff", "retry_on", "no_retry_on",
        "limits", "on_limit", "unique", "debounce", "durability", "partition_key",
        "anchor", "timezone", "catch_up", "catch_up_limit",
    }
)  # fmt: skip
_PERIODIC = frozenset({"anchor", "timezone", "catch_up", "catch_up_limit"})

PRIORITIES = range(-1000, 1001)


def check_number(what: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is no number between `low` and `high`; None passes. NaN is refused by the comparison."""
    if value is None:
        return
    fits = type(value) is int or (type(value) is float and not whole)
    if not fits or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidValue(f"{what} is {value!r}, and must be {kind} from {low:g} to {high:g}")


def check_options(options: Any) -> None:
    """Check the numbers that a job, or one queueing of it, may set. Raises `InvalidValue`."""
    check_number("timeout", options.timeout, 0.001, LIMITS.delay)
    check_number("retry_delay", options.retry_delay, 0, LIMITS.delay)
    check_number("expires", options.expires, 0, LIMITS.delay)
    check_number("max_retries", options.max_retries, 0, LIMITS.retries, whole=True)
    check_number("priority", options.priority, PRIORITIES[0], PRIORITIES[-1], whole=True)


NONE, REPLICA, FSYNC = DURABILITY = ("none", "replica", "fsync")


def check_durability(value: Any) -> None:
    """Refuse what is none of the words; None passes."""
    if value is not None and value not in DURABILITY:
        raise InvalidValue(f"durability is {value!r:.60}, and must be one of {', '.join(DURABILITY)}")


def _check_options(cls: type[Job]) -> None:
    where = f"job {cls.__name__}"
    try:
        check_name("job name", cls.name)
        check_options(cls)
        check_number("max_concurrency", cls.max_concurrency, 1, 1_000_000, whole=True)
        check_durability(cls.durability)
        if cls.default_queue is not None:
            check_name("queue name", cls.default_queue)
    except InvalidValue as exc:
        raise BadSetting(f"{where}: {exc.message}", hint=exc.hint) from None
    _check_retries(cls, where)
    if cls.concurrency not in CONCURRENCY:
        raise BadSetting(
            f"{where}: concurrency is {cls.concurrency!r}",
            hint="use api.ASYNC_IO, api.THREAD_IO, api.CPUBOUND or api.GREEN_IO",
        )


def _check_flow(cls: type[Job]) -> None:
    try:
        cls.flow = flow_of(
            cls.name, cls.signature, cls.max_concurrency, cls.limits, cls.on_limit, cls.unique, cls.debounce
        )
        check_partition_key(cls.name, cls.partition_key, cls.signature)
    except BadSetting as exc:
        raise BadSetting(f"job {cls.name}: {exc.message}", hint=exc.hint) from None


def _check_schedule(cls: type[PeriodicJob]) -> None:
    where = f"job {cls.name}"
    if cls.abstract:
        return
    if cls.run_every is None:
        raise BadSetting(f"{where} is a PeriodicJob without run_every", hint="say how often: run_every = 60")
    try:
        cls.periodic_schedule = make_schedule(cls.run_every, cls.timezone, cls.anchor)
        check_catch_up(cls.catch_up, cls.catch_up_limit)
        if len(cls.name) > 100:
            raise BadSetting("a periodic job's name may have 100 characters")
        cls.signature.bind()
    except BadSetting as exc:
        raise type(exc)(f"{where}: {exc.message}", hint=exc.hint) from None
    except TypeError as exc:
        raise BadSetting(
            f"{where}{cls.signature}: {exc}, and a scheduler passes none",
            hint="give it a default; or leave run_every out and say tasks.schedule(job, run_every=…, kwargs={…})",
        ) from None


def _check_retries(cls: type[Job], where: str) -> None:
    if cls.backoff is not None:
        if not isinstance(cls.backoff, Backoff) and not callable(cls.backoff):
            raise BadSetting(
                f"{where}: backoff is {cls.backoff!r:.60}",
                hint="use api.Backoff(base=1, factor=2, cap=600), or a function attempt -> seconds",
            )
        if cls.retry_delay is not None:
            raise BadSetting(f"{where} has both retry_delay and backoff", hint="one says how long to wait")
    for option in ("retry_on", "no_retry_on"):
        kinds = getattr(cls, option)
        if isinstance(kinds, type):
            setattr(cls, option, kinds := (kinds,))
        if kinds is None:
            continue
        if not isinstance(kinds, (tuple, list, set, frozenset)) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
        ):
            raise BadSetting(
                f"{where}: {option} is {kinds!r:.60}",
                hint=f"it is a tuple of exception classes, like {option}=(ConnectionError, TimeoutError)",
            )
        setattr(cls, option, tuple(kinds))


class _Words:
    """An annotation that is text in the source: shown as it stands there, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        return parameter.replace(annotation=_Words(parameter.annotation))
    return parameter


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else getattr(function, "__module__", "?")


def _kill(pid: int, *, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def check_arguments(cls: type[Job], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Check arguments against the job's signature. Raises `BadArguments` with the signature in it."""
    try:
        cls.signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise BadArguments(f"{cls.name}{cls.signature} {_reword(str(exc))}; nothing was queued") from None


def with_secrets(
    cls: type[Job], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The same arguments, those of parameters that are annotated as `Secret` made one."""
    parameters = list(cls.signature.parameters.values())
    many = [each for each in parameters if each.kind is each.VAR_POSITIONAL]
    known = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    others = any(each.kind is each.VAR_KEYWORD and each.name in cls.secrets for each in parameters)
    closed = []
    for number, value in enumerate(args):
        place = parameters[number] if number < len(parameters) else many[0]
        if place.kind is place.KEYWORD_ONLY:
            place = many[0]
        closed.append(Secret(value) if place.name in cls.secrets else value)
    hidden = {
        name: Secret(value) if name in cls.secrets & known or (others and name not in known) else value
        for name, value in kwargs.items()
    }
    return closed, hidden


def _reword(text: str) -> str:
    """`got an unexpected keyword argument 'c'` reads better after the signature than the stdlib's start."""
    return text if text.startswith("got ") else "was called wrongly: " + text
