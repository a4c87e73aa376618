"""The users of docs/how-to/security.md on a cluster, where each node has its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleets import HOST, Cluster

sys.path.append(str(Path(__file__).parents[1] / "trust"))
from acl import make_user, more_in_a_cluster

from pq import api as pq
from pq.broker.connect import make_broker
from pq.broker.redis.cluster import ClusterBroker
from pq.broker.redis.link import Link
from pq.errors import StoreRefused

pytestmark = pytest.mark.timeout(400)  # all of a fleet may be slow at once


@pq.job()
async def nap(n: int = 0) -> int:
    return n


@pytest.fixture
def users(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The URL of each kind of program, with its user, which exists at all nodes."""
    more = more_in_a_cluster()
    found = {}
    for kind in ("worker", "producer"):
        for node in cluster.nodes:
            login = make_user(node.client, kind, *more)
        found[kind] = cluster.url.replace("://", f"://{login}@")
    yield found
    for node in cluster.nodes:
        node.call("ACL", "DELUSER", "pq-worker", "pq-producer")


async def test_a_worker_and_a_producer_have_rights_enough(
    cluster: Cluster, users: dict[str, str], make_app: Any, start_worker: Any
) -> None:
    """It is woken at queues of each node, and nothing is left of its checks at the start."""
    queues = cluster.queues()
    await start_worker(make_app(users["worker"], task_queues=queues, task_pool_timeout=300.0))
    async with make_app(users["producer"]).api() as api, asyncio.timeout(60):
        for n in range(9):
            assert (await api.tasks.queue("nap", n, queue=queues[n % 3])).get() == n
    assert not [key for node in cluster.masters() for key in node.call("KEYS", "pq:{@rights*")]


async def test_the_node_at_which_a_right_is_missing_is_named(
    cluster: Cluster, users: dict[str, str], make_app: Any
) -> None:
    """At the master that has the queues of this worker."""
    for node in cluster.masters():
        make_user(node.client, "worker", *more_in_a_cluster(), "-lrem")
        error = await refusal(make_app(users["worker"]))
        assert node.address in error.message
        assert "lrem" in error.message
        assert "on that node" in (error.hint or "")
        make_user(node.client, "worker", *more_in_a_cluster(), "-blpop")
        error = await refusal(make_app(users["worker"]))
        assert node.address in error.message
        make_user(node.client, "worker", *more_in_a_cluster())


async def refusal(app: Any) -> StoreRefused:
    with pytest.raises(StoreRefused) as caught:
        async with asyncio.timeout(60):
            await app.worker("w1").start()
    assert "secret-word" not in f"{caught.value} {caught.value.hint}"
    return caught.value


async def test_rights_for_one_server_raise_with_those_of_a_cluster(
    cluster: Cluster, users: dict[str, str], make_app: Any
) -> None:
    for node in cluster.nodes:
        make_user(node.client, "worker")
    error = await refusal(make_app(users["worker"]))
    assert "+cluster|info +cluster|slots" in (error.hint or "")


async def test_a_worker_starts_while_a_master_is_away(cluster: Cluster) -> None:
    """Its queues may be others'. Its own rights cannot be asked now; a refusal of another node is reported."""
    broker = make_broker(cluster.url, patience=0.1)
    assert isinstance(broker, ClusterBroker)
    asked: set[tuple[str, int]] = set()
    link_to = broker.nodes.link_to

    def nobody_there(node: tuple[str, int]) -> Link:
        asked.add(node)
        return link_to((HOST, 1) if node == broker.nodes.slots.masters[0] else node)

    await broker.open()
    broker.nodes.link_to = nobody_there  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await broker.check_rights()
    assert asked == set(broker.nodes.slots.masters)
    await broker.close()
