"""The attributes and methods of `self` in a job, in all four modes."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Job, Producer

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}
OPTIONS = ("default_queue", "timeout", "max_retries", "retry_delay", "max_concurrency")
FACTS = ("name", "concurrency", "doc_syntax", "type")


def _in_mode(mode: str) -> None:
    """Define the jobs of this page once for each mode."""

    def look(self: Job) -> dict[str, Any]:
        self.logger.warning("seen by %s", self.name)
        return {
            **{name: getattr(self, name) for name in (*OPTIONS, *FACTS)},
            "logger": self.logger.name,
            "task": (self.task.id, self.task.kwargs, self.task.meta),
            "workers": self.cfg.workers,
            "same cfg": self.cfg == self.backend.cfg,
            "node": (self.backend.node_name, self.backend.tasks.node_name),
        }

    def later(self: Job, number: int) -> Any:
        """A plain function that returns something to be awaited."""

        async def work() -> int:
            await asyncio.sleep(0)
            return number + 1

        return work()

    async def hand_on(self: Job) -> list[Any]:
        here = await self.queue("leaf", 1, meta_params={"why": "test"})
        local = await self.queue_local("leaf", 2)
        return [[task.queue, task.meta, task.get()] for task in (here, local)]

    async def commands(self: Job) -> list[Any]:
        try:
            await self.shell("echo out; echo bad >&2; exit 3")
        except pq.ShellError as exc:
            return [await self.shell(["echo", "a b"]), exc.returncode, exc.stdout, exc.stderr]
        return []

    async def elsewhere(self: Job) -> bool:
        return await self.run_in_executor(threading.get_ident) != threading.get_ident()

    options: dict[str, dict[str, Any]] = {
        "look": {
            "timeout": 50,
            "max_retries": 2,
            "retry_delay": 0.5,
            "max_concurrency": 7,
            "default_queue": "here",
        }
    }
    for function in (look, later, hand_on, commands, elsewhere):
        word = function.__name__
        made = pq.job(name=f"{mode}.{word}", concurrency=MODES[mode], **options.get(word, {}))(function)
        made.job_class.__module__ = __name__
        globals()[f"job_{mode}_{word}"] = made


for _mode in MODES:
    _in_mode(_mode)

every_mode = pytest.mark.parametrize("mode", list(MODES))


@pq.job()
def leaf(number: int) -> int:
    return number * 10


@pq.job()
def promises(self: Job) -> Any:
    """Return a future, from a function that is not async."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.call_soon(future.set_result, 7)
    return future


@every_mode
async def test_what_self_tells(serving: Producer, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """The options of the job, its task, the settings, the program around it; its logger is `<app>.<job>`."""
    with caplog.at_level(logging.WARNING):
        task = await serving.tasks.queue(f"{mode}.look", meta_params={"who": "me"})
    assert task.get() == {
        "default_queue": "here",
        "timeout": 50,
        "max_retries": 2,
        "retry_delay": 0.5,
        "max_concurrency": 7,
        "name": f"{mode}.look",
        "concurrency": mode,
        "doc_syntax": "markdown",
        "type": "regular",
        "logger": f"pq.{mode}.look",
        "task": (task.id, {}, {"who": "me"}),
        "workers": serving.cfg.workers,
        "same cfg": True,
        "node": ("here", "here"),
    }
    lines = [record.name for record in caplog.records if record.getMessage() == f"seen by {mode}.look"]
    assert lines == [f"pq.{mode}.look"]


@every_mode
async def test_what_one_task_has_of_its_own(serving: Producer, mode: str) -> None:
    """`timeout` and `meta_params` stand in the place of the job's options, for this task alone."""
    meta = {"max_retries": 9, "retry_delay": 3, "max_concurrency": 4}
    own = (await serving.tasks.queue(f"{mode}.look", timeout=20, meta_params=meta)).get()
    assert {name: own[name] for name in (*meta, "timeout")} == {**meta, "timeout": 20}
    none = (await serving.tasks.queue(f"{mode}.look", meta_params={"max_retries": 0})).get()
    assert (none["max_retries"], none["retry_delay"], none["timeout"]) == (0, 0.5, 50)
    usual = (await serving.tasks.queue(f"{mode}.look")).get()
    assert (usual["max_retries"], usual["retry_delay"], usual["max_concurrency"]) == (2, 0.5, 7)


@every_mode
async def test_without_a_queue_it_is_the_same(api: Producer, mode: str) -> None:
    """`execute` runs the job in its own mode, with the same `self`."""
    task = await api.tasks.execute(f"{mode}.look", meta_params={"retry_delay": 3})
    assert (task.queue, task.status_string) == (None, "SUCCESS")
    assert (task.get()["concurrency"], task.get()["retry_delay"]) == (mode, 3)
    assert task.get()["node"] == ("here", "here")


@every_mode
async def test_a_plain_function_may_return_an_awaitable(serving: Producer, mode: str) -> None:
    """It is awaited, in every mode; so a job may hand the work to another function."""
    assert (await serving.tasks.queue(f"{mode}.later", 1)).get() == 2


async def test_a_plain_function_may_return_a_future(serving: Producer) -> None:
    """The result of the task is the value of that future."""
    assert (await serving.tasks.queue("promises")).get() == 7


@every_mode
async def test_a_job_hands_on(serving: Producer, mode: str) -> None:
    """`self.queue` and `self.queue_local`: the meta data of the new task names the old one, beside its own."""
    for way in (serving.tasks.queue, serving.tasks.execute):
        task = await way(f"{mode}.hand_on")
        assert task.get() == [
            ["default", {"why": "test", "from_task": task.id}, 10],
            ["here", {"from_task": task.id}, 20],
        ]


@every_mode
async def test_a_job_runs_commands(serving: Producer, mode: str) -> None:
    """`self.shell` returns the output of a command, or raises an error with its status and both its outputs."""
    task = await serving.tasks.queue(f"{mode}.commands")
    assert task.get() == ["a b\n", 3, "out\n", "bad\n"]


@every_mode
async def test_a_job_leaves_blocking_work_to_a_thread(serving: Producer, mode: str) -> None:
    """`await self.run_in_executor(function, *arguments)`."""
    assert (await serving.tasks.queue(f"{mode}.elsewhere")).get() is True


async def test_a_job_is_the_root_of_its_class() -> None:
    """`abstract` jobs and those without `__call__` are bases, and not inherited as such."""

    class Base(pq.Job):
        abstract = True
        timeout = 9

        def __call__(self) -> str:
            return self.name

    class AsyncSleep(Base):
        pass

    assert (Base.abstract, AsyncSleep.abstract) == (True, False)
    assert (AsyncSleep.name, AsyncSleep.timeout) == ("asyncsleep", 9)
    assert isinstance(AsyncSleep(), pq.Job)
