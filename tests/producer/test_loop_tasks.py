"""The asyncio tasks of an engine: held, restarted in a worker, cancelled at the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pq.producer import loop_tasks
from pq.producer.loop_tasks import LoopTasks


@pytest.fixture(autouse=True)
def _restart_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_tasks, "RESTART_AFTER", 0.0)


def make(*, retry_forever: bool = False) -> LoopTasks:
    tasks = LoopTasks(asyncio.get_running_loop())
    tasks.retry_forever = retry_forever
    return tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def test_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No task fails in silence."""

    async def fails() -> None:
        raise ValueError("no such thing")

    tasks = make()
    with caplog.at_level(logging.ERROR, logger="pq.producer"):
        await asyncio.wait([tasks.spawn(fails())])
        await asyncio.sleep(0)
    assert "unexpected error in the producer: ValueError: no such thing" in caplog.text


async def test_what_goes_first_is_waited_for() -> None:
    """`opened` waits for it, and for tasks that are to be restarted."""
    go_on = asyncio.Event()
    ran: list[str] = []

    async def first() -> None:
        await go_on.wait()

    async def again() -> None:
        ran.append("again")

    tasks = make()
    assert not tasks.opening
    tasks.spawn(first(), first=True)
    tasks.restart_later(again)
    assert tasks.opening
    go_on.set()
    async with asyncio.timeout(5):
        await tasks.opened()
    assert (ran, tasks.opening) == (["again"], False)


@pytest.mark.parametrize("retry_forever", [True, False])
async def test_a_duty_that_a_job_cancelled_is_started_again_in_a_worker(retry_forever: bool) -> None:
    """After `missed`, the producer looks up the events of the meantime. Elsewhere the program asked for it."""
    started: list[asyncio.Task[None] | None] = []
    missed: list[int] = []

    async def duty() -> None:
        started.append(asyncio.current_task())
        await forever()

    tasks = make(retry_forever=retry_forever)
    tasks.attend(duty, lambda: missed.append(len(started)))
    await asyncio.sleep(0)
    assert started[0] is not None
    started[0].cancel()
    await asyncio.sleep(0.05)
    assert (len(started), missed) == ((2, [1]) if retry_forever else (1, []))
    await tasks.cancel()


async def test_nothing_restarts_after_the_end() -> None:
    """`cancel` ends all tasks; none is restarted."""
    started: list[int] = []

    async def work() -> None:
        started.append(1)
        await forever()

    tasks = make(retry_forever=True)
    tasks.attend(work, lambda: None)
    tasks.spawn(forever(), first=True)
    await asyncio.sleep(0)
    tasks.restart_later(work)
    await tasks.cancel()
    await asyncio.sleep(0.05)
    assert (started, tasks.persistent, tasks.opening) == ([1], False, False)
