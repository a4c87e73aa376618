"""Jobs as a type checker sees them: `addition.options(delay=2).queue(a=4, b=6)` is a `TaskFuture[int]`.

Options and arguments are apart, so an argument may be called `delay`, and both are checked: by the type checker
through the signature of the function, and when the program runs, before anything is queued.

A decorated function has four types: what it is queued with (`P`) and what its task results in (`R`), what it is
called with in a unit test (`C`) and what that returns (`A`, for an async job its coroutine). As at run time, it
is the name `self` that tells whether a job wants its `Job`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from ..errors import InvalidValue
from ..execution.attempt import current_task
from ..model.backend import TasksApi
from ..model.decorator import DecoratedFunction
from ..model.decorator import job as decorate
from ..model.options import split_options
from ..model.task import Task
from .current import tasks_for
from .future import LoopFuture, TaskFuture

P = ParamSpec("P")
C = ParamSpec("C")
R = TypeVar("R")
A = TypeVar("A")
X = TypeVar("X")
R_co = TypeVar("R_co", covariant=True)
X_contra = TypeVar("X_contra", contravariant=True)


class _OfOne(Protocol[X_contra, R_co]):
    """A job that can be queued with one argument."""

    def _signature(self, item: X_contra, /) -> R_co: ...


class Options(Generic[P, R]):
    """A job and options of its tasks, to be queued any number of times. It does not change.

    Made by `addition.options(…)` and `api.tasks.options(addition, …)`.
    """

    __slots__ = ("_job", "_meta", "_options", "_tasks")

    def __init__(
        self, job: Any, options: Mapping[str, Any], meta: Mapping[str, Any], tasks: TasksApi | None
    ) -> None:
        self._job = job
        self._options = MappingProxyType(dict(options))
        self._meta = MappingProxyType(dict(meta))
        self._tasks = tasks

    def queue(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Queue a task with these arguments. Raises what `api.tasks.queue` raises, and `NoApi`.

        In a process job the future is for `await` alone, as that of `self.queue`.
        """
        future: TaskFuture[R] = self._queue(args, kwargs)
        return future

    def map(self: _OfOne[X, R], iterable: Iterable[X]) -> LoopFuture[list[Task[R]]]:
        """Queue a task for each item; resolves to the finished tasks, in the order of the items.

        Raises `NoApi` in a process job, which has no api of its own.
        """
        made: Any = self
        done: LoopFuture[list[Task[R]]] = _map(made._find_tasks(), made._job, iterable, made._arguments())
        return done

    def _signature(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError  # for the type of `map`

    def _queue(self, args: Any, kwargs: Any) -> Any:
        return self._find_tasks().queue_call(self._job, args, kwargs, **self._arguments())

    def _find_tasks(self) -> TasksApi:
        return self._tasks if self._tasks is not None else tasks_for(_name(self._job))

    def _arguments(self) -> dict[str, Any]:
        """The options as `queue_call` takes them."""
        meta = dict(self._meta)
        running = current_task.get()
        if running is not None:
            meta["from_task"] = running.id
        return {**self._options, "meta_params": meta} if meta else dict(self._options)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, name):
            raise AttributeError("options do not change; make others with job.options(…)")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in {**self._options, **self._meta}.items())
        return f"<job {_name(self._job)!r} with {given or 'no options'}>"


class JobFunction(DecoratedFunction[C, A], Generic[P, R, C, A]):
    """A function that `@api.job` decorated: callable as before, and a job.

    `job_class` is the `Job` subclass that is registered; `name` its name.
    """

    def queue(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Queue a task with these arguments. Raises what `api.tasks.queue` raises, and `NoApi`."""
        running = current_task.get()
        options = {} if running is None else {"meta_params": {"from_task": running.id}}
        future: Any = tasks_for(self.name).queue_call(self, args, kwargs, **options)
        made: TaskFuture[R] = future
        return made

    def map(self: _OfOne[X, R], iterable: Iterable[X]) -> LoopFuture[list[Task[R]]]:
        """Queue a task for each item; resolves to the finished tasks, in the order of the items."""
        plain: Options[..., R] = Options(self, {}, {}, None)
        return plain.map(iterable)

    def options(
        self,
        *,
        delay: float | None = None,
        queue: str | Literal[False] | None = None,
        timeout: float | None = None,
        callback: bool = True,
        priority: int | None = None,
        expires: float | None = None,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        max_concurrency: int | None = None,
        durability: str | None = None,
        partition_key: Any = None,
        meta: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> Options[P, R]:
        """Options for tasks of this job: `addition.options(delay=2).queue(a=4, b=6)`.

        Args:
            delay: seconds to wait before it runs.
            queue: another queue than the job's `default_queue`; False runs it here, without a queue.
            timeout: seconds one attempt may run.
            callback: False: the future resolves when the task is queued.
            priority: higher runs first, from -1000 to 1000.
            expires: seconds after queueing past which a task is not started any more.
            max_retries: attempts that may follow the first.
            retry_delay: seconds between attempts.
            max_concurrency: tasks of this job that may run at once, over all workers.
            durability: where a task has to be before its queueing counts: `'none'`, `'replica'`, `'fsync'`.
            partition_key: tasks with the same key keep their order, where their queue has partitions.
            meta: data of your own about the task, its `task.meta`.

        What is not given is the job's own. Raises `InvalidValue`, and `BadArguments` for an option that does not exist.
        """
        return make_options(
            self, None, delay=delay, queue=queue, timeout=timeout, callback=callback, priority=priority,
            expires=expires, max_retries=max_retries, retry_delay=retry_delay, max_concurrency=max_concurrency,
            durability=durability, partition_key=partition_key, meta=meta, **unknown,
        )  # fmt: skip

    def _signature(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError  # for the type of `map`


def make_options(job: Any, tasks: TasksApi | None, /, **given: Any) -> Options[Any, Any]:
    """Return `Options` with all that is `given` checked. Raises `BadArguments`, `InvalidValue`."""
    return Options(job, *split_options(given), tasks)


def _map(tasks: TasksApi, job: Any, iterable: Iterable[Any], options: dict[str, Any]) -> Any:
    many = getattr(tasks, "map", None)
    if many is None:
        raise InvalidValue(
            "a process job has no api of its own to map with",
            hint=f"queue one by one: [{_name(job)}.queue(item) for item in …]",
        )
    return many(job, iterable, **options)


def _name(job: Any) -> str:
    name: str = getattr(job, "name", None) or str(job)
    return name


# ------------------------------------------------------------------------------------ the decorator
class _AsyncWithJob(Protocol[P, R_co]):
    def __call__(_job, self: Any, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...


class _AwaitableWithJob(Protocol[P, R_co]):
    def __call__(_job, self: Any, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]: ...


class _WithJob(Protocol[P, R_co]):
    def __call__(_job, self: Any, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Decorator(Protocol):
    """The decorator `@api.job(…)`: it makes a `JobFunction` of a function."""

    # A coroutine is an awaitable too, and its own overload comes first.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: _AsyncWithJob[P, R], /
    ) -> JobFunction[P, R, Concatenate[Any, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: _AwaitableWithJob[P, R], /
    ) -> JobFunction[P, R, Concatenate[Any, P], Awaitable[R]]: ...
    @overload
    def __call__(self, function: _WithJob[P, R], /) -> JobFunction[P, R, Concatenate[Any, P], R]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> JobFunction[P, R, P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> JobFunction[P, R, P, Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> JobFunction[P, R, P, R]: ...


@overload
def job(
    name: str | None = None, run_every: float | dt.timedelta | str | None = None, **options: Any
) -> Decorator: ...
@overload
def job(  # pyright: ignore[reportOverlappingOverload]
    name: _AsyncWithJob[P, R], /
) -> JobFunction[P, R, Concatenate[Any, P], Coroutine[Any, Any, R]]: ...
@overload
def job(name: _AwaitableWithJob[P, R], /) -> JobFunction[P, R, Concatenate[Any, P], Awaitable[R]]: ...
@overload
def job(name: _WithJob[P, R], /) -> JobFunction[P, R, Concatenate[Any, P], R]: ...
@overload
def job(name: Callable[P, Coroutine[Any, Any, R]], /) -> JobFunction[P, R, P, Coroutine[Any, Any, R]]: ...
@overload
def job(name: Callable[P, Awaitable[R]], /) -> JobFunction[P, R, P, Awaitable[R]]: ...
@overload
def job(name: Callable[P, R], /) -> JobFunction[P, R, P, R]: ...
def job(name: Any = None, run_every: float | dt.timedelta | str | None = None, **options: Any) -> Any:
    """Make a job of a function.

        @api.job()
        def addition(self: api.Job, a: int = 0, b: int = 0) -> int:
            return a + b

    A first parameter named `self` receives the `Job` instance; a function without one is a job too.
    Args:
        name: how it is queued; default: the function's name with `_` as `.`.
        run_every: makes it periodic: seconds, a `timedelta`, or a cron line.
        options: any class attribute of `Job`: `concurrency`, `timeout`, `max_retries`, …

    Raises `BadSetting` for an option that does not exist or does not fit.
    """

    def typed(made: DecoratedFunction[..., Any]) -> JobFunction[..., Any, ..., Any]:
        return JobFunction(made.function, made.job_class)

    # It is the other one that knows of `@api.job` without parentheses.
    decorated: Any = decorate(name, run_every, **options)
    if isinstance(decorated, DecoratedFunction):
        return typed(decorated)
    return lambda function: typed(decorated(function))
