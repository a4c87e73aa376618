"""One attempt to run a task: what runs, how long it may, and why it was stopped.

An `Attempt` is a record that every executor treats alike, so that a time-out, a cancel and a failure
mean the same wherever the job runs:

- `finished(attempt, outcome)` is called exactly once, on the loop. The second caller (the late
  result of a thread that timed out) is dropped in `finish`.
- `cancel(why)` stops it; the first reason wins. *How* it is stopped is the executor's, which leaves
  its way in `stop`.
- The time-out is a timer of the loop which cancels with `TIMED_OUT`. It is armed when the attempt
  begins to run, and only when there is one: most tasks have none and pay nothing.

`invoke` is the call itself, the same in all modes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..errors import TaskRevoked, TaskTimeout, UnreadableMessage
from ..model.arguments import misfit
from ..model.backend import Backend
from ..model.job import Job
from ..model.names import LIMITS
from ..model.outcome import RELEASED, TIMED_OUT, Outcome, failed, leaves, stack_text, verdict
from ..model.task import Task
from ..model.verdict import Verdict

current_task: ContextVar[Task[Any] | None] = ContextVar("pq_current_task", default=None)
"""The task that the running code belongs to; log records are named by it."""


class Attempt:
    """One attempt of `task`.

    Attributes:
        why: 0, or the reason it is being stopped: REVOKED, TIMED_OUT or RELEASED.
        done: its outcome was delivered.
        stop: set by the executor: how to stop it. None before it has one.
        handle: the executor's own: what it runs on (an asyncio task, a child process).
    """

    __slots__ = ("_timer", "backend", "done", "finished", "handle", "job_class", "stop", "task", "why")

    def __init__(
        self,
        task: Task[Any],
        job_class: type[Job],
        backend: Backend,
        finished: Callable[[Attempt, Outcome], None],
    ) -> None:
        self.task = task
        self.job_class = job_class
        self.backend = backend
        self.finished = finished
        self.why = 0
        self.done = False
        self.stop: Callable[[Attempt], None] | None = None
        self.handle: Any = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def timeout(self) -> float | None:
        """Seconds it may run: the task's own word, else the job's."""
        timeout = self.task.timeout
        return timeout if timeout is not None else self.job_class.timeout

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """It runs from now on: start its time-out, if it has one.

        Raises `UnreadableMessage` for a time-out that is none: the number came in a message.
        """
        # `timeout`, written out: this line is passed by every task.
        timeout = self.task.timeout
        if timeout is None:
            timeout = self.job_class.timeout
            if timeout is None:
                return
        if type(timeout) not in (int, float) or not 0 < timeout <= LIMITS.delay:
            raise UnreadableMessage(
                f"the time-out of the task is {timeout!r}, and must be a number of seconds"
            )
        self._timer = loop.call_later(timeout, self.cancel, TIMED_OUT)

    @property
    def deadline(self) -> float | None:
        """When its time-out comes, in seconds since the epoch; None when none runs."""
        if self._timer is None or self.why or self.done or self.timeout is None:
            return None
        return (self.task.time_started or 0.0) + self.timeout

    def rearm(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """It is `now`, by a clock that was moved: set its time-out again."""
        deadline = self.deadline
        if deadline is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = loop.call_later(max(0.0, deadline - now), self.cancel, TIMED_OUT)

    def disarm(self) -> None:
        """It does not run: its time-out does not run either."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cancel(self, why: int) -> None:
        """Stop it, because of `why`. Only on the loop. Does nothing when it is finished or being stopped."""
        if self.why or self.done:
            return
        self.why = why
        if self.stop is not None:
            self.stop(self)

    def give_up_after(
        self, loop: asyncio.AbstractEventLoop, seconds: float, give_up: Callable[[Attempt], None]
    ) -> None:
        """Call `give_up` unless it finishes in time. Takes the place of the time-out's timer."""
        self.disarm()
        self._timer = loop.call_later(seconds, give_up, self)

    def finish(self, outcome: Outcome) -> None:
        """Deliver the outcome, unless one was delivered before."""
        if self.done:
            return
        self.done = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.finished(self, outcome)

    def ended(self, exc: BaseException) -> Outcome:
        """The outcome of an attempt whose job left with `exc`: ours, when we were stopping it."""
        return self.stopped(exc) if self.why else self.raised(exc)

    def raised(self, exc: BaseException) -> Outcome:
        """The outcome of an attempt whose job raised `exc`; called in the thread that the job ran in."""
        return raised(exc, self.job_class)

    def stopped(self, exc: BaseException | None = None) -> Outcome:
        """The outcome of an attempt that was stopped; `exc` shows where it was at that time."""
        if self.why == RELEASED:
            return Outcome(RELEASED)
        stack = stack_text(exc) if exc is not None else None
        if self.why == TIMED_OUT:
            limit = "it may" if self.timeout is None else f"its time-out of {self.timeout:g} s"
            text = f"the task ran longer than {limit}"
            final = not self.job_class.tries_again_after(TaskTimeout)
            return Outcome(TIMED_OUT, None, text, stack, TaskTimeout.slug, final=final)
        return Outcome(self.why, None, "the task was cancelled", stack, TaskRevoked.slug)


def raised(exc: BaseException, job_class: type[Job] | None) -> Outcome:
    """The outcome of an attempt whose job raised `exc`, which may be its own word about what follows.

    What an `asyncio.TaskGroup` put together is looked at one by one: a group of nothing but verdicts is the
    first of them, and there is another attempt when there would be one after each of its errors.
    """
    errors = list(leaves(exc))
    if all(isinstance(error, Verdict) for error in errors):
        said: Any = errors[0]
        return verdict(said, raised=True)
    outcome = failed(exc)
    if job_class is not None and not all(job_class.tries_again_after(type(error)) for error in errors):
        outcome = outcome._replace(final=True)
    return outcome


def invoke(task: Task[Any], job_class: type[Job], backend: Backend) -> Any:
    """Call the job with the arguments of `task`; for an async job, the result is its coroutine.

    Raises what the job raises, `UnreadableMessage` for arguments that cannot be read, `BadArguments`
    for such as do not fit.
    """
    return call(task, job_class, make_job(task, job_class, backend))


def make_job(task: Task[Any], job_class: type[Job], backend: Backend) -> Any:
    """Return the callable of this attempt: a new instance of the job, or the bare function where it takes no job."""
    # A class that inherits a function without `self` is asked too; `function` is set for such alone.
    if job_class.function is not None and not job_class.takes_self():
        return job_class.function
    job = job_class()
    job.task = task
    job.backend = backend
    # Looked at before it is done: most tasks have nothing of their own.
    if (
        task.timeout is not None
        or task.retry_delay is not None
        or (task.max_retries is not None and task.max_retries != job_class.max_retries)
        or task.meta_bytes is not None
    ):
        _own_options(job, task)
    return job


def _own_options(job: Job, task: Task[Any]) -> None:
    """Return the job's option, or that of `queue` and `meta_params` for this task."""
    if task.timeout is not None:
        job.timeout = task.timeout
    if task.retry_delay is not None:
        job.retry_delay = task.retry_delay
    if task.max_retries is not None:
        job.max_retries = task.max_retries
    most = task.meta.get("max_concurrency")
    if most is not None:
        job.max_concurrency = most


def call(task: Task[Any], job_class: type[Job], job: Any) -> Any:
    """`job` called with the arguments of `task`."""
    kwargs = task.kwargs
    try:
        return job(*task.args, **kwargs)
    except TypeError:
        # Arguments were checked when they were queued, perhaps by another version of the program. So
        # they are looked at again only where the call failed as a wrong call fails.
        wrong = misfit(task.name, job_class.signature, task.args, kwargs)
        if wrong is None:
            raise
        raise wrong from None
