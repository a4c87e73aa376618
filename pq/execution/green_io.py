"""Attempts in a greenlet on the loop: synchronous code that can wait without blocking the loop.

The greenlet runs the job; when the job calls `self.wait(awaitable)` it switches back here with the
awaitable, an asyncio task awaits it, and its result (or its exception) is thrown back in. So a time-out
or a cancel, a `CancelledError` in that asyncio task, is raised in the job at the line that waits.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..errors import ExtraNeeded, PqError
from .async_io import GRACE, AsyncIo
from .attempt import Attempt, call, make_job


class GreenIo(AsyncIo):
    """Runs attempts as asyncio tasks, each of which drives one greenlet."""

    def __init__(self, *, grace: float = GRACE) -> None:
        super().__init__(grace=grace, body=_drive)


async def _drive(attempt: Attempt) -> Any:
    try:
        from greenlet import getcurrent, greenlet
    except ImportError:
        raise ExtraNeeded(
            f"{attempt.job_class.name} is a GREEN_IO job, and greenlet is not installed",
            hint="pip install 'pq-tasks[green]'",
        ) from None
    task, job_class = attempt.task, attempt.job_class
    job = make_job(task, job_class, attempt.backend)
    driver = getcurrent()

    def wait(awaitable: Awaitable[Any]) -> Any:
        if getcurrent() is not green:
            raise PqError(
                f"{task.name}: self.wait() was called outside of the job's own greenlet",
                hint="call it in the job itself, not in a thread or a callback",
            )
        return driver.switch(awaitable)

    green = greenlet(lambda: call(task, job_class, job))
    # One context for both: what the job sets, the things it waits for see, and the other way round.
    green.gr_context = driver.gr_context
    if isinstance(job, job_class):
        job.wait = wait  # type: ignore[method-assign]
    value = green.switch()
    while not green.dead:
        try:
            answer = await value
        except BaseException as exc:
            value = green.throw(exc)
        else:
            value = green.switch(answer)
    # An async job comes back at once, with its coroutine.
    return await value if hasattr(type(value), "__await__") else value
