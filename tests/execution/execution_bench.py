"""Shared parts of the tests of `pq.execution`: a backend that records calls, a bench for jobs, and the modes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import execution_jobs as jobs

from pq.errors import QueueFull
from pq.execution.async_io import AsyncIo
from pq.execution.attempt import Attempt
from pq.execution.cpu_bound import CpuBound
from pq.execution.executor import Executor
from pq.execution.green_io import GreenIo
from pq.execution.thread_io import ThreadIo
from pq.model.options import GREEN_IO, THREAD_IO
from pq.model.payloads import load_payload
from pq.model.serializers import MSGPACK
from pq.model.states import SUCCESS
from pq.model.task import Task

DEADLINE = 15.0


class FakeBackend:
    """Answers each call at once, and records it."""

    def __init__(self):
        self.cfg = SimpleNamespace(name="app", colour="blue")
        self.tasks = self
        self.node_name = "here"
        self.queued = []
        self.reports = []

    def queue(self, job, *args, **kwargs):
        if kwargs.pop("refuse", False):
            raise QueueFull("there is no room")
        meta = kwargs.pop("meta_params", {})
        task = Task(f"i{len(self.queued)}", job, "default", MSGPACK.dumps([list(args), kwargs]), SUCCESS)
        task.result_bytes = MSGPACK.dumps(sum(kwargs.values()))
        task.meta_bytes = MSGPACK.dumps(meta)
        self.queued.append(task)
        future = asyncio.get_running_loop().create_future()
        future.set_result(task)
        return future

    def progress(self, task, done, total, message):
        self.reports.append((task.id, done, total, message))


class Bench:
    """Runs attempts of jobs on an executor and gathers their outcomes."""

    def __init__(self):
        self.backend = FakeBackend()
        self.finished = []
        self._numbers = 0

    def start(self, executor, job, *args, timeout=None, **kwargs):
        """Start an attempt; its future is `attempt.outcome`."""
        self._numbers += 1
        job_class = getattr(job, "job_class", job)
        task = Task(f"t{self._numbers}", job_class.name, "default", b"", timeout=timeout)
        if job_class.concurrency in (
            THREAD_IO,
            GREEN_IO,
        ):  # they share memory: their tests pass events and lists
            task._args, task._kwargs = list(args), kwargs
        else:
            task.call = MSGPACK.dumps([list(args), kwargs])
        return self.launch(executor, task, job_class)

    def launch(self, executor, task, job_class):
        outcome = asyncio.get_running_loop().create_future()

        def finished(attempt, value):
            self.finished.append(attempt.task.id)
            outcome.set_result(value)  # a second call would raise

        attempt = Attempt(task, job_class, self.backend, finished)
        executor.start_attempt(attempt)
        return attempt, outcome

    async def run(self, executor, job, *args, **kwargs):
        """Run one attempt and return its outcome."""
        _, outcome = self.start(executor, job, *args, **kwargs)
        return await asyncio.wait_for(outcome, DEADLINE)


async def until(condition: Callable[[], object], what: str = "it") -> object:
    """Wait until `condition()` is true, and return its value."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE} s"
        await asyncio.sleep(0.002)
    return value


def running(pid: int) -> bool:
    """Return whether the process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def result(outcome):
    """Return the result in an outcome; a child sends it encoded."""
    assert outcome.error is None, (outcome.error, outcome.stacktrace)
    return outcome.value if outcome.encoded is None else load_payload(MSGPACK, outcome.encoded)


# ---------------------------------------------------------------------------------------------- modes
@dataclass(frozen=True)
class ExecutionMode:
    """One concurrency mode: how to make its executor, and a job of its kind that runs until it is stopped.

    Attributes:
        make: returns an executor that is not started; of two places, if the mode is bounded.
        blocking: takes the path of a file, which it creates when it begins.
        bounded: attempts beyond the capacity wait.
        leaks: code of a stopped attempt goes on running.
        threads: returns the threads of such executors.
    """

    name: str
    make: Callable[[Bench], Executor]
    blocking: Any
    bounded: bool = False
    leaks: bool = False
    threads: Callable[[], list[threading.Thread]] = list

    def __str__(self) -> str:
        return self.name


def make_pool(bench, **options):
    """Return a pool of two child processes that is not started."""
    known = {"task_paths": ["execution_jobs"], "app_name": "app", "settings": {"colour": "blue"}, "size": 2}
    return CpuBound(**{**known, **options}, backend=bench.backend)


def pool_threads() -> list[threading.Thread]:
    """Return the threads of thread executors."""
    return [thread for thread in threading.enumerate() if thread.name == "pq-thread-io"]


def child_threads() -> list[threading.Thread]:
    """Return the threads that start child processes."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("pq-child")]


ASYNCIO = ExecutionMode("asyncio", lambda _: AsyncIo(grace=0.05), jobs.waits_in_the_loop)
THREAD = ExecutionMode(
    "thread", lambda _: ThreadIo(size=2), jobs.blocks_a_thread, bounded=True, leaks=True, threads=pool_threads
)
GREEN = ExecutionMode("green", lambda _: GreenIo(grace=0.05), jobs.waits_in_a_greenlet)
PROCESS = ExecutionMode("process", make_pool, jobs.blocks_a_process, bounded=True, threads=child_threads)
MODES = (ASYNCIO, THREAD, GREEN, PROCESS)
