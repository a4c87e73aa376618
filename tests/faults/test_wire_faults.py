"""A worker and a producer on bad roads: cut, slow, dead ends, no room for connections, no descriptors.

None of it may cost a task, run one twice, or leave a listener deaf when the road is good again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from road import Road
from stores import Server

from pq import api as pq
from pq.api import Job, Producer, PulsarQueue
from pq.broker.embedded import find_binary
from pq.errors import StoreUnavailable
from pq.worker.worker import Worker

ran: Counter[int] = Counter()
gate: dict[str, asyncio.Event] = {}


@pq.job()
async def addition(self: Job, n: int) -> int:
    ran[n] += 1
    return n + 1


@pq.job()
async def large(self: Job, n: int) -> str:
    ran[n] += 1
    return f"{n} " + "x" * 20_000


@pq.job()
async def held(self: Job) -> str:
    await gate["open"].wait()
    return "released"


@pq.job()
async def counts(self: Job, upto: int) -> int:
    for number in range(upto):
        await self.stream(number)
        if number % 20 == 0:
            await asyncio.sleep(0.01)
    return upto


class Journey(NamedTuple):
    """A producer and a worker that reach their store by the same road."""

    road: Road
    api: Producer
    worker: Worker


def application(url: str, **settings: Any) -> PulsarQueue:
    return PulsarQueue(data_store=url, task_paths=[__name__], node_name="here", **settings)


async def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    ran.clear()
    gate["open"] = asyncio.Event()
    monkeypatch.setattr("pq.producer.awaiting.LOOK_AFTER", 0.2)


@pytest.fixture
async def journey(valkey: Any, tmp_path: Path) -> AsyncIterator[Journey]:
    async with Road(tmp_path / "r", Path(valkey.url.removeprefix("unix://"))) as road:
        app = application(road.url)
        worker = app.worker("w1")
        await worker.start()
        async with app.api() as api:
            yield Journey(road, api, worker)
        road.open.set()
        await worker.stop(grace=5.0)


async def all_done(api: Producer, first: int, count: int) -> None:
    """`count` tasks, all at once, with the right results."""
    async with asyncio.timeout(60):
        tasks = await api.tasks.map("addition", range(first, first + count))
    assert [task.get() for task in tasks] == list(range(first + 1, first + count + 1))


async def test_200_resets_in_a_row(journey: Journey) -> None:
    """Every connection is reset, two hundred times; then work goes on at once, and every listener hears."""
    for n in range(200):
        if n % 10 == 0:
            future = journey.api.tasks.queue("addition", 10_000 + n)
        await asyncio.sleep(0.003)
        journey.road.cut()
        if n % 10 == 9:
            async with asyncio.timeout(60):
                assert (await future).get() == 10_000 + n - 9 + 1
    await all_done(journey.api, 0, 500)
    assert set(ran.values()) == {1}
    assert journey.road.used > 20, "they came back again and again"


async def test_streams_over_a_road_that_is_cut(journey: Journey) -> None:
    """Each part arrives once and in its place, however often the connections of writer and reader are reset."""
    futures = [journey.api.tasks.queue("counts", 1500) for _ in range(3)]

    async def read(future: Any) -> list[Any]:
        return [part async for part in journey.api.tasks.stream(future)]

    reading = [asyncio.ensure_future(read(future)) for future in futures]
    while not all(reader.done() for reader in reading):
        await asyncio.sleep(0.01)
        journey.road.cut()
        if journey.road.used > 400:
            break
    async with asyncio.timeout(60):
        for reader in reading:
            assert await reader == list(range(1500))
        assert [(await future).get() for future in futures] == [1500] * 3
    assert journey.road.used > 20, "they came back again and again"


async def test_a_slow_road(journey: Journey) -> None:
    """Each message takes 50 ms, there and back: all is slower, and nothing is otherwise."""
    journey.road.delay = 0.05
    await all_done(journey.api, 0, 200)
    assert set(ran.values()) == {1}


async def test_a_store_that_is_away_for_a_while(journey: Journey) -> None:
    """Nothing gets through, without an error: requests of that time are answered when the road is open again."""
    journey.road.open.clear()
    futures = [journey.api.tasks.queue("addition", n) for n in range(50)]
    await asyncio.sleep(0.5)
    assert not any(future.done() for future in futures)
    journey.road.open.set()
    async with asyncio.timeout(60):
        assert [(await future).get() for future in futures] == list(range(1, 51))
    assert set(ran.values()) == {1}


async def test_a_dead_end(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side is gone and did not say so: each call's time-out finds out, and a new connection serves."""
    monkeypatch.setattr("pq.broker.redis.work.BLOCK_MARGIN", 0.3)
    broker = await journey.api.broker()
    assert journey.worker.context is not None
    for each in (broker, journey.worker.context.broker):
        for link in each.calls.links:  # type: ignore[attr-defined]
            link._timeout = 0.5
    await all_done(journey.api, 0, 10)
    journey.road.strand()
    await all_done(journey.api, 10, 100)


async def test_what_runs_goes_on_without_the_store(journey: Journey) -> None:
    """A task that runs while the store is away ends, and its end is published when the store is back."""
    future = journey.api.tasks.queue("held")
    consumer = journey.worker.consumer
    assert consumer is not None
    await until(lambda: consumer.running == 1, "it runs")
    journey.road.open.clear()
    journey.road.cut()
    gate["open"].set()
    await until(lambda: consumer.running == 0, "it has ended")
    assert not future.done()
    journey.road.open.set()
    async with asyncio.timeout(60):
        assert (await future).get() == "released"


# ---------------------------------------------------------------------------------- no room for more
def one_more(url: str) -> redis.Redis | None:
    """Another connection; None when the server takes no more."""
    client = None
    try:
        client = redis.Redis.from_url(url, single_connection_client=True)
        client.ping()
    except redis.RedisError:
        if client is not None:
            client.close()
        return None
    return client


def take_all(hoard: list[int]) -> None:
    """All descriptors that this process may still have."""
    try:
        while True:
            hoard.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        assert exc.errno == errno.EMFILE  # noqa: PT017


async def refusal(url: str) -> str:
    """Return the error of an api that cannot start."""
    late = application(url).api()
    with pytest.raises(StoreUnavailable) as caught:
        await late.start()
    await late.close()
    return str(caught.value)


async def test_maxclients(tmp_path: Path) -> None:
    """The store takes no more connections: new clients get a clear error; a client that was cut off returns later."""
    server = Server(find_binary(), "--maxclients", "40")
    others: list[redis.Redis] = []
    try:
        app = application(server.url)
        worker = app.worker("w1")
        await worker.start()
        async with app.api() as api:
            await all_done(api, 0, 10)
            admin = redis.Redis.from_url(server.url, single_connection_client=True)
            admin.ping()

            while (other := one_more(server.url)) is not None:
                others.append(other)
            # The server sends the reason and hangs up. A client that writes at that moment cannot read it.
            async with asyncio.timeout(60):
                while "max number of clients" not in await refusal(server.url):
                    pass
            admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            for other in others:
                other.close()
            others.clear()
            admin.close()
            await all_done(api, 10, 100)
        await worker.stop(grace=5.0)
    finally:
        for other in others:
            other.close()
        server.close()


async def test_no_descriptors(valkey: Any) -> None:
    """The process has none left when its connections break: running tasks end, and all goes on later."""
    app = application(valkey.url)
    worker = app.worker("w1")
    await worker.start()
    consumer = worker.consumer
    assert consumer is not None
    assert worker.context is not None
    broker: Any = worker.context.broker
    async with app.api() as api:
        future = api.tasks.queue("held")
        await until(lambda: consumer.running == 1, "it runs")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        hoard: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, hard))
        try:
            take_all(hoard)
            while broker.connected_since is not None:
                valkey.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0)
                take_all(hoard)
            gate["open"].set()
            await until(lambda: consumer.running == 0, "it has ended")
            assert not future.done()
        finally:
            for fd in hoard:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with asyncio.timeout(60):
            assert (await future).get() == "released"
        await all_done(api, 0, 50)
    await worker.stop(grace=5.0)


async def test_a_store_that_cannot_write_its_file(tmp_path: Path) -> None:
    """MISCONF: its disk is full, or the place for its file is none. Nothing is lost, and it goes on by itself."""
    server = Server(find_binary(), "--save", "3600 1000000", "--dbfilename", "dump")
    (server.directory / "dump").mkdir()
    try:
        app = application(server.url)
        worker = app.worker("w1")
        await worker.start()
        async with app.api() as api:
            with redis.Redis.from_url(server.url) as client:
                client.bgsave()
                await until(
                    lambda: (
                        client.info("persistence")["rdb_last_bgsave_status"] == "err"
                        and not client.info("persistence")["rdb_bgsave_in_progress"]
                    ),
                    "it has failed",
                )
                with pytest.raises(redis.ResponseError, match="MISCONF"):
                    client.set("x", 1)
                futures = [api.tasks.queue("addition", n) for n in range(20)]
                await asyncio.sleep(0.3)
                assert not any(future.done() for future in futures)
                (server.directory / "dump").rmdir()
                client.bgsave()
            async with asyncio.timeout(60):
                assert [(await future).get() for future in futures] == list(range(1, 21))
        await worker.stop(grace=5.0)
        assert set(ran.values()) == {1}
    finally:
        server.close()


async def test_a_subscriber_whose_buffer_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store cuts a client that reads too slowly: every await returns, and the client hears again."""
    server = Server(find_binary(), "--client-output-buffer-limit", "pubsub 65536 0 0")
    client = redis.Redis.from_url(server.url)

    def cut() -> int:
        return int(client.info("stats")["client_output_buffer_limit_disconnections"])

    try:
        worker = application(server.url).worker("w1")
        await worker.start()
        async with application(server.url).api() as api, asyncio.timeout(100):
            heard: list[str] = []
            await api.on_events("task", "done", lambda _, event, task: heard.append(task.id))
            # The messages of one turn are more than its buffer may hold.
            tasks = await api.tasks.map("large", range(300))
            assert [task.get().partition(" ")[0] for task in tasks] == [str(n) for n in range(300)]
            assert cut() > 0
            channel = api.connections.engine().reply_channel
            await until(lambda: client.pubsub_numsub(channel)[0][1] == 1, "it listens again")
            # From here on nothing is looked up: only who hears it knows of an end.
            monkeypatch.setattr("pq.producer.awaiting.LOOK_AFTER", 10_000.0)
            task = await api.tasks.queue("addition", 1000)
            await until(lambda: task.id in heard, "and hears the events of others too")
        await worker.stop(grace=5.0)
        assert set(ran.values()) == {1}
    finally:
        client.close()
        server.close()
