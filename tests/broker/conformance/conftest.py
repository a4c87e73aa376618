"""The broker under test: in memory, on Valkey, on Redis 6.2, on a cluster, and where Sentinels say that it is.

Time stands still until a test moves it. Through Sentinel it is the same server and the same scripts, so a handful is run
there; `PQ_SENTINEL=1 pytest tests/broker/conformance` runs all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fleets import Cluster, Watched
from stores import Hand, QueueDump, broken_invariants, dump_memory, dump_server

from pq.broker import records
from pq.broker.contract.values import Entry, Exchange, Queued, ReserveCall, Reserved, Settlement
from pq.broker.memory.broker import MemoryBroker
from pq.broker.memory.store import MemoryStore
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.cluster import ClusterBroker
from pq.broker.redis.sentinel import SentinelBroker
from pq.model.operations import ACK, FAIL, RETRY
from pq.model.states import FAILURE, REVOKED, SUCCESS

QUEUE = "q"
LEASE = "lease"
TTL = 30_000


STORES = ("memory", "valkey", "redis62", "cluster")
BY_SENTINEL = frozenset(
    {
        "test_what_is_queued_is_handed_out_with_its_record",
        "test_a_lost_reply_over_two_queues_is_given_again",
        "test_a_call_that_was_given_up_takes_nothing",
        "test_what_expired_is_taken_over_after_a_lease_without_a_gap",
        "test_a_zombie_is_refused",
        "test_a_repeated_settlement_is_accepted_and_changes_nothing",
        "test_a_blocked_reservation_gets_what_comes",
        "test_a_blocked_reservation_that_was_given_up_can_be_asked_for_again",
        "test_events_tell_the_life_of_a_task",
        "test_a_tick_is_claimed_once",
    }
)
"""Tests that run through Sentinel each time."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        by_sentinel = metafunc.function.__name__ in BY_SENTINEL or "PQ_SENTINEL" in os.environ
        metafunc.parametrize("world", [*STORES, *["sentinel"] * by_sentinel], indirect=True)


class World:
    """A broker, its clock, and short methods for the steps that every test takes."""

    def __init__(
        self, kind: str, broker: Any, hand: Hand, more: Callable[[], Any], dump: Callable[[], Any]
    ) -> None:
        self.kind = kind
        self.broker = broker
        self.hand = hand
        self.another = more
        """Makes another broker on the same store: another process, as it were."""
        self._dump = dump
        self._batch = 0

    def dump(self, queue: str = QUEUE) -> QueueDump:
        """All that the store holds of a queue; no invariant is broken in it."""
        found: QueueDump = self._dump().get(queue) or QueueDump()
        assert broken_invariants(found) == []
        return found

    async def put(
        self, *ids: str, queue: str = QUEUE, delay: int | None = None, priority: int = 0
    ) -> set[str]:
        entries = [Entry(id, live(id, priority), delay, priority) for id in ids]
        queued: Queued = await self.broker.work.enqueue(queue, entries)
        return queued.known

    async def lease(self, name: str = LEASE, *queues: str, ttl: int = TTL) -> str:
        await self.broker.work.open_lease(name, queues or (QUEUE,), ttl)
        return name

    async def take(
        self,
        want: int = 10,
        lease: str = LEASE,
        *,
        queues: Iterable[str] = (QUEUE,),
        batch: int | None = None,
        **options: Any,
    ) -> Exchange:
        """Reserve, under a new batch number unless one is given."""
        if batch is None:
            self._batch += 1
            batch = self._batch
        answer: Exchange = await self.broker.work.exchange(
            ReserveCall(lease, list(queues), want, batch, **options), {}
        )
        return answer

    async def end(
        self, task: Reserved, op: str = ACK, *, lease: str = LEASE, reply: str = "", wait: int = 0, **how: Any
    ) -> list[tuple[str, str]]:
        """Settle one task; return the refusals."""
        ended = [settlement(task, op, lease=lease, reply=reply, wait=wait, **how)]
        answer = await self.broker.work.exchange(ReserveCall(lease), {task.queue: ended})
        refused: list[tuple[str, str]] = answer.refused
        return refused

    async def die_with(self, *ids: str, times: int = 1) -> None:
        """Have workers take all that is ready and die with it."""
        for n in range(times):
            name = await self.lease(f"doomed{n}")
            await self.take(100, name, idle=True)
            await self.broker.work.hand_back(name, [QUEUE], crashed=True)
        assert set(ids) <= self.dump().crashes.keys()


def live(id: str, priority: int = 0, token: str = "") -> bytes:
    return records.live_header(priority, token) + f"message of {id}".encode()


def finished(id: str, token: str = "cancel:0", status: int = REVOKED) -> bytes:
    return records.finished_header(status, token) + f"end of {id}".encode()


def settlement(
    task: Reserved, op: str = ACK, *, lease: str = LEASE, reply: str = "", wait: int = 0, priority: int = 0
) -> Settlement:
    token = f"{lease}:{task.batch}"
    status = {ACK: SUCCESS, FAIL: FAILURE}.get(op, REVOKED)
    record = live(task.id, priority, token) if op == RETRY else finished(task.id, token, status)
    return Settlement(op, task.id, task.batch, record, reply, wait)


def names(answer: Exchange) -> list[str]:
    return [task.id for task in answer.tasks]


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    hand = Hand()
    made: list[Any] = []
    if request.param == "memory":
        store = MemoryStore(hand)  # type: ignore[arg-type]

        def more() -> Any:
            made.append(MemoryBroker(store))
            return made[-1]

        def dump() -> Any:
            return dump_memory(store)
    elif request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")

        def more() -> Any:
            made.append(ClusterBroker(cluster.url, patience=20))
            made[-1].time_override = hand
            return made[-1]

        def dump() -> Any:
            found = {}
            for node in cluster.masters():
                found.update(dump_server(node.client)[0])
            return found
    elif request.param == "sentinel":
        watched: Watched = request.getfixturevalue("watched")

        def more() -> Any:
            made.append(SentinelBroker(watched.url, patience=20))
            made[-1].time_override = hand
            return made[-1]

        def dump() -> Any:
            return dump_server(watched.primary().client)[0]
    else:
        fresh = request.getfixturevalue(request.param)
        url = fresh.url
        if os.environ.get("PQ_ACL"):  # the whole suite with the rights of a worker, and no more
            sys.path.append(str(Path(__file__).parents[2] / "trust"))
            from acl import as_user, make_user

            url = as_user(url, make_user(fresh.client, "worker", "+pttl"))  # a test asks for it

        def more() -> Any:
            made.append(RedisBroker(url, patience=5))
            made[-1].time_override = hand
            return made[-1]

        def dump() -> Any:
            return dump_server(fresh.client)[0]

    world = World(request.param, more(), hand, more, dump)
    await world.broker.open()
    yield world
    for broker in made:
        await broker.close()


@pytest.fixture
def broker(world: World) -> Any:
    return world.broker
