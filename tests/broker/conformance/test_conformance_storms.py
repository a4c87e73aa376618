"""Many tasks fail at one moment and come back: the load that this makes for the store."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from conftest import LEASE, QUEUE, settlement

from pq.broker.contract.values import ReserveCall
from pq.model.operations import ACK, RETRY
from pq.model.retry import retry_wait

MANY = 3000
WANT = 50
STEP = 10
"""Milliseconds from one round of two calls to the next: the workers take 10,000 tasks a second."""


async def fail_together(world: Any, chance: Callable[[], float]) -> None:
    """`count` tasks are taken, and fail at one moment; each waits as the default backoff says."""
    await world.put(*(f"old{n}" for n in range(MANY)))
    await world.lease()
    while (answer := await world.take(500)).tasks:
        waits = [round(retry_wait(1, None, chance()) * 1000) for _ in answer.tasks]
        ended = [settlement(task, RETRY, wait=wait) for task, wait in zip(answer.tasks, waits, strict=True)]
        assert (await world.broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})).refused == []


async def test_a_storm_of_retries_starves_no_task(world: Any) -> None:
    """They come back spread over half a second; each call does a bounded part of it, and what is new waits for no more
    than what was ready before it."""
    await fail_together(world, random.Random(85).random)
    state = await world.broker.looks.state(QUEUE)
    assert (state.ready, state.delayed) == (0, MANY)
    new = calls = fullest = back = 0
    ahead: dict[str, int] = {}  # a new task -> how many were ready when it was queued
    world.hand.advance(500 - STEP)
    while back < MANY:
        world.hand.advance(STEP)
        for _ in range(2):
            calls += 1
            assert calls < 500
            name = f"new{new}"
            new += 1
            state = await world.broker.looks.state(QUEUE)
            ahead[name] = state.ready
            assert await world.put(name) == set()
            answer = await world.take(WANT)
            left = (await world.broker.looks.state(QUEUE)).ready
            assert len(answer.tasks) <= WANT
            assert left + len(answer.tasks) - (state.ready + 1) <= 100, "a call promotes a hundred at most"
            fullest = max(fullest, left)
            for place, task in enumerate(answer.tasks):
                if task.id.startswith("new"):
                    assert place == ahead.pop(task.id), "what came back later stands behind it"
                else:
                    back += 1
            for name in ahead:
                ahead[name] -= len(answer.tasks)
            ended = [settlement(task, ACK) for task in answer.tasks]
            await world.broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})
    assert fullest < MANY / 10, "the workers keep up with them"
    assert len(ahead) < 5, "and with what is new"


async def test_those_that_come_back_at_one_moment_all_the_same(world: Any) -> None:
    """A back-off of the user's own without chance: a hundred more a call, however many are due."""
    await fail_together(world, lambda: 0.999)
    world.hand.advance(1000)
    back = 0
    while back < MANY:
        before = (await world.broker.looks.state(QUEUE)).ready
        answer = await world.take(WANT)
        after = (await world.broker.looks.state(QUEUE)).ready
        assert 0 < len(answer.tasks) <= WANT
        assert after + len(answer.tasks) - before <= 100
        back += len(answer.tasks)
        ended = [settlement(task, ACK) for task in answer.tasks]
        await world.broker.work.exchange(ReserveCall(LEASE), {QUEUE: ended})
