"""Queues: paused and resumed, limited, served by chosen workers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from pq import api as pq
from pq.api import Producer
from pq.broker import records
from pq.model.task import Task
from pq.worker.weights import order


@pq.job()
def echo(value: int) -> int:
    return value


async def test_a_paused_queue_keeps_its_tasks(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Tasks are queued and wait; other queues go on; it lasts while workers come and go."""
    await api.tasks.pause("default")
    future = api.tasks.queue("echo", 1)
    first = await start_worker(app)
    assert (await api.tasks.queue_local("echo", 2)).get() == 2
    await first.stop()
    await start_worker(app, name="w2")
    assert (await api.tasks.queue_local("echo", 3)).get() == 3
    assert not future.done()
    await api.tasks.resume("default")
    assert (await asyncio.wait_for(future, 5)).get() == 1


async def test_how_late_the_next_task_is(
    app: pq.PulsarQueue, api: Producer, valkey: Any, start_worker: Any
) -> None:
    """The time since the task could have started: no delay counts, and no task behind it; 0 where nothing waits."""
    await api.tasks.queue("echo", 1, callback=False)
    await api.tasks.queue("echo", 2, queue="slow", delay=3600, callback=False)
    record = (
        await (await api.broker()).looks.records(
            "default", await (await api.broker()).looks.peek("default", 1)
        )
    )[0]
    assert record is not None
    queued = Task.from_wire(records.message(record)).time_queued
    assert queued is not None
    seconds, micros = valkey.client.time()
    late = await api.tasks.latency()
    assert late["slow"] == 0.0
    assert late["default"] >= seconds + micros / 1e6 - queued - 0.002
    assert (await api.tasks.latency("unserved")) == {"unserved": 0.0}
    await start_worker(app)
    await api.tasks.queue("echo", 3)
    assert (await api.tasks.latency("default")) == {"default": 0.0}
    await api.tasks.flush_queues("slow")


async def test_a_queue_with_a_limit_refuses_what_is_beyond_it(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """`QueueFull` has the length; the refused task was not queued; when there is space, queueing goes on."""
    await api.tasks.limit("default", 3)
    futures = [api.tasks.queue("echo", n) for n in range(5)]
    refused = await asyncio.gather(*futures[3:], return_exceptions=True)
    assert [type(error) for error in refused] == [pq.QueueFull, pq.QueueFull]
    assert "queue 'default': 3 tasks wait, and 3 may" in str(refused[0])
    delayed = api.tasks.queue("echo", 9, delay=60)
    with pytest.raises(pq.QueueFull):
        await delayed
    assert await api.tasks.size("default") == {"default": 3}
    await start_worker(app)
    assert [(await future).get() for future in futures[:3]] == [0, 1, 2]
    assert (await api.tasks.queue("echo", 5)).get() == 5
    await api.tasks.limit("default", None)
    assert len(await api.tasks.map("echo", range(20))) == 20


async def test_the_same_limit_in_memory() -> None:
    """The memory broker refuses in the same words."""
    app = pq.PulsarQueue(data_store="memory://limits", task_paths=[__name__])
    async with app.api() as api:
        await api.tasks.pause("default")
        await api.tasks.limit("default", 1)
        kept = api.tasks.queue("echo", 1)
        with pytest.raises(pq.QueueFull, match="queue 'default': 1 tasks wait, and 1 may"):
            await api.tasks.queue("echo", 2)
        await api.tasks.resume("default")
        assert (await kept).get() == 1


async def test_strict_preference_without_weights(make_app: Any, start_worker: Any) -> None:
    """The first queue is emptied before the second is looked at."""
    app = make_app(task_queues=["high", "low"], concurrent_tasks=1)
    assert await first_of_low(app, start_worker) == 40


async def test_weights_leave_a_share_to_every_queue(make_app: Any, start_worker: Any) -> None:
    """With weights the second gets its turns while the first still has tasks."""
    app = make_app(task_queues=["high", "low"], queue_weights={"high": 2, "low": 1}, concurrent_tasks=1)
    assert await first_of_low(app, start_worker) < 40


async def first_of_low(app: pq.PulsarQueue, start_worker: Any) -> int:
    """Return how many tasks of `high` were done before the first one of `low`."""
    done: list[str] = []
    async with app.api() as api:
        futures = api.tasks.queue_many([("echo", (n,)) for n in range(40)], queue="high")
        futures += api.tasks.queue_many([("echo", (n,)) for n in range(40)], queue="low")
        for future in futures:
            future.add_done_callback(lambda done_one: done.append(done_one.result().queue))
        await api.tasks.size()
        await start_worker(app)
        await asyncio.gather(*futures)
    return done.index("low")


def test_an_order_by_weight() -> None:
    """Over many draws each comes first by its weight; a queue without one weighs as the heaviest."""
    chance = random.Random(1).random
    firsts = Counter(order(["a", "b", "own"], {"a": 3, "b": 1}, chance)[0] for _ in range(7000))
    assert [round(firsts[queue] / 1000) for queue in ("a", "b", "own")] == [3, 1, 3]


def test_weights_of_unknown_queues_are_refused(make_app: Any) -> None:
    """A name that no worker of this server consumes is a mistake."""
    with pytest.raises(pq.ConfigError, match="'lowe' is not in task_queues"):
        _ = make_app(task_queues=["high", "low"], queue_weights="high:3,lowe:1").cfg


async def test_wrong_calls_are_refused(api: Producer) -> None:
    """A queue must be named, and a limit is a whole number."""
    with pytest.raises(pq.BadArguments, match="no queue is named"):
        api.tasks.pause()
    with pytest.raises(pq.InvalidValue):
        api.tasks.limit("default", -1)
    with pytest.raises(pq.InvalidValue):
        api.tasks.resume("a b")
