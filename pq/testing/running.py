"""The fixture `run_job`: one attempt of a job, without a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from ..errors import PqError
from ..execution.attempt import Attempt
from ..model.job import Job
from ..model.operations import RETRY as AGAIN
from ..model.outcome import OK, Outcome
from ..model.task import Task
from ..model.verdict import Verdict
from ..producer.future import LoopFuture
from ..producer.typed import JobFunction
from .harness import Harness

P = ParamSpec("P")
C = ParamSpec("C")
R = TypeVar("R")
A = TypeVar("A")


class _Recorded(Attempt):
    """An attempt that keeps the exception itself."""

    __slots__ = ("error",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.error: BaseException | None = None

    def raised(self, exc: BaseException) -> Outcome:
        self.error = exc
        return super().raised(exc)


class RunJob:
    """Runs a job as an attempt of it would be run: in its mode, with its `self`, its time-out; without a queue."""

    def __init__(self, harness: Harness) -> None:
        self._api = harness.api

    @overload
    def __call__(
        self, job: JobFunction[P, R, C, A], /, *args: P.args, **kwargs: P.kwargs
    ) -> LoopFuture[R]: ...
    @overload
    def __call__(self, job: str | type[Job], /, *args: Any, **kwargs: Any) -> LoopFuture[Any]: ...
    @overload
    def __call__(self, job: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> LoopFuture[R]: ...
    def __call__(self, job: Any, /, *args: Any, **kwargs: Any) -> LoopFuture[Any]:
        """Resolve to what the job returns, in the form that a caller of the task gets; raise what it raises.

        The error of a process job is a `TaskError` with its text. There is one attempt: no retries.
        Raises what queueing it would raise.
        """
        task = self._api.tasks.make(job, kwargs, args=args)
        if task.name not in self._api.registry:
            raise self._api.registry.unknown(task.name)
        return self._api.call(self._run(task))

    async def _run(self, task: Task[Any]) -> Any:
        api = self._api
        job = api.registry[task.name]
        task.queue = None
        attempt, outcome = await api.inline.run_attempt(task, job, _Recorded)
        if attempt.error is not None and not attempt.why:
            raise attempt.error
        if outcome.kind == OK and isinstance(outcome.value, Verdict):
            return outcome.value
        task.max_retries = None
        ending = api.inline.conclude(task, outcome, job)
        if ending.op == AGAIN or not task.done():
            raise PqError(f"{task.full_name} did not end: {task.exception or outcome.error or task.reason}")
        return task.get()
