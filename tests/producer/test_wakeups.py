"""Waiters of one loop: one asks for all, and a notification wakes the right ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pq.producer.wakeups import LockWaiters, StreamWaiters


class Asked:
    """A lock that is held until `free`; counts how often it is asked for."""

    def __init__(self, wait: float = 60.0) -> None:
        self.wait = wait
        self.free = False
        self.count = 0
        self.listening = 0

    async def attempt(self) -> tuple[int, float]:
        self.count += 1
        if not self.free:
            return 0, self.wait
        self.free = False
        return self.count, 0.0

    async def listen(self) -> None:
        self.listening += 1


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_only_the_first_waiter_asks() -> None:
    """However many wait in this loop; the next one asks when the first has the lock."""
    waiters, lock = LockWaiters(), Asked()
    waiting = [asyncio.ensure_future(waiters.take("a", lock.attempt, lock.listen)) for _ in range(5)]
    await settle()
    assert (lock.count, lock.listening) == (2, 1)
    for got in range(1, 6):
        lock.free = True
        waiters.notify("a")
        await settle()
        assert sum(one.done() for one in waiting) == got
    assert sorted(one.result() for one in waiting) == sorted({one.result() for one in waiting})


async def test_a_free_lock_needs_no_subscription() -> None:
    waiters, lock = LockWaiters(), Asked()
    lock.free = True
    assert await waiters.take("a", lock.attempt, lock.listen) == 1
    assert lock.listening == 0


@pytest.mark.parametrize(("name", "wakes"), [("a", True), (None, True), ("b", False)])
async def test_a_release_wakes_the_waiters_of_that_lock(name: str | None, wakes: bool) -> None:
    """None: notifications may have been missed, so all of them ask again."""
    waiters, lock = LockWaiters(), Asked()
    waiting = asyncio.ensure_future(waiters.take("a", lock.attempt, lock.listen))
    await settle()
    lock.free = True
    waiters.notify(name)
    await settle()
    assert waiting.done() is wakes
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_lost_release_costs_the_rest_of_the_holders_time() -> None:
    """The waiter asks by itself when that is over."""
    waiters, lock = LockWaiters(), Asked(wait=0.01)
    waiting = asyncio.ensure_future(waiters.take("a", lock.attempt, lock.listen))
    await settle()
    lock.free = True
    async with asyncio.timeout(5):
        assert await waiting


async def test_a_waiter_that_leaves_is_forgotten() -> None:
    """Nothing is kept of a lock that no task waits for."""
    waiters, lock = LockWaiters(), Asked()
    waiting = asyncio.ensure_future(waiters.take("a", lock.attempt, lock.listen))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not any(vars(waiters).values())


@pytest.mark.parametrize(
    ("id", "woken"), [("a", [True, True, False]), (None, [True] * 3), ("c", [False] * 3)]
)
def test_a_part_wakes_the_readers_of_that_task(id: str | None, woken: list[bool]) -> None:
    """All readers of one task, and of every task after a reconnection."""
    waiters = StreamWaiters()
    with waiters.waiting("a") as one, waiters.waiting("a") as two, waiters.waiting("b") as three:
        waiters.notify(id)
        assert [event.is_set() for event in (one, two, three)] == woken
    kept: Any = vars(waiters)
    assert not any(kept.values())
