"""One attempt: what is called, what comes of it, and who may stop it."""

from __future__ import annotations

import asyncio

import execution_jobs as jobs
import pytest
from execution_bench import until

from pq.execution.async_io import AsyncIo
from pq.execution.attempt import Attempt
from pq.model.outcome import FAILED, OK, RELEASED, REVOKED, TIMED_OUT, Outcome
from pq.model.serializers import MSGPACK
from pq.model.task import Task


@pytest.fixture
async def executor():
    executor = AsyncIo(grace=0.05)
    await executor.start()
    yield executor
    await executor.stop()


@pytest.mark.parametrize(
    ("job", "args", "value"),
    [
        (jobs.addition, {"a": 4, "b": 6}, 10),
        (jobs.bare, {"a": 4, "b": 6}, 24),
        (jobs.asynchronous, {"value": 3}, 3),
        (jobs.returns_coroutine, {}, "awaited"),
        (jobs.Stateful, {}, 2),
    ],
)
async def test_a_job_of_any_shape_is_called(bench, executor, job, args, value):
    """With self or without, async or not, a function or a class: the outcome has what it returned."""
    outcome = await bench.run(executor, job, **args)
    assert (outcome.kind, outcome.value) == (OK, value)


async def test_each_attempt_has_an_instance_of_its_own(bench, executor):
    """What a job keeps on `self` is not there in the next attempt."""
    assert [(await bench.run(executor, jobs.Stateful)).value for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    "what", ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"]
)
async def test_whatever_a_job_raises_is_a_failure(bench, executor, what):
    """Even what would end the program is only the end of the task."""
    outcome = await bench.run(executor, jobs.raises, what)
    assert outcome.kind == FAILED
    assert outcome.error == f"{what}: as asked"
    assert "execution_jobs.py" in outcome.stacktrace
    assert "pq/execution" not in outcome.stacktrace


async def test_a_job_that_cancels_itself_fails(bench, executor):
    """A CancelledError that nobody asked for is the job's own mistake."""
    outcome = await bench.run(executor, jobs.cancels_itself)
    assert (outcome.kind, outcome.error) == (FAILED, "CancelledError")


async def test_wrong_arguments_are_told_with_the_signature(bench, executor):
    """The error says what was sent, by name and number, and what the job takes; it shows no value."""
    outcome = await bench.run(executor, jobs.addition, "secret", c=1)
    assert (outcome.kind, outcome.reason) == (FAILED, "bad-arguments")
    assert "addition(a=0, b=0) was sent 1 positional argument and the keywords c" in outcome.error
    assert "secret" not in outcome.error


async def test_a_type_error_of_the_job_itself_stays_what_it_is(bench, executor):
    """Only a call that does not fit the signature is a matter of arguments."""
    outcome = await bench.run(executor, jobs.type_error_inside)
    assert (outcome.kind, outcome.reason) == (FAILED, "task-failed")
    assert outcome.error.startswith("TypeError: object of type 'int' has no len()")


@pytest.mark.parametrize("call", [b"\xc1", MSGPACK.dumps([1, 2, 3]), MSGPACK.dumps("text")])
async def test_unreadable_arguments_fail_the_task(bench, executor, call):
    """Bytes that are no arguments are an outcome, not an error of the worker."""
    task = Task("t", "addition", "default", call)
    _, outcome = bench.launch(executor, task, jobs.addition.job_class)
    outcome = await outcome
    assert (outcome.kind, outcome.reason) == (FAILED, "unreadable-message")


@pytest.mark.parametrize("timeout", ["soon", -1, 0, float("nan"), float("inf"), True])
async def test_a_timeout_that_is_none_fails_the_task(bench, executor, timeout):
    """The time-out of a message was written by whoever sent it."""
    task = Task("t", "addition", "default", timeout=timeout)
    _, outcome = bench.launch(executor, task, jobs.addition.job_class)
    outcome = await outcome
    assert (outcome.kind, outcome.reason) == (FAILED, "unreadable-message")


async def test_the_first_reason_wins(bench, executor):
    """A task that is cancelled and released at once was cancelled."""
    attempt, outcome = bench.start(executor, jobs.sleeps)
    attempt.cancel(REVOKED)
    attempt.cancel(RELEASED)
    assert (await outcome).kind == REVOKED


async def test_cancelled_before_it_was_started(bench, executor):
    """An attempt can be cancelled before its executor has it."""
    outcomes = []
    task = Task("t", "sleeps", "default")
    attempt = Attempt(task, jobs.sleeps.job_class, bench.backend, lambda _, outcome: outcomes.append(outcome))
    attempt.cancel(REVOKED)
    executor.start_attempt(attempt)
    await until(lambda: outcomes)
    assert [outcome.kind for outcome in outcomes] == [REVOKED]


async def test_finished_is_called_once(bench):
    """Who comes second is not heard."""
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


async def test_the_task_has_the_last_word_on_its_timeout(bench, executor):
    """The time-out of the task counts, and that of the job where the task has none."""
    outcome = await bench.run(executor, jobs.too_slow)
    assert outcome.error == "the task ran longer than its time-out of 0.02 s"
    outcome = await bench.run(executor, jobs.too_slow, timeout=0.01)
    assert outcome.error == "the task ran longer than its time-out of 0.01 s"
    assert (outcome.kind, outcome.reason) == (TIMED_OUT, "timed-out")
    await asyncio.sleep(0)
