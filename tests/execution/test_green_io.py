"""Attempts in a greenlet on the loop."""

from __future__ import annotations

import asyncio
import sys

import execution_jobs as jobs
import pytest
from execution_bench import GREEN

from pq.model.outcome import FAILED, RELEASED, REVOKED, TIMED_OUT


@pytest.fixture
def mode():
    return GREEN


async def test_synchronous_code_waits_without_blocking(bench, executor):
    """A hundred wait at once, each in the context of its own job."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    started = [bench.start(executor, jobs.green, 0.05)[1] for _ in range(100)]
    assert {(await outcome).value for outcome in started} == {"green"}
    assert loop.time() - began < 2
    assert jobs.flavour.get() == "none"


async def test_an_error_of_what_is_awaited_is_raised_at_the_wait(bench, executor):
    """The job may catch it there."""
    assert (await bench.run(executor, jobs.green_catches)).value == "caught"


@pytest.mark.parametrize("why", [REVOKED, RELEASED, TIMED_OUT])
async def test_a_cancel_is_raised_at_the_wait(bench, executor, why):
    """The job gets a CancelledError where it waits, and can clean up."""
    log = []
    attempt, outcome = bench.start(executor, jobs.green_cleans, log)
    await asyncio.sleep(0.01)
    attempt.cancel(why)
    assert ((await outcome).kind, log) == (why, ["cancelled at the wait"])


async def test_waiting_for_what_cannot_be_awaited_is_the_jobs_error(bench, executor):
    """It is raised in the job, with its line."""
    outcome = await bench.run(executor, jobs.green_waits_for_nothing)
    assert outcome.kind == FAILED
    assert "self.wait(3)" in outcome.stacktrace


async def test_without_greenlet_the_outcome_says_what_to_install(bench, executor, monkeypatch):
    """The extra is optional: only the tasks of greenlet jobs fail."""
    monkeypatch.setitem(sys.modules, "greenlet", None)
    outcome = await bench.run(executor, jobs.green)
    assert (outcome.kind, outcome.reason) == (FAILED, "extra-needed")
    assert "pip install 'pq-tasks[green]'" in outcome.stacktrace
