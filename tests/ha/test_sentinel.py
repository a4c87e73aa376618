"""A primary that Sentinels replace: every connection goes with it, and what is lost on the way is known to be lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fleets import Watched
from load import Load
from stores import check_server

from pq import api
from pq.broker import records
from pq.broker.connect import make_broker
from pq.broker.contract import ACK, Entry, Settlement
from pq.broker.redis import RedisBroker
from pq.broker.sentinel import SentinelBroker
from pq.errors import TaskLost

Q = "q"
FAILOVERS = int(os.environ.get("PQ_FAILOVERS", "3"))


@api.job()
async def nap(n: int = 0) -> int:
    await asyncio.sleep(0.002)
    return n


@pytest.fixture
async def broker(watched: Watched) -> AsyncIterator[RedisBroker]:
    broker = make_broker(watched.url, patience=60)
    await broker.open()
    yield broker
    await broker.close()


def ended(id: str, batch: int, lease: str) -> dict[str, list[Settlement]]:
    return {Q: [Settlement(ACK, id, batch, records.finished_header(1, f"{lease}:{batch}"))]}


async def test_what_the_sentinels_say_is_where_it_goes(watched: Watched, broker: RedisBroker) -> None:
    """The place is the primary's; and whoever looks is told that this primary would go on alone."""
    assert isinstance(broker, SentinelBroker)
    facts = await broker.facts()
    assert facts["where"].startswith(watched.primary().address)
    assert [slug for slug, *_ in facts["warnings"]] == ["lone-primary"]
    primary = watched.primary()
    primary.call("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        assert "warnings" not in await broker.facts()
    finally:
        primary.call("CONFIG", "SET", "min-replicas-to-write", 0)


async def test_a_replica_that_was_primary_is_left_by_all_connections(
    watched: Watched, broker: RedisBroker
) -> None:
    """READONLY has it look for the new primary; looks, which a replica would answer, go there too."""
    subscription = await broker.subscription()
    heard: list[Any] = []

    async def listen() -> None:
        async for message in subscription:
            heard.append(message)  # noqa: PERF401 (it is read while it grows)

    listening = asyncio.ensure_future(listen())
    await subscription.subscribe("channel")
    await broker.enqueue(Q, [Entry("before", b"q\n")])
    await broker.state(Q)
    new = await asyncio.to_thread(watched.failover)
    assert (await broker.enqueue(Q, [Entry("after", b"q\n")])).known == set()
    assert await broker.records(Q, ["before", "after"]) == [b"q\n", b"q\n"]
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.sleep(0.01)
        assert heard[0].channel == "", "it is told that it may have missed something"
        await broker.publish("channel", b"x")
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    assert heard[1].payload == b"x"
    assert new.call("EXISTS", broker.keys.record(Q, "after")) == 1
    await subscription.close()
    await listening


async def test_what_was_not_replicated_is_lost_and_nothing_hangs(
    watched: Watched, broker: RedisBroker
) -> None:
    """Tasks queued, claimed, finished, and a lease, of which the new primary never heard."""
    other = make_broker(watched.url, patience=60)
    await broker.enqueue(Q, [Entry("claimed", b"q\n"), Entry("finished", b"q\n")])
    await broker.open_lease("one", [Q], 600_000)
    await broker.exchange("one", {}, [Q], 0, 1)
    finished = None
    with watched.lagging() as primary:
        await broker.enqueue(Q, [Entry("queued", b"q\n")])
        await broker.open_lease("two", [Q], 600_000)
        answer = await broker.exchange("one", {}, [Q], 2, 1)
        assert [task.id for task in answer.tasks] == ["claimed", "finished"]
        finished = ended("finished", 1, "one")
        assert (await broker.exchange("one", finished, [], 0, 0)).refused == []
        await asyncio.to_thread(watched.crash, primary)
    assert await broker.records(Q, ["queued"]) == [None]
    assert (await broker.exchange("two", {}, [Q], 1, 1)).lost_lease, "it is told, and takes a new one"
    await other.open_lease("three", [Q], 600_000)
    again = await other.exchange("three", {}, [Q], 5, 1)
    assert [task.id for task in again.tasks] == ["claimed", "finished"]
    assert (await broker.exchange("one", ended("claimed", 1, "one"), [], 0, 0)).refused == [(Q, "claimed")]
    assert (await other.exchange("three", ended("claimed", 1, "three"), [], 0, 0)).refused == []
    assert (await other.exchange("three", ended("finished", 1, "three"), [], 0, 0)).refused == []
    await other.hand_back("three", [Q], crashed=False)
    await broker.hand_back("one", [Q], crashed=False)
    await other.close()
    check_server(watched.primary().client)


async def test_a_task_whose_queueing_was_lost_is_told_to_its_future(watched: Watched, make_app: Any) -> None:
    """`TaskLost`, and no waiting for ever; the queue goes on."""
    async with make_app(watched.url).api() as here:
        with watched.lagging() as primary:
            lost = here.tasks.queue("nap", n=1)
            await here.tasks.size("default")
            await asyncio.to_thread(watched.crash, primary)
        async with asyncio.timeout(60):
            with pytest.raises(TaskLost):
                await lost


async def test_a_worker_returns_what_it_has_finished_and_the_store_has_not(
    watched: Watched, make_app: Any, start_worker: Any
) -> None:
    """The claim was replicated and the end was not: the lease is renewed, and yet the task is run again."""
    app = make_app(watched.url)
    gate.clear()
    await start_worker(app)
    async with app.api() as here:
        first = here.tasks.queue("gated", n=7)
        async with asyncio.timeout(60):
            while not started:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(watched.primary().call, "WAIT", 1, 20_000)
        with watched.lagging() as primary:
            gate.set()
            async with asyncio.timeout(60):
                assert (await first).result == 7
            await asyncio.to_thread(watched.crash, primary)
        async with asyncio.timeout(60):
            while len(started) < 2:
                await asyncio.sleep(0.05)
            while (await here.tasks.get(first.id)).status_string != "SUCCESS":
                await asyncio.sleep(0.05)


gate = asyncio.Event()
started: list[int] = []


@api.job()
async def gated(n: int = 0) -> int:
    started.append(n)
    await gate.wait()
    return n


async def test_failovers_under_load(
    watched: Watched, make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each acknowledged task ends once, or is known to be lost; nothing hangs, nothing is left held."""
    caplog.set_level(logging.ERROR)
    app = make_app(watched.url, concurrent_tasks=8)
    for n in range(2):
        await start_worker(app, f"w{n}")
    async with app.api() as here:
        load = Load(here, "nap")
        load.start()
        for n in range(FAILOVERS):
            await load.goes_on()
            await asyncio.to_thread(watched.crash if n % 3 == 2 else watched.failover)
        await load.goes_on()
        await load.stop()
        await load.check()
    print(load)
