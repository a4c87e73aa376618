"""One attempt: its single outcome, and the error of a wrong call."""

from __future__ import annotations

import execution_jobs as jobs
import pytest
from execution_bench import MODES

from pq.execution.attempt import Attempt
from pq.model.outcome import FAILED, OK, TIMED_OUT, Outcome
from pq.model.task import Task


@pytest.fixture(params=MODES, ids=str)
def mode(request):
    return request.param


async def test_wrong_arguments_raise_with_the_signature(bench, executor):
    """The error names the arguments that were sent and those that the job takes; it shows no value."""
    outcome = await bench.run(executor, jobs.addition, "secret", c=1)
    assert (outcome.kind, outcome.reason) == (FAILED, "bad-arguments")
    assert "addition(a=0, b=0) was sent 1 positional argument and the keywords c" in outcome.error
    assert "secret" not in outcome.error


async def test_finished_is_called_once(bench):
    """A second outcome is dropped, and a later cancel has no effect."""
    outcomes = []
    attempt = Attempt(
        Task("t", "addition"),
        jobs.addition.job_class,
        bench.backend,
        lambda _, outcome: outcomes.append(outcome),
    )
    attempt.finish(Outcome(OK, 1))
    attempt.finish(Outcome(OK, 2))
    attempt.cancel(TIMED_OUT)
    assert [outcome.value for outcome in outcomes] == [1]
