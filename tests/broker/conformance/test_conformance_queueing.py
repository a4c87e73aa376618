"""Queueing: idempotent by id, in order, by priority, and not before its time."""

from __future__ import annotations

import functools
import operator
from typing import Any

import pytest
from conftest import QUEUE, World, finished, live, names

from pq.broker.contract.values import Entry
from pq.errors import QueueFull


async def test_what_is_queued_is_handed_out_with_its_record(world: World) -> None:
    """A task comes out as it went in, with its queue and batch, and no crashes."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take(batch=7)).tasks
    assert task == (QUEUE, "a", 7, live("a"), 0, "")


async def test_queueing_is_idempotent_by_id(world: World) -> None:
    """The same call again makes no second task and names the ids as known (G4)."""
    assert await world.put("a", "b") == set()
    before = world.dump()
    assert await world.put("a", "b") == {"a", "b"}
    assert world.dump() == before


async def test_a_known_id_keeps_its_first_record(world: World, broker: Any) -> None:
    """Another record under a known id is left aside, the rest of the call is queued."""
    await world.put("a")
    assert (await broker.work.enqueue(QUEUE, [Entry("a", b"q\nother"), Entry("b", live("b"))])).known == {"a"}
    assert await broker.looks.records(QUEUE, ["a", "b"]) == [live("a"), live("b")]
    assert world.dump().ready == ["a", "b"]


async def test_an_id_twice_in_one_call_is_one_task(world: World, broker: Any) -> None:
    """Within a call the first of an id counts."""
    known = await broker.work.enqueue(QUEUE, [Entry("a", live("a")), Entry("a", live("a"), 5000)])
    assert known.known == {"a"}
    assert (world.dump().ready, world.dump().delayed) == (["a"], {})


async def test_a_finished_id_is_known_as_long_as_its_record_is_kept(world: World) -> None:
    """A repeat that comes after the task has run does not run it again."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await world.end(task)
    assert await world.put("a") == {"a"}
    assert names(await world.take()) == []


async def test_first_in_first_out(world: World) -> None:
    """Tasks of one queue come in the order of their queueing, over several calls (G6)."""
    for id in ("a", "b", "c"):
        await world.put(id)
    await world.put("d", "e")
    await world.lease()
    assert names(await world.take(2)) + names(await world.take(10)) == ["a", "b", "c", "d", "e"]


async def test_high_before_normal_before_low(world: World) -> None:
    """Higher priorities first, below 0 last, in order of queueing within one priority."""
    await world.put("low", priority=-5)
    await world.put("plain1", "plain2")
    await world.put("high1", "high2", priority=5)
    await world.put("highest", priority=1000)
    await world.put("lowest", priority=-1000)
    assert await world.broker.looks.peek(QUEUE, 10) == [
        "highest", "high1", "high2", "plain1", "plain2", "low", "lowest",
    ]  # fmt: skip
    await world.lease()
    taken = [names(await world.take(2)) for _ in range(4)]
    assert functools.reduce(operator.iadd, taken, []) == [
        "highest",
        "high1",
        "high2",
        "plain1",
        "plain2",
        "low",
        "lowest",
    ]


async def test_a_delayed_task_never_starts_early(world: World) -> None:
    """It waits to the last millisecond of the store's clock, and no longer (G7)."""
    await world.put("a", delay=1000)
    await world.lease()
    answer = await world.take()
    assert (names(answer), answer.next_due) == ([], 1000)
    world.hand.advance(999)
    answer = await world.take()
    assert (names(answer), answer.next_due) == ([], 1)
    world.hand.advance(1)
    assert names(await world.take()) == ["a"]


async def test_due_tasks_come_in_the_order_of_their_times(world: World) -> None:
    """Promotion sorts by due time, and keeps priorities."""
    await world.put("late", delay=30)
    await world.put("early", delay=10)
    await world.put("urgent", delay=20, priority=1)
    world.hand.advance(50)
    await world.lease()
    assert names(await world.take()) == ["urgent", "early", "late"]


async def test_a_delay_of_nothing_is_none(world: World) -> None:
    """Delay 0 goes straight to where it waits."""
    await world.put("a", delay=0)
    await world.put("b", delay=0, priority=2)
    assert (world.dump().ready, world.dump().prio, world.dump().delayed) == (["a"], ["b"], {})


async def test_promotion_is_bounded(world: World) -> None:
    """One call promotes a hundred tasks, so a million that are due at once block no caller; the rest follows."""
    await world.put(*(f"t{n:03}" for n in range(150)), delay=1)
    world.hand.advance(1)
    await world.lease()
    first = await world.take(1000)
    assert (len(first.tasks), first.next_due) == (100, 0)
    assert len((await world.take(1000)).tasks) == 50


async def test_queues_are_served_in_the_callers_order(world: World) -> None:
    """`queues` is an order of preference, and `want` counts over all of them."""
    await world.put("a1", "a2", queue="a")
    await world.put("b1", "b2", queue="b")
    await world.lease("lease", "a", "b")
    answer = await world.take(3, queues=["b", "a"])
    assert [(task.queue, task.id) for task in answer.tasks] == [("b", "b1"), ("b", "b2"), ("a", "a1")]
    assert answer.more_ready


async def test_left_says_whether_more_is_ready(world: World) -> None:
    """`left` is True while something waits, and False when nothing does."""
    await world.put("a", "b")
    await world.lease()
    assert (await world.take(1)).more_ready
    assert not (await world.take(1)).more_ready


async def test_a_paused_queue_hands_nothing_out(world: World, broker: Any) -> None:
    """Queueing into it works, time goes on in it, and all is there after the pause."""
    await world.put("a")
    await broker.work.pause(QUEUE, True)
    await world.put("b")
    await world.put("c", delay=5)
    world.hand.advance(5)
    await world.lease()
    assert names(await world.take()) == []
    assert (await broker.looks.state(QUEUE)).paused
    await broker.work.pause(QUEUE, False)
    assert names(await world.take()) == ["a", "b", "c"]
    assert not (await broker.looks.state(QUEUE)).paused


async def test_what_could_be_started_now_is_counted(world: World, broker: Any) -> None:
    """Ready, urgent and due tasks; no delayed or running ones, and none of a paused queue."""
    await world.put("a", "b")
    await world.put("p", priority=1)
    await world.put("d", delay=5)
    await world.put("e", delay=6)
    state = await broker.looks.state(QUEUE)
    assert (state.waiting, state.due, state.startable) == (5, 0, 3)
    world.hand.advance(5)
    state = await broker.looks.state(QUEUE)
    assert (state.waiting, state.due, state.startable) == (5, 1, 4)
    await world.lease()
    assert len((await world.take(2)).tasks) == 2
    assert (await broker.looks.state(QUEUE)).startable == 2
    await broker.work.pause(QUEUE, True)
    assert (await broker.looks.state(QUEUE)).startable == 0


async def test_a_queue_with_a_limit_takes_all_or_nothing(world: World, broker: Any) -> None:
    """Ready, delayed and priority tasks count; a call that does not fit queues nothing; a repeat is welcome."""
    await broker.work.limit(QUEUE, 3)
    await world.put("a", priority=2)
    await world.put("b", delay=50)
    with pytest.raises(QueueFull, match=f"queue '{QUEUE}': 2 tasks wait, and 3 may"):
        await world.put("c", "d")
    with pytest.raises(QueueFull):
        await broker.work.enqueue(QUEUE, [Entry("c", live("c")), Entry("d", live("d"), 100)])
    assert sorted(world.dump().records) == ["a", "b"]
    await world.put("c")
    assert (await broker.work.enqueue(QUEUE, [Entry("c", live("c"))])).known == {"c"}
    await broker.work.limit(QUEUE, None)
    await world.put("d")
    assert (await broker.looks.state(QUEUE)).waiting == 4


async def test_pausing_one_queue_leaves_the_others(world: World, broker: Any) -> None:
    """A worker of two queues goes on with the other one."""
    await world.put("a1", queue="a")
    await world.put("b1", queue="b")
    await world.lease("lease", "a", "b")
    await broker.work.pause("a", True)
    assert names(await world.take(queues=["a", "b"])) == ["b1"]


async def test_a_record_that_vanished_is_counted_and_passed_over(
    world: World, request: pytest.FixtureRequest
) -> None:
    """An evicted record stops nothing: it is counted, and the tasks behind it come out."""
    if world.kind == "memory":
        world.broker.store.queue(QUEUE)
    await world.put("gone", "a")
    await world.put("gone.later", delay=1)
    _delete(world, request, "gone", "gone.later")
    world.hand.advance(1)
    await world.lease()
    answer = await world.take()
    assert (names(answer), answer.vanished) == (["a"], 2)
    assert world.dump().held == {"lease": {"a:1"}}


async def test_a_record_that_vanished_while_held_is_released(
    world: World, request: pytest.FixtureRequest
) -> None:
    """Handed back or asked for again, it is forgotten, with its crashes and its marks."""
    await world.put("gone", "gone.too")
    await world.die_with("gone", "gone.too")
    await world.lease()
    await world.take(batch=3)
    await world.broker.work.cancel(QUEUE, [("gone", finished("gone"), "")])
    _delete(world, request, "gone")
    again = await world.take(batch=3)
    assert (names(again), again.vanished) == (["gone.too"], 1)
    _delete(world, request, "gone.too")
    await world.broker.work.hand_back("lease", [QUEUE], crashed=True)
    left = world.dump()
    assert (left.ready, left.held, left.crashes, left.cancelling) == ([], {}, {}, set())


def _delete(world: World, request: pytest.FixtureRequest, *ids: str) -> None:
    for id in ids:
        if world.kind == "memory":
            del world.broker.store.queue(QUEUE).task[id]
        elif world.kind == "cluster":
            key = world.broker.keys.record(QUEUE, id)
            request.getfixturevalue("cluster").owner(key).call("DEL", key)
        elif world.kind == "sentinel":
            request.getfixturevalue("watched").primary().call("DEL", world.broker.keys.record(QUEUE, id))
        else:
            request.getfixturevalue(world.kind).client.delete(world.broker.keys.record(QUEUE, id))
