"""The executors of a worker."""

from __future__ import annotations

import subprocess
import sys

import execution_jobs as jobs

from pq.execution.executors import make_executors
from pq.model.options import ASYNC_IO, CONCURRENCY, CPUBOUND, GREEN_IO, THREAD_IO
from pq.model.outcome import OK


def make(bench, **options):
    return make_executors(
        backend=bench.backend, task_paths=["execution_jobs"], app_name="app", settings={}, threads=3, processes=2, **options
    )  # fmt: skip


async def test_every_mode_has_an_executor_with_one_behaviour(bench):
    """One job of each mode runs on the executor of its mode; then all of them stop."""
    executors = make(bench)
    assert set(executors) == set(CONCURRENCY)
    assert {mode: each.capacity() for mode, each in executors.items()} == {
        ASYNC_IO: None, THREAD_IO: 3, GREEN_IO: None, CPUBOUND: 2,
    }  # fmt: skip
    for executor in executors.values():
        await executor.start()
    for job in (jobs.asynchronous, jobs.which_thread, jobs.green, jobs.whoami_briefly):
        assert (await bench.run(executors[job.job_class.concurrency], job)).kind == OK
    for executor in executors.values():
        await executor.stop()
        assert executor.leaked == 0


async def test_warm_children_are_started_at_once(bench):
    """An application with process jobs has a child before its first task."""
    executors = make(bench, warm=1)
    await executors[CPUBOUND].start()
    assert executors[CPUBOUND].capacity() == 2
    assert executors[CPUBOUND]._made is not None
    await executors[CPUBOUND].stop()


def test_what_is_not_used_is_not_imported():
    """An application of async jobs loads neither multiprocessing nor greenlet."""
    program = (
        "import sys, pq.execution.executors as e;"
        "e.make_executors(backend=None, task_paths=[], app_name='a', settings={}, threads=1, processes=1);"
        "print({'multiprocessing', 'greenlet', 'pq.execution.cpu_bound'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
