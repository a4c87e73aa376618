"""Looks at the workers and the store: the questions, and the actions. The store is the one in memory."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import msgpack
import pytest

from pq.broker.contract.values import Entry, QueueState
from pq.broker.memory.broker import MemoryBroker
from pq.broker.memory.looks import MemoryLooks
from pq.errors import StoreUnavailable
from pq.server.autoscaling import Scaling
from pq.worker.load import Load, Use


class Pool:
    """Workers of one slot; those of `busy` are in use all the time, and no task of theirs has ever ended."""

    def __init__(self, workers: int, *, busy: bool) -> None:
        self.workers = workers
        self.busy = busy
        self.leaving = 0
        self.settled = True
        self.queues = ["here", "default"]
        self.began = time.time() - 60.0

    async def loads(self, patience: float) -> dict[str, Load | None]:
        now, use = time.time(), int(self.busy)
        slots = Use(use, 1, use * (now - self.began))
        return {f"w{n}": Load(self.began, now, 0, slots, Use(0, 1, 0.0), 0.0) for n in range(self.workers)}

    def resize(self, workers: int) -> None:
        self.workers = workers


class CountingLooks(MemoryLooks):
    """Counts how often it is asked; may be away."""

    asked = 0
    away = False

    async def state(self, queue: str) -> QueueState:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("no Valkey")
        return await super().state(queue)


class Store(MemoryBroker):
    """A broker with such looks."""

    looks: CountingLooks

    def __init__(self) -> None:
        super().__init__()
        self.looks = CountingLooks(self.store, self.where)


def scaling(pool: Pool, store: Store, least: int = 1, most: int = 8, idle_timeout: float = 0.0) -> Scaling:
    channel = store.keys.consumer_channel
    return Scaling(
        pool, store, channel=channel, node="here", least=least, most=most, idle_timeout=idle_timeout
    )


async def put(store: Store, count: int, queue: str = "default", delay: int | None = None) -> None:
    await store.work.enqueue(queue, [Entry(f"{queue}{delay}{n}", b"q\nx", delay) for n in range(count)])


async def test_an_idle_server_asks_its_store_nothing() -> None:
    """The least number of workers, and none of them in use: no task can wait."""
    store, pool = Store(), Pool(1, busy=False)
    looks = scaling(pool, store)
    for _ in range(5):
        await looks.look()
    assert (store.looks.asked, pool.workers) == (0, 1)


async def test_what_waits_in_all_queues_counts() -> None:
    """Two here, one there: three more workers; and the next look finds that right."""
    store, pool = Store(), Pool(1, busy=True)
    await put(store, 2)
    await put(store, 1, "here")
    looks = scaling(pool, store)
    await looks.look()
    assert (store.looks.asked, pool.workers) == (2, 4)


@pytest.mark.parametrize("case", ["paused", "delayed", "dead"])
async def test_tasks_that_cannot_start_are_not_demand(case: str) -> None:
    """Tasks of a paused queue, tasks that are not due, tasks that failed for good."""
    store, pool = Store(), Pool(1, busy=True)
    if case == "dead":
        store.store.queue("default").dead.update({f"t{n}": 1 for n in range(9)})
    else:
        await put(store, 9, delay=60_000 if case == "delayed" else None)
    if case == "paused":
        await store.work.pause("default", True)
    await scaling(pool, store).look()
    assert (store.looks.asked, pool.workers) == (2, 1)


async def test_delayed_tasks_that_are_due_are_demand() -> None:
    """They count also when no worker had a slot to promote them."""
    store, pool = Store(), Pool(1, busy=True)
    await put(store, 3, delay=0)
    await scaling(pool, store).look()
    assert pool.workers == 4


async def test_a_lost_store_decides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """No decision, no word above debug; and when it is back it goes on."""
    store, pool = Store(), Pool(4, busy=False)
    store.looks.away = True
    looks = scaling(pool, store)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await looks.look()
    assert (pool.workers, caplog.records) == (4, [])
    store.looks.away = False
    await looks.look()
    assert pool.workers == 3


async def test_an_unsettled_pool_is_left_alone() -> None:
    """While a reload replaces workers, or the server ends, there is no decision."""
    store, pool = Store(), Pool(1, busy=True)
    await put(store, 9)
    pool.settled = False
    looks = scaling(pool, store)
    await looks.look()
    assert pool.workers == 1
    pool.settled = True
    await looks.look()
    assert pool.workers == 5


async def test_a_decision_is_one_line_and_one_event(caplog: pytest.LogCaptureFixture) -> None:
    """For people and for programs, with the reason and the numbers."""
    store, pool = Store(), Pool(1, busy=True)
    heard = await store.channels.subscription()
    await heard.subscribe(store.keys.consumer_channel)
    await put(store, 2)
    with caplog.at_level(logging.INFO):
        await scaling(pool, store).look()
    why = "2 tasks wait, none has ended lately, 1 worker 100 % busy"
    assert [record.getMessage() for record in caplog.records] == [f"1 → 3 workers: {why}"]
    async with contextlib.aclosing(aiter(heard)) as events:
        message = await anext(events)
    facts: dict[str, Any] = msgpack.unpackb(message.payload)
    assert facts.pop("time") > 0
    assert facts == {
        "event": "scaled",
        "node": "here",
        "workers": 3,
        "was": 1,
        "why": why,
        "waiting": 2,
        "utilisation": 1.0,
        "least": 1,
        "most": 8,
    }
    await heard.close()


async def test_the_lower_end_of_the_range_can_be_moved() -> None:
    """By hand, as far as the range goes."""
    looks = scaling(Pool(1, busy=False), Store(), 2, 3)
    assert [str(looks.shift(step)) for step in (1, 1, -1, -1, -1)] == ["3..3", "3..3", "2..3", "1..3", "1..3"]
