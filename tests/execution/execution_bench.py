"""What the tests of `pq.execution` share: a backend that only remembers, and a bench to run jobs on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from pq.errors import QueueFull
from pq.execution.attempt import Attempt
from pq.model.options import GREEN_IO, THREAD_IO
from pq.model.payloads import load_payload
from pq.model.serializers import MSGPACK
from pq.model.states import SUCCESS
from pq.model.task import Task

DEADLINE = 15.0


class FakeBackend:
    """Does what is asked at once, and remembers it."""

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
    """Wait until `condition()` is true, and return what it returned."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE} s"
        await asyncio.sleep(0.002)
    return value


def running(pid: int) -> bool:
    """True while the process does anything; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def result(outcome):
    """The result in an outcome of a child."""
    assert outcome.error is None, (outcome.error, outcome.stacktrace)
    return None if outcome.encoded is None else load_payload(MSGPACK, outcome.encoded)
