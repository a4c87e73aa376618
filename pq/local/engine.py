"""The queue behind a `TaskQueue`: what waits, what runs, and how it ends.

An event loop in a thread of its own moves it. The thread is started with the first task, processes
with the tasks that need them; so a queue may be made anywhere, before a fork for instance. Futures are
resolved in that thread, and a task is counted before its future is.

The pool is given as many tasks as it has processes; all others wait here, where they can be cancelled.

A program may end without `terminate`. Then its processes are killed and what was left is logged.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, NamedTuple

from ..errors import (
    NotSerializable,
    PayloadTooLarge,
    PqError,
    QueueingError,
    TaskCrashed,
    TaskError,
    TaskRevoked,
)
from ..execution import pickled
from ..execution.attempt import Attempt
from ..execution.cpu_bound import CpuBound
from ..loops import LoopThread
from ..model.outcome import CRASHED, OK, Outcome
from .logs import Logs

STOP_TIME = 10.0
"""Seconds that stopping the processes may take; they are killed long before."""
EXIT_TIME = 3.0
"""The same when the program ends without `terminate`."""
_SHOWN = 10


class Terminated(NamedTuple):
    """The tasks that a terminated queue had done, and the descriptions of those that it left."""

    finished: int
    """Tasks that came to their end, well or badly: `processed()`."""
    stopped: tuple[str, ...]
    """Tasks that ran and were killed. Their futures raise `TaskRevoked`."""
    dropped: tuple[str, ...]
    """Tasks that never began. Their futures are cancelled."""


class Call(Attempt):
    """One task: its attempt, its future, and what it is called in logs."""

    __slots__ = ("future", "text")

    future: Future[Any]
    text: str


class Engine:
    """`count` processes and what waits for them.

    `length`, `processed`, `closed` and what waits are changed under `_news`; what runs belongs to the
    loop's thread.
    """

    def __init__(self, count: int, per_worker: int | None, logs: Logs) -> None:
        self.count = count
        self.length = 0
        self.processed = 0
        self.closed = False
        self._per_worker = per_worker
        self._logs = logs
        self._waiting: deque[Call] = deque()
        self._running: set[Call] = set()
        self._poked = False  # `_pump` is on its way
        self._news = threading.Condition()
        self._stopping = threading.Lock()
        self._end: Terminated | None = None
        self._abandoned = False
        self._fading: asyncio.Task[None] | None = None
        self._thread: LoopThread | None = None
        self._pool: CpuBound | None = None
        self._pid = 0

    # ------------------------------------------------------------------------- in any thread
    def add(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> Future[Any]:
        self._check_process()
        future: Future[Any] = Future()
        try:
            if self.closed:
                raise _closed(text)
            task = pickled.pack_call(function, args, kwargs, what=f"task {text}")
        except (NotSerializable, PayloadTooLarge) as exc:
            with self._news:
                self.processed += 1
            self._logs.say(logging.ERROR, "task %s failed before a worker had it", text, exc_info=exc)
            future.set_exception(exc)
            return future
        call = Call(task, pickled.run_pickled.job_class, _NO_BACKEND, self._finished)
        call.future, call.text = future, text
        with self._news:
            if self.closed:
                raise _closed(text)
            if self._thread is None:
                self._start()
            self.length += 1
            self._waiting.append(call)
            self._poke()
        future.add_done_callback(self._settled)
        return future

    def terminate(self, timeout: float | None) -> Terminated:
        if self._pid not in (0, os.getpid()):
            return Terminated(self.processed, (), ())  # nothing of it is in this process
        if self._thread is not None and self._thread.inside():
            raise PqError(
                "terminate() was called in a callback of the queue, for which it would have to wait",
                hint="call it in another thread: threading.Thread(target=queue.terminate).start()",
            )
        with self._news:
            self.closed = True
            self._news.wait_for(lambda: not self.length or self._end is not None, timeout)
        with self._stopping:
            if self._end is None:
                self._end = self._stop(STOP_TIME)
                self._tell(self._end)
            return self._end

    def abandon(self) -> None:
        """End a queue without references. The garbage collector calls this at any point of a program: no locks."""
        if self._thread is not None and self._end is None and self._pid == os.getpid():
            try:
                self._thread.loop.call_soon_threadsafe(self._abandon)
            except RuntimeError:
                pass  # the loop is closed already

    def exit(self) -> None:
        """The program ends."""
        if self._pid != os.getpid():
            return
        with self._news:
            self.closed = True
            left = self.length
        with self._stopping:
            if self._end is None:
                if left:
                    self._logs.say(
                        logging.WARNING,
                        "the program ends with %s undone; terminate() waits for them",
                        _tasks(left),
                    )
                self._end = self._stop(EXIT_TIME)

    def _check_process(self) -> None:
        if self._pid not in (0, os.getpid()):
            raise QueueingError(
                f"this TaskQueue is that of process {self._pid}, and this is process {os.getpid()}, its fork",
                hint="make the queue after the fork, or add its first task there",
            )

    def _start(self) -> None:
        self._pid = os.getpid()
        self._pool = CpuBound(
            task_paths=[pickled.PATH],
            app_name="pq",
            settings={"main": pickled.main_of_program()},
            backend=_NO_BACKEND,
            size=self.count,
            max_tasks_per_child=self._per_worker,
            limit=pickled.LIMIT + pickled.SLACK,
            observer=self,
        )
        self._thread = LoopThread("pq-local")
        _engines.add(self)

    def _poke(self) -> None:
        if not self._poked and self._thread is not None:
            self._poked = True
            self._thread.loop.call_soon_threadsafe(self._pump)

    def _settled(self, future: Future[Any]) -> None:
        """A future is done. One that was cancelled is counted here: its task will never run."""
        if future.cancelled():
            with self._news:
                self.length -= 1
                self._news.notify_all()
                self._poke()

    def _stop(self, seconds: float) -> Terminated:
        if self._thread is None or self._pool is None:
            return Terminated(self.processed, (), ())
        stopped: list[str] = []
        dropped: list[str] = []
        ended = asyncio.run_coroutine_threadsafe(
            self._wind_up(self._pool, stopped, dropped), self._thread.loop
        )
        try:
            ended.result(seconds)
        except TimeoutError:
            self._logs.say(logging.ERROR, "the queue does not stop: a log handler or a callback blocks it")
        self._thread.stop(1.0)
        _engines.discard(self)
        return Terminated(self.processed, tuple(stopped), tuple(dropped))

    def _tell(self, end: Terminated) -> None:
        left = [f"{text} (stopped)" for text in end.stopped] + [f"{text} (not begun)" for text in end.dropped]
        if left:
            more = f", and {len(left) - _SHOWN:,} more" if len(left) > _SHOWN else ""
            self._logs.say(
                logging.WARNING,
                "terminated with %s undone: %s",
                _tasks(len(left)),
                ", ".join(left[:_SHOWN]) + more,
            )

    # ------------------------------------------------------------------------- in the loop's thread
    def _pump(self) -> None:
        """Give the pool as many tasks as it has processes, and take out what was cancelled meanwhile."""
        begun: list[Call] = []
        with self._news:
            self._poked = False
            if len(self._waiting) + len(self._running) > self.length:
                self._sweep()
            while self._waiting and len(self._running) + len(begun) < self.count:
                call = self._waiting.popleft()
                if call.future.set_running_or_notify_cancel():
                    begun.append(call)
        self._running.update(begun)
        assert self._pool is not None
        for call in begun:
            self._pool.start_attempt(call)
        self._fade_when_done()

    def _sweep(self) -> None:
        alive: deque[Call] = deque()
        for call in self._waiting:
            if call.future.cancelled():
                call.future.set_running_or_notify_cancel()  # so that `concurrent.futures.wait` sees it
            else:
                alive.append(call)
        self._waiting = alive

    def _finished(self, attempt: Attempt, outcome: Outcome) -> None:
        assert isinstance(attempt, Call)
        call = attempt
        self._running.discard(call)
        stopped = bool(call.why)  # by us: `terminate` says so of all at once
        value, error = self._ended(call, outcome)
        pid = (outcome.info or {}).get("pid")
        if error is None:
            self._logs.say(logging.INFO, "worker %s is done with task %s", pid, call.text)
        elif not stopped:
            if pid is None:
                self._logs.say(
                    logging.ERROR, "task %s failed before a worker had it", call.text, exc_info=error
                )
            else:
                self._logs.say(logging.ERROR, "worker %s failed task %s", pid, call.text, exc_info=error)
        with self._news:
            self.length -= 1
            self.processed += not stopped
            self._news.notify_all()
        if error is None:
            call.future.set_result(value)
        else:
            call.future.set_exception(error)
        self._pump()

    def _ended(self, call: Call, outcome: Outcome) -> pickled.Ended:
        if outcome.kind == OK:
            return pickled.unpack_result(outcome.encoded, what=f"task {call.text}")
        if call.why:
            return None, TaskRevoked(f"task {call.text} was stopped when its queue was terminated")
        kind = TaskCrashed if outcome.kind == CRASHED else TaskError
        return None, kind(f"task {call.text}: {outcome.error}", remote_traceback=outcome.stacktrace)

    async def _wind_up(self, pool: CpuBound, stopped: list[str], dropped: list[str]) -> None:
        """Stop everything; into the lists goes what was not done."""
        with self._news:
            left, self._waiting = self._waiting, deque()
        for call in left:
            if not call.future.cancelled():  # by its owner
                dropped.append(call.text)
                call.future.cancel()
            call.future.set_running_or_notify_cancel()
        stopped += [call.text for call in self._running]
        if self._fading is not None:
            await asyncio.wait({self._fading})
        else:
            await pool.stop()

    def _abandon(self) -> None:
        self.closed = self._abandoned = True
        self._fade_when_done()

    def _fade_when_done(self) -> None:
        if self._abandoned and not self.length and self._fading is None:
            self._fading = asyncio.get_running_loop().create_task(self._fade())

    async def _fade(self) -> None:
        """End a queue without references whose last future is resolved."""
        assert self._pool is not None
        await self._pool.stop()
        if self._stopping.acquire(blocking=False):  # else the program ends, and stops the loop itself
            self._end = Terminated(self.processed, (), ())
            _engines.discard(self)
            asyncio.get_running_loop().stop()
            self._stopping.release()

    # ------------------------------------------------------------------------- `child_messages.PoolObserver`
    def levels(self) -> dict[str, int]:
        return self._logs.levels()

    def child_started(self, pid: int) -> None:
        self._logs.say(logging.INFO, "worker %s started", pid)

    def child_ended(self, pid: int, done: int, crash: str | None) -> None:
        if crash is None:
            self._logs.say(logging.INFO, "worker %s ended after %s", pid, _tasks(done))
        else:
            self._logs.say(logging.WARNING, "worker %s %s after %s", pid, crash, _tasks(done))

    def began(self, attempt: Attempt, pid: int) -> None:
        assert isinstance(attempt, Call)
        self._logs.say(logging.INFO, "worker %s begins task %s", pid, attempt.text)

    def logged(self, record: bytes) -> None:
        self._logs.logged(record)

    def printed(self, pid: int, level: int, line: str) -> None:
        self._logs.printed(pid, level, line)


_NO_BACKEND: Any = SimpleNamespace(tasks=None)
"""The backend of local tasks: they cannot queue others or hold locks."""


def _tasks(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"


def _closed(text: str) -> QueueingError:
    return QueueingError(
        f"task {text} was not queued: the queue was terminated", hint="make another one: TaskQueue(…)"
    )


_engines: set[Engine] = set()
"""Those that have processes."""


@atexit.register
def _at_exit() -> None:
    for engine in list(_engines):
        engine.exit()
