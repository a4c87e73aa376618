"""Looking at queues, waiting for work, heartbeats and events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from conftest import LEASE, QUEUE, World, finished, live, settlement
from listening import listen
from stores import token_comes

from pq.broker import records
from pq.broker.contract.values import Entry, Message, ReserveCall
from pq.model.operations import ACK, FAIL, RETRY, REVOKE


async def test_state_counts_what_lies_where(world: World, broker: Any) -> None:
    """Each place is counted by itself; `waiting` counts the tasks that no worker has taken."""
    await world.put("held", "failed")
    await world.lease()
    tasks = (await world.take()).tasks
    await world.end(tasks[1], FAIL)
    await world.put("a", "b", "c")
    await world.put("high", priority=1)
    await world.put("later", delay=99)
    await broker.work.cancel(QUEUE, [("b", finished("b"), "")])
    state = await broker.looks.state(QUEUE)
    assert state == (2, 1, 1, 1, 1, 1, False, 0, 0)
    assert state.waiting == 4


async def test_peek_tells_the_order_and_no_more_than_asked(world: World, broker: Any) -> None:
    """Nothing is moved by looking."""
    await world.put("a", "b")
    await world.put("low", priority=-1)
    await world.put("later", delay=20)
    await world.put("soon", delay=10)
    assert await broker.looks.peek(QUEUE, 4) == ["a", "b", "low", "soon"]
    assert await broker.looks.peek(QUEUE, 1) == ["a"]
    assert await broker.looks.peek("nothing.here", 5) == []


async def test_records_come_in_the_order_asked_for(world: World, broker: Any) -> None:
    """The answer for an unknown id is None."""
    await world.put("a", "b")
    assert await broker.looks.records(QUEUE, ["b", "x", "a"]) == [live("b"), None, live("a")]
    assert await broker.looks.records(QUEUE, []) == []


async def test_queues_are_known_once_used(world: World, broker: Any) -> None:
    """A producer that queues or a consumer makes a queue known."""
    await world.put("a", queue="written")
    await world.lease(LEASE, "read.from")
    assert await broker.looks.queue_names() == ["read.from", "written"]


async def test_heartbeats_last_as_long_as_they_say(world: World, broker: Any) -> None:
    """A consumer is there while it beats; the last beat counts."""
    await broker.channels.beat("one", b"1", 60)
    await broker.channels.beat("two", b"2", 60)
    await broker.channels.beat("one", b"3", 60)
    assert sorted(await broker.channels.consumers()) == [b"2", b"3"]


async def test_the_clock_is_the_stores(world: World, broker: Any) -> None:
    """Milliseconds since the epoch."""
    assert 1_600_000_000_000 < await broker.looks.now() < 10_000_000_000_000


# ------------------------------------------------------------------------------------------ waiting
async def test_an_idle_worker_wakes_when_something_is_queued(world: World, broker: Any) -> None:
    """`wait` returns at once, from whichever of its queues."""
    waiting = asyncio.ensure_future(token_comes(broker, ["other", QUEUE], 30))
    await asyncio.sleep(0)
    await world.put("a")
    async with asyncio.timeout(10):
        assert await waiting


async def test_what_was_queued_before_the_wait_ends_it_at_once(world: World, broker: Any) -> None:
    """No wake-up is lost between looking and waiting."""
    await world.put("a")
    async with asyncio.timeout(10):
        assert await token_comes(broker, [QUEUE], 30)


async def test_waiting_ends_with_its_time(world: World, broker: Any) -> None:
    """Nothing came: False."""
    assert not await token_comes(broker, [QUEUE], 0.02)


async def test_workers_wake_in_a_chain(world: World, broker: Any) -> None:
    """A worker that takes a part of the ready tasks wakes the next worker: none sleeps while tasks are ready."""
    await world.put("a", "b", "c")
    await world.lease()
    for _ in range(2):
        async with asyncio.timeout(10):
            assert await token_comes(broker, [QUEUE], 30)
        assert (await world.take(1)).more_ready
    async with asyncio.timeout(10):
        assert await token_comes(broker, [QUEUE], 30)
    assert not (await world.take(1)).more_ready
    assert not await token_comes(broker, [QUEUE], 0.02)


@pytest.mark.parametrize("how", ["release", "hand_back", "retry_dead", "resume", "retry"])
async def test_everything_that_makes_work_wakes_a_worker(world: World, broker: Any, how: str) -> None:
    """Each call that makes tasks ready wakes a worker, not only queueing."""
    await world.put("a")
    await world.lease()
    (task,) = (await world.take()).tasks
    if how == "resume":
        await world.put("b")
        await broker.work.pause(QUEUE, True)
        await world.take()
    sleeper = world.another()
    assert not await token_comes(sleeper, [QUEUE], 0.02)
    waiting = asyncio.ensure_future(token_comes(sleeper, [QUEUE], 30))
    await asyncio.sleep(0.01)
    if how == "release":
        await world.end(task, "l")
    elif how == "hand_back":
        await broker.work.hand_back(LEASE, [QUEUE], crashed=False)
    elif how == "retry_dead":
        await world.end(task)
        await broker.work.retry_dead(QUEUE, Entry(task.id, live("a")))
    elif how == "resume":
        await broker.work.pause(QUEUE, False)
    else:  # the worker that settled it may be on its way out: another must know when it is due
        await world.end(task, RETRY, wait=5)
    async with asyncio.timeout(10):
        assert await waiting


async def test_a_blocked_reservation_gets_what_comes(world: World, broker: Any) -> None:
    """Waiting and taking are one call: an idle worker has a new task as soon as it is there."""
    await world.lease()
    taking = asyncio.ensure_future(world.take(5, block=30))
    await asyncio.sleep(0.01)
    await world.another().work.enqueue(QUEUE, [Entry("a", live("a"))])
    async with asyncio.timeout(10):
        assert [task.id for task in (await taking).tasks] == ["a"]


async def test_a_blocked_reservation_ends_with_its_time(world: World, broker: Any) -> None:
    """It returns nothing; it returns at once where a task is ready."""
    await world.lease()
    assert (await world.take(5, block=0.02)).tasks == []
    await world.put("a")
    async with asyncio.timeout(10):
        assert len((await world.take(5, block=30)).tasks) == 1


async def test_a_blocked_reservation_can_be_poked(world: World, broker: Any) -> None:
    """It is answered now, though nothing was queued."""
    await world.lease()
    taking = asyncio.ensure_future(world.take(5, block=30))
    await asyncio.sleep(0.01)
    await world.another().work.poke(QUEUE)
    async with asyncio.timeout(10):
        assert (await taking).tasks == []


async def test_a_blocked_reservation_that_was_given_up_can_be_asked_for_again(
    world: World, broker: Any
) -> None:
    """A caller that stops waiting asks with the same number: no task that was dispatched meanwhile is lost."""
    await world.lease()
    for n in range(5):
        taking = asyncio.ensure_future(world.take(5, batch=n, block=30))
        await asyncio.sleep(0.002 * n)
        other = world.another()
        queued = asyncio.ensure_future(other.work.enqueue(QUEUE, [Entry(f"t{n}", live(f"t{n}"))]))
        await asyncio.sleep(0)
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        await queued
        again = await world.take(5, batch=n)
        assert [task.id for task in again.tasks] == [f"t{n}"]


# ------------------------------------------------------------------------------------------- events
async def until(come_true: Any) -> None:
    async with asyncio.timeout(10):
        while not come_true():
            await asyncio.sleep(0.002)


def told(messages: list[Message]) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """The events as (first line, parcels)."""
    found = []
    for message in messages:
        head, _, body = message.payload.partition(b"\n")
        found.append((head.decode(), list(records.parcels(body))))
    return found


async def test_events_tell_the_life_of_a_task(world: World, broker: Any) -> None:
    """queued, started (with time and worker), retry, done; each with the record of that moment."""
    subscription, reader, messages = await listen(broker, broker.keys.task_channel)
    await world.put("a")
    await world.lease()
    (task,) = (await world.take(worker_name="worker node")).tasks
    await world.end(task, RETRY, wait=0)
    (again,) = (await world.take(worker_name="worker node")).tasks
    await world.end(again)
    await until(lambda: len(messages) == 5)
    retried, done = settlement(task, RETRY).record, settlement(again).record
    assert told(messages) == [
        ("queued", [("a", live("a"))]),
        (f"started {world.hand.ms} worker node", [("a", live("a"))]),
        ("retry", [("a", retried)]),
        (f"started {world.hand.ms} worker node", [("a", retried)]),
        ("done", [("a", done)]),
    ]
    await subscription.close()
    await reader


async def test_only_the_awaiting_producer_is_notified(world: World, broker: Any) -> None:
    """Each reply channel gets its own tasks in one message, whatever way they ended."""
    one, two = broker.keys.reply("one"), broker.keys.reply("two")
    subscription, reader, messages = await listen(broker, one, two)
    await world.put("a", "b", "c", "d")
    await world.lease()
    a, b, c, d = (await world.take()).tasks
    ended = [
        settlement(a, ACK, reply=one),
        settlement(b, FAIL, reply=one),
        settlement(c, REVOKE, reply=two),
        settlement(d, RETRY, reply=two, wait=5),
    ]
    await broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})
    await until(lambda: len(messages) == 2)
    assert {m.channel: told([m])[0] for m in messages} == {
        one: ("done", [("a", ended[0].record), ("b", ended[1].record)]),
        two: ("done", [("c", ended[2].record)]),
    }
    await subscription.close()
    await reader


async def test_a_repeat_sends_no_second_event(world: World, broker: Any) -> None:
    """Neither listeners nor waiting callers get it."""
    reply = broker.keys.reply("me")
    subscription, reader, messages = await listen(broker, broker.keys.task_channel, reply)
    for _ in range(2):
        await world.put("a")
    await world.lease()
    task = (await world.take(batch=1)).tasks[0]
    await world.take(batch=1)
    for _ in range(2):
        await world.end(task, reply=reply)
    # In a cluster a message that is published at one node may overtake one of another node. This is sent where those
    # were that must not have come.
    await world.put("z")
    await until(lambda: [id for m in messages for id, _ in told([m])[0][1]][-1:] == ["z"])
    await broker.channels.publish(reply, b"last")
    await until(lambda: messages and messages[-1].payload == b"last")
    assert [message.payload.split()[0] for message in messages] == [
        b"queued",
        b"started",
        b"done",
        b"done",
        b"queued",
        b"last",
    ]
    await subscription.close()
    await reader


async def test_a_cancelled_task_is_announced(world: World, broker: Any) -> None:
    """Waiting callers and listeners get it, as done."""
    reply = broker.keys.reply("me")
    await world.put("a", "b")
    subscription, reader, messages = await listen(broker, broker.keys.task_channel, reply)
    await broker.work.cancel(QUEUE, [("a", finished("a"), reply), ("b", finished("b"), "")])
    await until(lambda: sum(len(told([m])[0][1]) for m in messages) == 3)
    by_channel: dict[str, list[str]] = {}
    for message in messages:
        by_channel.setdefault(message.channel, []).extend(id for id, _ in told([message])[0][1])
    assert by_channel == {reply: ["a"], broker.keys.task_channel: ["a", "b"]}
    await subscription.close()
    await reader


async def test_heartbeats_and_messages_are_heard(world: World, broker: Any) -> None:
    """`beat` announces, `publish` sends; another process hears both."""
    other = world.another()
    subscription, reader, messages = await listen(other, broker.keys.consumer_channel)
    await subscription.subscribe(broker.keys.control_channel)
    await broker.channels.beat("me", b"alive", 60)
    await until(lambda: messages)  # two nodes of a cluster may have them, and keep no order
    await broker.channels.publish(broker.keys.control_channel, b"cancel x")
    await broker.channels.publish("pq:unheard", b"unheard")
    await until(lambda: len(messages) == 2)
    assert messages == [(broker.keys.consumer_channel, b"alive"), (broker.keys.control_channel, b"cancel x")]
    await subscription.close()
    await reader


async def test_large_results_travel_in_several_messages(world: World, broker: Any) -> None:
    """More than a quarter of a megabyte is split between parcels, never within one; nothing is lost."""
    reply = broker.keys.reply("me")
    subscription, reader, messages = await listen(broker, reply)
    ids = [f"t{n}" for n in range(8)]
    await world.put(*ids)
    await world.lease()
    ended = [
        settlement(task, ACK, reply=reply)._replace(record=finished(task.id) + bytes(150_000))
        for task in (await world.take()).tasks
    ]
    await broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})
    await until(lambda: sum(len(told([m])[0][1]) for m in messages) == 8)
    assert [(id, record) for m in messages for id, record in told([m])[0][1]] == [
        (s.id, s.record) for s in ended
    ]
    if world.kind != "memory":
        assert len(messages) == 4
    await subscription.close()
    await reader


async def test_a_closed_subscription_ends_its_reader(world: World, broker: Any) -> None:
    """Closing twice is harmless, and so is closing the broker first."""
    subscription, reader, _ = await listen(broker, "pq:x")
    await subscription.close()
    await subscription.close()
    async with asyncio.timeout(10):
        await reader
    await broker.close()
    await broker.close()


async def test_ids_of_each_place(world: World, broker: Any) -> None:
    """Waiting tasks are listed soonest first; ended ones youngest first."""
    await world.put("held", "done", "failed")
    await world.lease()
    _, done, failed = (await world.take()).tasks
    await world.end(done)
    await world.end(failed, FAIL)
    await world.put("a", "b", "cancelled")
    await world.put("high", priority=1)
    await world.put("later", delay=99)
    await world.put("soon", delay=9)
    await broker.work.enqueue(QUEUE, [Entry("p", b"g  c1:x\n"), Entry("q", b"g  c1:x\n")])
    await broker.work.cancel(QUEUE, [("cancelled", finished("cancelled"), "")])
    assert await broker.looks.ids(QUEUE, "waiting", 9) == ["high", "a", "b", "p", "q"]
    assert await broker.looks.ids(QUEUE, "waiting", 2) == ["high", "a"]
    assert await broker.looks.ids(QUEUE, "delayed", 9) == ["soon", "later"]
    assert await broker.looks.ids(QUEUE, "running", 9) == ["held"]
    assert await broker.looks.ids(QUEUE, "ended", 9) == ["cancelled", "failed", "done"]
    assert await broker.looks.ids(QUEUE, "dead", 9) == ["failed"]
    await world.take()
    assert await broker.looks.ids(QUEUE, "at limit", 9) == ["q"]
    assert sorted(await broker.looks.ids(QUEUE, "running", 9)) == ["a", "b", "held", "high", "p"]
    assert await broker.looks.ids("nothing.here", "running", 9) == []


async def test_tasks_by_the_beginning_of_their_id(world: World, broker: Any) -> None:
    """In all queues, live and finished; no more than asked for."""
    await world.put("ab1", "ab2", "b")
    await world.put("ab3", queue="other")
    assert await broker.looks.matching("ab", 9) == [("other", "ab3"), (QUEUE, "ab1"), (QUEUE, "ab2")]
    assert len(await broker.looks.matching("ab", 2)) == 2
    assert await broker.looks.matching("x", 9) == []


async def test_log_lines_are_kept_with_a_bound(world: World, broker: Any) -> None:
    """The last thousand, in their order."""
    await broker.channels.keep_lines(QUEUE, "a", [b"1", b"2"], 60_000)
    await broker.channels.keep_lines(QUEUE, "a", [b"%d" % n for n in range(3, 1003)], 60_000)
    lines = await broker.channels.lines(QUEUE, "a")
    assert (len(lines), lines[0], lines[-1]) == (1000, b"3", b"1002")
    assert await broker.channels.lines(QUEUE, "b") == []


async def test_progress_is_kept_for_each_task(world: World, broker: Any) -> None:
    """The last report counts."""
    await broker.channels.keep_progress(QUEUE, {"a": b"1", "b": b"x"}, 60_000)
    await broker.channels.keep_progress(QUEUE, {"a": b"2"}, 60_000)
    assert await broker.channels.progress(QUEUE, ["b", "c", "a"]) == [b"x", None, b"2"]
