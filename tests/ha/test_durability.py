"""Queueing that counts when a replica has the task, or the disk: and says so when that is not known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fleets import Cluster, Watched
from stores import Server

from pq import api as pq
from pq.broker.connect import make_broker
from pq.broker.contract.values import Entry
from pq.broker.embedded import find_binary
from pq.broker.redis import durability as store
from pq.errors import BadSetting, InvalidValue, NotDurable, StoreRefused

pytestmark = [pytest.mark.timeout(400), pytest.mark.endurance]  # all of a fleet may be slow at once

Q = "default"


@pq.job()
def plain(n: int = 0) -> int:
    return n


@pq.job(durability="replica")
def precious(n: int = 0) -> int:
    return n


@pytest.fixture
def disk() -> Iterator[Server]:
    """A Valkey that writes each command to its disk before it answers."""
    server = Server(find_binary(), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


async def test_a_replica_has_it_when_its_queueing_counts(watched: Watched, make_app: Any) -> None:
    """By the job, by an option of the task, for many at once; and the replica has each."""
    replica = watched.other(watched.primary())
    async with make_app(watched.url).api() as api:
        futures = [
            api.tasks.queue("precious", n=1, callback=False),
            plain.options(durability="replica", callback=False).queue(n=2),
            *api.tasks.queue_many(
                [("plain", (3,))] * 20, callback=False, meta_params={"durability": "replica"}
            ),
        ]
        for future in futures:
            await future
            assert replica.call("EXISTS", f"pq:{{{Q}}}:task:{future.id}") == 1
        assert (await api.tasks.get(futures[0].id)).meta == {}


async def test_a_replica_that_does_not_confirm_raises(
    watched: Watched, make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`NotDurable`; the task is queued nevertheless, plain ones do not wait, and a repeat has the right answer."""
    app = make_app(watched.url, durability="replica")
    broker, another = (make_broker(watched.url, patience=60) for _ in range(2))
    await broker.open()
    with watched.lagging(), monkeypatch.context() as patch:
        patch.setattr(store, "DURABLE_WITHIN", 0.3)
        async with app.api() as api, asyncio.timeout(60):
            future = api.tasks.queue("plain", n=1)
            other = api.tasks.queue("plain", n=2, callback=False, meta_params={"durability": "none"})
            await other
            with pytest.raises(NotDurable, match="may be queued nevertheless") as caught:
                await future
            assert "replica" in (caught.value.hint or "")
            assert (await api.tasks.get(future.id)).status_string == "QUEUED"
        for each in (broker, another):  # the second writes nothing, and nothing is replicated all the same
            with pytest.raises(NotDurable):
                await each.work.enqueue(Q, [Entry("a", b"q\n")], "replica")
    watched.settle()
    assert (await broker.work.enqueue(Q, [Entry("a", b"q\n")], "replica")).known == {"a"}
    await broker.close()
    await another.close()


async def test_the_disk_has_it_when_its_queueing_counts(disk: Server, make_app: Any) -> None:
    """With appendfsync always; the answer comes when the file was flushed."""
    async with make_app(disk.url).api() as api:
        task = await api.tasks.queue("plain", callback=False, meta_params={"durability": "fsync"})
    assert task.id.encode() in b"".join(path.read_bytes() for path in disk.directory.rglob("*.aof"))


async def test_a_store_that_cannot_tell_is_refused(valkey: Any, redis62: Any, make_app: Any) -> None:
    """Without an append-only file, or too old to wait for it: an error that says what to do."""
    for fresh, error, words in (
        (valkey, NotDurable, "appendonly yes"),
        (redis62, StoreRefused, "7.2"),
    ):
        async with make_app(fresh.url).api() as api:
            with pytest.raises(error) as caught:
                await api.tasks.queue("plain", meta_params={"durability": "fsync"})
            assert words in (caught.value.hint or "")


async def test_a_cluster_waits_at_the_node_of_the_queue(
    cluster: Cluster, make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each queue's own replica is asked for."""
    app = make_app(cluster.url)
    frozen = cluster.replica_of(cluster.owner(f"{{{Q}}}"))
    other = next(
        name for name in cluster.queues() if cluster.replica_of(cluster.owner(f"{{{name}}}")) is not frozen
    )
    async with app.api() as api:
        await api.tasks.queue("precious", callback=False)
        with frozen.frozen():
            await api.tasks.queue("precious", queue=other, callback=False)
            monkeypatch.setattr(store, "DURABLE_WITHIN", 0.3)
            with pytest.raises(NotDurable):
                await api.tasks.queue("precious", callback=False)


def test_a_word_that_is_none(make_app: Any) -> None:
    """In a job, in an option, in the settings."""
    with pytest.raises(BadSetting, match="none, replica, fsync"):

        @pq.job(durability="disk")
        def wrong() -> None: ...

    with pytest.raises(InvalidValue, match="none, replica, fsync"):
        plain.options(durability="disk")
    with pytest.raises(BadSetting, match="none, replica, fsync"):
        _ = make_app("memory://", durability="disk").cfg
