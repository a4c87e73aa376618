"""Locks: one token at a time, fences that grow, deadlines; and the forgetting of finished records."""

from __future__ import annotations

import asyncio
from typing import Any

from conftest import QUEUE, World
from listening import listen

from pq.broker.contract.values import FENCE_KEPT
from pq.model.operations import ACK, FAIL


async def test_a_lock_has_one_holder(world: World, broker: Any) -> None:
    """Another caller gets the longest time that it has to wait; the same token keeps its fence."""
    fence, wait = await broker.channels.lock("door", "A", 1000)
    assert (fence, wait) == (world.hand.ms, 0)
    assert await world.another().channels.lock("door", "B", 1000) == (0, 1000)
    world.hand.advance(400)
    assert await broker.channels.lock("door", "B", 1000) == (0, 600)
    assert await broker.channels.lock("door", "A", 1000) == (fence, 0)
    assert await broker.channels.lock("door", "B", 1000) == (0, 1000)
    assert (await broker.channels.lock("window", "B", 1000)).fence > 0


async def test_a_lock_is_free_when_its_time_is_over(world: World, broker: Any) -> None:
    """Its old holder can neither renew nor release it."""
    first = (await broker.channels.lock("door", "A", 1000)).fence
    world.hand.advance(1000)
    second = (await broker.channels.lock("door", "B", 1000)).fence
    assert second > first
    assert await broker.channels.lock("door", "A", 1000, keep=True) == (0, 0)
    assert not await broker.channels.unlock("door", "A")
    assert await broker.channels.lock("door", "B", 1000, keep=True) == (second, 0)


async def test_a_late_renewal_loses_nothing(world: World, broker: Any) -> None:
    """A holder can renew until another caller takes the lock; a renewal acquires nothing."""
    fence = (await broker.channels.lock("door", "A", 1000)).fence
    world.hand.advance(5000)
    assert await broker.channels.lock("door", "A", 1000, keep=True) == (fence, 0)
    assert await broker.channels.lock("door", "B", 1000) == (0, 1000)
    assert await broker.channels.lock("window", "A", 1000, keep=True) == (0, 0)
    assert (await broker.channels.lock("window", "B", 1000)).fence > 0


async def test_fences_grow(world: World, broker: Any) -> None:
    """Within one millisecond, and when the clock goes back."""
    fences = []
    for n in range(5):
        fences.append((await broker.channels.lock("door", str(n), 1000)).fence)
        assert await broker.channels.unlock("door", str(n))
        assert not await broker.channels.unlock("door", str(n))
    world.hand.advance(-60_000)
    fences.append((await broker.channels.lock("door", "late", 1000)).fence)
    assert fences == sorted(set(fences))


async def test_locks_leave_no_key_without_a_ttl(world: World, broker: Any) -> None:
    """All keys of a lock have a TTL."""
    await broker.channels.lock("door", "A", 1000)
    await broker.channels.unlock("door", "A")
    if world.kind == "memory":
        world.hand.advance(FENCE_KEPT + 1000)
        await broker.channels.lock("window", "B", 1000)
        assert broker.store.locks.keys() == {"window"}


async def test_letting_go_is_announced(world: World, broker: Any) -> None:
    """The name is published on the channel of all locks, only when the lock was released."""
    subscription, listening, heard = await listen(world.another(), broker.keys.lock_channel)
    await broker.channels.lock("door", "A", 1000)
    await broker.channels.unlock("door", "B")
    await broker.channels.unlock("door", "A")
    while not heard:
        await asyncio.sleep(0.001)
    assert heard == [(broker.keys.lock_channel, b"door")]
    await subscription.close()
    listening.cancel()


async def test_forgetting(world: World, broker: Any) -> None:
    """Finished records go, with their place in the dead set; live ones stay."""
    await world.put("failed", "fine", "held", "waiting")
    await world.lease()
    tasks = {task.id: task for task in (await world.take(3)).tasks}
    await world.end(tasks["failed"], FAIL)
    await world.end(tasks["fine"], ACK)
    assert await broker.work.forget(QUEUE, ["failed", "fine", "held", "waiting", "unknown"]) == 2
    assert await broker.looks.dead(QUEUE) == []
    assert world.dump().records.keys() == {"held", "waiting"}
    assert await broker.work.forget(QUEUE, []) == 0
    assert await broker.work.forget(QUEUE, ["failed"]) == 0
