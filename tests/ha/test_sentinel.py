"""A primary that Sentinels replace: every connection goes with it, and lost tasks are known to be lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import hiredis
import pytest
from fleets import Node, Watched, until
from listening import listen
from load import Load
from stores import check_server

from pq import api
from pq.broker import records
from pq.broker.connect import make_broker
from pq.broker.contract.values import Entry, ReserveCall, Settlement
from pq.broker.embedded import find_binary
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.sentinel import SentinelBroker
from pq.errors import StoreRefused, TaskLost
from pq.model.operations import ACK

pytestmark = [pytest.mark.timeout(400), pytest.mark.endurance]  # all of a fleet may be slow at once

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
    """The place is the primary's; a check reports that this primary would go on alone."""
    assert isinstance(broker, SentinelBroker)
    facts = await broker.looks.facts()
    assert facts["where"].startswith(watched.primary().address)
    assert [slug for slug, *_ in facts["warnings"]] == ["lone-primary"]
    primary = watched.primary()
    primary.call("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        assert "warnings" not in await broker.looks.facts()
    finally:
        primary.call("CONFIG", "SET", "min-replicas-to-write", 0)


async def test_a_replica_that_was_primary_is_left_by_all_connections(
    watched: Watched, broker: RedisBroker
) -> None:
    """READONLY has it look for the new primary; looks, which a replica would answer, go there too."""
    subscription, listening, heard = await listen(broker, "channel")
    await broker.work.enqueue(Q, [Entry("before", b"q\n")])
    await broker.looks.state(Q)
    new = await asyncio.to_thread(watched.failover)
    assert (await broker.work.enqueue(Q, [Entry("after", b"q\n")])).known == set()
    assert await broker.looks.records(Q, ["before", "after"]) == [b"q\n", b"q\n"]
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.sleep(0.01)
        assert heard[0].channel == "", "the listener learns that it may have missed something"
        await broker.channels.publish("channel", b"x")
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
    await broker.work.enqueue(Q, [Entry("claimed", b"q\n"), Entry("finished", b"q\n")])
    await broker.work.open_lease("one", [Q], 600_000)
    await broker.work.exchange(ReserveCall("one", [Q], 0, 1), {})
    finished = None
    with watched.lagging() as primary:
        await broker.work.enqueue(Q, [Entry("queued", b"q\n")])
        await broker.work.open_lease("two", [Q], 600_000)
        answer = await broker.work.exchange(ReserveCall("one", [Q], 2, 1), {})
        assert [task.id for task in answer.tasks] == ["claimed", "finished"]
        finished = ended("finished", 1, "one")
        assert (await broker.work.exchange(ReserveCall("one"), finished)).refused == []
        await asyncio.to_thread(watched.crash, primary)
    assert await broker.looks.records(Q, ["queued"]) == [None]
    assert (await broker.work.exchange(ReserveCall("two", [Q], 1, 1), {})).lost_lease, (
        "the holder gets an error, and takes a new one"
    )
    await other.work.open_lease("three", [Q], 600_000)
    again = await other.work.exchange(ReserveCall("three", [Q], 5, 1), {})
    assert [task.id for task in again.tasks] == ["claimed", "finished"]
    assert (await broker.work.exchange(ReserveCall("one"), ended("claimed", 1, "one"))).refused == [
        (Q, "claimed")
    ]
    assert (await other.work.exchange(ReserveCall("three"), ended("claimed", 1, "three"))).refused == []
    assert (await other.work.exchange(ReserveCall("three"), ended("finished", 1, "three"))).refused == []
    await other.work.hand_back("three", [Q], crashed=False)
    await broker.work.hand_back("one", [Q], crashed=False)
    await other.close()
    check_server(watched.primary().client)


async def test_the_future_of_a_task_lost_with_the_store_raises(watched: Watched, make_app: Any) -> None:
    """`TaskLost`, and no waiting forever; the queue goes on."""
    async with make_app(watched.url).api() as here:
        with watched.lagging() as primary:
            lost = here.tasks.queue("nap", n=1)
            await here.tasks.size("default")
            await asyncio.to_thread(watched.crash, primary)
        async with asyncio.timeout(60):
            with pytest.raises(TaskLost):
                await lost


async def test_a_worker_returns_what_it_has_finished_and_the_store_has_not(
    watched: Watched, make_app: Any, start_worker: Any, gate: asyncio.Event
) -> None:
    """The claim was replicated and the end was not: the lease is renewed, and yet the task is run again."""
    app = make_app(watched.url)
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


started: list[int] = []
events: list[asyncio.Event] = []


@api.job()
async def gated(n: int = 0) -> int:
    started.append(n)
    await events[-1].wait()
    return n


@pytest.fixture
async def gate() -> asyncio.Event:
    """The event that the job `gated` waits for; nothing has started yet."""
    started.clear()
    events.append(asyncio.Event())
    return events[-1]


@pytest.mark.timeout(340 + 20 * FAILOVERS)
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


async def test_a_primary_that_falls_silent_is_left(
    watched: Watched, make_app: Any, start_worker: Any
) -> None:
    """It is frozen and not gone: its connections stay open, and when it wakes it takes itself for the primary."""
    app = make_app(watched.url)
    await start_worker(app)
    async with app.api() as api:
        assert (await api.tasks.queue("nap", n=1)).result == 1
        old = await asyncio.to_thread(watched.settle)
        new = watched.other(old)
        with old.frozen():
            going = [api.tasks.queue("nap", n=n) for n in range(10)]
            await asyncio.to_thread(
                until, lambda: new.facts("replication")["role"] == "master", "the other takes over"
            )
            async with asyncio.timeout(90):
                assert [(await future).result for future in going] == list(range(10))
        # A client that asks it first after it woke may still find a primary, and does not believe it later.
        async with asyncio.timeout(90):
            assert (await api.tasks.queue("nap", n=11)).result == 11
        old.call("REPLICAOF", "127.0.0.1", new.port)  # some seconds before they would do it
        await asyncio.to_thread(watched.settle)
        ids = [future.id for future in going]
        assert all([(await api.tasks.get(id)).status_string == "SUCCESS" for id in ids])


async def test_what_one_sentinel_announces_moves_all_connections(
    watched: Watched, broker: RedisBroker
) -> None:
    """The old primary still takes itself for one, and one of three Sentinels is frozen: the others will do."""
    assert isinstance(broker, SentinelBroker)
    old = watched.settle()
    stale = watched.sentinels[2]
    with stale.frozen():
        new = watched.other(old)
        until(lambda: watched.sentinels[0].call("SENTINEL", "FAILOVER", watched.service), "a failover begins")
        asked = watched.sentinels[1]
        until(
            lambda: int(asked.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", watched.service)[1]) == new.port,
            "the others agree",
        )
        async with asyncio.timeout(60):
            while (await broker.sentinels.primary())[1] != new.port:
                await asyncio.sleep(0.05)
            # The old one takes itself for the primary still; that there is another was announced.
            while broker.sentinels.address != ("127.0.0.1", new.port):
                await broker.looks.state(Q)
                await asyncio.sleep(0.05)
            await broker.work.enqueue(Q, [Entry("a", b"q\n")])
        assert new.call("EXISTS", broker.keys.record(Q, "a")) == 1
    old.call("REPLICAOF", "127.0.0.1", new.port)
    await asyncio.to_thread(watched.settle)


async def test_the_newest_word_of_most_sentinels_counts() -> None:
    """A Sentinel that was cut off still names a former primary; it is outvoted, in any order of answers."""
    words = {0: (3, 1111), 1: (4, 2222), 2: (4, 2222)}
    order: list[int] = []

    def sentinel(n: int) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            parser = hiredis.Reader()
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    epoch, port = words[n]
                    if command[:2] == [b"SENTINEL", b"MASTER"]:
                        writer.write(b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n%d\r\n" % epoch)
                        order.append(n)
                    elif command[0] == b"SENTINEL":
                        writer.write(b"*2\r\n$1\r\nh\r\n$4\r\n%d\r\n" % port)
                    else:
                        writer.write(b"+OK\r\n")
            writer.close()

        return serve

    servers = [await asyncio.start_server(sentinel(n), "127.0.0.1", 0) for n in range(3)]
    places = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
    broker = make_broker(f"redis+sentinel://{places}/shop")
    assert isinstance(broker, SentinelBroker)
    for _ in range(20):
        assert await broker.sentinels.primary() == ("h", 2222)
    words[1] = words[0]
    servers[2].close()  # two are left, and both are of the past: no other knows better
    await servers[2].wait_closed()
    assert await broker.sentinels.primary() == ("h", 1111)
    assert set(order) == {0, 1, 2}
    await broker.close()
    for server in servers[:2]:
        server.close()


async def test_a_task_that_runs_is_handed_out_again_and_ends_once(
    watched: Watched, make_app: Any, start_worker: Any, gate: asyncio.Event
) -> None:
    """The claim was lost and the lease was not: the same worker takes it again, and it is settled under that claim."""
    app = make_app(watched.url)
    await start_worker(app)
    async with app.api() as api:
        await api.tasks.pause("default")
        future = api.tasks.queue("gated", n=5)
        await api.tasks.size("default")
        await asyncio.to_thread(watched.primary().call, "WAIT", 1, 20_000)
        with watched.lagging() as primary:
            await api.tasks.resume("default")
            async with asyncio.timeout(60):
                while not started:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(watched.crash, primary)
        await api.tasks.resume("default")  # which was lost too
        async with asyncio.timeout(60):
            while (await api.tasks.queue_states())["default"].held != 1:
                await asyncio.sleep(0.02)
            gate.set()
            assert (await future).result == 5
            while (await api.tasks.queue_states())["default"].held:
                await asyncio.sleep(0.02)
    assert started == [5]


async def test_sentinels_have_a_password_of_their_own() -> None:
    """Each of the two is used where it belongs, and the error names the missing one."""
    primary = Node(find_binary(), "--requirepass", "two", password="two")
    conf = f"requirepass one\nsentinel monitor shop 127.0.0.1 {primary.port} 1\nsentinel auth-pass shop two\n"
    sentinel = Node(find_binary(), sentinel=conf, password="one")
    try:
        place = f"{sentinel.address}/shop"
        right = make_broker(f"redis+sentinel://:two@{place}?sentinel_password=one", patience=60)
        await right.open()
        await right.work.enqueue(Q, [Entry("a", b"q\n")])
        assert primary.call("EXISTS", right.keys.record(Q, "a")) == 1
        await right.close()
        for url, hint in (
            (f"redis+sentinel://:two@{place}", "sentinel_password"),
            (f"redis+sentinel://:wrong@{place}?sentinel_password=one", "percent-encode"),
            (f"redis+sentinel://:two@{sentinel.address}/shoe?sentinel_password=one", "SENTINEL MASTERS"),
        ):
            broker = make_broker(url, patience=60)
            with pytest.raises(StoreRefused) as caught:
                async with asyncio.timeout(30):
                    await broker.open()
            assert hint in (caught.value.hint or "")
            assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
            await broker.close()
    finally:
        sentinel.close()
        primary.close()
