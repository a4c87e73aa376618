"""The rights of docs/how-to/security.md: enough for each kind of program, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from acl import as_user, make_user, rules

from pq import api as pq
from pq.api import PulsarQueue
from pq.broker.contract.values import ReserveCall
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.link import Link
from pq.errors import StoreRefused

KINDS = ("worker", "producer", "looker")


@pytest.fixture(params=["valkey", "redis62"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty store whose three users have the rights of the page."""
    fresh = request.getfixturevalue(request.param)
    fresh.old = request.param == "redis62"
    fresh.users = {kind: as_user(fresh.url, make_user(fresh.client, kind, old=fresh.old)) for kind in KINDS}
    yield fresh
    fresh.client.execute_command("ACL", "DELUSER", *(f"pq-{kind}" for kind in KINDS))


def app_of(store: Any, kind: str, **settings: Any) -> PulsarQueue:
    return PulsarQueue(data_store=store.users[kind], task_paths=[__name__], node_name="here", **settings)


tried: list[str] = []


@pq.job(max_retries=1, retry_delay=0)
async def flaky(self: pq.Job) -> int:
    self.logger.warning("attempt")
    self.progress(self.task.retry, 2)
    if self.task.retry < 2:
        raise ValueError("not yet")
    return self.task.retry


@pq.job(max_concurrency=1, limits=[pq.Rate(1000, 1)])
async def limited(self: pq.Job, n: int = 0) -> int:
    async with self.lock("one"):
        return n


@pq.job(unique=True)
async def once(n: int) -> int:
    return n


@pq.job(debounce=0.05)
async def quiet(n: int) -> int:
    return n


@pq.job()
async def fails() -> None:
    raise ValueError("for good")


@pq.job()
async def waits(self: pq.Job) -> None:
    tried.append(self.task.id)
    await asyncio.sleep(60)


async def test_a_worker_and_a_producer_under_their_users(store: Any, start_worker: Any) -> None:
    """All that they do: retries, priorities, delays, limits, locks, unique tasks, schedules, cancelling, the dead set."""
    await start_worker(app_of(store, "worker", schedule_periodic=True))
    async with app_of(store, "producer").api() as api, asyncio.timeout(90):
        heard: list[str] = []
        await api.on_events("task", "*", lambda _, event, task: heard.append(event))
        assert (await api.tasks.queue("flaky")).get() == 2
        assert sorted([task.result async for task in _many(api)]) == list(range(5))
        assert (await api.tasks.queue("once", n=1, delay=0.05)).get() == 1
        assert [(await future).get() for future in [api.tasks.queue("quiet", n=n) for n in range(2)]]
        first = await api.tasks.queue("once", n=7, delay=60, callback=False)
        assert (await api.tasks.queue("once", n=7, delay=60, callback=False)).id == first.id
        assert await api.tasks.cancel(first.id)
        running = api.tasks.queue("waits", meta_params={"priority": 3})
        while running.id not in tried:
            await asyncio.sleep(0.02)
        assert await api.tasks.cancel(running.id)
        assert (await running).status == pq.REVOKED
        dead = await api.tasks.queue("fails")
        assert dead.status == pq.FAILURE
        assert [task.id for task in await api.tasks.dead()] == [dead.id]
        assert await api.tasks.retry(dead.id)
        while not (await api.tasks.get(dead.id)).done():
            await asyncio.sleep(0.02)
        await api.tasks.schedule("once", run_every=9999, name="now.and.then", kwargs={"n": 3})
        assert (await (await api.tasks.run_schedule_now("now.and.then")).done_callback).get() == 3
        await api.tasks.pause_schedule("now.and.then")
        await api.tasks.unschedule("now.and.then")
        await api.tasks.pause("default")
        await api.tasks.queue("fails", callback=False)
        assert await api.tasks.flush_queues("default") == 1
        await api.tasks.resume("default")
        await api.tasks.limit("default", 10)
        await api.tasks.limit("default", None)
        async with api.lock("one", wait=20):
            pass
        assert (await api.tasks.store())["version"]
        assert await api.tasks.workers()


async def _many(api: pq.Producer) -> Any:
    for future in [api.tasks.queue("limited", n=n) for n in range(5)]:
        yield await future


async def test_a_looker_sees_and_cannot_touch(store: Any, start_worker: Any) -> None:
    """It reads tasks, queues, logs, workers and events; whatever would change something is refused."""
    await start_worker(app_of(store, "worker"))
    async with app_of(store, "producer").api() as api, app_of(store, "looker").api() as looker:
        async with asyncio.timeout(90):
            heard: list[str] = []
            await looker.on_events("task", "done", lambda _, event, task: heard.append(task.id))
            done = await api.tasks.queue("flaky")
            assert (await looker.tasks.get(done.id)).result == 2
            assert [task.id for task in await looker.tasks.search()] == [done.id]
            assert (await looker.tasks.queue_states())["default"].ready == 0
            await looker.tasks.log(done.id)
            assert await looker.tasks.workers()
            assert await looker.tasks.schedules() == []
            while heard != [done.id]:
                await asyncio.sleep(0.02)
            for call in (
                lambda: looker.tasks.queue("flaky"),
                lambda: looker.tasks.retry(done.id),
                lambda: looker.tasks.pause("default"),
                lambda: looker.tasks.schedule("flaky", run_every=9),
            ):
                with pytest.raises(pq.PqError, match=r"(?i)perm|can't run|acl"):
                    await call()
    assert not store.client.hexists("pq:{default}:meta", "paused")
    with redis.Redis.from_url(store.users["looker"]) as client:
        for words in (
            "SET pq:x 1",
            "DEL pq:queues",
            "PUBLISH pq:control x",
            "CONFIG GET x",
            "GET other",
            "FLUSHALL",
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words.split())


async def test_a_producer_cannot_take_or_end_a_task(store: Any) -> None:
    """It gets no lease: the scripts of workers are refused before they write anything."""
    if store.old:
        pytest.skip("keys that may be read and not written need Redis 7 or Valkey")
    async with app_of(store, "producer").api() as api:
        task = await api.tasks.queue("once", n=1, callback=False)
        broker = await api.broker()
        before = store.client.dump("pq:{default}:ready")
        for call in (
            lambda: broker.work.open_lease("l", ["default"], 1000),
            lambda: broker.work.exchange(ReserveCall("l", ["default"], 1, 1), {}),
            lambda: broker.work.hand_back("l", ["default"], crashed=True),
        ):
            with pytest.raises(pq.PqError, match=r"(?i)perm|can't access|acl"):
                await call()
        assert store.client.dump("pq:{default}:ready") == before
        assert not store.client.exists("pq:{default}:leases")
        await api.tasks.cancel(task.id)


@pytest.mark.parametrize("missing", ["lrem", "blpop", "publish", "evalsha", "eval", "subscribe"])
async def test_a_right_that_is_missing_is_named_at_the_start(store: Any, missing: str) -> None:
    """Nothing is left running, and nothing is left in the store."""
    make_user(store.client, "worker", f"-{missing}")
    with pytest.raises(StoreRefused, match=missing) as caught:
        async with asyncio.timeout(40):
            await app_of(store, "worker").worker("w1").start()
    assert caught.value.hint
    assert "secret-word" not in f"{caught.value} {caught.value.hint}"
    assert not store.client.keys("pq:{@rights}*")


async def test_the_rights_are_asked_for_in_one_round_trip(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's start waits for it, and its store may be far away."""
    calls: list[list[str]] = []
    call = Link.call

    async def counted(self: Link, commands: Any, **options: Any) -> Any:
        calls.append([str(command[0]) for command in commands])
        return await call(self, commands, **options)

    broker = RedisBroker(store.users["worker"])
    await broker.open()
    monkeypatch.setattr(Link, "call", counted)
    await broker.check_rights()
    assert calls == [["EVAL", "BLPOP", "SCRIPT", "EVALSHA"]]
    store.client.script_flush()
    await broker.check_rights()
    assert len(calls) == 2, "also where the store does not know the script"
    await broker.close()
    assert not store.client.keys("pq:{@rights}*")


async def test_keys_that_are_missing(store: Any) -> None:
    make_user(store.client, "worker", "resetkeys", "~other:*")
    with pytest.raises(StoreRefused, match="may not do all that a worker has to"):
        await app_of(store, "worker").worker("w1").start()


def test_the_page_has_three_users() -> None:
    assert tuple(rules()) == ("worker", "looker", "producer")
