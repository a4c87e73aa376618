"""The endings of a task, and that each ending means the same in all four modes of concurrency."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Job, Producer

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}
released = threading.Event()


def _in_mode(mode: str) -> None:
    """Define the jobs of this page once for each mode: `asyncio.fine`, `thread.fine`, …"""

    async def fine_async(self: Job, a: int) -> dict[str, Any]:
        return {"a": a, "pid": os.getpid(), "thread": threading.get_ident(), "name": self.name}

    def fine(self: Job, a: int) -> dict[str, Any]:
        return {"a": a, "pid": os.getpid(), "thread": threading.get_ident(), "name": self.name}

    def bad(self: Job) -> None:
        raise KeyError("no such row")

    def leave(self: Job) -> None:
        raise SystemExit(3)

    async def forever_async(self: Job) -> None:
        self.progress(1, 2)
        await asyncio.sleep(600)

    def forever(self: Job) -> None:
        self.progress(1, 2)
        if mode == "green":
            self.wait(asyncio.sleep(600))
        elif mode == "thread":
            released.wait(600)
        while mode == "process":
            pass

    def unstorable(self: Job) -> Any:
        return threading.Lock()

    makers = [fine_async if mode == "asyncio" else fine, bad, leave]
    makers += [forever_async if mode == "asyncio" else forever, unstorable]
    for function, word in zip(makers, ("fine", "bad", "leave", "forever", "unstorable"), strict=True):
        made = pq.job(name=f"{mode}.{word}", concurrency=MODES[mode])(function)
        made.job_class.__module__ = __name__
        globals()[f"job_{mode}_{word}"] = made


for _mode in MODES:
    _in_mode(_mode)

every_mode = pytest.mark.parametrize("mode", list(MODES))


@every_mode
async def test_success(serving: Producer, mode: str) -> None:
    """A job that returns is SUCCESS, and ran where its mode says."""
    task = await serving.tasks.queue(f"{mode}.fine", a=5)
    assert (task.status_string, task.get()["a"], task.get()["name"]) == ("SUCCESS", 5, f"{mode}.fine")
    assert (task.get()["pid"] == os.getpid()) == (mode != "process")
    if mode != "process":
        assert (task.get()["thread"] == threading.get_ident()) == (mode != "thread")


@every_mode
async def test_failure(serving: Producer, mode: str) -> None:
    """A job that raises is FAILURE; the error and the user's own lines of the traceback are kept."""
    task = await serving.tasks.queue(f"{mode}.bad")
    assert (task.status_string, task.exception) == ("FAILURE", "KeyError: 'no such row'")
    assert "test_endings.py" in (task.stacktrace or "")
    assert str(Path(pq.__file__).parent) not in (task.stacktrace or "")
    with pytest.raises(pq.TaskError, match="no such row") as caught:
        task.get()
    assert caught.value.remote_traceback == task.stacktrace


@every_mode
async def test_a_job_that_exits_fails_and_the_worker_lives(serving: Producer, mode: str) -> None:
    """`sys.exit()` in a job fails that task, and no other."""
    task = await serving.tasks.queue(f"{mode}.leave")
    assert (task.status_string, task.exception) == ("FAILURE", "SystemExit: 3")
    assert (await serving.tasks.queue(f"{mode}.fine", a=1)).get()["a"] == 1


@every_mode
async def test_time_out(serving: Producer, mode: str) -> None:
    """A task that runs longer than its time-out is REVOKED with the reason."""
    task = await serving.tasks.queue(f"{mode}.forever", timeout=0.3)
    released.set()
    assert (task.status_string, task.reason) == ("REVOKED", "timed-out")
    with pytest.raises(pq.TaskTimeout, match=r"time-out of 0\.3 s"):
        task.get()
    released.clear()


@every_mode
async def test_cancel_of_a_running_task(serving: Producer, mode: str) -> None:
    """A running task that is cancelled is stopped at once and REVOKED, never tried again."""
    running = asyncio.Event()
    await serving.on_events("task", "progress", lambda *_: running.set())
    future = serving.tasks.queue(f"{mode}.forever", meta_params={"max_retries": 5})
    await running.wait()
    assert await serving.tasks.cancel(future.id)
    task = await future
    released.set()
    assert (task.status_string, task.reason, task.retry) == ("REVOKED", "revoked", 1)
    with pytest.raises(pq.TaskRevoked):
        task.get()
    released.clear()
    assert not await serving.tasks.cancel(future.id)


@every_mode
async def test_a_result_that_cannot_be_stored(serving: Producer, mode: str) -> None:
    """The work was done, so it is not repeated; the task fails and says which type it was."""
    task = await serving.tasks.queue(f"{mode}.unstorable", meta_params={"max_retries": 5})
    assert (task.status_string, task.reason, task.retry) == ("FAILURE", "result-not-serializable", 1)
    assert "lock" in (task.exception or "")
    with pytest.raises(pq.ResultNotSerializable):
        task.get()


# ------------------------------------------------------------------------------------- attempts
tries: dict[str, int] = {}


@pq.job(max_retries=2, retry_delay=0)
def succeeds_at_last(key: str, at: int) -> int:
    tries[key] = tries.get(key, 0) + 1
    if tries[key] < at:
        raise ValueError(f"attempt {tries[key]}")
    return tries[key]


@pq.job(timeout=0.05, max_retries=1, retry_delay=0)
async def always_late() -> None:
    await asyncio.sleep(60)


@pq.job(concurrency=CPUBOUND)
def kills_its_process() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


async def test_a_failed_task_is_tried_again(serving: Producer) -> None:
    """`max_retries` more attempts follow the first; the task keeps its id, `retry` counts."""
    events: list[str] = []
    await serving.on_events("task", "*", lambda channel, event, task: events.append(f"{event}{task.retry}"))
    task = await serving.tasks.queue("succeeds.at.last", "second", 2)
    assert (task.status_string, task.get(), task.retry) == ("SUCCESS", 2, 2)
    assert task.exception is None
    while "done2" not in events:
        await asyncio.sleep(0.01)
    assert events == ["queued1", "started1", "retry2", "started2", "done2"]


async def test_attempts_end(serving: Producer) -> None:
    """When all attempts failed, so did the task; it lies in the dead set and may be run again."""
    task = await serving.tasks.queue("succeeds.at.last", "never", 99)
    assert (task.status_string, task.retry, tries["never"]) == ("FAILURE", 3, 3)
    tries["never"] = 98
    assert await serving.tasks.retry(task.id)
    again = await task_after_retry(serving, task.id)
    assert (again.status_string, again.get(), again.retry) == ("SUCCESS", 99, 1)


async def task_after_retry(api: Producer, id: str) -> Any:
    while (task := await api.tasks.get(id)) is None or not task.done():
        await asyncio.sleep(0.01)
    return task


async def test_a_late_task_is_tried_again_and_revoked(serving: Producer) -> None:
    """A time-out is tried again like a failure; at the end it is REVOKED."""
    task = await serving.tasks.queue("always.late")
    assert (task.status_string, task.retry, task.reason) == ("REVOKED", 2, "timed-out")


async def test_meta_params_override_the_job_s_attempts(serving: Producer) -> None:
    """For one task: no second attempt."""
    task = await serving.tasks.queue("succeeds.at.last", "once", 2, meta_params={"max_retries": 0})
    assert (task.status_string, task.retry) == ("FAILURE", 1)


async def test_a_task_that_kills_its_process_is_set_aside(serving: Producer) -> None:
    """Only that task is charged; after three crashes it is not given to a fourth process."""
    fine = [serving.tasks.queue("process.fine", a=n) for n in range(5)]
    task = await serving.tasks.queue("kills.its.process")
    assert (task.status_string, task.reason) == ("FAILURE", "worker-lost")
    assert "3 workers died" in (task.exception or "")
    with pytest.raises(pq.TaskCrashed):
        task.get()
    assert [(await future).get()["a"] for future in fine] == list(range(5))


async def test_a_worker_goes_on_after_a_task_that_was_set_aside(serving: Producer) -> None:
    """A task on which processes die runs alone, and when it is given up its worker takes others again."""
    assert (await serving.tasks.queue("kills.its.process")).status_string == "FAILURE"
    async with asyncio.timeout(20):
        assert (await serving.tasks.queue("asyncio.fine", a=1)).get()["a"] == 1


async def test_a_task_that_kills_its_process_uses_up_no_attempts(serving: Producer) -> None:
    """A crash is not an attempt: attempts that are left do not bring back a task that was set aside."""
    async with asyncio.timeout(20):
        task = await serving.tasks.queue("kills.its.process", meta_params={"max_retries": 2})
    assert (task.status_string, task.reason, task.retry) == ("FAILURE", "worker-lost", 1)


# -------------------------------------------------------------------------------------- waiting
async def test_cancel_of_a_waiting_task(api: Producer) -> None:
    """A task that no worker has taken is REVOKED at once, without any worker."""
    ready = api.tasks.queue("asyncio.fine", a=1)
    delayed = api.tasks.queue("asyncio.fine", a=1, delay=60)
    await api.tasks.queue("asyncio.fine", a=1, callback=False)
    assert await api.tasks.cancel(ready.id)
    assert await api.tasks.cancel(delayed.id)
    assert ((await ready).status_string, (await delayed).status_string) == ("REVOKED", "REVOKED")
    assert not await api.tasks.cancel("i" + "1" * 32)
    await api.tasks.flush_queues("default")


async def test_a_delayed_task_starts_when_it_is_due(serving: Producer) -> None:
    """Never early by the store's clock; the wait is between queueing and start."""
    task = await serving.tasks.queue("asyncio.fine", a=1, delay=0.25)
    assert task.time_started - task.time_queued >= 0.25
    assert task.delay == 0.25


async def test_an_expired_task_is_not_started(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """A task with `expires` that no worker started in time is REVOKED, and never runs."""
    future = api.tasks.queue("asyncio.fine", a=1, meta_params={"expires": 0.01})
    await api.tasks.size("default")
    while time.time() < (future.task.expiry or 0):
        await asyncio.sleep(0.005)
    await start_worker(app)
    task = await future
    assert (task.status_string, task.time_started) == ("REVOKED", None)
    assert "expired" in (task.exception or "")


async def test_priorities(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Higher priorities first, then the usual, then the lower; first in first out within each."""
    order: list[int] = []
    await api.on_events("task", "done", lambda channel, event, task: order.append(task.kwargs["a"]))
    plan = [(1, 0), (2, -5), (3, 5), (4, 0), (5, 9), (6, 5), (7, -5)]
    futures = [api.tasks.queue("asyncio.fine", a=a, meta_params={"priority": p}) for a, p in plan]
    await api.tasks.size("default")
    await start_worker(app)
    for future in futures:
        await future
    while len(order) < len(plan):
        await asyncio.sleep(0.01)
    assert order == [5, 3, 6, 1, 4, 2, 7]
