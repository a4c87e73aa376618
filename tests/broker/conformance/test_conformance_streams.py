"""Streams: parts of a task's result, kept in order, and written only by its holder."""

from __future__ import annotations

import asyncio

from conftest import LEASE, QUEUE, World, finished, live
from listening import listen

from pq.broker.contract.values import Entry, Part, Reserved, Streamed
from pq.model.operations import FAIL
from pq.model.states import SUCCESS

HOUR = 3_600_000


async def taken(world: World, lease: str = LEASE) -> Reserved:
    """Queue a task and take it."""
    await world.put("a")
    await world.lease(lease)
    (task,) = (await world.take(lease=lease)).tasks
    return task


async def stream(
    world: World,
    task: Reserved,
    first: int,
    *bodies: bytes,
    lease: str = LEASE,
    batch: int = 0,
    oldest: int = 1,
) -> bool:
    call = Streamed(task.queue, task.id, batch or task.batch, first, oldest, bodies)
    (kept,) = await world.broker.channels.keep_parts(lease, [call], HOUR)
    return bool(kept)


async def read(world: World, after: Part | None = None, count: int = 100) -> list[Part]:
    parts: list[Part] = await world.broker.channels.parts(
        QUEUE, "a", None if after is None else after[:2], count
    )
    return parts


def short(parts: list[Part]) -> list[tuple[int, bytes]]:
    return [(part.number, part.body) for part in parts]


async def test_parts_are_read_in_their_order_from_anywhere(world: World) -> None:
    """Readers get all parts, those after one part, or N at once; an empty body is a part too."""
    task = await taken(world)
    assert await read(world) == []
    assert await stream(world, task, 1, b"one", b"two")
    assert await stream(world, task, 3, b"three", b"")
    parts = await read(world)
    assert short(parts) == [(1, b"one"), (2, b"two"), (3, b"three"), (4, b"")]
    assert {part.token for part in parts} == {f"{LEASE}:{task.batch}"}
    assert len({part.attempt for part in parts}) == 1
    assert short(await read(world, parts[1])) == [(3, b"three"), (4, b"")]
    assert short(await read(world, parts[0], 1)) == [(2, b"two")]
    assert await read(world, parts[3]) == []


async def test_the_same_call_again_adds_nothing(world: World) -> None:
    """Its reply was lost, so it comes twice, perhaps with more behind it."""
    task = await taken(world)
    for _ in range(2):
        assert await stream(world, task, 1, b"one", b"two")
    assert await stream(world, task, 2, b"two", b"three")
    assert short(await read(world)) == [(1, b"one"), (2, b"two"), (3, b"three")]


async def test_only_the_holder_of_a_task_streams(world: World) -> None:
    """The call is refused under another batch or lease, after the end, and after the release of the task."""
    task = await taken(world)
    await world.lease("other")
    assert not await stream(world, task, 1, b"x", batch=task.batch + 1)
    assert not await stream(world, task, 1, b"x", lease="other")
    assert await stream(world, task, 1, b"one")
    await world.broker.work.hand_back(LEASE, [QUEUE], crashed=True)
    assert not await stream(world, task, 2, b"of a zombie")
    (again,) = (await world.take(lease="other")).tasks
    assert await stream(world, again, 1, b"again", lease="other")
    assert await world.end(again, lease="other") == []
    assert not await stream(world, again, 2, b"late", lease="other")
    assert short(await read(world)) == [(1, b"again")]


async def test_another_attempt_takes_the_place_of_the_one_before(world: World) -> None:
    """Its parts come after whatever was read of the first, which are there no more."""
    task = await taken(world)
    await stream(world, task, 1, b"one", b"two", b"three")
    before = await read(world)
    await world.broker.work.hand_back(LEASE, [QUEUE], crashed=True)
    await world.lease("other")
    (again,) = (await world.take(lease="other")).tasks
    await stream(world, again, 1, b"again", lease="other")
    assert short(await read(world, before[-1])) == short(await read(world)) == [(1, b"again")]
    (part,) = await read(world)
    assert part.attempt > before[0].attempt
    assert part.token != before[0].token


async def test_what_is_too_old_is_not_kept(world: World) -> None:
    """`oldest` says so; the numbers of the others stay."""
    task = await taken(world)
    await stream(world, task, 1, b"1", b"2", b"3", b"4")
    await stream(world, task, 5, b"5", oldest=4)
    assert short(await read(world)) == [(4, b"4"), (5, b"5")]


async def test_several_tasks_in_one_call(world: World) -> None:
    """Each has its answer; one that is refused does not stop the others."""
    await world.put("a", "b", "c")
    await world.lease()
    a, b, c = (await world.take()).tasks
    assert await world.end(b) == []
    calls = [Streamed(QUEUE, task.id, task.batch, 1, 1, [task.id.encode()]) for task in (a, b, c)]
    assert await world.broker.channels.keep_parts(LEASE, calls, HOUR) == [True, False, True]
    assert [len(await world.broker.channels.parts(QUEUE, id, None, 9)) for id in "abc"] == [1, 0, 1]


async def test_a_stream_goes_with_its_task(world: World) -> None:
    """When it is forgotten, and when it is run again; other keys of it stay as they were."""
    task = await taken(world)
    await stream(world, task, 1, b"one")
    await world.end(task, FAIL)
    assert short(await read(world)) == [(1, b"one")]
    assert await world.broker.work.retry_dead(QUEUE, Entry("a", live("a")))
    assert await read(world) == []
    (again,) = (await world.take()).tasks
    await stream(world, again, 1, b"two")
    assert await world.broker.work.forget(QUEUE, ["a"]) == 0, "it runs"
    assert short(await read(world)) == [(1, b"two")]
    await world.end(again)
    assert world.dump().records == {"a": finished("a", f"{LEASE}:{again.batch}", SUCCESS)}
    assert await world.broker.work.forget(QUEUE, ["a"]) == 1
    assert await read(world) == []


async def test_listeners_are_notified_of_new_parts(world: World) -> None:
    """The event has the id alone, without the parts."""
    task = await taken(world)
    channel = world.broker.keys.stream_channel
    subscription, listening, heard = await listen(world.another(), channel)
    await stream(world, task, 1, b"one")
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.001)
    assert heard == [(channel, b"a")]
    await subscription.close()
    await listening
