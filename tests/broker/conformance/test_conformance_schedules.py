"""Schedules: each tick is claimed once, and the last declaration of a schedule is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import QUEUE, World, finished, live, names
from stores import token_comes

from pq.broker.contract.values import (
    AS_BEFORE,
    CHANGE,
    CHANGED,
    CLAIMED,
    CODE,
    DROP,
    FORGET,
    NO_SCHEDULE,
    PAUSE,
    QUEUED_NOW,
    RESUME,
    TOO_EARLY,
    TOO_MANY,
    UNDO,
    StoredSchedule,
    Tick,
)


def tick(at: int, schedule: str = "s", priority: int = 0) -> Tick:
    id = f"cron.{schedule}.{at}"
    return Tick(schedule, at, id, live(id, priority))


# -------------------------------------------------------------------------------------------- ticks
async def test_a_tick_queues_its_task(world: World, broker: Any) -> None:
    """It is an ordinary task then, and its queue is known."""
    now = world.hand.ms
    assert await broker.work.tick(QUEUE, [tick(now)]) == [QUEUED_NOW]
    await world.lease()
    assert names(await world.take()) == [f"cron.s.{now}"]
    assert world.dump().ticks == {"s": now}
    assert QUEUE in await broker.looks.queue_names()


async def test_a_tick_is_claimed_once(world: World, broker: Any) -> None:
    """The second caller gets a refusal, in another process as well."""
    now = world.hand.ms
    another = world.another()
    answers = await asyncio.gather(*[who.work.tick(QUEUE, [tick(now)]) for who in (broker, another, broker)])
    assert sorted(answers) == [[CLAIMED], [CLAIMED], [QUEUED_NOW]]
    assert world.dump().ready == [f"cron.s.{now}"]


async def test_a_tick_stays_claimed_when_nothing_is_left_of_its_task(world: World, broker: Any) -> None:
    """A scheduler that stood still between computing a tick and claiming it comes too late."""
    now = world.hand.ms
    await broker.work.tick(QUEUE, [tick(now)])
    id = f"cron.s.{now}"
    await broker.work.cancel(QUEUE, [(id, finished(id), "")], at_front=True)
    await forget(world, id)
    assert await broker.work.tick(QUEUE, [tick(now)]) == [CLAIMED]
    assert world.dump().records == {}


async def forget(world: World, id: str) -> None:
    """The time to live of a finished record is over."""
    if world.kind == "memory":
        world.hand.advance(4_000_000)
        await world.broker.looks.records(QUEUE, [id])
    else:
        await world.broker.calls.run("DEL", world.broker.keys.record(QUEUE, id))


async def test_no_tick_is_claimed_after_a_later_one(world: World, broker: Any) -> None:
    """The ticks of a schedule come in order; those of different ones have nothing to do with each other."""
    now = world.hand.ms
    answers = await broker.work.tick(QUEUE, [tick(now - 1), tick(now), tick(now - 1, "t")])
    assert answers == [QUEUED_NOW, QUEUED_NOW, QUEUED_NOW]
    assert await broker.work.tick(QUEUE, [tick(now - 2), tick(now - 1), tick(now, "t")]) == [0, 0, 1]
    assert await broker.schedules.last_ticks(QUEUE, ["s", "t", "x"]) == [now, now, 0]
    assert await broker.schedules.last_ticks("nothing.here", ["s"]) == [0]
    assert await broker.schedules.last_ticks(QUEUE, []) == []


async def test_no_tick_is_early_by_the_stores_clock(world: World, broker: Any) -> None:
    """It can be claimed when its time has come."""
    later = tick(world.hand.ms + 5)
    assert await broker.work.tick(QUEUE, [later]) == [TOO_EARLY]
    assert world.dump().ready == []
    world.hand.advance(5)
    assert await broker.work.tick(QUEUE, [later]) == [QUEUED_NOW]


async def test_a_tick_keeps_its_priority_and_wakes_a_worker(world: World, broker: Any) -> None:
    """A blocked worker has it at once, and the important one first."""
    waiting = asyncio.ensure_future(token_comes(broker, [QUEUE], 30))
    await asyncio.sleep(0)
    now = world.hand.ms
    await broker.work.tick(QUEUE, [tick(now), tick(now, "urgent", priority=5)])
    async with asyncio.timeout(10):
        assert await waiting
    await world.lease()
    assert names(await world.take()) == [f"cron.urgent.{now}", f"cron.s.{now}"]


# ---------------------------------------------------------------------------------------- schedules
async def test_what_is_said_at_run_time_counts_more(world: World, broker: Any) -> None:
    """Until it is undone; then the code counts again."""
    start = world.hand.ms
    assert await broker.schedules.change(CODE, "s", b"60\nx") == CHANGED
    assert await broker.schedules.change(CODE, "s", b"60\nx") == AS_BEFORE
    assert await broker.schedules.stored() == (1, {"s": StoredSchedule(b"60\nx", True, False, start, False)})
    world.hand.advance(10)
    assert await broker.schedules.change(CHANGE, "s", b"5\ny") == CHANGED
    world.hand.advance(10)
    assert await broker.schedules.change(CODE, "s", b"70\nx") == CHANGED
    assert await broker.schedules.stored() == (
        3,
        {"s": StoredSchedule(b"5\ny", True, True, start + 10, False)},
    )
    world.hand.advance(10)
    assert await broker.schedules.change(UNDO, "s") == CHANGED
    assert await broker.schedules.change(UNDO, "s") == AS_BEFORE
    assert await broker.schedules.stored() == (
        4,
        {"s": StoredSchedule(b"70\nx", True, False, start + 30, False)},
    )
    assert await broker.schedules.version() == (4, start + 30)


async def test_only_a_change_of_the_rule_starts_again(world: World, broker: Any) -> None:
    """Other arguments, and a line that has moved in its file, miss no tick."""
    start = world.hand.ms
    await broker.schedules.change(CODE, "s", b"60\nline 7")
    world.hand.advance(10)
    await broker.schedules.change(CODE, "s", b"60\nline 8")
    await broker.schedules.change(CHANGE, "s", b"60\nline 9")
    assert (await broker.schedules.stored())[1]["s"].since == start


@pytest.mark.parametrize(
    ("said", "verb", "left"),
    [
        ((CODE,), FORGET, None),
        ((CODE,), DROP, None),
        ((CHANGE,), UNDO, None),
        ((CODE, CHANGE), DROP, None),
        ((CODE, CHANGE), FORGET, (False, True)),
        ((CODE, CHANGE), UNDO, (True, False)),
    ],
)
async def test_taking_away(
    world: World, broker: Any, said: tuple[str, ...], verb: str, left: tuple[bool, bool] | None
) -> None:
    """A schedule that no server declares is deleted, with its pause; a repeat is harmless."""
    for who in said:
        await broker.schedules.change(who, "s", b"60\n" + who.encode())
    await broker.schedules.change(PAUSE, "s")
    assert await broker.schedules.change(verb, "s") == CHANGED
    assert await broker.schedules.change(verb, "s") == AS_BEFORE
    _, stored = await broker.schedules.stored()
    assert {name: (one.in_code, one.changed) for name, one in stored.items()} == ({"s": left} if left else {})
    await broker.schedules.change(CODE, "s", b"60\nagain")
    assert (await broker.schedules.stored())[1]["s"].paused == bool(left)


async def test_pausing(world: World, broker: Any) -> None:
    """Ticks that pass while a schedule is paused are not missed: it counts from the moment it is resumed."""
    assert await broker.schedules.change(PAUSE, "s") == NO_SCHEDULE
    start = world.hand.ms
    await broker.schedules.change(CODE, "s", b"60\n")
    assert await broker.schedules.change(RESUME, "s") == AS_BEFORE
    assert await broker.schedules.change(PAUSE, "s") == CHANGED
    world.hand.advance(10)
    assert await broker.schedules.change(PAUSE, "s") == AS_BEFORE
    assert (await broker.schedules.stored())[1]["s"] == StoredSchedule(b"60\n", True, False, start, True)
    assert await broker.schedules.change(RESUME, "s") == CHANGED
    world.hand.advance(10)
    assert await broker.schedules.change(RESUME, "s") == AS_BEFORE
    assert await broker.schedules.stored() == (
        3,
        {"s": StoredSchedule(b"60\n", True, False, start + 10, False)},
    )


async def test_there_is_an_end_to_schedules(world: World, broker: Any) -> None:
    """A new one is refused; those that are there can be changed."""
    for n in range(3):
        await broker.schedules.change(CHANGE, f"s{n}", b"60\n", most=3)
    assert await broker.schedules.change(CHANGE, "s3", b"60\n", most=3) == TOO_MANY
    assert await broker.schedules.change(CHANGE, "s2", b"61\n", most=3) == CHANGED
    assert sorted((await broker.schedules.stored())[1]) == ["s0", "s1", "s2"]


async def test_no_schedules(world: World, broker: Any) -> None:
    """An empty store has none, in version 0."""
    assert await broker.schedules.stored() == (0, {})
    assert await broker.schedules.version() == (0, world.hand.ms)
