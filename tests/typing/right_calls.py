"""Read by the type checkers, never run: each of these is right, and has exactly this type.

Tests live in `test_typing.py`; what must be refused is in `wrong_calls.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, assert_type

from pq import api
from pq.api import Options, Producer, PulsarQueue, Task, TaskFuture
from pq.producer.future import LoopFuture


@api.job()
def addition(self: api.Job, a: int = 0, b: int = 0) -> int:
    return a + b


@api.job(timeout=5)
async def asynchronous(self: api.Job, lag: float) -> str:
    return f"{lag} {self.name}"


@api.job("shapes.area")
def area(width: float, height: float = 1.0) -> float:
    return width * height


@api.job
async def bare(count: int) -> bytes:
    return bytes(count)


@api.job
def bare_with_job(self: api.Job, *, delay: int) -> None:
    self.logger.info("an argument may be called %s", delay)


@api.job(run_every=60)
def periodic(self: api.PeriodicJob, dry: bool = False) -> list[str]:
    return [self.name] if dry else []


@api.job()
def promising(n: int) -> Awaitable[int]:
    return asyncio.sleep(0, n)


class Addition(api.Job):
    def __call__(self, a: int, b: int = 0) -> int:
        return a + b


class Later(api.Job):
    async def __call__(self, a: int) -> str:
        return str(a)


def queueing() -> None:
    assert_type(addition.queue(a=4, b=6), TaskFuture[int])
    assert_type(addition.queue(4, b=6), TaskFuture[int])
    assert_type(addition.queue(), TaskFuture[int])
    assert_type(asynchronous.queue(1.0), TaskFuture[str])
    assert_type(area.queue(width=2, height=3), TaskFuture[float])
    assert_type(bare.queue(3), TaskFuture[bytes])
    assert_type(bare_with_job.queue(delay=2), TaskFuture[None])
    assert_type(periodic.queue(dry=True), TaskFuture[list[str]])
    assert_type(promising.queue(1), TaskFuture[int])


def options() -> None:
    assert_type(addition.options(delay=2).queue(a=4, b=6), TaskFuture[int])
    assert_type(
        asynchronous.options(
            delay=0.5,
            queue="slow",
            timeout=1,
            callback=False,
            priority=-1,
            expires=60,
            max_retries=2,
            retry_delay=1.5,
            max_concurrency=3,
            meta={"order": 12},
        ).queue(lag=1),
        TaskFuture[str],
    )
    assert_type(bare_with_job.options(delay=1, queue=False).queue(delay=2), TaskFuture[None])
    later = area.options(delay=60)
    assert_type(later.queue(1.0), TaskFuture[float])


def one_by_one() -> None:
    assert_type(bare.map([1, 2]), LoopFuture[list[Task[bytes]]])
    assert_type(addition.map(range(3)), LoopFuture[list[Task[int]]])
    assert_type(area.options(priority=1).map([1.0]), LoopFuture[list[Task[float]]])


def one_api(api: Producer) -> None:
    assert_type(api.tasks.options(addition, delay=2).queue(a=1), TaskFuture[int])
    assert_type(api.tasks.options(asynchronous).queue(1.0), TaskFuture[str])
    assert_type(api.tasks.options(Addition, delay=2).queue(4, b=6), TaskFuture[int])
    assert_type(api.tasks.options(Later).queue(a=4), TaskFuture[str])
    assert_type(api.tasks.queue("addition", a=4), TaskFuture[Any])


async def results() -> None:
    future = addition.queue(a=4, b=6)
    task = await future
    assert_type(task, Task[int])
    assert_type(task.get(), int)
    assert_type(task.result, int | None)
    assert_type(future.task, Task[int])
    assert_type(future.wait(5).get(), int)
    assert_type((await bare.map([1]))[0].get(), bytes)


def in_a_unit_test(job: api.Job) -> None:
    assert_type(addition(job, 1, b=2), int)
    assert_type(area(1.0), float)
    coroutine: Coroutine[Any, Any, bytes] = bare(1)
    assert_type(asyncio.run(coroutine), bytes)
    assert_type(asyncio.run(asynchronous(job, lag=1.0)), str)


def handed_on(how: Options[[int, int], int]) -> TaskFuture[int]:
    return how.queue(1, 2)


@api.job()
async def parent(self: api.Job) -> int:
    return (await addition.queue(1, 2)).get() + (await area.options(priority=1).queue(2.0)).retry


def app() -> PulsarQueue:
    return PulsarQueue(task_paths=["jobs"])
