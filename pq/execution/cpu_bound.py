"""Attempts in warm child processes, for long computations: they use a core of their own, and can be killed.

The pool decides who gets which attempt and who is replaced:

- Children are started when there is work for them, up to `size`; one that dies is replaced. One that was
  idle for `idle_time` ends, but for the last of them, which stays warm.
- One task at a time in a child, so whatever kills a child (a time-out, a cancel, a segmentation fault,
  the kernel for want of memory) costs that task alone. The pool itself cannot break.
- A child that cannot import the job modules fails one waiting attempt, with the reason. The next child
  is tried after a pause that doubles; until then `capacity()` is what the living children can take.
- After `max_tasks_per_child` tasks a child ends and is replaced.

What an attempt came to is told at once: a cancelled one is not kept waiting for its child to be dead.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ..errors import ImportFailed, TaskCrashed
from ..model.backend import Backend
from ..model.names import LIMITS
from ..model.outcome import CRASHED, FAILED, RELEASED, Outcome, failed
from ..model.task import Task
from .attempt import Attempt, current_task
from .child import ChildSpec
from .child_process import Child
from .child_requests import Errands
from .frames import (
    AWAIT,
    BROKEN,
    DONE,
    LEVELS,
    LOCK,
    LOG,
    PROGRESS,
    QUEUE,
    READY,
    RECORD,
    STREAM,
    TASK,
    UNLOCK,
    frame,
)

logger = logging.getLogger("pq.execution")

STOP_TIME = 1.0
"""Seconds that idle children get to end by themselves; as many again for those that are killed."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

LogCallback = Callable[[Task[Any] | None, int, str], None]
"""Takes what a child printed or logged: its task (None between tasks), the level, the text."""


class Observer(Protocol):
    """Who is told, on the loop, what the children do and say, by their process ids."""

    def levels(self) -> dict[str, int]:
        """The levels of loggers for a task that is about to begin (see `log_records.levels`)."""
        ...

    def child_started(self, pid: int) -> None: ...

    def child_ended(self, pid: int, done: int, crash: str | None) -> None:
        """After `done` tasks; `crash` says how it died, when nobody had told it to end."""

    def began(self, attempt: Attempt, pid: int) -> None: ...

    def logged(self, record: bytes) -> None:
        """A log record, for `log_records.unpack`."""

    def printed(self, pid: int, level: int, line: str) -> None: ...


class CpuBound:
    """Runs attempts in at most `size` child processes.

    Args:
        task_paths, app_name, settings: what a child needs to import and to run jobs.
        size: the most children at once. warm: how many are started before the first attempt.
        max_tasks_per_child: tasks after which a child is replaced; None is never.
        idle_time: seconds after which an idle child ends, unless it is the last.
        limit: bytes of the largest result.
        on_log: called with what a child prints or logs; default: the logger `<app_name>.<job name>`.
        observer: is told of everything, and gets what is logged as whole records, in place of `on_log`.
    """

    leaked = 0

    def __init__(
        self,
        *,
        task_paths: Iterable[str],
        app_name: str,
        settings: Mapping[str, Any],
        backend: Backend,
        size: int,
        warm: int = 0,
        max_tasks_per_child: int | None = None,
        idle_time: float = 30.0,
        limit: int = LIMITS.size,
        on_log: LogCallback | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._paths = tuple(task_paths)
        self._app_name = app_name
        self._settings = dict(settings)
        self._backend = backend
        self._size = size
        self._warm = min(warm, size)
        self._max_tasks = max_tasks_per_child
        self._idle_time = idle_time
        self._limit = limit
        self._on_log = on_log
        self._observer = observer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._children: set[Child] = set()  # those that work or will
        self._dying: set[Child] = set()
        self._idle: list[Child] = []  # the last one used is used next: its memory is the warmest
        self._unused: asyncio.TimerHandle | None = None  # when to look for those that are not needed
        self._waiting: deque[Attempt] = deque()
        self._errands: dict[Child, Errands] = {}
        self._wanted = self._warm  # children that there should be, because there once was work for them
        self._failures = 0
        self._pause: asyncio.TimerHandle | None = None
        self._stopping = False
        self._all_gone: asyncio.Event | None = None

    # ---------------------------------------------------------------------------- executor
    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._pump()

    async def stop(self) -> None:
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._unused is not None:
            self._unused.cancel()
            self._unused = None
        for attempt in [*self._waiting, *(child.attempt for child in self._children if child.attempt)]:
            attempt.cancel(RELEASED)
        for child in list(self._children):
            self._dismiss(child)
            if child.ready:
                child.retire()
            else:
                child.kill()
        for _ in range(2):
            if self._dying:
                self._all_gone = asyncio.Event()
                try:
                    await asyncio.wait_for(self._all_gone.wait(), STOP_TIME)
                except TimeoutError:
                    for child in self._dying:
                        child.kill()

    def capacity(self) -> int | None:
        if self._pause is not None:
            return max(0, len(self._idle) - len(self._waiting))
        busy = sum(1 for child in self._children if child.attempt is not None)
        return max(0, self._size - busy - len(self._waiting))

    def start_attempt(self, attempt: Attempt) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if attempt.why:
            self._loop.call_soon(attempt.finish, attempt.stopped())
            return
        attempt.halt = self._halt
        self._waiting.append(attempt)
        self._pump()

    # ---------------------------------------------------------------------------- who gets what
    def _pump(self) -> None:
        """Give what waits to who is idle, and start children for the rest."""
        assert self._loop is not None
        while self._waiting and self._idle:
            attempt = self._waiting.popleft()
            try:
                attempt.arm(self._loop)
                body = frame(TASK, attempt.task.to_wire())
                levels = self._observer.levels() if self._observer is not None else None
            except Exception as exc:  # numbers and texts of a foreign message that are none
                self._loop.call_soon(attempt.finish, failed(exc))
                continue
            # A child that died since it was last heard of takes nothing; that costs the task nothing.
            while self._idle:
                child = self._idle.pop()
                if levels is not None and levels != child.levels and child.send(frame(LEVELS, levels)):
                    child.levels = levels
                if child.send(body):
                    child.attempt = attempt
                    attempt.seat = child
                    if self._observer is not None and child.pid is not None:
                        _safely(self._observer.began, attempt, child.pid)
                    break
            else:
                attempt.disarm()
                self._waiting.appendleft(attempt)
        if self._stopping or self._pause is not None:
            return
        starting = sum(1 for child in self._children if not child.ready)
        missing = min(len(self._waiting) - starting, self._size - len(self._children))
        for _ in range(max(missing, self._wanted - len(self._children))):
            self._hire()
        self._wanted = max(self._wanted, len(self._children))

    def _hire(self) -> None:
        assert self._loop is not None
        spec = ChildSpec(
            app_name=self._app_name,
            task_paths=self._paths,
            settings=self._settings,
            node_name=str(getattr(self._backend.tasks, "node_name", "")),
            limit=self._limit,
            log_level=logging.getLogger(self._app_name).getEffectiveLevel(),
            whole_records=self._observer is not None,
        )
        try:
            self._children.add(Child(spec, self, self._loop))
        except (OSError, RuntimeError) as exc:  # no more descriptors or threads to be had
            self._unable(f"{type(exc).__name__}: {exc}")

    def _dismiss(self, child: Child) -> None:
        """It works no more for us; `gone` comes when it has ended."""
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._dying.add(child)

    def _halt(self, attempt: Attempt) -> None:
        child: Child | None = attempt.seat
        if child is None:
            if attempt in self._waiting:
                self._waiting.remove(attempt)
            attempt.finish(attempt.stopped())
            return
        self._dismiss(child)
        child.kill()
        self._finish(child, attempt.stopped())
        self._pump()

    def _finish(self, child: Child, outcome: Outcome) -> None:
        """The attempt of `child` is over."""
        attempt = child.attempt
        if attempt is None:
            return
        child.flush()
        errands = self._errands.pop(child, None)
        if errands is not None:
            errands.end()
        child.attempt = None
        attempt.seat = None
        attempt.finish(outcome._replace(info={"pid": child.pid}))

    # ---------------------------------------------------------------------------- what children say
    def said(self, child: Child, frames: list[list[Any]]) -> None:
        """`handle.Owner`: frames came from `child`."""
        progress: list[Any] | None = None
        for word, *fields in frames:
            if word == PROGRESS:
                progress = fields  # of many that came together, the last one tells all
                continue
            if progress is not None:
                self._progress(child, progress)
                progress = None
            if word == DONE:
                self._done(child, fields)
            elif word == LOG:
                self.printed(child, *fields)
            elif word == RECORD:
                if self._observer is not None:
                    _safely(self._observer.logged, *fields)
            elif word in (STREAM, QUEUE, AWAIT, LOCK, UNLOCK):
                self._errand(child, word, fields)
            elif word == READY:
                self._ready(child)
            elif word == BROKEN:
                text, stack, slug = fields
                self._dismiss(child)
                child.retire()
                self._failed_start(Outcome(FAILED, None, text, stack, slug))
        if progress is not None:
            self._progress(child, progress)

    def printed(self, child: Child, level: int, line: str) -> None:
        """`handle.Owner`: a line that the job logged or printed."""
        if self._observer is not None:
            _safely(self._observer.printed, child.pid, level, line)
            return
        task = child.attempt.task if child.attempt is not None else None
        token = current_task.set(task)
        try:
            _safely(self._tell, child, task, level, line)
        finally:
            current_task.reset(token)

    def gone(self, child: Child, code: int | None, error: str | None) -> None:
        """`handle.Owner`: `child` is no more."""
        expected = child in self._dying
        self._children.discard(child)
        self._dying.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if self._observer is not None and child.ready and child.pid is not None:
            crash = None if expected else _how_it_died(code)
            _safely(self._observer.child_ended, child.pid, child.done, crash)
        if child.attempt is not None:
            words = "\n".join(child.last_words) or None
            text = f"the process that ran the task {_how_it_died(code)}"
            self._finish(child, Outcome(CRASHED, None, text, words, TaskCrashed.slug))
        elif not expected and child.pid is None:
            self._unable(error or "it has no process id")
        elif not expected and not child.ready:
            text = f"a child process {error or _how_it_died(code)} before it could run a job"
            words = "\n".join(child.last_words) or None
            self._failed_start(Outcome(FAILED, None, text, words, ImportFailed.slug))
        elif not expected and not child.done:
            self._back_off()  # it died in idleness: whatever kills it may kill the next one as well
        if self._all_gone is not None and not self._dying:
            self._all_gone.set()
        self._pump()

    def _ready(self, child: Child) -> None:
        child.is_ready()
        if self._observer is not None and child.pid is not None:
            _safely(self._observer.child_started, child.pid)
        if not child.doomed:
            self._rest(child)
            self._pump()

    def _done(self, child: Child, fields: list[Any]) -> None:
        kind, encoded, error, stack, reason, _, wait, final = fields
        child.done += 1
        self._failures = 0
        self._finish(child, Outcome(kind, None, error, stack, reason, encoded, None, wait, final))
        if child.doomed:
            return
        if self._max_tasks is not None and child.done >= self._max_tasks:
            self._dismiss(child)
            child.retire()
        else:
            self._rest(child)
        self._pump()

    def _rest(self, child: Child) -> None:
        """It has nothing to do."""
        assert self._loop is not None
        child.idle_since = self._loop.time()
        self._idle.append(child)
        if self._unused is None and len(self._children) > 1:
            self._unused = self._loop.call_later(self._idle_time, self._retire_unused)

    def _retire_unused(self) -> None:
        """End those that were idle for so long, and come again when the next of them may be due.

        The first of `_idle` is the one that has rested for longest, since the last one is used next.
        """
        assert self._loop is not None
        self._unused = None
        now = self._loop.time()
        due = now - self._idle_time + 0.001  # timers are a little early at times
        while len(self._children) > 1 and self._idle and self._idle[0].idle_since <= due:
            child = self._idle[0]
            self._dismiss(child)
            self._wanted = len(self._children)
            child.retire()
        if len(self._children) > 1:
            since = self._idle[0].idle_since if self._idle else now
            self._unused = self._loop.call_at(since + self._idle_time, self._retire_unused)

    def _unable(self, reason: str) -> None:
        """The system gives no child. That is not the task's fault: another worker may have it."""
        logger.error("no child process can be started: %s", reason)
        self._failed_start(Outcome(RELEASED, None, f"no child process can be started: {reason}"))

    def _failed_start(self, outcome: Outcome) -> None:
        """No child can be had: tell one attempt that waits for one, and pause."""
        self._back_off()
        if self._waiting:
            self._waiting.popleft().finish(outcome)

    def _back_off(self) -> None:
        assert self._loop is not None
        if self._pause is None and not self._stopping:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._pause = self._loop.call_later(pause, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._pump()

    def _progress(self, child: Child, fields: list[Any]) -> None:
        if child.attempt is not None:
            done, total, message = fields
            child.attempt.backend.progress(child.attempt.task, done, total, message)

    def _errand(self, child: Child, word: int, fields: list[Any]) -> None:
        if child.attempt is None:
            return
        errands = self._errands.get(child)
        if errands is None:
            errands = self._errands[child] = Errands(
                child.attempt, child.send, functools.partial(self._tell, child)
            )
        if word == STREAM:
            errands.stream(*fields)
        elif word == QUEUE:
            errands.queue(*fields)
        elif word == LOCK:
            errands.lock(*fields)
        elif word == UNLOCK:
            errands.unlock(*fields)
        else:
            errands.answer(*fields)

    def _tell(self, child: Child, task: Task[Any] | None, level: int, text: str) -> None:
        if self._on_log is not None:
            self._on_log(task, level, text)
            return
        name = f"{self._app_name}.{task.name}" if task is not None else self._app_name
        # The record is made here, and so has the process id of the worker; whose it is, is in `child`.
        logging.getLogger(name).log(level, "%s", text, extra={"child": child.pid})


def _safely(tell: Callable[..., None], *args: Any) -> None:
    """Tell somebody who is not allowed to break the pool."""
    try:
        tell(*args)
    except Exception:
        logger.exception("what a child process did or said could not be handled")


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "died; its exit code is not known"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        name += " (the system does that when memory runs out)"
    return f"was killed by {name}"
