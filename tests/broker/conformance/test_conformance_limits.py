"""Limits: the tasks that wait at one, their order, and the calls that start them."""

from __future__ import annotations

from typing import Any

from conftest import LEASE, QUEUE, World, names

from pq.broker import records
from pq.broker.contract.values import Entry, ReserveCall, Settlement
from pq.model.operations import ACK, RETRY


def limited(id: str, limits_text: str, priority: int = 0) -> Entry:
    record = records.live_header(priority, "", limits_text) + f"message of {id}".encode()
    return Entry(id, record, None, priority, "u" in limits_text)


async def put(broker: Any, limits_text: str, *ids: str) -> None:
    await broker.work.enqueue(QUEUE, [limited(id, limits_text) for id in ids])


def ends(*tasks: Any, op: str = ACK) -> dict[str, list[Settlement]]:
    header = records.finished_header(1, f"{LEASE}:{tasks[0].batch}")
    return {QUEUE: [Settlement(op, task.id, task.batch, header + b"end", "", 0, True) for task in tasks]}


async def test_several_that_are_let_through_keep_their_order(world: World, broker: Any) -> None:
    """Three slots are released in one call: the three tasks that waited longest get them, before those that are ready."""
    await put(broker, "c3:g", *"abcdefg")
    await world.lease()
    first = await world.take()
    assert names(first) == ["a", "b", "c"]
    await world.put("plain")
    await broker.work.exchange(ReserveCall(LEASE), ends(*first.tasks))
    assert world.dump().ready == ["d", "e", "f", "plain"]
    assert names(await world.take()) == ["d", "e", "f", "plain"]


async def test_a_rate_lets_one_after_the_other_through(world: World, broker: Any) -> None:
    """Each opening sets the timer for the next, to the millisecond in which it may go, and not before."""
    await put(broker, "r2500.1:g", *"abcd")
    await world.lease()
    answer = await world.take()
    assert (names(answer), answer.next_due) == (["a"], 3), "2.5 ms are over in the third"
    world.hand.advance(2)
    assert names(await world.take()) == []
    taken = []
    for _ in range(12):
        world.hand.advance(1)
        taken.append("".join(names(await world.take())))
    # From the moment of the last start: the rounding of the clock to milliseconds is not made up for.
    assert taken == ["b", "", "", "c", "", "", "d", "", "", "", "", ""]
    assert world.dump().timers == {}


async def test_a_burst_is_made_up_for(world: World, broker: Any) -> None:
    """After a pause N tasks start at once, then one each interval; after another pause at most N again."""
    await put(broker, "r10000.3:g", *"abcdefghij")
    await world.lease()
    assert names(await world.take()) == ["a", "b", "c"]
    world.hand.advance(10)
    assert names(await world.take()) == ["d"]
    world.hand.advance(1000)
    assert names(await world.take()) == ["e", "f", "g"]


async def test_a_clock_that_goes_back_delays_no_task_for_long(world: World, broker: Any) -> None:
    """At most the burst's own time is waited, however far the clock went."""
    await put(broker, "r10000.2:g", *"abc")
    await world.lease()
    assert names(await world.take()) == ["a", "b"]
    await put(broker, "r10000.2:h", "x")
    assert names(await world.take()) == ["x"]
    world.hand.advance(-3_600_000)
    await put(broker, "r10000.2:h", "y")
    answer = await world.take()
    assert names(answer) == []
    assert answer.next_due == 10, "one interval, and not an hour"


async def test_more_than_one_call_may_move_goes_on_with_the_next(world: World, broker: Any) -> None:
    """More than a thousand tasks wait at one limit and find the next one full: none is forgotten."""
    await put(broker, "c1:one", "first")
    await world.lease()
    holder = (await world.take()).tasks[0]
    await put(broker, "c1:two", "other")
    assert names(await world.take()) == ["other"]
    await put(broker, "c1:one,c1:two", *[f"t{n:04}" for n in range(1005)])
    await put(broker, "c1:one", "last")
    for _ in range(3):
        assert names(await world.take(100)) == []
    assert len(world.dump().parked_at["one"]) == 1006
    await broker.work.exchange(ReserveCall(LEASE), ends(holder))
    assert len(world.dump().parked_at["two"]) == 1000
    assert names(await world.take(100)) == ["last"]
    assert len(world.dump().parked_at["two"]) == 1005


async def test_a_task_waits_at_one_limit_and_holds_no_other(world: World, broker: Any) -> None:
    """All or nothing: a task that waits for its key keeps no slot of the job, so that others may have it."""
    await put(broker, "c2:job,c1:key", "a", "b")
    await put(broker, "c2:job", "c")
    await world.lease()
    answer = await world.take()
    assert names(answer) == ["a", "c"]
    assert world.dump().parked_at == {"key": {"b"}}
    (a, c) = answer.tasks
    await broker.work.exchange(ReserveCall(LEASE), ends(c))
    assert world.dump().parked_at == {"key": {"b"}}
    await broker.work.exchange(ReserveCall(LEASE), ends(a))
    assert names(await world.take()) == ["b"]


async def test_slots_are_kept_through_a_crash(world: World, broker: Any) -> None:
    """A task of a dead worker goes to the front with its slot; no other task takes the slot meanwhile."""
    await put(broker, "c1:g", "a", "b")
    await world.lease("doomed")
    assert names(await world.take(9, "doomed")) == ["a"]
    await broker.work.hand_back("doomed", [QUEUE], crashed=True)
    await world.lease()
    assert names(await world.take()) == ["a"]
    assert world.dump().slots == {"g": {"a"}}


async def test_a_retry_asks_for_a_slot_again(world: World, broker: Any) -> None:
    """It lets its own go, so the next one starts, and waits in its turn."""
    await put(broker, "c1:g", "a", "b")
    await world.lease()
    task = (await world.take()).tasks[0]
    record = records.live_header(0, f"{LEASE}:{task.batch}", "c1:g") + b"again"
    again = {QUEUE: [Settlement(RETRY, "a", task.batch, record, "", 0, True)]}
    await broker.work.exchange(ReserveCall(LEASE), again)
    assert names(await world.take()) == ["b"]
    assert world.dump().parked == ["a"]


async def test_a_finished_one_is_never_placed(world: World, broker: Any) -> None:
    """An end that was written by hand: the due entry is dropped, and counted as vanished."""
    await world.put("a", delay=5)
    await world.lease()
    if world.kind == "memory":
        world.broker.store.queue(QUEUE).task["a"] = b"d1 x\n"
    else:
        await broker.calls.run("SET", broker.keys.record(QUEUE, "a"), b"d1 x\n", "PX", 60_000)
    world.hand.advance(5)
    answer = await world.take()
    assert (names(answer), answer.vanished) == ([], 1)
