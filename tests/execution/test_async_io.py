"""Attempts in the event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

import execution_jobs as jobs
import pytest
from execution_bench import until

from pq.execution.async_io import AsyncIo
from pq.execution.attempt import current_task
from pq.model.decorator import job
from pq.model.outcome import FAILED, OK, RELEASED, REVOKED, TIMED_OUT


@pytest.fixture
async def executor():
    executor = AsyncIo(grace=0.05)
    await executor.start()
    yield executor
    await executor.stop()


async def test_many_at_once(bench, executor):
    """Any number runs side by side."""
    assert executor.capacity() is None
    started = [bench.start(executor, jobs.asynchronous, n)[1] for n in range(500)]
    assert [(await outcome).value for outcome in started] == list(range(500))


async def test_a_cancelled_job_is_revoked_and_shows_where_it_was(bench, executor):
    """The traceback names the line that was waiting."""
    attempt, outcome = bench.start(executor, jobs.sleeps)
    await asyncio.sleep(0)
    attempt.cancel(REVOKED)
    outcome = await outcome
    assert (outcome.kind, outcome.reason) == (REVOKED, "revoked")
    assert "await asyncio.sleep(seconds)" in outcome.stacktrace


@pytest.mark.parametrize("why", [REVOKED, TIMED_OUT, RELEASED])
async def test_cancel_at_once(bench, executor, why):
    """A cancel that comes before the first step of the job is a cancel."""
    attempt, outcome = bench.start(executor, jobs.sleeps)
    attempt.cancel(why)
    assert (await outcome).kind == why


async def test_a_foreign_cancel_before_the_first_step_is_not_lost(bench, executor):
    """A job that cancels all asyncio tasks ends those that have not begun, too, and all are told."""

    @job()
    def cancels_all(self):
        for task in asyncio.all_tasks() - {asyncio.current_task(), main}:
            task.cancel()

    main = asyncio.current_task()
    _, first = bench.start(executor, cancels_all)
    _, second = bench.start(executor, jobs.asynchronous)
    assert [(await first).kind, (await second).kind] == [OK, FAILED]


async def test_a_swallowed_cancel_is_still_a_cancel(bench, executor):
    """A job that catches CancelledError and returns has not succeeded."""
    attempt, outcome = bench.start(executor, jobs.swallows)
    await asyncio.sleep(0)
    attempt.cancel(REVOKED)
    assert (await outcome).kind == REVOKED
    assert (await bench.run(executor, jobs.swallows, timeout=0.01)).kind == TIMED_OUT
    assert executor.leaked == 0


async def test_a_job_that_will_not_stop_is_given_up(bench, executor):
    """Its outcome is delivered after the grace, and it is counted as leaked until it ends."""
    outcome = await bench.run(executor, jobs.goes_on, 1.0, timeout=0.01)
    assert outcome.kind == TIMED_OUT
    assert executor.leaked == 1
    await until(lambda: executor.leaked == 0)
    assert bench.finished == ["t1"]


async def test_stop_releases_what_runs(bench, executor):
    """At the shutdown tasks are handed back, also those of jobs that will not stop."""
    started = [bench.start(executor, each)[1] for each in (jobs.sleeps, jobs.goes_on, jobs.swallows)]
    await asyncio.sleep(0)
    await executor.stop()
    assert [outcome.result().kind for outcome in started] == [RELEASED] * 3
    await until(lambda: executor.leaked == 0)


async def test_each_attempt_has_a_context_of_its_own(bench, executor):
    """`current_task` is the task in the job, and what a job sets, the next one does not see."""

    @job()
    async def looks(self):
        before = jobs.flavour.get()
        jobs.flavour.set("spoilt")
        await asyncio.sleep(0)
        return before, current_task.get().id

    outcomes = [await bench.run(executor, looks), await bench.run(executor, looks)]
    assert [outcome.value for outcome in outcomes] == [("none", "t1"), ("none", "t2")]
    assert current_task.get() is None


async def test_nothing_of_an_attempt_is_kept(bench, executor):
    """An attempt is gone when it is finished, without waiting for the garbage collector."""
    attempt, outcome = bench.start(executor, jobs.asynchronous)
    task = attempt.handle
    await outcome
    await asyncio.sleep(0)
    assert task.done()
    gc.disable()
    try:
        reference = weakref.ref(task)
        del task, attempt
        assert reference() is None
    finally:
        gc.enable()
