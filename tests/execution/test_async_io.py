"""Attempts in the event loop."""

from __future__ import annotations

import asyncio

import execution_jobs as jobs
import pytest
from execution_bench import ASYNCIO, until

from pq.model.outcome import RELEASED, REVOKED, TIMED_OUT


@pytest.fixture
def mode():
    return ASYNCIO


async def test_many_at_once(bench, executor):
    """Any number runs side by side."""
    assert executor.capacity() is None
    started = [bench.start(executor, jobs.asynchronous, n)[1] for n in range(500)]
    assert [(await outcome).value for outcome in started] == list(range(500))


async def test_a_swallowed_cancel_is_still_a_cancel(bench, executor):
    """A job that catches CancelledError and returns has not succeeded."""
    attempt, outcome = bench.start(executor, jobs.swallows)
    await asyncio.sleep(0)
    attempt.cancel(REVOKED)
    assert (await outcome).kind == REVOKED
    assert (await bench.run(executor, jobs.swallows, timeout=0.01)).kind == TIMED_OUT
    assert executor.leaked == 0


async def test_a_job_that_will_not_stop_is_given_up(bench, executor):
    """Its outcome is delivered after the grace, and it counts as leaked until it ends."""
    outcome = await bench.run(executor, jobs.goes_on, 0.5, timeout=0.01)
    assert outcome.kind == TIMED_OUT
    assert executor.leaked == 1
    await until(lambda: executor.leaked == 0)
    assert bench.finished == ["t1"]


async def test_stop_releases_what_runs(bench, executor):
    """A shutdown also releases the tasks of jobs that do not stop."""
    started = [bench.start(executor, each)[1] for each in (jobs.sleeps, jobs.goes_on, jobs.swallows)]
    await asyncio.sleep(0)
    await executor.stop()
    assert [outcome.result().kind for outcome in started] == [RELEASED] * 3
    await until(lambda: executor.leaked == 0)
