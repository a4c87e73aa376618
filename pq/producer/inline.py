"""Tasks that are run here, in this program, without a queue: `tasks.execute`, and `run_job` of the test plugin.

An attempt is run by the same executors as in a worker, and concluded by the same rules; only what a queue would do
next is missing. A retry is waited for here, and what would be released to a queue ends as a failure.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, TypeVar

from ..clock import Clock
from ..config import Settings
from ..execution.attempt import Attempt
from ..execution.executor import Executor
from ..execution.executors import executors_of
from ..loops import running_loop
from ..model.backend import Backend, current_backend
from ..model.ending import Ending, conclude
from ..model.job import Job
from ..model.operations import RETRY
from ..model.outcome import REVOKED, Outcome
from ..model.registry import Registry
from ..model.states import FAILURE, STARTED
from ..model.task import Task
from .connections import Connections
from .future import TaskFuture

A = TypeVar("A", bound=Attempt)


class Inline:
    """Runs tasks in this program, in the mode of their jobs."""

    def __init__(
        self,
        connections: Connections,
        settings: Settings,
        registry: Callable[[], Registry],
        backend: Backend,
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._settings = settings
        self._registry = registry
        self._backend = backend
        self._clock = clock
        self._executors: dict[str, Executor] = {}

    def execute(self, task: Task[Any]) -> TaskFuture[Any]:
        """Run a task to its end, with its retries; its future resolves to it."""
        engine = self._connections.engine()
        future: TaskFuture[Any] = TaskFuture(task, loop=engine.loop)
        self._registry()  # imported in the caller's thread, where its errors belong
        if running_loop() is engine.loop:
            engine.tasks.spawn(self._execute(task, future))
        else:
            asyncio.run_coroutine_threadsafe(self._execute(task, future), engine.loop)
        return future

    async def _execute(self, task: Task[Any], future: TaskFuture[Any]) -> None:
        self._connections.lend_engine()
        job = self._registry()[task.name]
        task.worker, task.node, task.time_started = "here", self._backend.node_name, None
        while True:
            _, outcome = await self.run_attempt(task, job, Attempt)
            ending = self.conclude(task, outcome, job)
            if ending.op != RETRY:
                break
            await asyncio.sleep(ending.wait)
        if not task.done():  # its process died, or this program stops: there is no queue to release it to
            task.status = FAILURE
            task.exception = outcome.error or "the task was not run"
            task.reason = outcome.reason
        if not future.done():
            future.set_result(task)

    async def run_attempt(
        self, task: Task[Any], job: type[Job], make_attempt: Callable[..., A]
    ) -> tuple[A, Outcome]:
        """Run one attempt, in the mode of its job; return it and its outcome. Cancelled, it cancels the attempt."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def finished(_: Attempt, outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        task.status = STARTED
        if task.time_started is None:
            task.time_started = self._clock.time()
        attempt = make_attempt(task, job, self._backend, finished)
        contextvars.copy_context().run(self._start, attempt)
        try:
            return attempt, await ended
        except asyncio.CancelledError:
            attempt.cancel(REVOKED)
            raise

    def conclude(self, task: Task[Any], outcome: Outcome, job: type[Job]) -> Ending:
        """Write the outcome into the task; return what follows from it."""
        return conclude(task, outcome, now=self._clock.time(), job=job, limit=self._settings.largest_message)

    def _start(self, attempt: Attempt) -> None:
        current_backend.set(self._backend)  # for the job alone, not for the caller that has it run
        self._executor(attempt.job_class.concurrency).start_attempt(attempt)

    def _executor(self, mode: str) -> Executor:
        if not self._executors:
            self._executors = executors_of(self._settings, self._backend)
        return self._executors[mode]

    async def stop(self) -> None:
        """Stop the executors; what runs in them ends."""
        for executor in self._executors.values():
            await executor.stop()
        self._executors.clear()
