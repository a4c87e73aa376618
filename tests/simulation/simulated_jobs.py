"""The jobs of the simulation. They also record their steps in the history, apart from all records of pq."""

from __future__ import annotations

import asyncio
from typing import Any

from simulated_loop import here

from pq import api
from pq.execution.attempt import current_task


class Oracle:
    """The history that bodies write to; there is one at a time."""

    history: Any = None
    runs = 0
    kill: Any = None

    def reset(self, history: Any, kill: Any) -> None:
        self.history, self.kill, self.runs = history, kill, 0


oracle = Oracle()


def note(op: str, **facts: Any) -> None:
    program = here.get()
    assert program is not None
    oracle.history.note(program.loop.time(), program.name, op, "info", **facts)


class Body:
    """One run of a body: recorded at its begin and at its end."""

    def __enter__(self) -> Body:
        task = current_task.get()
        assert task is not None
        oracle.runs += 1
        self.id, self.run, self.attempt = task.id, oracle.runs, task.retry
        note("start", id=self.id, run=self.run, attempt=self.attempt)
        self.value: str | None = None
        return self

    def returns(self) -> str:
        self.value = f"{self.id[:7]}.{self.run}"
        return self.value

    def child(self, future: Any) -> None:
        note("child", id=self.id, run=self.run, child=future.task.id)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not GeneratorExit:
            note("value", id=self.id, run=self.run, value=None if kind else self.value)


@api.job()
async def work(seconds: float = 0.0) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        return body.returns()


@api.job(max_retries=4, retry_delay=0.3)
async def flaky(failures: int = 1, seconds: float = 0.1) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        if body.attempt <= failures:
            raise ValueError("not this time")
        return body.returns()


@api.job(timeout=0.5)
async def slow(seconds: float = 1.0) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        return body.returns()


@api.job()
async def parent(self: Any, children: int = 2, seconds: float = 0.1) -> str:
    """The job does not wait for the task that it queues."""
    with Body() as body:
        await asyncio.sleep(seconds)
        for _ in range(children):
            body.child(self.queue("work", seconds=seconds))
        return body.returns()


@api.job()
async def waiting(self: Any, seconds: float = 0.1) -> str:
    """It waits for a task of its own queue."""
    with Body() as body:
        future = self.queue("work", seconds=seconds)
        body.child(future)
        await future
        return body.returns()


@api.job(max_concurrency=2)
async def two_at_once(seconds: float = 0.3) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        return body.returns()


@api.job(limits=[api.Rate(4, per=1, burst=2)])
async def four_a_second(seconds: float = 0.0) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        return body.returns()


@api.job(unique=api.Unique(key="name", keep="first"))
async def once(name: str, seconds: float = 0.3) -> str:
    with Body() as body:
        await asyncio.sleep(seconds)
        return body.returns()


@api.job()
async def deadly(self: Any, deaths: int = 1, seconds: float = 0.2) -> str:
    """It takes its worker with it, the first times."""
    with Body() as body:
        await asyncio.sleep(seconds)
        program = here.get()
        if oracle.kill is not None and oracle.kill(body.id, deaths, program):
            await asyncio.sleep(3600)
        return body.returns()


@api.job()
async def crowd_stopper() -> str:
    """It cancels all that runs in its process, itself too."""
    with Body():
        program = here.get()
        assert program is not None
        spare = program.chance.random() < 0.5
        for task in list(program.tasks):
            # A thread is nothing that can be cancelled; and some leave the program itself alone.
            if not task.done() and task.get_name() != "thread" and not (spare and task.get_name() == "main"):
                task.cancel()
        await asyncio.sleep(0)
        return "never"


@api.job(max_retries=3, retry_delay=0.2)
async def streaming(self: Any, parts: int = 5, failures: int = 0, seconds: float = 0.05) -> str:
    """The job streams its attempt, and the number of each part."""
    with Body() as body:
        for number in range(parts):
            await self.stream([body.run, number])
            await asyncio.sleep(seconds)
            if body.attempt <= failures and number == parts // 2:
                raise ValueError("not this time")
        note("streamed", id=body.id, run=body.run, parts=parts)
        return body.returns()


@api.job(run_every=1.7)
async def ticking() -> str:
    with Body() as body:
        return body.returns()


JOBS = [
    work,
    flaky,
    slow,
    parent,
    waiting,
    two_at_once,
    four_a_second,
    once,
    deadly,
    crowd_stopper,
    streaming,
]
