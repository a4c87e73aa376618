"""A service begins, goes on, and ends on command: by nothing else."""

from __future__ import annotations

import asyncio

import leaks
import pytest

from pq import loops
from pq.worker.service import Service


class Duty(Service):
    """Counts how often it began, and fails on command."""

    name = "duty"

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.failing = asyncio.Event()
        self.failures: list[BaseException | None] = []
        self.on_failure = lambda service, error: self.failures.append(error)

    async def run(self) -> None:
        self.begun += 1
        await self.failing.wait()
        raise ValueError("told to")


async def turns() -> None:
    """Run the callbacks that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_service_cancelled_from_outside_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may cancel whatever runs in the loop; the worker goes on, and stops when it is to."""
    monkeypatch.setattr(loops, "RESTART_AFTER", 0.0)
    duty = Duty()
    await duty.start()
    await turns()
    for begun in (1, 2, 3):
        assert duty.begun == begun
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(20):
            while duty.begun == begun:
                await asyncio.sleep(0)
    assert duty.begun == 4
    await duty.stop()
    await turns()
    assert (duty.begun, duty.failures) == (4, [])
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stopped_service_does_not_start_again() -> None:
    """A cancel a moment before changes nothing."""
    duty = Duty()
    await duty.start()
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()
    await duty.stop()
    assert duty._duty._restart is None
    assert duty.begun == 1


def test_a_loop_that_ends_finds_no_new_tasks() -> None:
    """`asyncio.run` cancels the tasks that are left in its loop: no job caused that."""
    duty = Duty()

    async def main() -> None:
        await duty.start()
        await turns()

    asyncio.run(main())
    leaks.left_tasks.clear()  # what it was closed over is what this is about
    assert duty.begun == 1


async def test_a_service_that_fails_is_reported() -> None:
    """The service does not begin again: it would fail again."""
    duty = Duty()
    await duty.start()
    duty.failing.set()
    await turns()
    assert duty.begun == 1
    assert [str(error) for error in duty.failures] == ["told to"]
    await duty.stop()
