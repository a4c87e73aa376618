"""`TaskQueue`: what a program sees of it.

The future of a task is the plain `concurrent.futures.Future`: all code that waits for futures knows it
already (`wait`, `as_completed`, `asyncio.wrap_future`). As with other executors, `cancel` takes back a
task that no process has yet; only `terminate` stops one that runs.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from ..config.settings import cores
from ..errors import BadArguments, InvalidValue
from ..execution.child_output import shorten
from ..execution.pickled import refuse_while_importing
from .engine import Engine, Terminated
from .logs import Logs

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")

_DESCRIPTION = 200
"""Characters of a description in logs and errors."""


class Runnable(Protocol[T_co]):
    """A task as an object: what `run()` returns is its result."""

    def run(self) -> T_co: ...


class TaskQueue:
    """Runs tasks in child processes of this program.

    Args:
        worker_count: the most processes at once; default: the cores that this program may use.
        requests_per_worker: tasks after which a process ends and is replaced; None is never.
        logger: a logger, or its name: where that goes which finds no handlers of its own, be it
            logged by the queue (`pq.local`), printed by tasks (`pq.local.stdout`, `pq.local.stderr`)
            or logged in them by any logger. For applications whose handlers are at a logger of their
            own, as those of Flask are at `app.logger`.

    All methods may be called from any thread. In an event loop too, where `terminate` alone blocks.
    As a context manager it waits for all tasks at the end of the block; a block that is left by an
    exception terminates with the usual time.

    Raises `InvalidValue` for numbers that are none, `ConfigError` where a worker process imports the
    program's script and that makes a queue.
    """

    def __init__(
        self,
        worker_count: int | None = None,
        requests_per_worker: int | None = None,
        *,
        logger: logging.Logger | str | None = None,
    ) -> None:
        refuse_while_importing("a TaskQueue")
        count = cores() if worker_count is None else _whole("worker_count", worker_count)
        if requests_per_worker is not None:
            _whole("requests_per_worker", requests_per_worker)
        self._logs = Logs(logging.getLogger(logger) if isinstance(logger, str) else logger)
        self._engine = Engine(count, requests_per_worker, self._logs)
        # A queue without references finishes its tasks and ends.
        weakref.finalize(self, self._engine.abandon).atexit = False

    # The order matters: a type checker takes the first that fits.
    @overload
    def add(self, task: Runnable[Coroutine[Any, Any, T]], /) -> Future[T]: ...
    @overload
    def add(self, task: Runnable[T], /) -> Future[T]: ...
    @overload
    def add(
        self, task: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def add(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def add(self, task: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a task: an object with `run()`, or a function (an `async` one, too) and its arguments.

        The task is pickled at once, so what becomes of its arguments later does not matter. The future
        has its result; or its exception, with the traceback in the process as its cause. Exceptions
        that cannot be carried over, or that would end this program (SystemExit), become a `TaskError`.
        The future of a task whose process died raises `TaskCrashed`, that of a task that cannot be
        pickled `NotSerializable`, that of such a result `ResultNotSerializable`. Each failure is logged
        with its traceback, so that none is lost where the future is not read.

        Raises `BadArguments` for a value that is not a task, `QueueingError` after `terminate`.
        """
        return self._engine.add(_function(task), args, kwargs, _description(task, self._logs))

    def map(self, function: Callable[[A], T], iterable: Iterable[A]) -> Iterator[T]:
        """Queue `function(item)` for each item at once; an iterator over the results, in order.

        It raises the first error that it meets. When it has raised or is closed, the tasks that no worker
        will ask for are cancelled, if they have not begun.
        """
        futures: deque[Future[T]] = deque(self.add(function, item) for item in iterable)

        def results() -> Iterator[T]:
            try:
                while futures:
                    yield futures.popleft().result()
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def length(self) -> int:
        """Tasks that are queued or running."""
        return self._engine.length

    def processed(self) -> int:
        """Tasks that came to their end so far, failed ones included; cancelled ones are not."""
        return self._engine.processed

    def terminate(self, timeout: float | None = 5.0) -> Terminated:
        """Take no more tasks, finish what there is, stop the processes; says what was left undone.

        Waits until all is done, and no longer than `timeout` seconds (None: as long as it takes, 0: not
        at all). What is not done then is stopped: tasks that run are killed, queued ones are cancelled.
        May be called again, also while another thread waits in it: the shortest patience counts.

        Raises `InvalidValue` for a timeout that is none, `PqError` in a callback of a future.
        """
        if timeout is not None and (type(timeout) not in (int, float) or not timeout >= 0):
            raise InvalidValue(
                f"timeout is {timeout!r}, and must be a number of seconds, or None",
                hint="terminate(5) waits five seconds, terminate(0) not at all, terminate(None) for all tasks",
            )
        return self._engine.terminate(timeout)

    def __enter__(self) -> TaskQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.terminate(None)
        else:
            self.terminate()

    def __repr__(self) -> str:
        engine = self._engine
        workers = f"{engine.count} worker{'s' * (engine.count != 1)}{', terminated' * engine.closed}"
        return f"<TaskQueue {workers}: {engine.length} queued or running, {engine.processed} processed>"


def _whole(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise InvalidValue(
            f"{name} is {value!r}, and must be a whole number from 1 up",
            hint=f"leave {name} out for its default",
        )
    return value


def _function(task: Any) -> Any:
    """Return the callable of a task: `task.run` of an object that has it, else the task itself."""
    if inspect.isroutine(task):
        return task
    if callable(getattr(task, "run", None)):
        if not isinstance(task, type):
            return task.run
        raise BadArguments(
            f"{task.__qualname__} is a class with run(), and a task is an object",
            hint=f"make one: queue.add({task.__name__}(…))",
        )
    if callable(task):
        return task
    raise BadArguments(
        f"{task!r:.100} is not a task: it has no run() and cannot be called",
        hint="queue.add(MyTask(…)) or queue.add(function, argument, …)",
    )


def _description(task: Any, logs: Logs) -> str:
    """Return the name of a task in logs: that of a function, the `str` of another object."""
    inner = task
    while hasattr(inner, "func") and not inspect.isroutine(inner):  # functools.partial
        inner = inner.func
    try:
        if inspect.isroutine(inner) or isinstance(inner, type):
            return f"{inner.__module__}.{inner.__qualname__}"
        return shorten(" ".join(str(task).split()), _DESCRIPTION)
    except Exception as exc:
        logs.say(logging.WARNING, "a task of class %s has no description", type(task).__name__, exc_info=exc)
        return "(unknown)"
