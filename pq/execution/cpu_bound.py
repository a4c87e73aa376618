"""Attempts in warm child processes, for long computations: a core of their own, and they can be killed.

The pool decides which child runs an attempt, and which child is replaced:

- Children start when there is work for them, up to `size`; one that dies is replaced. One that was idle for
  `idle_time` ends, except the last, which stays warm.
- A child runs one task at a time, so whatever kills it (a time-out, a cancel, a segmentation fault, the kernel
  when memory runs out) costs that task alone. The pool itself cannot break.
- A child that cannot import the job modules fails one waiting attempt, with the reason. The next child is tried
  after a pause that doubles; until then `capacity()` counts the living children.
- After `max_tasks_per_child` tasks a child ends and is replaced.

The outcome of an attempt is reported at once: a cancelled one does not wait until its child is dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ImportFailed, TaskCrashed
from ..model.backend import Backend
from ..model.names import LIMITS
from ..model.outcome import CRASHED, FAILED, RELEASED, Outcome, failed
from .attempt import Attempt
from .child import ChildSpec
from .child_messages import ChildMessages, LogCallback, PoolObserver, notify
from .child_process import Child, how_it_died
from .frames import LEVELS, TASK, frame

logger = logging.getLogger("pq.execution")

STOP_TIME = 1.0
"""Seconds for idle children to end by themselves; the same again for those that are killed."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class CpuBound:
    """Runs attempts in at most `size` child processes.

    Args:
        task_paths, app_name, settings: what a child needs to import and to run jobs.
        size: the most children at once. warm: the number started before the first attempt.
        max_tasks_per_child: tasks after which a child is replaced; None is never.
        idle_time: seconds after which an idle child ends, unless it is the last.
        limit: bytes of the largest result.
        on_log: called with what a child prints or logs; default: the logger `<app_name>.<job name>`.
        observer: notified of everything; gets what is logged as whole records, in place of `on_log`.
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
        observer: PoolObserver | None = None,
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
        self._observer = observer
        self._messages = ChildMessages(self, app_name=app_name, on_log=on_log, observer=observer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._children: set[Child] = set()  # those that work or will
        self._dying: set[Child] = set()
        self._idle: list[Child] = []  # the last one used is used next: its memory is the warmest
        self._unused: asyncio.TimerHandle | None = None  # the next look for children that are not needed
        self._waiting: deque[Attempt] = deque()
        self._wanted = self._warm  # children to keep: there once was work for this number
        self._number = 0  # of the last task that was sent to a child
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
        attempt.stop = self._stop_attempt
        self._waiting.append(attempt)
        self._pump()

    # ---------------------------------------------------------------------------- giving out work
    def _pump(self) -> None:
        """Give waiting attempts to idle children; start children for the rest."""
        assert self._loop is not None
        while self._waiting and self._idle:
            attempt = self._waiting.popleft()
            try:
                attempt.arm(self._loop)
                self._number += 1
                body = frame(TASK, self._number, attempt.task.to_wire())
                levels = self._observer.levels() if self._observer is not None else None
            except Exception as exc:  # a foreign message whose numbers or texts are not valid
                self._loop.call_soon(attempt.finish, failed(exc))
                continue
            # A child that died a moment ago takes nothing; the attempt goes to the next one, unharmed.
            while self._idle:
                child = self._idle.pop()
                if levels is not None and levels != child.levels and child.send(frame(LEVELS, levels)):
                    child.levels = levels
                if child.send(body):
                    child.attempt = attempt
                    child.number = self._number
                    attempt.handle = child
                    if self._observer is not None and child.pid is not None:
                        notify(self._observer.began, attempt, child.pid)
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
            parent_levels=self._observer is not None,
        )
        try:
            self._children.add(Child(spec, self, self._loop))
        except (OSError, RuntimeError) as exc:  # out of descriptors or threads
            self._unable(f"{type(exc).__name__}: {exc}")

    def _dismiss(self, child: Child) -> None:
        """Stop giving it work; `gone` is called when it has ended."""
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._dying.add(child)

    def _stop_attempt(self, attempt: Attempt) -> None:
        child: Child | None = attempt.handle
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
        self._messages.end_attempt(child)
        child.attempt = None
        attempt.handle = None
        attempt.finish(outcome._replace(info={"pid": child.pid}))

    # ---------------------------------------------------------------------------- `child_process.Owner`
    def received(self, child: Child, frames: list[list[Any]]) -> None:
        """Handle frames that came from `child`."""
        self._messages.received(child, frames)

    def printed(self, child: Child, level: int, line: str) -> None:
        """Log a line that the job of `child` printed."""
        self._messages.printed(child, level, line)

    def gone(self, child: Child, code: int | None, error: str | None) -> None:
        """Replace `child`, which has ended."""
        expected = child in self._dying
        self._children.discard(child)
        self._dying.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if self._observer is not None and child.ready and child.pid is not None:
            crash = None if expected else how_it_died(code)
            notify(self._observer.child_ended, child.pid, child.done, crash)
        if child.attempt is not None:
            words = "\n".join(child.last_words) or None
            text = f"the process that ran the task {how_it_died(code)}"
            self._finish(child, Outcome(CRASHED, None, text, words, TaskCrashed.slug))
        elif not expected and child.pid is None:
            self._unable(error or "it has no process id")
        elif not expected and not child.ready:
            text = f"a child process {error or how_it_died(code)} before it could run a job"
            words = "\n".join(child.last_words) or None
            self._failed_start(Outcome(FAILED, None, text, words, ImportFailed.slug))
        elif not expected and not child.done:
            self._back_off()  # it died while idle: what killed it may kill the next one too
        if self._all_gone is not None and not self._dying:
            self._all_gone.set()
        self._pump()

    # ---------------------------------------------------------------------------- `child_messages.Pool`
    def child_ready(self, child: Child) -> None:
        """Give it work: it has imported its modules."""
        child.is_ready()
        if self._observer is not None and child.pid is not None:
            notify(self._observer.child_started, child.pid)
        if not child.doomed:
            self._rest(child)
            self._pump()

    def child_broken(self, child: Child, outcome: Outcome) -> None:
        """Fail one waiting attempt: the child cannot import its modules."""
        self._dismiss(child)
        child.retire()
        self._failed_start(outcome)

    def child_done(self, child: Child, number: int, outcome: Outcome) -> None:
        """End its attempt and give it the next one, or replace it after `max_tasks_per_child` tasks.

        An answer to another task than the one that it has is refused, and the child replaced: the next answers
        would be those of other tasks, too.
        """
        if child.attempt is None or number != child.number:
            if not child.doomed:
                self._refuse_answer(child, number)
            return
        child.done += 1
        self._failures = 0
        self._finish(child, outcome)
        if child.doomed:
            return
        if self._max_tasks is not None and child.done >= self._max_tasks:
            self._dismiss(child)
            child.retire()
        else:
            self._rest(child)
        self._pump()

    def _refuse_answer(self, child: Child, number: int) -> None:
        text = f"the process that ran the task sent an answer to another task ({number} in place of {child.number})"
        logger.warning("child %s is replaced: %s", child.pid, text)
        self._dismiss(child)
        child.kill()
        self._finish(child, Outcome(CRASHED, None, text, None, TaskCrashed.slug))
        self._pump()

    # ---------------------------------------------------------------------------- idle and failing children
    def _rest(self, child: Child) -> None:
        """Put it with the idle ones."""
        assert self._loop is not None
        child.idle_since = self._loop.time()
        self._idle.append(child)
        if self._unused is None and len(self._children) > 1:
            self._unused = self._loop.call_later(self._idle_time, self._retire_unused)

    def _retire_unused(self) -> None:
        """End children that were idle for `idle_time`; set the timer for the next of them.

        The first of `_idle` was idle for longest, since the last one is used next.
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
        """Release one waiting attempt: the system starts no child, which is not the fault of the task."""
        logger.error("no child process can be started: %s", reason)
        self._failed_start(Outcome(RELEASED, None, f"no child process can be started: {reason}"))

    def _failed_start(self, outcome: Outcome) -> None:
        """End one waiting attempt with `outcome` and pause before the next start of a child."""
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
