"""A cluster: queues on several nodes, nodes that die, slots that move. Nothing but that is another store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from fleets import Cluster, Node, Watched
from load import Load
from stores import check_server

from pq import api as pq
from pq.broker.connect import make_broker
from pq.broker.contract.values import Entry, ReserveCall, Settlement
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.cluster import ClusterBroker
from pq.broker.redis.queue_wait import QueueWait
from pq.errors import StoreRefused
from pq.model.operations import ACK
from pq.model.partitions import Partitions

pytestmark = [pytest.mark.timeout(400), pytest.mark.endurance]  # all of a fleet may be slow at once

FAILOVERS = int(os.environ.get("PQ_FAILOVERS", "3"))
WAKES = 120
runs: list[int] = []


@pq.job()
async def nap(n: int = 0) -> int:
    runs.append(n)
    await asyncio.sleep(0.002)
    return n


@pq.job(partition_key="customer", limits=[pq.Concurrency(1, key="customer")])
async def turn(customer: int, n: int) -> None:
    runs.append(1000 * customer + n)


@pq.job()
async def wait_long() -> None:
    await asyncio.sleep(600)


@pytest.fixture(autouse=True)
def forget_runs() -> None:
    runs.clear()


@pytest.fixture
async def broker(cluster: Cluster) -> AsyncIterator[RedisBroker]:
    broker = make_broker(cluster.url, patience=60)
    await broker.open()
    yield broker
    await broker.close()


def left_in_order(cluster: Cluster) -> None:
    """No key without an owner or a TTL, no invariant broken, on any node."""
    for node in cluster.masters():
        check_server(node.client)


async def test_queues_of_all_nodes_are_served_and_seen(
    cluster: Cluster, make_app: Any, start_worker: Any
) -> None:
    """Tasks, events, looks, locks, workers: whatever node each is on."""
    queues = cluster.queues()
    app = make_app(cluster.url, task_queues=queues)
    await start_worker(app)
    heard: set[str] = set()
    async with app.api() as api:
        await api.on_events("task", "done", lambda channel, event, task: heard.add(task.id))
        futures = [api.tasks.queue("nap", n, queue=queues[n % 3]) for n in range(60)]
        async with asyncio.timeout(60):
            assert [(await future).result for future in futures] == list(range(60))
            while len(heard) < 60:
                await asyncio.sleep(0.01)
        assert sorted(await api.tasks.size(*queues)) == sorted(queues)
        assert set(queues) <= set(await api.tasks.queue_states())
        assert len(await api.tasks.search("SUCCESS", count=100)) == 60
        assert (await api.tasks.find(futures[7].id[:12])).id == futures[7].id
        assert len(await api.tasks.workers()) == 1
        for n in range(8):
            async with api.lock(f"lock{n}") as lock:
                assert lock.fence > 0
        running = api.tasks.queue("wait.long", queue=queues[0])
        async with asyncio.timeout(60):
            while not (await api.tasks.queue_states())[queues[0]].held:
                await asyncio.sleep(0.01)
            assert await api.tasks.cancel(running.id)
            assert (await running).status_string == "REVOKED"
    assert sorted(runs) == list(range(60))
    left_in_order(cluster)


async def test_partitions_of_a_queue_lie_on_several_nodes_in_order_by_key(
    cluster: Cluster, make_app: Any, start_worker: Any
) -> None:
    """A queue that is too much for a node is not on one; tasks with the same key run in order nevertheless."""
    # The slots of names that differ in a digit alone are often on the same node, by the pieces of this cluster.
    stated = (Partitions({f"orders{n}": 12}) for n in range(100))
    parts = next(p for p in (one.of(one.queues[0]) for one in stated) if len(masters_of(cluster, p)) == 3)
    queue = parts[0].removesuffix(".p0")
    app = make_app(cluster.url, task_queues=[queue], partitions={queue: 12}, concurrent_tasks=4)
    calls = [("turn", (customer, n)) for n in range(30) for customer in range(12)]
    async with app.api() as api:
        futures = api.tasks.queue_many(calls)
        assert await api.tasks.size(queue) == {queue: 360}
        for name in ("w1", "w2"):
            await start_worker(app, name)
        async with asyncio.timeout(100):
            tasks = await asyncio.gather(*futures)
    assert {task.queue for task in tasks} <= set(parts)
    assert len(masters_of(cluster, {str(task.queue) for task in tasks})) > 1
    turns = {customer: [n for each, n in divided(runs) if each == customer] for customer in range(12)}
    assert turns == {customer: list(range(30)) for customer in range(12)}
    left_in_order(cluster)


def masters_of(cluster: Cluster, queues: Iterable[str]) -> set[int]:
    """The ports of the masters that have these queues."""
    return {cluster.owner(f"{{{queue}}}").port for queue in queues}


def divided(numbers: list[int]) -> list[tuple[int, int]]:
    return [divmod(number, 1000) for number in numbers]


async def test_an_idle_worker_of_many_queues_is_woken_by_each(
    cluster: Cluster, make_app: Any, start_worker: Any
) -> None:
    """It waits for minutes at six queues, two on each node; whichever gets a task, it has it at once."""
    queues = cluster.queues(2)
    app = make_app(cluster.url, task_queues=queues, task_pool_timeout=300.0)
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(100):
        for n in range(18):
            assert (await api.tasks.queue("nap", n, queue=queues[n % 6])).result == n
        assert (await api.tasks.queue("nap", 99, queue=queues[4], delay=0.2)).result == 99
    left_in_order(cluster)


def connections_made(cluster: Cluster) -> int:
    """Return the number of connections that were ever made to the nodes."""
    return sum(int(node.facts("stats")["total_connections_received"]) for node in cluster.nodes)


async def test_wakes_make_no_connections(cluster: Cluster, make_app: Any, start_worker: Any) -> None:
    """An idle worker that is woken at one of six queues calls its other waits off, and keeps their connections."""
    queues = cluster.queues(2)
    app = make_app(cluster.url, task_queues=queues, task_pool_timeout=300.0)
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(100):
        for n in range(12):  # until each queue has its connection
            assert (await api.tasks.queue("nap", n, queue=queues[n % 6])).result == n
        before = connections_made(cluster)
        for n in range(WAKES):
            assert (await api.tasks.queue("nap", n, queue=queues[n * 5 % 6])).result == n
    made = connections_made(cluster) - before
    print(f"{made} connections in {WAKES} wakes")
    assert made < WAKES / 4, "it was five for each wake when a wait that was called off lost its connection"
    left_in_order(cluster)


async def test_a_wait_that_arrives_late_finds_its_interrupt_and_leaves_the_token(
    cluster: Cluster, broker: RedisBroker
) -> None:
    """Its queue has been looked at already: a task that it took then would have no holder."""
    assert isinstance(broker, ClusterBroker)
    wait = QueueWait(broker.nodes.link(), broker.keys, "q", where="here", stated=None)
    node = await asyncio.to_thread(cluster.owner, "{q}")
    async with asyncio.timeout(60):
        await broker.work.poke("q")
        late = wait.start(300)
        for command in wait.interrupt():  # it has sent nothing yet
            await broker.calls.run(*command)
        assert not await late
        assert node.call("LLEN", broker.keys.wake("q")) == 1
        assert await wait.start(300), "the token is there for the next worker"
        assert wait.interrupt() == []
        early = wait.start(300)
        interrupts = wait.interrupt()
        await broker.work.poke("q")
        assert await early
        for command in interrupts:  # in vain, and no later wait is disturbed by it
            await broker.calls.run(*command)
        await broker.work.poke("q")
        assert await wait.start(300)
    await wait.close()
    left_in_order(cluster)


async def test_a_wait_that_does_not_answer_its_interrupt_is_given_up(
    cluster: Cluster, broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is dead, so the next one waits over a new one."""
    monkeypatch.setattr("pq.broker.redis.queue_wait.ANSWER_WITHIN", 0.05)
    assert isinstance(broker, ClusterBroker)
    wait = QueueWait(broker.nodes.link(), broker.keys, "q", where="here", stated=None)
    node = await asyncio.to_thread(cluster.owner, "{q}")
    async with asyncio.timeout(60):
        first = wait.start(300)  # it is not interrupted
        await until_blocked(node, 1)
        second = wait.start(300)
        await asyncio.wait([first])
        assert first.cancelled()
        while not second.done():  # a token may go the way of the dead connection yet
            await broker.work.poke("q")
            await asyncio.sleep(0.02)
        assert await second
        wait.start(300)
        wait.start(300)
        await wait.close()
        await until_blocked(node, 0)


async def test_a_reservation_that_is_withdrawn_leaves_no_wait(cluster: Cluster, broker: RedisBroker) -> None:
    """None stays while it waits or when a look fails: an abandoned wait would take tokens."""
    assert isinstance(broker, ClusterBroker)
    queues = cluster.queues()
    await broker.work.open_lease("L", queues, 60_000)
    nodes = [await asyncio.to_thread(cluster.owner, f"{{{queue}}}") for queue in queues]
    async with asyncio.timeout(60):
        waiting = asyncio.ensure_future(broker.work.exchange(ReserveCall("L", queues, 1, 1, block=300), {}))
        for node in nodes:
            await until_blocked(node, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        for node in nodes:
            await until_blocked(node, 0)
        waiting = asyncio.ensure_future(broker.work.exchange(ReserveCall("L", queues, 1, 1, block=300), {}))
        for node in nodes:
            await until_blocked(node, 1)

        async def refuse(*_: Any, **__: Any) -> Any:
            raise StoreRefused("not today")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(broker.calls, "repeat", refuse)
            nodes[1].call("LPUSH", broker.keys.wake(queues[1]), "1")
            with pytest.raises(StoreRefused):
                await waiting
        for node in nodes:
            await until_blocked(node, 0)
    await broker.work.hand_back("L", queues, crashed=False)
    left_in_order(cluster)


async def until_blocked(node: Node, many: int) -> None:
    """Wait until `count` blocking reads stand at a node."""
    while node.facts("clients")["blocked_clients"] != many:
        await asyncio.sleep(0.02)


async def test_a_batch_that_was_cut_off_comes_again_from_all_queues(
    cluster: Cluster, broker: RedisBroker
) -> None:
    """Two of three queues had given something when the call ended: they give it again, and no more."""
    queues = cluster.queues()
    await broker.work.open_lease("L", queues, 60_000)
    for queue in queues[1:]:
        await broker.work.enqueue(queue, [Entry(f"{queue}.{n}", b"q\n") for n in range(3)])
    calls = 0
    repeat = broker.calls.repeat

    async def cut(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        replies = await repeat(*args, **options)
        if calls == 3:
            raise asyncio.CancelledError
        return replies

    broker.calls.repeat = cut  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await broker.work.exchange(ReserveCall("L", queues, 10, 1), {})
    broker.calls.repeat = repeat  # type: ignore[method-assign]
    await broker.work.enqueue(queues[0], [Entry("new", b"q\n")])
    answer = await broker.work.exchange(ReserveCall("L", queues, 10, 1), {})
    assert sorted(task.id for task in answer.tasks) == sorted(
        f"{q}.{n}" for q in queues[1:] for n in range(3)
    )
    assert answer.more_ready
    assert [task.id for task in (await broker.work.exchange(ReserveCall("L", queues, 10, 2), {})).tasks] == [
        "new"
    ]
    ended = {q: [Settlement(ACK, f"{q}.{n}", 1, b"d1 L:1\n") for n in range(3)] for q in queues[1:]}
    ended[queues[0]] = [Settlement(ACK, "new", 1, b"d1 L:1\n")]  # which is not the batch that it was taken in
    assert (await broker.work.exchange(ReserveCall("L", queues, 1, 3), ended)).refused == [(queues[0], "new")]
    for queue in queues:
        await broker.work.hand_back("L", [queue], crashed=False)
    left_in_order(cluster)


async def test_a_standalone_server_is_not_a_cluster(watched: Watched, cluster: Cluster) -> None:
    """Either mistake is named, with the URL that is right."""
    single = make_broker(f"redis://{cluster.nodes[0].address}", patience=1)
    with pytest.raises(StoreRefused, match="node of a cluster") as caught:
        await single.open()
    assert "redis+cluster://" in (caught.value.hint or "")
    await single.close()
    several = make_broker(f"redis+cluster://{watched.primary().address}", patience=1)
    with pytest.raises(StoreRefused, match="not a node of a cluster") as caught:
        await several.open()
    assert "redis://" in (caught.value.hint or "")
    await several.close()


@pytest.mark.timeout(340 + 20 * FAILOVERS)
async def test_masters_fail_over_under_load(cluster: Cluster, make_app: Any, start_worker: Any) -> None:
    """Each acknowledged task ends once, or is known to be lost; nothing hangs, nothing is left held."""
    queues = cluster.queues()
    app = make_app(cluster.url, task_queues=queues, concurrent_tasks=8)
    for n in range(2):
        await start_worker(app, f"w{n}")
    async with app.api() as api:
        load = Load(api, "nap", queues=tuple(queues))
        load.start()
        for n in range(FAILOVERS):
            await load.goes_on()
            master = await asyncio.to_thread(cluster.owner, f"{{{queues[n % 3]}}}")
            await asyncio.to_thread(cluster.crash if n % 3 == 2 else cluster.failover, master)
            await load.goes_on()
            await asyncio.to_thread(cluster.settle)
        await load.stop()
        await load.check()
    print(load)
    left_in_order(cluster)


@pytest.mark.parametrize("way", ["key by key", "at once"])
async def test_slots_move_under_load(cluster: Cluster, make_app: Any, start_worker: Any, way: str) -> None:
    """A queue whose slot moves rests meanwhile; no task is lost, and none runs twice."""
    queues = cluster.queues()
    app = make_app(cluster.url, task_queues=queues, concurrent_tasks=8)
    for n in range(2):
        await start_worker(app, f"w{n}")
    async with app.api() as api:
        load = Load(api, "nap", queues=tuple(queues))
        load.start()
        for n in range(4):
            await load.goes_on()
            key = f"{{{queues[n % 2]}}}"
            owner = await asyncio.to_thread(cluster.owner, key)
            others = [node for node in await asyncio.to_thread(cluster.masters) if node is not owner]
            if way == "key by key":
                await asyncio.to_thread(cluster.move, key, others[n % 2], pause=0.01)
            elif not await asyncio.to_thread(cluster.hand_over, key, others[n % 2]):
                pytest.skip("this server moves slots key by key alone")
        await load.goes_on()
        await load.stop()
        await load.check()
        assert (load.lost, load.refused) == (0, 0)
    print(load)
    assert sorted(runs) == list(range(len(runs)))
    left_in_order(cluster)


async def test_schedules_locks_and_the_list_of_queues_have_slots_too(
    cluster: Cluster, broker: RedisBroker
) -> None:
    """They move like queues, and are found again."""
    assert isinstance(broker, ClusterBroker)
    await broker.work.enqueue("q", [Entry("a", b"q\n")])
    taken = await broker.channels.lock("name", "token", 60_000)
    for key in (broker.keys.queues, broker.keys.lock("name"), broker.keys.prefix("q")):
        owner = await asyncio.to_thread(cluster.owner, key)
        others = [node for node in await asyncio.to_thread(cluster.masters) if node is not owner]
        await asyncio.to_thread(cluster.move, key, others[0])
    assert await broker.looks.queue_names() == ["q"]
    assert (await broker.channels.lock("name", "another", 60_000)).fence == 0
    assert (await broker.channels.lock("name", "token", 60_000)).fence == taken.fence
    assert await broker.looks.records("q", ["a"]) == [b"q\n"]
    assert await broker.channels.unlock("name", "token")
