"""The producer in its three settings: a running loop, a plain shell, many threads of a web application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, PulsarQueue
from pq.loops import LoopThread
from pq.worker.worker import Worker


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pytest.fixture
def server(app: PulsarQueue) -> Iterator[None]:
    """A worker in another thread, as it would be in another process."""
    thread = LoopThread("test-worker")

    async def start() -> Worker:
        worker = Worker(app.cfg, app.store, app.registry, name="w1", node="here")
        await worker.start()
        return worker

    worker = asyncio.run_coroutine_threadsafe(start(), thread.loop).result(10)
    yield
    asyncio.run_coroutine_threadsafe(worker.stop(0.0), thread.loop).result(10)
    thread.stop()


@pytest.fixture
def shell(make_app: Any) -> Iterator[Producer]:
    """An api as one gets it at the prompt."""
    producer = make_app().api()
    yield producer
    producer.close()


def test_in_a_plain_shell(server: None, shell: Producer) -> None:
    """No loop runs: `.wait()` gives the finished task, and callbacks fire meanwhile."""
    heard = threading.Event()
    shell.on_events("task", "done", lambda *_: heard.set()).wait(5)
    future = shell.tasks.queue("addition", a=4, b=6)
    task = future.wait(5)
    assert (task.result, task.status_string) == (10, "SUCCESS")
    assert heard.wait(5)
    assert repr(future) == f"<TaskFuture finished ID={task.id}>"


def test_the_tutorial_s_delayed_task(server: None, shell: Producer) -> None:
    """`callback=False`, then `done_callback`, as in step four of the tutorial."""
    task = shell.tasks.queue("addition", a=4, b=6, callback=False, delay=0.2).wait(5)
    assert task.status_string == "QUEUED"
    task = task.done_callback.wait(5)
    assert task.status_string == "SUCCESS"
    assert task.time_started - task.time_queued >= 0.2


def test_wait_ends(shell: Producer) -> None:
    """No worker serves: after its time `.wait()` raises that, and may be called again."""
    future = shell.tasks.queue("addition")
    with pytest.raises(TimeoutError, match=r"TaskFuture pending .* not resolved within 0.05 s"):
        future.wait(0.05)
    assert shell.tasks.cancel(future.id).wait(5)
    assert future.wait(5).status_string == "REVOKED"


def test_as_completed_and_map_without_a_loop(server: None, shell: Producer) -> None:
    """`for` over futures, and `map(...).wait()`."""
    futures = shell.tasks.queue_many([("addition", {"a": n}) for n in range(10)])
    assert sorted(task.get() for task in shell.tasks.as_completed(futures)) == list(range(10))
    assert [task.get() for task in shell.tasks.map("addition", range(10)).wait(5)] == list(range(10))


def test_from_many_threads(server: None, shell: Producer) -> None:
    """Twenty threads of a synchronous web application share one api."""

    def request(n: int) -> float:
        result: float = shell.tasks.queue("addition", a=n, b=1).wait(10).get()
        return result

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(request, range(200))) == [n + 1 for n in range(200)]


async def test_one_api_in_two_loops(server: None, make_app: Any) -> None:
    """Each loop has an engine of its own; a future of the one may be awaited in the other."""
    async with make_app().api() as api:
        here = await api.tasks.queue("addition", a=1)
        futures: list[Any] = []
        thread = threading.Thread(target=lambda: futures.append(api.tasks.queue("addition", a=2)))
        thread.start()
        await asyncio.to_thread(thread.join)
        there = await futures[0]
        assert (here.get(), there.get()) == (1, 2)


def test_two_loops_one_after_the_other(server: None, make_app: Any) -> None:
    """`asyncio.run` twice with one api: the second loop does not meet leftovers of the first."""
    api = make_app().api()

    async def once() -> float:
        task = await api.tasks.queue("addition", a=3)
        await api.close()
        result: float = task.get()
        return result

    assert [asyncio.run(once()), asyncio.run(once())] == [3, 3]


def test_an_api_may_be_closed_twice_and_used_again(server: None, make_app: Any) -> None:
    """`close()` sends the remaining tasks; an api that is used again starts again."""
    api = make_app().api()
    assert api.tasks.queue("addition", a=1).wait(5).get() == 1
    api.close()
    api.close()
    assert api.tasks.queue("addition", a=2).wait(5).get() == 2
    api.close()


def test_a_whole_application_in_memory() -> None:
    """`memory://`: producer, store and worker in this process, for notebooks and tests."""
    app = PulsarQueue(data_store="memory://settings", task_paths=[__name__])
    api = app.api()
    assert api.tasks.queue("addition", a=4, b=6).wait(5).result == 10
    assert api.tasks.queue("addition", a=1, delay=0.05).wait(5).result == 1
    api.close()


async def test_in_memory_within_a_loop() -> None:
    """The same, awaited."""
    app = PulsarQueue(data_store="memory://loop", task_paths=[__name__])
    async with app.api() as api:
        tasks = await api.tasks.map("addition", range(50))
        assert [task.get() for task in tasks] == list(range(50))
