"""Event loops: the fast one where there is one, and a loop that lives in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

HELPERS_TIME = 2.0
"""Seconds that helping threads get to end in."""


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
