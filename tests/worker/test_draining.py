"""The drain of a worker: it ends with the last attempt, and at its limit at the latest."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from pq.model.outcome import RELEASED
from pq.worker.attempts import Attempts
from pq.worker.draining import Draining


class Running:
    """An attempt that runs until it is cancelled; then it ends like a real one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.why = ""

    def cancel(self, why: str) -> None:
        self.why = why
        self._world.end(self)


class World:
    """A worker with running attempts."""

    def __init__(self, running: int) -> None:
        self.attempts = Attempts()
        self.draining = Draining(self.attempts)
        self.started: list[Any] = [Running(self) for _ in range(running)]
        for number, attempt in enumerate(self.started):
            self.attempts.running[str(number)] = attempt

    def end(self, attempt: Any) -> None:
        """End an attempt."""
        self.attempts.running = {
            id: each for id, each in self.attempts.running.items() if each is not attempt
        }
        self.draining.attempt_ended()


async def test_a_drain_ends_with_the_last_attempt() -> None:
    world = World(2)
    drain = asyncio.ensure_future(world.draining.drain(math.inf))
    await asyncio.sleep(0)
    world.end(world.started[0])
    await asyncio.sleep(0)
    assert not drain.done()
    world.end(world.started[1])
    await drain
    assert [attempt.why for attempt in world.started] == ["", ""]


async def test_a_drain_of_an_idle_worker_ends_at_once() -> None:
    await World(0).draining.drain(math.inf)


async def test_a_worker_that_lost_its_lease_drains_at_once() -> None:
    """Its attempts are abandoned, so there is nothing to wait for."""
    world = World(3)
    drain = asyncio.ensure_future(world.draining.drain(math.inf))
    await asyncio.sleep(0)
    world.attempts.clear()
    world.draining.attempt_ended()
    await drain


@pytest.mark.parametrize("shortened", [False, True])
async def test_a_drain_over_its_limit_releases_what_runs(shortened: bool) -> None:
    world = World(2)
    drain = asyncio.ensure_future(world.draining.drain(math.inf if shortened else 0.01))
    await asyncio.sleep(0)
    if shortened:
        world.draining.shorten(0.01)
    await drain
    assert [attempt.why for attempt in world.started] == [RELEASED, RELEASED]
    assert world.draining.begun
