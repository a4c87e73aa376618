"""Attempts in a pool of threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import execution_jobs as jobs
import pytest
from execution_bench import THREAD, pool_threads, until

from pq.model.outcome import OK, RELEASED, TIMED_OUT


@pytest.fixture
def mode():
    return THREAD


@pytest.fixture
def event():
    event = threading.Event()
    yield event
    event.set()


async def test_a_job_runs_in_a_thread_with_the_context_of_its_start(bench, executor):
    """Context variables are carried over."""
    jobs.flavour.set("carried")
    outcome = await bench.run(executor, jobs.which_thread)
    assert outcome.value == ("pq-thread-io", "carried", "t1")


async def test_an_async_job_has_a_loop_in_its_thread(bench, executor):
    """Async functions may be thread jobs too."""
    assert (await bench.run(executor, jobs.async_in_thread)).value == "pq-thread-io"


async def test_no_more_threads_than_the_size(bench, executor, event):
    """Further attempts wait, and waiting does not use up the time-out."""
    assert executor.capacity() == 2
    started = [bench.start(executor, jobs.thread_waits, event, timeout=30)[1] for _ in range(2)]
    _, waiting = bench.start(executor, jobs.which_thread, timeout=0.05)
    assert executor.capacity() == 0
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert len(pool_threads()) == 2
    event.set()
    assert [(await outcome).kind for outcome in (*started, waiting)] == [OK, OK, OK]
    assert executor.capacity() == 2


async def test_a_timed_out_thread_is_left_behind(bench, executor, event):
    """The outcome comes at once, the place is free again, the late result is dropped."""
    outcome = await bench.run(executor, jobs.thread_waits, event, timeout=0.02)
    assert outcome.kind == TIMED_OUT
    assert (executor.leaked, executor.capacity()) == (1, 2)
    assert (await bench.run(executor, jobs.which_thread)).kind == OK
    event.set()
    await until(lambda: executor.leaked == 0)
    assert bench.finished == ["t1", "t2"]


async def test_leaked_threads_that_return_do_not_make_the_pool_larger(bench, executor, event):
    """The pool has two places after any number of leaked threads."""
    for _ in range(4):
        assert (await bench.run(executor, jobs.thread_waits, event, timeout=0.01)).kind == TIMED_OUT
    again = threading.Event()
    started = [bench.start(executor, jobs.thread_waits, again)[1] for _ in range(2)]
    assert executor.leaked == 4
    event.set()
    await until(lambda: executor.leaked == 0)
    again.set()
    assert [(await outcome).kind for outcome in started] == [OK, OK]
    await until(lambda: len(pool_threads()) <= 2)


async def test_stop_releases_and_ends_the_threads(bench, executor, event):
    """Attempts are released and idle threads end; `stop` does not wait for a thread that hangs."""
    assert (await bench.run(executor, jobs.which_thread)).kind == OK
    started = [bench.start(executor, jobs.thread_waits, event)[1] for _ in range(3)]
    await executor.stop()
    assert [outcome.result().kind for outcome in started] == [RELEASED] * 3
    event.set()
    await until(lambda: not pool_threads())


def test_a_hanging_thread_does_not_keep_the_program():
    """The interpreter exits although the job does not return."""
    program = """if True:
        import asyncio, threading
        from pq.execution.attempt import Attempt
        from pq.execution.thread_io import ThreadIo
        from pq.model.decorator import job
        from pq.model.task import Task

        @job()
        def hangs():
            threading.Event().wait()

        async def main():
            executor = ThreadIo(size=1)
            done = asyncio.Event()
            task = Task("t", "hangs", timeout=0.01)
            executor.start_attempt(Attempt(task, hangs.job_class, None, lambda *_: done.set()))
            await done.wait()
            await executor.stop()
            print("stopped", executor.leaked)

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped 1\n", "", 0)
