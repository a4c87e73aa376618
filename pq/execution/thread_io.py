"""Attempts in a bounded pool of threads, for jobs that block on input and output.

Python cannot stop a thread. An attempt that is cancelled or runs out of time is finished at once, and
its thread is left behind: it no longer counts as one of the pool (another takes its place), it is
counted in `leaked` for as long as it runs, and what it brings home late is dropped. An async job in a
thread has a loop of its own there and can be cancelled for real, so it does not stay long.

The threads are daemons, which is why the pool of the standard library will not do: that one joins its
threads when the interpreter ends, so a single job that never returns would keep the process forever.

All counting happens on the loop; a thread knows only the queue it takes work from.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable
from queue import SimpleQueue
from typing import Any

from ..model.outcome import OK, RELEASED, Outcome, failed
from .attempt import Attempt, current_task, invoke

STOP_TIME = 1.0
"""Seconds that `stop` waits for idle threads to end."""

_Item = tuple[Attempt, contextvars.Context]
_Work = SimpleQueue[_Item | None]


class ThreadIo:
    """Runs attempts in at most `size` threads."""

    def __init__(self, *, size: int) -> None:
        self.leaked = 0
        self._size = size
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: _Work = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._running: set[Attempt] = set()
        self._waiting: deque[_Item] = deque()
        self._idle = 0

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        for attempt, _ in list(self._waiting):
            attempt.cancel(RELEASED)
        for attempt in list(self._running):
            attempt.cancel(RELEASED)
        # One word for each thread, those that were left behind included: whenever they come back, they end.
        for _ in self._threads:
            self._work.put(None)
        self._work = SimpleQueue()
        self._idle = 0
        # Polled: the threads end within microseconds, and waiting for one would need another thread.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIME
        while loop.time() < deadline:
            self._threads = {thread for thread in self._threads if thread.is_alive()}
            if len(self._threads) <= self.leaked:
                return
            await asyncio.sleep(0.001)

    def capacity(self) -> int | None:
        return max(0, self._size - len(self._running) - len(self._waiting))

    def start_attempt(self, attempt: Attempt) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if attempt.why:
            self._loop.call_soon(attempt.finish, attempt.stopped())
            return
        attempt.stop = self._stop_attempt
        context = contextvars.copy_context()
        context.run(current_task.set, attempt.task)
        self._waiting.append((attempt, context))
        self._next()

    # ---------------------------------------------------------------------------- on the loop
    def _next(self) -> None:
        loop = self._loop
        assert loop is not None
        while self._waiting and len(self._running) < self._size:
            item = self._waiting.popleft()
            attempt = item[0]
            if attempt.done:
                continue
            try:
                attempt.arm(loop)
                if not self._idle:
                    thread = threading.Thread(
                        target=self._thread, args=(self._work,), name="pq-thread-io", daemon=True
                    )
                    thread.start()
                    self._threads.add(thread)
                    self._idle += 1
            except Exception as exc:  # a time-out that is none; no more threads to be had
                loop.call_soon(attempt.finish, failed(exc))
                continue
            self._idle -= 1
            self._running.add(attempt)
            self._work.put(item)

    def _stop_attempt(self, attempt: Attempt) -> None:
        if attempt in self._running:
            self._running.discard(attempt)
            self.leaked += 1
            if attempt.handle is not None:
                _cancel_there(*attempt.handle)
        else:
            self._waiting = deque(item for item in self._waiting if item[0] is not attempt)
        attempt.finish(attempt.stopped())
        self._next()

    def _returned(self, work: _Work, attempt: Attempt, outcome: Outcome) -> None:
        """A thread is free again, and this is what it brings."""
        late = attempt.done
        if late:
            self.leaked -= 1
        else:
            self._running.discard(attempt)
        if work is not self._work:
            pass  # it belongs to a pool that was stopped, and has been told to end
        elif len(self._running) + self._idle < self._size:
            self._idle += 1
        else:
            work.put(None)  # its place was taken meanwhile: one thread, any, may go
            self._threads = {thread for thread in self._threads if thread.is_alive()}
        if not late:
            attempt.finish(outcome)
        self._next()

    # ---------------------------------------------------------------------------- in a thread
    def _thread(self, work: _Work) -> None:
        while (item := work.get()) is not None:
            attempt, context = item
            outcome = context.run(_run, attempt)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._returned, work, attempt, outcome)
            except RuntimeError:
                return  # the loop is closed: no listener is left
            del item, attempt, context, outcome  # an idle thread keeps nothing alive


def _run(attempt: Attempt) -> Outcome:
    try:
        value = invoke(attempt.task, attempt.job_class, attempt.backend)
        if hasattr(type(value), "__await__"):
            value = asyncio.run(_await(attempt, value))
        return Outcome(OK, value)
    except BaseException as exc:
        return attempt.raised(exc)


async def _await(attempt: Attempt, awaitable: Awaitable[Any]) -> Any:
    # First the handle, then the look: `cancel` sets `why` first and reads the handle then, so
    # one of the two sees the other.
    attempt.handle = (asyncio.get_running_loop(), asyncio.current_task())
    if attempt.why:
        _cancel_there(*attempt.handle)
    return await awaitable


def _cancel_there(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        pass  # it ended meanwhile
