"""`rediss+cluster://` and `rediss+sentinel://`: TLS with each of the servers, also with those that clients are sent to.

The Valkey of these tests speaks no TLS, so a program that does stands before each server, and its port is what the
servers say of themselves. Nodes of a cluster can say one port to clients and another to each other. Sentinels cannot:
what they name is what they watch, and they watch in plain. So those ports take both, and it is looked at who speaks how.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from fleets import HOST, Cluster, Node, until
from tls import Authority, tls_server

from pq import api as pq
from pq.broker.embedded import find_binary
from pq.errors import NoStore, StoreRefused, StoreUnavailable, TaskLost

pytestmark = [pytest.mark.timeout(400), pytest.mark.endurance]  # all of a fleet may be slow at once

ANNOUNCED = "cluster-announce-client-port"


@pq.job()
async def nap(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "done"


class Fleet(NamedTuple):
    """Servers behind TLS: how to begin, and how one of them is made to fail over."""

    kind: str
    places: str
    tail: str
    authority: Authority
    queues: list[str]
    fail_over: Callable[[], Any]

    def url(self, *options: str, tls: str = "rediss") -> str:
        return f"{tls}+{self.kind}://{self.places}{self.tail}?{'&'.join(options)}".removesuffix("?")

    def trusted(self) -> str:
        return self.url(f"ssl_ca_certs={self.authority.path}")


@contextlib.asynccontextmanager
async def cluster_behind_tls(cluster: Cluster, authority: Authority) -> AsyncIterator[Fleet]:
    """The session's cluster, whose nodes send clients to ports with TLS meanwhile."""
    certificate = authority.issue(HOST)
    queues = cluster.queues()
    master = cluster.owner(f"{{{queues[0]}}}")
    try:
        master.call("CONFIG", "SET", ANNOUNCED, 0)
    except redis.ResponseError as exc:
        pytest.skip(f"a node of this version says one port to clients and nodes alike: {exc}")
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(tls_server(n.address, certificate)) for n in cluster.nodes]
        try:
            await asyncio.to_thread(announce, cluster, ports)
            places = ",".join(f"{HOST}:{port}" for port in ports[:2])
            yield Fleet("cluster", places, "", authority, queues, lambda: cluster.failover(master))
        finally:
            await asyncio.to_thread(announce, cluster, None)


def announce(cluster: Cluster, ports: list[int] | None) -> None:
    """Have the nodes say these ports of themselves, or their own; all know of all when this returns."""
    for node, port in zip(cluster.nodes, ports or [0] * len(cluster.nodes), strict=True):
        node.call("CONFIG", "SET", ANNOUNCED, port)
    said = set(ports or [node.port for node in cluster.nodes])
    until(lambda: all(set(cluster.view(node)) == said for node in cluster.nodes), "all say these ports")


@contextlib.asynccontextmanager
async def watched_behind_tls(authority: Authority) -> AsyncIterator[Fleet]:
    """A primary, its replica and a Sentinel. Every other client has to speak TLS."""
    certificate = authority.issue(HOST)
    plain: list[bytes] = []
    async with contextlib.AsyncExitStack() as stack:

        async def start(*options: str, **more: Any) -> Node:
            node = await asyncio.to_thread(Node, find_binary(), *options, **more)
            stack.callback(node.close)
            return node

        async def behind(node: Node, **more: Any) -> int:
            return await stack.enter_async_context(tls_server(node.address, certificate, **more))

        try:
            first, second = await start(), await start()
        except NoStore as error:
            pytest.skip(f"no Valkey program here: {error}")
        ports = [await behind(node, on_plain=plain.append) for node in (first, second)]
        for node, port in zip((first, second), ports, strict=True):
            node.call("CONFIG", "SET", "replica-announce-port", port)
            node.call("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        second.call("REPLICAOF", HOST, ports[0])
        await asyncio.to_thread(
            until, lambda: second.facts("replication")["master_link_status"] == "up", "the replica follows"
        )
        sentinel = await start(
            sentinel=f"sentinel monitor shop {HOST} {ports[0]} 1\nsentinel failover-timeout shop 6000\n"
        )
        with contextlib.suppress(redis.ResponseError):
            sentinel.call("SENTINEL", "DEBUG", "info-period", "500")

        def has_failed_over() -> bool:
            if int(sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")[1]) == ports[1]:
                return True
            sentinel.call("SENTINEL", "FAILOVER", "shop")  # refused while one is under way; one may fail
            return False

        place = f"{HOST}:{await behind(sentinel)}"
        yield Fleet(
            "sentinel",
            place,
            "/shop",
            authority,
            ["one", "two"],
            lambda: until(has_failed_over, "the replica is the primary"),
        )
        ours = [said for said in plain if b"SETNAME" in said and b"\r\npq" in said.partition(b"SETNAME")[2]]
        assert ours == [], "a connection of ours spoke no TLS"
        assert any(b"SETNAME" in said for said in plain), "the Sentinel's own do not"


@pytest.fixture(params=["cluster", "sentinel"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    authority = Authority(tmp_path / "ours")
    made = (
        cluster_behind_tls(request.getfixturevalue("cluster"), authority)
        if request.param == "cluster"
        else watched_behind_tls(authority)
    )
    async with made as fleet:
        yield fleet


async def test_work_goes_on_over_a_failover_and_strangers_are_refused(
    fleet: Fleet, make_app: Any, tmp_path: Path
) -> None:
    """A worker that outlives its lease, a producer, events; then the errors of other certificates."""
    app = make_app(fleet.trusted(), task_queues=fleet.queues, lease=1.0)
    worker = await started(app)
    try:
        async with app.api() as api, asyncio.timeout(120):
            heard: set[str] = set()
            await api.on_events("task", "done", lambda _, event, task: heard.add(task.id))
            longer = api.tasks.queue("nap", 1.2, queue=fleet.queues[-1])
            for queue in 4 * fleet.queues:
                assert await ended(api, queue) == "done"
            assert (await longer).get() == "done"
            await asyncio.to_thread(fleet.fail_over)
            heard.clear()
            for queue in 4 * fleet.queues:
                assert await ended(api, queue) == "done"
            while not heard:
                await ended(api, fleet.queues[0])
    finally:
        await worker.stop(grace=0.0)

    other = Authority(tmp_path / "other", "another")
    for url, message, hint in (
        (fleet.url(f"ssl_ca_certs={other.path}"), "its certificate is not trusted", "ssl_ca_certs="),
        (fleet.url(), "its certificate is not trusted", "ssl_ca_certs="),
        (fleet.url("ssl_ca_certs=/nowhere.pem"), "names a file that is not there", "ssl_ca_certs"),
    ):
        error = await refusal(make_app, url)
        assert message in error.message, error
        assert hint in (error.hint or ""), error


async def started(app: Any) -> Any:
    """A worker, once the servers answer it in its time; on a slow machine that may be later."""
    async with asyncio.timeout(60):
        while True:
            worker = app.worker("w1")
            with contextlib.suppress(StoreUnavailable):
                await worker.start()
                return worker


async def ended(api: Any, queue: str) -> object:
    """The result of a task, which is queued again where a failover has lost it."""
    while True:
        with contextlib.suppress(TaskLost, StoreUnavailable):
            return (await api.tasks.queue("nap", queue=queue)).get()


async def refusal(make_app: Any, url: str) -> StoreRefused:
    """Return the errors of a producer and of a worker; both the same, and at once."""
    async with asyncio.timeout(60):
        with pytest.raises(StoreRefused) as by_worker:
            await make_app(url).worker("w1").start()
        with pytest.raises(StoreRefused) as caught:
            async with make_app(url).api():
                pass
    assert by_worker.value.hint == caught.value.hint
    return caught.value
