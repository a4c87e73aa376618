"""The load that a worker publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pq import api as pq
from pq.api import Job, Producer, PulsarQueue
from pq.server.mailbox import Mailbox, pair
from pq.worker.load import Load
from pq.worker.worker import Worker

gate = asyncio.Event()


@pq.job()
async def waits(self: Job) -> None:
    await gate.wait()


@pq.job(concurrency=pq.CPUBOUND)
def quick(self: Job) -> int:
    return 1


@pytest.fixture
def app() -> PulsarQueue:
    gate.clear()
    return PulsarQueue(data_store="memory://load", task_paths=[__name__], concurrent_tasks=4, processes=2)


@pytest.fixture
async def worker(app: PulsarQueue) -> AsyncIterator[Worker]:
    worker = Worker(app.cfg, app.store, app.registry, name="w1", node="here")
    await worker.start()
    yield worker
    await worker.stop(grace=0.0)


@pytest.fixture
async def api(app: PulsarQueue, worker: Worker) -> AsyncIterator[Producer]:
    async with app.api() as producer:
        yield producer


def told(worker: Worker) -> Load:
    load = worker.load()
    assert load is not None
    return load


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_slots_in_use_and_the_time_that_tasks_take(worker: Worker, api: Producer) -> None:
    """Three of four slots, and three seconds for each second that passes; at their end, three are done."""
    futures = [api.tasks.queue("waits") for _ in range(3)]
    await until(lambda: told(worker).slots.running == 3)
    first = told(worker)
    await asyncio.sleep(0.1)
    second = told(worker)
    assert second.slots.total == 4
    assert second.slots.seconds - first.slots.seconds == pytest.approx(3 * (second.at - first.at))
    assert (second.done, second.children.running, second.children.seconds) == (0, 0, 0.0)
    gate.set()
    for future in futures:
        await future
    third = told(worker)
    assert (third.slots.running, third.done) == (0, 3)
    assert third.slots.seconds >= second.slots.seconds
    assert told(worker).slots.seconds == third.slots.seconds


async def test_process_jobs_use_children_too(worker: Worker, api: Producer) -> None:
    """They are counted as attempts and as users of a child process."""
    assert (await api.tasks.queue("quick")).get() == 1
    load = told(worker)
    assert (load.done, load.children.running, load.children.total) == (1, 0, 2)
    assert 0 < load.children.seconds == pytest.approx(load.slots.seconds, abs=0.05)


async def test_a_report_goes_through_a_mailbox(worker: Worker) -> None:
    """Decoding returns the encoded values."""
    ours, theirs = (Mailbox(end) for end in pair())
    await ours.open()
    await theirs.open()
    load = told(worker)
    ours.send("pong", load=load)
    message = await anext(aiter(theirs))
    assert Load.of(message["load"]) == load
    await ours.close()
    await theirs.close()
