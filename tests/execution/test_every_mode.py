"""Behaviour that all concurrency modes share: outcomes, time-outs, cancelling, stop, and isolation of attempts."""

from __future__ import annotations

import asyncio
import gc
import weakref

import execution_jobs as jobs
import pytest
from execution_bench import ASYNCIO, DEADLINE, GREEN, MODES, PROCESS, THREAD, pool_threads, result, until

from pq.execution.attempt import Attempt, current_task
from pq.model.decorator import job
from pq.model.outcome import FAILED, OK, RELEASED, REVOKED, TIMED_OUT
from pq.model.serializers import MSGPACK
from pq.model.task import Task

REASONS = {"revoked": REVOKED, "timed out": TIMED_OUT, "released": RELEASED}


@pytest.fixture(params=MODES, ids=str)
def mode(request):
    return request.param


@pytest.fixture(params=REASONS.values(), ids=REASONS)
def why(request):
    return request.param


def only(*modes):
    """Parametrise a test over the modes where it holds."""
    return pytest.mark.parametrize("mode", modes, ids=str)


@pytest.fixture
async def start_blocking(bench, mode, executor, tmp_path):
    """Start attempts of the blocking job of the mode, and wait until they run."""

    async def start(count=1, **options):
        marks = [tmp_path / f"running {n}" for n in range(count)]
        started = [bench.start(executor, mode.blocking, str(mark), **options) for mark in marks]
        await until(lambda: all(mark.exists() for mark in marks), "the start of the jobs")
        return started

    return start


def attempt_of(bench, job_class, outcomes):
    """Return an attempt that no executor has, and that adds its outcomes to `outcomes`."""
    task = Task("t", job_class.name, "default")
    return Attempt(task, job_class, bench.backend, lambda _, outcome: outcomes.append(outcome))


# ----------------------------------------------------------------------------------- results and errors
@pytest.mark.parametrize(
    ("job", "args", "value"),
    [
        (jobs.addition, {"a": 4, "b": 6}, 10),
        (jobs.bare, {"a": 4, "b": 6}, 24),
        (jobs.asynchronous, {"value": 3}, 3),
        (jobs.returns_coroutine, {}, "awaited"),
        (jobs.Stateful, {}, 2),
    ],
    ids=["self", "no self", "async", "returns a coroutine", "class"],
)
async def test_a_job_of_any_shape_returns_its_result(bench, executor, job, args, value):
    outcome = await bench.run(executor, job, **args)
    assert (outcome.kind, result(outcome)) == (OK, value)


async def test_each_attempt_has_an_instance_of_its_own(bench, executor):
    """An attribute that a job sets on `self` does not exist in the next attempt."""
    assert [result(await bench.run(executor, jobs.Stateful)) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    "error", ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"]
)
async def test_an_error_of_a_job_fails_the_task_alone(bench, mode, executor, error):
    """The traceback shows the job and not the package; the same thread or child runs the next attempt."""
    outcome = await bench.run(executor, jobs.raises, error)
    assert (outcome.kind, outcome.reason) == (FAILED, "task-failed")
    assert outcome.error == f"{error}: as asked"
    assert "execution_jobs.py" in outcome.stacktrace
    assert "pq/execution" not in outcome.stacktrace
    following = await bench.run(executor, jobs.addition, 1, 2)
    assert (following.kind, following.info) == (OK, outcome.info)  # of a process: its id
    if mode is THREAD:
        assert len(pool_threads()) == 1


async def test_a_job_that_cancels_itself_fails(bench, executor):
    """A CancelledError that the worker did not cause is an error of the job."""
    outcome = await bench.run(executor, jobs.cancels_itself)
    assert (outcome.kind, outcome.error) == (FAILED, "CancelledError")


async def test_a_type_error_of_the_job_itself_stays_what_it_is(bench, executor):
    """Only a call that does not fit the signature is an error of the arguments."""
    outcome = await bench.run(executor, jobs.type_error_inside)
    assert (outcome.kind, outcome.reason) == (FAILED, "task-failed")
    assert outcome.error.startswith("TypeError: object of type 'int' has no len()")


@pytest.mark.parametrize(
    "call", [b"\xc1", MSGPACK.dumps([1, 2, 3]), MSGPACK.dumps("text")], ids=["bytes", "list", "text"]
)
async def test_unreadable_arguments_fail_the_task(bench, executor, call):
    """Bytes that are not arguments give an outcome, not an error of the worker."""
    _, outcome = bench.launch(executor, Task("t", "addition", "default", call), jobs.addition.job_class)
    outcome = await asyncio.wait_for(outcome, DEADLINE)
    assert (outcome.kind, outcome.reason) == (FAILED, "unreadable-message")


# ------------------------------------------------------------------------------------------- time-outs
async def test_an_attempt_that_runs_too_long_times_out(bench, mode, executor, tmp_path):
    """The attempt is stopped; only a thread goes on, and is counted."""
    outcome = await bench.run(executor, mode.blocking, str(tmp_path / "mark"), timeout=0.05)
    assert (outcome.kind, outcome.reason) == (TIMED_OUT, "timed-out")
    assert outcome.error == "the task ran longer than its time-out of 0.05 s"
    assert executor.leaked == mode.leaks
    assert (await bench.run(executor, jobs.addition, 1, 2)).kind == OK


async def test_the_time_out_of_the_task_replaces_that_of_the_job(bench, executor):
    outcome = await bench.run(executor, jobs.too_slow)
    assert outcome.error == "the task ran longer than its time-out of 0.02 s"
    outcome = await bench.run(executor, jobs.too_slow, timeout=0.01)
    assert outcome.error == "the task ran longer than its time-out of 0.01 s"
    assert (outcome.kind, outcome.reason) == (TIMED_OUT, "timed-out")


@pytest.mark.parametrize("timeout", ["soon", -1, 0, float("nan"), float("inf"), True])
async def test_a_time_out_that_is_not_a_time_fails_the_task(bench, executor, timeout):
    """A producer of another version wrote the time-out of the message."""
    task = Task("t", "addition", "default", timeout=timeout)
    _, outcome = bench.launch(executor, task, jobs.addition.job_class)
    outcome = await asyncio.wait_for(outcome, DEADLINE)
    assert (outcome.kind, outcome.reason) == (FAILED, "unreadable-message")


# -------------------------------------------------------------------------------------------- cancelling
async def test_an_attempt_that_was_cancelled_before_its_start_does_not_run(bench, mode, executor, why):
    """An attempt can be cancelled before its executor has it."""
    outcomes = []
    attempt = attempt_of(bench, jobs.sleeps.job_class, outcomes)
    attempt.cancel(why)
    executor.start_attempt(attempt)
    await until(lambda: outcomes)
    assert [(outcome.kind, outcome.info) for outcome in outcomes] == [(why, None)]


async def test_a_cancel_before_the_first_step_of_the_job_is_a_cancel(bench, executor, why):
    attempt, outcome = bench.start(executor, jobs.sleeps)
    attempt.cancel(why)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == why


async def test_a_running_attempt_can_be_cancelled(bench, mode, executor, start_blocking, why):
    """The place is free for another attempt; only a thread goes on, and is counted."""
    ((attempt, outcome),) = await start_blocking()
    attempt.cancel(why)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == why
    assert executor.leaked == mode.leaks
    assert (await bench.run(executor, jobs.addition, 1, 2)).kind == OK
    assert bench.finished == ["t1", "t2"]


async def test_an_async_job_stops_in_every_mode(bench, executor):
    """A cancel ends its code too: not even a thread goes on."""
    attempt, outcome = bench.start(executor, jobs.sleeps)
    await asyncio.sleep(0.02)
    attempt.cancel(REVOKED)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == REVOKED
    await until(lambda: executor.leaked == 0)


async def test_the_first_reason_wins(bench, executor, start_blocking):
    """A task that is cancelled and released at once was cancelled; a cancel after the end has no effect."""
    ((attempt, outcome),) = await start_blocking()
    attempt.cancel(REVOKED)
    attempt.cancel(RELEASED)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == REVOKED
    attempt.cancel(RELEASED)
    await asyncio.sleep(0)
    assert bench.finished == ["t1"]


@only(ASYNCIO, GREEN)
async def test_a_cancel_shows_where_the_job_waited(bench, executor, start_blocking):
    """The traceback names the line that waited."""
    ((attempt, outcome),) = await start_blocking()
    attempt.cancel(REVOKED)
    outcome = await outcome
    assert (outcome.kind, outcome.reason) == (REVOKED, "revoked")
    assert "asyncio.sleep(60)" in outcome.stacktrace


@only(ASYNCIO, GREEN)
async def test_a_foreign_cancel_before_the_first_step_is_not_lost(bench, executor):
    """A job that cancels all asyncio tasks also ends attempts that have not begun: each has an outcome."""

    @job()
    def cancels_all(self):
        for task in asyncio.all_tasks() - {asyncio.current_task(), main}:
            task.cancel()

    main = asyncio.current_task()
    _, first = bench.start(executor, cancels_all)
    _, second = bench.start(executor, jobs.asynchronous)
    assert [(await first).kind, (await second).kind] == [OK, FAILED]


# ------------------------------------------------------------------------------------- waiting and stopping
@only(THREAD, PROCESS)
async def test_a_waiting_attempt_can_be_cancelled(bench, executor, start_blocking, why):
    """An attempt without a place ends at once, and never runs."""
    await start_blocking(2)
    assert executor.capacity() == 0
    attempt, outcome = bench.start(executor, jobs.addition, 1, 2)
    attempt.cancel(why)
    assert (outcome.result().kind, outcome.result().info) == (why, None)


@only(THREAD, PROCESS)
async def test_waiting_does_not_use_up_the_time_out(bench, executor, start_blocking):
    running = await start_blocking(2, timeout=30)
    _, outcome = bench.start(executor, jobs.addition, 1, 2, timeout=1.0)
    await asyncio.sleep(1.1)
    assert not outcome.done()
    for attempt, _ in running:
        attempt.cancel(REVOKED)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == OK


async def test_stop_releases_running_and_waiting_attempts(bench, mode, executor, start_blocking):
    started = await start_blocking(2)
    if mode.bounded:
        started.append(bench.start(executor, jobs.addition, 1, 2))
    await executor.stop()
    assert [outcome.result().kind for _, outcome in started] == [RELEASED] * len(started)
    assert executor.leaked == (2 if mode.leaks else 0)


# ----------------------------------------------------------------------------------------------- isolation
async def test_each_attempt_has_a_context_of_its_own(bench, executor):
    """`current_task` is the task in the job; a value that a job sets is not set in the next attempt."""
    outcomes = [await bench.run(executor, jobs.looks_at_its_context) for _ in range(2)]
    assert [tuple(result(outcome)) for outcome in outcomes] == [("none", "t1"), ("none", "t2")]
    assert current_task.get() is None


async def test_nothing_of_an_attempt_is_kept(bench, executor):
    """An attempt is freed when it is finished, without the garbage collector."""
    attempt, outcome = bench.start(executor, jobs.asynchronous)
    kept = [weakref.ref(attempt.finished)]  # the attempt alone refers to it
    if isinstance(attempt.handle, asyncio.Task):
        kept.append(weakref.ref(attempt.handle))
    gc.disable()
    try:
        await asyncio.wait_for(outcome, DEADLINE)
        del attempt
        await until(lambda: not any(reference() for reference in kept), "the end of the attempt")
    finally:
        gc.enable()
