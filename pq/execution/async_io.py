"""Attempts in the event loop: the default mode, and the path that most tasks take.

Each attempt is one asyncio task in a context of its own. Everything on this path is paid for by every
task, so it does only what each of them needs; what is rare (a time-out, a cancel, a wrong argument)
pays for itself.

A job may swallow the `CancelledError` it gets. When it then returns, the outcome still is that it was
stopped; when it just goes on, its outcome is delivered after `grace` seconds and it is counted in
`leaked` until it ends.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ..model.outcome import OK, RELEASED, Outcome
from .attempt import Attempt, current_task, invoke

GRACE = 5.0
"""Seconds that a job has to clean up after it was stopped."""


@types.coroutine
def _gate() -> Generator[None, None, None]:
    yield


class AsyncIo:
    """Runs attempts as asyncio tasks. `body` is what is awaited in each; its result is the task's."""

    def __init__(
        self,
        *,
        grace: float = GRACE,
        body: Callable[[Attempt], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        self.leaked = 0
        self._grace = grace
        self._body = body
        self._loop: asyncio.AbstractEventLoop | None = None
        # The loop itself holds its tasks weakly; without this an attempt could be collected half way.
        self._running: set[Attempt] = set()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        for attempt in list(self._running):
            attempt.cancel(RELEASED)
        handles = [attempt.handle for attempt in self._running if not attempt.done]
        if handles:
            await asyncio.wait(handles, timeout=self._grace)
        for attempt in list(self._running):
            self._give_up(attempt)

    def capacity(self) -> int | None:
        return None

    def start_attempt(self, attempt: Attempt) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        attempt.stop = self._stop_attempt
        self._running.add(attempt)
        coroutine = self._attend(attempt, loop)
        # A task that is cancelled before its first step never enters its coroutine, and no `finally`
        # runs. So the coroutine is led through its `try` up to the gate before the loop gets it.
        coroutine.send(None)
        attempt.handle = loop.create_task(coroutine)

    async def _attend(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        # BaseException: a job that exits the interpreter or is interrupted fails; the worker lives on.
        try:
            await _gate()
            if attempt.why:
                outcome = attempt.stopped()
            else:
                current_task.set(attempt.task)
                attempt.arm(loop)
                if self._body is not None:
                    value = await self._body(attempt)
                else:
                    value = invoke(attempt.task, attempt.job_class, attempt.backend)
                    if hasattr(type(value), "__await__"):
                        value = await value
                outcome = Outcome(OK, value) if not attempt.why else attempt.stopped()
        except GeneratorExit as exc:
            if asyncio.current_task(loop) is None:
                raise  # the loop was closed with the attempt in it
            outcome = attempt.ended(exc)
        except BaseException as exc:
            outcome = attempt.ended(exc)
        self._running.discard(attempt)
        # Breaks the circle of attempt, task and coroutine, so that nothing waits for the collector.
        attempt.handle = None
        if attempt.done:
            self.leaked -= 1
        else:
            attempt.finish(outcome)

    def _stop_attempt(self, attempt: Attempt) -> None:
        if attempt.handle is None or self._loop is None:
            return
        attempt.handle.cancel()
        attempt.give_up_after(self._loop, self._grace, self._give_up)

    def _give_up(self, attempt: Attempt) -> None:
        if not attempt.done:
            self.leaked += 1
            attempt.finish(attempt.stopped())
