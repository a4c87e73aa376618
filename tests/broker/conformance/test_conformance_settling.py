"""Settling: once, by the holder alone, and harmless when it is repeated."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import LEASE, QUEUE, World, finished, live, names, settlement

from pq.broker.contract.values import ReserveCall, Reserved
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY, REVOKE
from pq.model.states import FAILURE, SUCCESS


async def one(world: World, id: str = "a") -> Reserved:
    """Queue a task and take it."""
    await world.put(id)
    await world.lease()
    (task,) = (await world.take()).tasks
    return task


@pytest.mark.parametrize(("op", "status"), [(ACK, SUCCESS), (FAIL, FAILURE), (REVOKE, 3)])
async def test_a_finished_task_leaves_its_record_with_a_ttl(world: World, op: str, status: int) -> None:
    """After the end there is the finished record, which will go by itself, and nothing else."""
    task = await one(world)
    assert await world.end(task, op) == []
    left = world.dump()
    assert left.records == {"a": finished("a", f"{LEASE}:{task.batch}", status)}
    assert left.expiring == {"a"}
    assert (left.held, left.ready, left.delayed) == ({}, [], {})
    assert left.dead.keys() == ({"a"} if op == FAIL else set())


async def test_retry_makes_it_live_again_after_a_while(world: World) -> None:
    """A retry replaces the record and waits its time; it comes out with the new record."""
    task = await one(world)
    await world.end(task, RETRY, wait=500)
    assert names(await world.take()) == []
    world.hand.advance(500)
    (again,) = (await world.take()).tasks
    assert again.record == live("a", 0, f"{LEASE}:{task.batch}")


async def test_retry_keeps_a_priority(world: World) -> None:
    """The header of the new record says where it goes after its wait."""
    task = await one(world)
    await world.put("b")
    await world.end(task, RETRY, wait=5, priority=3)
    world.hand.advance(5)
    assert names(await world.take()) == ["a", "b"]


async def test_release_puts_it_back_to_the_front_unspent(world: World) -> None:
    """A released task is first again, with its record unchanged (G9)."""
    task = await one(world)
    await world.put("b")
    await world.end(task, RELEASE)
    assert world.dump().crashes == {}
    (first, second) = (await world.take()).tasks
    assert (first.id, first.record, second.id) == ("a", live("a"), "b")


async def test_release_keeps_its_place_among_priorities(world: World) -> None:
    """A task with a priority goes to the front of that priority."""
    await world.put("a", "b", priority=4)
    await world.put("higher", priority=5)
    await world.lease()
    tasks = (await world.take(2)).tasks
    assert [task.id for task in tasks] == ["higher", "a"]
    await world.end(tasks[1], RELEASE)
    assert names(await world.take()) == ["a", "b"]


async def test_crash_puts_it_back_and_charges_it(world: World) -> None:
    """A crash of the task's own process counts for this task alone."""
    task = await one(world)
    await world.end(task, CRASH)
    (again,) = (await world.take()).tasks
    assert (again.id, again.crashes) == ("a", 1)


async def test_a_zombie_is_refused(world: World, broker: Any) -> None:
    """A holder whose lease was reclaimed stores no result and gets an error (G2)."""
    task = await one(world)
    world.hand.advance(30_001)
    await world.lease("other")
    (again,) = (await world.take(lease="other", stable_for=0)).tasks
    before = world.dump()
    for op in (ACK, FAIL, REVOKE, RETRY):
        assert await world.end(task, op) == [(QUEUE, "a")]
    assert await world.end(task, RELEASE) == []  # it has nothing to give back, and that is all it wanted
    assert await world.end(task, CRASH) == []
    assert world.dump() == before
    assert await world.end(again, lease="other") == []


async def test_a_zombie_is_refused_after_the_end_too(world: World) -> None:
    """The good result is not overwritten."""
    task = await one(world)
    world.hand.advance(30_001)
    await world.lease("other")
    (again,) = (await world.take(lease="other", stable_for=0)).tasks
    await world.end(again, lease="other")
    before = world.dump()
    assert await world.end(task, FAIL) == [(QUEUE, "a")]
    assert world.dump() == before


async def test_an_earlier_batch_of_the_same_lease_is_refused(world: World) -> None:
    """The fence is the attempt, not the worker: under one lease an old hand-out is as dead as any."""
    task = await one(world)
    await world.end(task, RELEASE)
    (again,) = (await world.take()).tasks
    assert again.batch != task.batch
    assert await world.end(task) == [(QUEUE, "a")]
    assert await world.end(again) == []


@pytest.mark.parametrize("op", [ACK, FAIL, REVOKE, RETRY, RELEASE, CRASH])
async def test_a_repeated_settlement_is_accepted_and_changes_nothing(world: World, op: str) -> None:
    """The reply was lost: the same settlement again is not refused, and has no second effect."""
    task = await one(world)
    await world.end(task, op, wait=100)
    before = world.dump()
    assert await world.end(task, op, wait=100) == []
    assert world.dump() == before


async def test_an_expired_lease_that_was_not_reclaimed_still_settles(world: World) -> None:
    """Late work is better than work done twice."""
    task = await one(world)
    world.hand.advance(300_000)
    assert await world.end(task) == []


async def test_crashes_are_forgotten_when_an_attempt_ends(world: World) -> None:
    """A success, a failure, a revoke or a retry resets the count: only crashes in a row count."""
    for op in (ACK, FAIL, REVOKE, RETRY):
        await world.put(op)
        await world.die_with(op)
        await world.lease()
        (task,) = (await world.take()).tasks
        assert task.crashes == 1
        await world.end(task, op, wait=10**9)
        assert world.dump().crashes == {}


async def test_crashes_outlive_a_release(world: World) -> None:
    """A deploy must not wash a suspect clean."""
    await world.put("a")
    await world.die_with("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await world.end(task, RELEASE)
    (task,) = (await world.take()).tasks
    assert task.crashes == 1


async def test_settling_and_reserving_go_in_one_call(world: World, broker: Any) -> None:
    """The whole exchange repeated gives the same tasks, refuses nothing, and changes nothing."""
    await world.put("a", "b", "c")
    await world.lease()
    first, second = (await world.take(2)).tasks
    ended = {QUEUE: [settlement(first), settlement(second, RETRY, wait=0)]}
    answer = await broker.work.exchange(ReserveCall(LEASE, [QUEUE], 5, 99), ended)
    assert sorted(names(answer)) == ["b", "c"]
    before = world.dump()
    again = await broker.work.exchange(ReserveCall(LEASE, [QUEUE], 5, 99), ended)
    assert (sorted(again.tasks), again.refused) == (sorted(answer.tasks), [])
    assert world.dump() == before


async def test_many_settlements_in_one_call(world: World, broker: Any) -> None:
    """A thousand at once, of several kinds, each with its own fence."""
    ids = [f"t{n}" for n in range(1500)]
    for start in range(0, 1500, 500):
        await world.put(*ids[start : start + 500])
    await world.lease()
    tasks = (await world.take(1000)).tasks + (await world.take(1000)).tasks
    assert [task.id for task in tasks] == ids
    ops = [ACK, FAIL, REVOKE]
    ended = [settlement(task, ops[n % 3]) for n, task in enumerate(tasks)]
    ended.append(settlement(tasks[0]._replace(id="never.queued")))
    answer = await broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})
    assert answer.refused == [(QUEUE, "never.queued")]
    left = world.dump()
    assert (len(left.records), len(left.dead), left.held) == (1500, 500, {})


async def test_the_dead_set_is_pruned_by_age(world: World, broker: Any) -> None:
    """Entries older than the time dead tasks are kept leave with a later failure."""
    await world.put("old", "new")
    await world.lease()
    old, new = (await world.take()).tasks
    await world.end(old, FAIL)
    died = world.hand.ms / 1000
    assert await broker.looks.dead(QUEUE) == [("old", pytest.approx(died))]
    world.hand.advance(8 * 86_400_000)
    await world.end(new, FAIL)
    assert [id for id, _ in await broker.looks.dead(QUEUE)] == ["new"]


async def test_the_dead_set_is_listed_youngest_first(world: World, broker: Any) -> None:
    """At most N tasks are returned, the last failure first."""
    await world.put("a", "b", "c")
    await world.lease()
    for task in (await world.take()).tasks:
        await world.end(task, FAIL)
        world.hand.advance(1000)
    assert [id for id, _ in await broker.looks.dead(QUEUE, 2)] == ["c", "b"]


async def test_what_failed_is_kept_longer(world: World, broker: Any) -> None:
    """A success as long as results are kept, a failure as long as the dead set is."""
    await world.put("done", "failed")
    await world.lease()
    done, failed = (await world.take()).tasks
    await world.end(done)
    await world.end(failed, FAIL)
    if world.kind == "memory":
        expires, now = broker.store.queue(QUEUE).expires, broker.store.now()
        left = [expires[id] - now for id in ("done", "failed")]
    else:
        keys = [broker.keys.record(QUEUE, id) for id in ("done", "failed")]
        left = await broker.calls.run_all(*[("PTTL", key) for key in keys])
    assert 3_500_000 < left[0] <= 3_600_000 < 600_000_000 < left[1] <= 7 * 86_400_000
