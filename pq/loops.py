"""Run event loops, and keep tasks in them.

`run` and `loop_factory` choose the fast loop where it is installed. `LoopThread` is a loop in a thread of its
own. `EternalTask` is an asyncio task that must not end; `HeldTasks` are those that do, kept until then.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

HELPERS_TIME = 2.0
"""Seconds that helping threads get to end in."""
RESTART_AFTER = 0.5
"""Seconds until a cancelled `EternalTask` begins again: a loop that ends cancels all tasks, and must find no new ones."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop, or asyncio's own where uvloop is not installed (Windows)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a new loop of the fast kind."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def in_notebook() -> bool:
    """True in a Jupyter kernel, whose cells run within its event loop, also those without an `await`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class EternalTask:
    """An asyncio task that must not end: its end is an error, unless `stop` caused it.

    A duty that ended silently (a heartbeat, the renewal of a lease) is worse than a process that is gone: so
    its end is logged and reported to `on_end`, with the exception or None. A job may cancel every task of its
    loop; a duty that was cancelled by anything but `stop` begins again after `RESTART_AFTER` seconds.
    """

    def __init__(
        self,
        name: str,
        duty: Callable[[], Coroutine[Any, Any, None]],
        *,
        logger: logging.Logger,
        on_end: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.name = name
        self._duty = duty
        self._logger = logger
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin the duty in the running loop; twice is harmless."""
        if self._task is None:
            self._begin()

    async def stop(self) -> None:
        """Cancel the duty and wait for its end; twice is harmless."""
        task, self._task = self._task, None
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._duty(), name=self.name)
        self._task.add_done_callback(self._ended)

    def _begin_again(self) -> None:
        self._logger.warning("%s was cancelled from outside; it goes on", self.name)
        self._restart = None
        self._begin()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is None:  # `stop` ended it
            return
        if task.cancelled():
            self._restart = asyncio.get_running_loop().call_later(RESTART_AFTER, self._begin_again)
            return
        error = task.exception()
        self._logger.error("%s ended: %s", self.name, error or "without an error", exc_info=error)
        if self._on_end is not None:
            self._on_end(error)


class HeldTasks:
    """Asyncio tasks that run beside a loop, held until they end: asyncio itself keeps weak references alone.

    The error of one that fails is logged at its end. They stand in the order in which they began.
    """

    def __init__(self, owner: str, *, logger: logging.Logger) -> None:
        self._owner = owner
        self._logger = logger
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(
        self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None
    ) -> asyncio.Task[T]:
        """Run `work` in `loop`, by default in the running one."""
        task = (loop or asyncio.get_running_loop()).create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    async def wait(self, timeout: float) -> None:
        """Wait until all that run now have ended, at most `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=timeout)

    def cancel(self) -> None:
        """Cancel all but the running one."""
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()

    async def end(self) -> None:
        """Cancel all and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error(
                "unexpected error in %s: %s: %s", self._owner, type(error).__name__, error, exc_info=error
            )


class LoopThread:
    """An event loop in a daemon thread: how a plain shell or a synchronous web application gets one.

    At the prompt nothing runs, yet futures must resolve and callbacks fire; so the loop has to turn
    somewhere else. The thread is a daemon: it never keeps a program from ending.
    """

    def __init__(self, name: str = "pq") -> None:
        self.loop = loop_factory()()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end_helpers())
        finally:
            self.loop.close()

    async def _end_helpers(self) -> None:
        """The threads of `asyncio.to_thread`: they are ours, so they end before we do."""
        try:
            await asyncio.wait_for(self.loop.shutdown_default_executor(), HELPERS_TIME)
        except TimeoutError:
            pass  # one of them still works; it is a daemon

    @property
    def alive(self) -> bool:
        """False once it was stopped, and in the child of a fork."""
        return self._thread.is_alive() and not self.loop.is_closed()

    def inside(self) -> bool:
        """True in the loop's own thread."""
        return threading.current_thread() is self._thread

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the loop and wait for the thread; harmless when it has stopped."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            if not self.inside():
                self._thread.join(timeout)
