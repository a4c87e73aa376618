"""Cancelling, purging, and bringing finished tasks back."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import LEASE, QUEUE, World, finished, live, names

from pq.broker.contract.values import Entry
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY


async def cancel(world: World, *ids: str, at_front: bool = False) -> list[str]:
    items = [(id, finished(id), "") for id in ids]
    answers: list[str] = await world.broker.work.cancel(QUEUE, items, at_front=at_front)
    return answers


@pytest.mark.parametrize(
    "where", [{}, {"priority": 3}, {"priority": -3}, {"delay": 5000}], ids=["ready", "high", "low", "delayed"]
)
@pytest.mark.parametrize("at_front", [False, True])
async def test_a_waiting_task_is_cancelled_at_once(
    world: World, where: dict[str, Any], at_front: bool
) -> None:
    """Wherever it waits: it is finished now, will never start, and its record goes by itself."""
    await world.put("a", **where)
    await world.put("b")
    assert await cancel(world, "a", at_front=at_front) == ["cancelled"]
    left = world.dump()
    assert (left.records["a"], left.expiring) == (finished("a"), {"a"})
    assert (await world.broker.looks.state(QUEUE)).waiting == 1
    world.hand.advance(10_000)
    await world.lease()
    answer = await world.take()
    assert (names(answer), answer.vanished) == (["b"], 0)
    assert world.dump().revoked == set()


async def test_a_running_task_is_asked_to_stop(world: World, broker: Any) -> None:
    """Its worker hears of it with the next renewal; the task ends as the worker says."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    assert await cancel(world, "a") == ["cancelling"]
    assert (await broker.work.renew(LEASE, [QUEUE], 30_000)).cancelling == {"a"}
    assert await world.end(task, "v") == []
    assert (await broker.work.renew(LEASE, [QUEUE], 30_000)).cancelling == frozenset()


@pytest.mark.parametrize("op", [ACK, FAIL])
async def test_the_request_to_stop_ends_with_the_task(world: World, op: str) -> None:
    """However the task ends, no mark of it is left behind."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await cancel(world, "a")
    await world.end(task, op)
    assert world.dump().cancelling == set()


@pytest.mark.parametrize("op", [RETRY, RELEASE, CRASH, "reclaimed"])
async def test_the_request_to_stop_outlives_the_attempt(world: World, broker: Any, op: str) -> None:
    """The caller gets the answer that the task will stop; its next holder is notified at its first renewal."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await cancel(world, "a")
    if op == "reclaimed":
        await broker.work.hand_back(LEASE, [QUEUE], crashed=True)
        await world.lease()
    else:
        await world.end(task, op)
    assert names(await world.take(batch=2)) == ["a"]
    assert (await broker.work.renew(LEASE, [QUEUE], 30_000)).cancelling == {"a"}
    await broker.work.hand_back(LEASE, [QUEUE], crashed=False)
    assert await cancel(world, "a") == ["cancelled"]
    assert world.dump().cancelling == set()


async def test_a_finished_task_cannot_be_cancelled(world: World) -> None:
    """It is too late, and its result stays."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await world.end(task)
    before = world.dump()
    assert await cancel(world, "a") == ["finished"]
    assert world.dump() == before


async def test_an_unknown_task_cannot_be_cancelled(world: World) -> None:
    """No record is made for it."""
    assert await cancel(world, "missing") == ["unknown"]
    assert world.dump().records == {}


async def test_several_at_once_get_an_answer_each(world: World) -> None:
    """In the order in which they were asked for."""
    await world.put("running")
    await world.lease()
    await world.take()
    await world.put("waiting")
    assert await cancel(world, "waiting", "missing", "running") == ["cancelled", "unknown", "cancelling"]


async def test_cancelling_repeated_says_the_same(world: World) -> None:
    """The very same call, its reply lost, still says that the task was cancelled by it."""
    await world.put("a", "b")
    await world.lease()
    await world.take(1)
    first = await cancel(world, "a", "b")
    before = world.dump()
    assert await cancel(world, "a", "b") == first == ["cancelling", "cancelled"]
    assert world.dump() == before


async def test_a_cancelled_suspect_is_forgotten(world: World) -> None:
    """Its crash count goes with it."""
    await world.put("a")
    await world.die_with("a")
    await cancel(world, "a")
    assert world.dump().crashes == {}


async def test_a_queue_is_emptied_page_by_page(world: World, broker: Any) -> None:
    """`peek` and `cancel(at_front=True)` empty a queue; tasks that were cancelled before are skipped."""
    ids = [f"t{n:02}" for n in range(30)]
    await world.put(*ids)
    await world.put("delayed", delay=5000)
    await world.put("high", priority=1)
    await cancel(world, *ids[:12])
    seen = []
    while page := await broker.looks.peek(QUEUE, 7):
        seen += page
        assert await cancel(world, *page, at_front=True) == ["cancelled"] * len(page)
    assert seen == ["high", *ids[12:], "delayed"]
    assert (await broker.looks.state(QUEUE)).waiting == 0
    await world.lease()
    assert names(await world.take(100)) == []


async def test_a_dead_task_lives_again(world: World, broker: Any) -> None:
    """It leaves the dead set and is run with its new record; repeating that is harmless."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    await world.end(task, FAIL)
    assert await broker.work.retry_dead(QUEUE, Entry("a", live("a", 0, "again")))
    before = world.dump()
    assert (before.dead, before.expiring, before.ready) == ({}, set(), ["a"])
    assert not await broker.work.retry_dead(QUEUE, Entry("a", live("a", 0, "again")))
    assert world.dump() == before
    (task,) = (await world.take()).tasks
    assert task.record == live("a", 0, "again")


async def test_a_cancelled_task_that_still_lies_in_the_list_lives_again_once(
    world: World, broker: Any
) -> None:
    """The task is not skipped any more, and is not dispatched twice."""
    await world.put("a", "b")
    await cancel(world, "a")
    assert await broker.work.retry_dead(QUEUE, Entry("a", live("a")))
    await world.lease()
    assert names(await world.take()) == ["a", "b"]


async def test_what_lives_or_is_unknown_is_not_brought_back(world: World, broker: Any) -> None:
    """Waiting, running, never heard of: nothing changes."""
    await world.put("running")
    await world.lease()
    await world.take()
    await world.put("waiting")
    before = world.dump()
    for id in ("waiting", "running", "missing"):
        assert not await broker.work.retry_dead(QUEUE, Entry(id, live(id)))
    assert world.dump() == before
