"""Leases: one holder at a time, renewed in time or lost, and nothing lost with it."""

from __future__ import annotations

from typing import Any

from conftest import LEASE, QUEUE, TTL, World, live, names

from pq.broker.contract.values import ReserveCall
from pq.model.operations import FAIL


async def test_without_a_lease_nothing_is_handed_out(world: World) -> None:
    """A caller without a lease gets an error, and the queue is as before."""
    await world.put("a")
    before = world.dump()
    answer = await world.take()
    assert (answer.lost_lease, answer.tasks) == (True, [])
    assert world.dump() == before


async def test_a_lost_reply_is_given_again(world: World) -> None:
    """The same batch number gets the same tasks, and nothing beside them."""
    await world.put("a", "b")
    await world.lease()
    first = await world.take(5, batch=1)
    await world.put("c")
    again = await world.take(5, batch=1)
    assert sorted(again.tasks) == sorted(first.tasks)
    assert names(await world.take(5, batch=2)) == ["c"]


async def test_a_lost_reply_over_two_queues_is_given_again(world: World) -> None:
    """A task that came into the second queue meanwhile waits for the next call."""
    await world.put("a1", queue="a")
    await world.lease(LEASE, "a", "b")
    first = await world.take(5, queues=["a", "b"], batch=1)
    await world.put("b1", queue="b")
    assert (await world.take(5, queues=["a", "b"], batch=1)).tasks == first.tasks
    assert names(await world.take(5, queues=["a", "b"], batch=2)) == ["b1"]


async def test_a_given_again_task_that_was_settled_is_not_given(world: World) -> None:
    """Only tasks that are still held come back."""
    await world.put("a", "b")
    await world.lease()
    first = await world.take(5, batch=1)
    await world.end(first.tasks[0])
    assert (await world.take(5, batch=1)).tasks == first.tasks[1:]


async def test_reclaim_takes_over_expired_leases_only_when_allowed(world: World) -> None:
    """A caller that may not reclaim leaves the tasks where they are."""
    await world.put("a")
    await world.lease("dead")
    await world.take(lease="dead")
    world.hand.advance(30_000)
    await world.lease()
    assert names(await world.take(stable_for=None)) == []
    (task,) = (await world.take(stable_for=0)).tasks
    assert (task.id, task.crashes) == ("a", 1)
    assert world.dump().leases.keys() == {LEASE}


async def test_a_call_that_was_given_up_takes_nothing(world: World) -> None:
    """The call arrives after its caller has gone on: tasks that it took would stay under a lease that lives on."""
    await world.lease()
    assert names(await world.take(5, batch=8)) == []
    await world.put("a")
    before = world.dump()
    assert names(await world.take(5, batch=7)) == []
    assert names(await world.take(5, batch=8)) == []
    assert world.dump() == before
    assert names(await world.take(5, batch=9)) == ["a"]


async def test_what_expired_is_taken_over_after_a_lease_without_a_gap(world: World) -> None:
    """A renewal by any worker shows that renewals were possible. The worker that reclaims may have started just now."""
    await world.put("a")
    await world.lease("dead")
    await world.take(lease="dead")
    await world.lease("other")
    for _ in range(3):
        world.hand.advance(9_999)
        await world.broker.work.renew("other", [QUEUE], TTL)
        assert names(await world.take(lease="other", stable_for=TTL)) == []
    world.hand.advance(3)
    await world.lease("young")
    assert names(await world.take(lease="young", stable_for=TTL)) == ["a"]


async def test_after_a_gap_every_worker_gets_a_lease_of_time_to_renew(world: World) -> None:
    """The store was away or its clock jumped: no worker could renew, and all leases look expired."""
    await world.put("a")
    await world.lease("slow")
    await world.take(lease="slow")
    await world.lease("quick")
    world.hand.advance(TTL + 1)
    await world.broker.work.renew("quick", [QUEUE], TTL)
    for _ in range(2):
        assert names(await world.take(lease="quick", stable_for=TTL)) == []
        world.hand.advance(TTL // 3)
        await world.broker.work.renew("quick", [QUEUE], TTL)
    assert (await world.broker.work.renew("slow", [QUEUE], TTL)).alive
    world.hand.advance(TTL // 3)
    await world.broker.work.renew("quick", [QUEUE], TTL)
    assert names(await world.take(lease="quick", stable_for=TTL)) == []


async def test_a_clock_that_was_set_back_delays_no_reclaim(world: World) -> None:
    """The deadlines of the dead would lie in the future for as long as the clock was set back."""
    await world.put("a")
    await world.lease("dead")
    await world.take(lease="dead")
    await world.lease("other")
    world.hand.advance(-3_600_000)
    for _ in range(3):
        await world.broker.work.renew("other", [QUEUE], TTL)
        assert names(await world.take(lease="other", stable_for=TTL)) == []
        world.hand.advance(TTL // 3)
    await world.broker.work.renew("other", [QUEUE], TTL)
    assert names(await world.take(lease="other", stable_for=TTL)) == ["a"]


async def test_a_lease_is_not_reclaimed_before_its_deadline(world: World) -> None:
    """One millisecond before the deadline it stands."""
    await world.put("a")
    await world.lease("other")
    await world.take(lease="other")
    await world.lease(ttl=60_000)
    world.hand.advance(29_999)
    assert names(await world.take(stable_for=0)) == []
    world.hand.advance(1)
    assert names(await world.take(stable_for=0)) == ["a"]


async def test_a_worker_does_not_reclaim_from_itself(world: World) -> None:
    """A worker that is late but calls is alive."""
    await world.put("a")
    await world.lease()
    await world.take()
    world.hand.advance(60_000)
    answer = await world.take(stable_for=0)
    assert (names(answer), answer.lost_lease) == ([], False)


async def test_an_expired_lease_can_be_renewed_until_it_is_reclaimed(world: World, broker: Any) -> None:
    """A late renewal beats running everything twice (G3)."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    world.hand.advance(100_000)
    assert (await broker.work.renew(LEASE, [QUEUE], 30_000)).alive
    await world.lease("other")
    assert names(await world.take(lease="other", stable_for=0)) == []
    assert await world.end(task) == []


async def test_a_lease_that_was_taken_over_is_gone(world: World, broker: Any) -> None:
    """Renewing and reserving say so, and change nothing."""
    await world.put("a")
    await world.lease()
    await world.take()
    world.hand.advance(30_000)
    await world.lease("other")
    await world.take(lease="other", stable_for=0)
    before = world.dump()
    assert not (await broker.work.renew(LEASE, [QUEUE], 30_000)).alive
    assert (await world.take()).lost_lease
    assert world.dump() == before


async def test_a_dying_lease_cannot_be_renewed(world: World, broker: Any) -> None:
    """The lease held too much for one call: the next calls finish what one began."""
    ids = [f"t{n:03}" for n in range(150)]
    await world.put(*ids)
    await world.lease("dead")
    await world.take(1000, "dead")
    world.hand.advance(30_000)
    await world.lease()
    first = await world.take(1000, stable_for=0)
    assert len(first.tasks) == 100
    assert world.dump().leases["dead"] == 0
    assert not (await broker.work.renew("dead", [QUEUE], 30_000)).alive
    assert (await world.take(1000, "dead")).lost_lease
    second = await world.take(1000, stable_for=0)
    assert sorted(names(first) + names(second)) == ids
    assert "dead" not in world.dump().leases


async def test_renewing_pushes_the_deadline(world: World, broker: Any) -> None:
    """The deadline counts from the moment of the call, by the store's clock."""
    await world.lease(ttl=1000)
    world.hand.advance(900)
    await broker.work.renew(LEASE, [QUEUE], 1000)
    assert world.dump().leases == {LEASE: world.hand.ms + 1000}


async def test_renewing_over_two_queues_needs_both(world: World, broker: Any) -> None:
    """A lease that is lost in one queue is lost there; in the other it is renewed."""
    await world.lease(LEASE, "a", "b", ttl=1000)
    await broker.work.hand_back(LEASE, ["a"], crashed=False)
    assert not (await broker.work.renew(LEASE, ["a", "b"], 5000)).alive
    assert world.dump("b").leases == {LEASE: world.hand.ms + 5000}


async def test_handing_back_keeps_the_order_and_charges_nothing(world: World, broker: Any) -> None:
    """At a stop everything goes to the front of its queue, the oldest first, and the lease ends (G9)."""
    await world.put("a", "b", "c", "d")
    await world.put("p", priority=2)
    await world.lease()
    for _ in range(4):
        await world.take(1)
    assert await broker.work.hand_back(LEASE, [QUEUE], crashed=False) == 4
    left = world.dump()
    assert (left.prio, left.ready) == (["p"], ["a", "b", "c", "d"])
    assert (left.leases, left.batches, left.crashes) == ({}, {}, {})


async def test_handing_back_a_dead_workers_tasks_charges_each_once(world: World, broker: Any) -> None:
    """A blind repeat charges no task twice."""
    await world.put("a", "b")
    await world.lease()
    await world.take()
    assert await broker.work.hand_back(LEASE, [QUEUE], crashed=True) == 2
    before = world.dump()
    assert before.crashes == {"a": 1, "b": 1}
    assert await broker.work.hand_back(LEASE, [QUEUE], crashed=True) == 0
    assert world.dump() == before


async def test_handing_back_more_than_one_script_takes(world: World, broker: Any) -> None:
    """A thousand held tasks go back whole, in several bounded calls."""
    ids = [f"t{n:04}" for n in range(1000)]
    await world.put(*ids)
    await world.lease()
    await world.take(1000)
    assert await broker.work.hand_back(LEASE, [QUEUE], crashed=False) == 1000
    assert sorted(world.dump().ready) == ids
    assert world.dump().leases == {}


async def test_an_empty_lease_ends_without_a_trace(world: World, broker: Any) -> None:
    """Nothing is left of a worker that had nothing."""
    await world.lease()
    assert await broker.work.hand_back(LEASE, [QUEUE], crashed=True) == 0
    assert world.dump().leases == {}


async def test_a_suspect_runs_alone(world: World) -> None:
    """After two crashes a task is dispatched alone, to a worker that runs nothing else."""
    await world.put("bad", "good1", "good2")
    await world.die_with("bad", times=2)
    await world.lease()
    blocked = await world.take(5, idle=False)
    assert (names(blocked), blocked.blocked, blocked.solo, blocked.more_ready) == ([], True, False, True)
    alone = await world.take(5, idle=True)
    assert (names(alone), alone.solo, alone.tasks[0].crashes) == (["bad"], True, 2)
    assert world.dump().ready == ["good1", "good2"]


async def test_a_suspect_ends_a_hand_out_and_keeps_its_place(world: World) -> None:
    """The tasks before it are dispatched; it stays the first, and those behind it stay behind it."""
    await world.put("bad")
    await world.die_with("bad", times=2)
    await world.put("high", priority=1)
    await world.put("after")
    await world.lease()
    answer = await world.take(5, idle=True)
    assert (names(answer), answer.blocked, answer.solo) == (["high"], True, False)
    assert world.dump().ready == ["bad", "after"]


async def test_a_suspect_stops_the_other_queues_too(world: World) -> None:
    """Handed out alone means alone over all queues of the call, also when the reply was lost."""
    await world.put("bad")
    await world.die_with("bad", times=2)
    await world.put("other1", queue="other")
    await world.lease(LEASE, QUEUE, "other")
    for _ in range(2):
        answer = await world.take(5, queues=[QUEUE, "other"], idle=True, batch=4)
        assert (names(answer), answer.solo) == (["bad"], True)


async def test_a_suspect_is_not_added_to_what_was_taken_before_it(world: World) -> None:
    """A task of an earlier queue was dispatched: the suspect of the later one waits."""
    await world.put("bad")
    await world.die_with("bad", times=2)
    await world.put("first", queue="first")
    await world.lease(LEASE, QUEUE, "first")
    for _ in range(2):
        answer = await world.take(5, queues=["first", QUEUE], idle=True, batch=4)
        assert names(answer) == ["first"]
    assert world.dump().ready == ["bad"]


async def test_one_crash_makes_no_suspect(world: World) -> None:
    """Innocent tasks that died with a bad neighbour are dispatched as before, with their count."""
    await world.put("a", "b")
    await world.die_with("a", "b")
    await world.lease()
    answer = await world.take()
    assert [(task.id, task.crashes) for task in answer.tasks] == [("a", 1), ("b", 1)]
    assert not answer.solo
    await world.end(answer.tasks[0], FAIL)
    assert world.dump().crashes == {"b": 1}


async def test_opening_a_lease_twice_is_one_lease(world: World) -> None:
    """The lease keeps the tasks that it holds."""
    await world.put("a")
    await world.lease()
    await world.take()
    before = world.dump()
    await world.lease()
    assert world.dump() == before


async def test_two_processes_share_one_store(world: World) -> None:
    """Tasks that one broker queued are dispatched by another, each task once."""
    other = world.another()
    await world.put(*"abcdef")
    await world.lease("one")
    await other.work.open_lease("two", [QUEUE], 30_000)
    mine = await world.take(3, "one")
    theirs = await other.work.exchange(ReserveCall("two", [QUEUE], 10, 1), {})
    assert names(mine) + names(theirs) == list("abcdef")
    assert theirs.tasks[0].record == live("d")
