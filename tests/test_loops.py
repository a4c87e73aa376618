"""Tasks beside a loop: held until they end, and their errors are logged. (`EternalTask`: tests/worker/test_service.py)"""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from pq.loops import HeldTasks

logger = logging.getLogger("pq.worker")


async def test_held_tasks_outlive_a_garbage_collection_and_are_waited_for() -> None:
    """asyncio keeps weak references alone; `wait` returns when all have ended."""
    held, ended = HeldTasks("the worker", logger=logger), []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        ended.append(number)

    for number in range(3):
        held.spawn(work(number))
    gc.collect()
    await held.wait(5.0)
    assert ended == [0, 1, 2]
    await held.wait(5.0)


async def test_the_error_of_a_held_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has its traceback; the error concerns no other task."""
    held = HeldTasks("the worker", logger=logger)

    async def fail() -> None:
        raise ValueError("bad")

    held.spawn(fail())
    await held.wait(5.0)
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "unexpected error in the worker: ValueError: bad"
    assert record.exc_info is not None


async def test_held_tasks_are_cancelled_but_for_the_running_one() -> None:
    """A task of them may end the others."""
    held = HeldTasks("the server", logger=logger)
    others = [held.spawn(asyncio.sleep(60)) for _ in range(2)]

    async def end() -> str:
        held.cancel()
        return "done"

    assert await held.spawn(end()) == "done"
    await held.wait(5.0)
    assert all(task.cancelled() for task in others)
