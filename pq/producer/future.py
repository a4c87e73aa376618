"""Futures that can be awaited in a loop and waited for anywhere else.

A future belongs to the loop of the engine that made it. In that loop it is an ordinary `asyncio.Future`
(and as fast). Awaited in another loop it is bridged; in a thread without a loop, at the prompt of a
shell, there is `.wait()`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import BadArguments, PqError, WaitInLoop
from ..loops import in_notebook, running_loop
from ..model.events import TaskEvent
from ..model.task import Task

T = TypeVar("T")
R = TypeVar("R")


class LoopFuture(asyncio.Future[T]):
    """An `asyncio.Future` with `.wait()`, which may be awaited from another loop too."""

    __slots__ = ()  # tens of thousands may be pending: each without a dictionary of its own

    def __await__(self) -> Generator[Any, None, T]:
        if asyncio.get_running_loop() is self.get_loop():
            return super().__await__()
        return asyncio.wrap_future(self.bridge()).__await__()

    __iter__ = __await__

    def wait(self, timeout: float | None = None) -> T:
        """Block until it is resolved and return what it resolves to. For the shell and for threads.

        Args:
            timeout: seconds; None waits forever.

        Raises `WaitInLoop` inside a running event loop (write `await`), `TimeoutError`.
        """
        if running_loop() is not None and not (in_notebook() and running_loop() is not self.get_loop()):
            raise WaitInLoop(
                "wait() inside a running event loop would block it forever",
                hint=f"write `await {self._word()}`",
            )
        if not self.done() and not self.get_loop().is_running():
            raise PqError(
                "the event loop that this future belongs to has ended", hint="await it inside that loop"
            )
        bridge = self.bridge()
        try:
            return bridge.result(timeout)
        except concurrent.futures.TimeoutError:
            if bridge.done():
                raise  # the future's own TimeoutError
            raise TimeoutError(f"{self!r} was not resolved within {timeout} s") from None

    def bridge(self) -> concurrent.futures.Future[T]:
        """A thread-safe future that follows this one."""
        bridge: concurrent.futures.Future[T] = concurrent.futures.Future()
        bridge.set_running_or_notify_cancel()

        def follow(done: asyncio.Future[T]) -> None:
            if done.cancelled():
                bridge.set_exception(asyncio.CancelledError())
            elif (error := done.exception()) is not None:
                bridge.set_exception(error)
            else:
                bridge.set_result(done.result())

        if self.done():
            follow(self)
        else:
            self.get_loop().call_soon_threadsafe(self.add_done_callback, follow)
        return bridge

    def _word(self) -> str:
        return "the_future"

    def _standing(self) -> str:
        return "pending" if not self.done() else "cancelled" if self.cancelled() else "finished"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._standing()}>"


class TaskFuture(LoopFuture[Task[R]], Generic[R]):
    """Resolves to the finished `Task`, whatever its status: `task.get()` gives the result or raises.

    With `callback=False` it resolves as soon as the task is queued; the task then has
    `done_callback`, the future of its end. `task` is the task as it was sent.
    """

    __slots__ = ("forget", "task", "watch")

    def __init__(self, task: Task[R], *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.task = task
        self.forget: Callable[[TaskFuture[R]], None] | None = None
        self.watch: Callable[[TaskFuture[Any]], AsyncIterator[TaskEvent]] | None = None

    @property
    def id(self) -> str:
        """The id of the task."""
        return self.task.id

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop waiting. The task itself goes on: `api.tasks.cancel(id)` stops that."""
        if self.forget is not None:
            self.forget(self)
        return super().cancel(msg)

    def __aiter__(self) -> AsyncIterator[TaskEvent]:
        """`async for event in future`: queued, started, progress, log, retry, done; ends with the task."""
        if self.watch is None:
            raise PqError(f"{self!r} is of a task without a queue, which has no events", hint="await it")
        return self.watch(self)

    def _word(self) -> str:
        return "task"

    def __repr__(self) -> str:
        return f"<TaskFuture {self._standing()} ID={self.task.id}>"


MessageFuture = TaskFuture


class AsCompleted(Generic[R]):
    """Tasks in the order in which they finish: `for` in a shell or thread, `async for` in a loop."""

    def __init__(self, futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> None:
        # A future is iterable by itself, since `yield from` may await it; that of `map` is one, of a list.
        self._futures = [futures] if isinstance(futures, LoopFuture) else list(dict.fromkeys(futures))
        self._timeout = timeout
        for each in self._futures:
            if not isinstance(each, TaskFuture):
                raise BadArguments(
                    f"as_completed takes the futures of tasks, and {each!r:.80} is none",
                    hint="api.tasks.queue and queue_many return such futures; map resolves when all are done",
                )

    def __iter__(self) -> Iterator[Task[R]]:
        if running_loop() is not None:
            raise WaitInLoop("a plain `for` would block the running event loop", hint="write `async for`")
        bridges = [future.bridge() for future in self._futures]
        for bridge in concurrent.futures.as_completed(bridges, self._timeout):
            yield bridge.result()

    async def __aiter__(self) -> AsyncIterator[Task[R]]:
        here = asyncio.get_running_loop()
        futures = [f if f.get_loop() is here else asyncio.wrap_future(f.bridge()) for f in self._futures]
        try:
            for next_done in asyncio.as_completed(futures, timeout=self._timeout):
                yield await next_done
        finally:
            for future in futures:  # the caller got one error; asyncio must not log the others
                if future.done() and not future.cancelled():
                    future.exception()
