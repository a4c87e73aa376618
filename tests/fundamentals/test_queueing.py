"""Queue a task, await its result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, Task, TaskFuture


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    """Add two numbers."""
    return a + b


@pq.job()
def no_self(a: int, *rest: int) -> int:
    return a + sum(rest)


@pq.job()
def echo(value: Any) -> Any:
    return value


@pq.job()
async def slow_add(self: Job, a: int) -> int:
    await asyncio.sleep(0)
    return a + 1


@pq.job(default_queue="elsewhere")
def lives_elsewhere() -> str:
    return "done"


class AsClass(pq.Job):
    """A job may be a class."""

    async def __call__(self, word: str) -> str:
        return f"{self.name}:{word}"


async def test_a_task_is_queued_and_awaited(serving: Producer) -> None:
    """`await queue(...)` gives the finished task, with its result, its status and its times."""
    task = await serving.tasks.queue("addition", a=4, b=6)
    assert (task.result, task.status_string, task.get()) == (10, "SUCCESS", 10)
    assert (task.name, task.queue, task.kwargs, task.retry) == ("addition", "default", {"a": 4, "b": 6}, 1)
    assert task.time_queued <= task.time_started <= task.time_ended
    assert (task.worker, task.node) == ("w1", "here")


async def test_a_future_shows_the_id_of_its_task(api: Producer) -> None:
    """The future of a pending task reads as the tutorial has it."""
    future = api.tasks.queue("addition", a=1)
    assert isinstance(future, TaskFuture)
    assert repr(future) == f"<TaskFuture pending ID={future.id}>"
    assert len(future.id) == 33
    assert future.id.startswith("i")


async def test_a_job_is_named_in_three_ways(serving: Producer) -> None:
    """A job has its name, its decorated function and its class."""
    by_name = await serving.tasks.queue("no.self", 1, 2, 3)
    by_function = await serving.tasks.queue(no_self, 1, 2)
    by_class = await serving.tasks.queue(AsClass, word="hi")
    assert (by_name.get(), by_function.get(), by_class.get()) == (6, 3, "asclass:hi")


async def test_without_callback_the_future_resolves_when_the_task_is_queued(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """`callback=False`: the task is QUEUED, and `done_callback` is the future of its end."""
    task = await api.tasks.queue("addition", a=4, b=6, callback=False)
    assert task.status_string == "QUEUED"
    done = task.done_callback
    await start_worker(app)
    assert (await done).get() == 10


async def test_done_callback_of_a_task_that_is_done_already(serving: Producer) -> None:
    """The end of a task may be asked for long after it."""
    task = await serving.tasks.queue("addition", a=1, b=1, callback=False)
    while (stored := await serving.tasks.get(task.id)) is None or not stored.done():
        await asyncio.sleep(0.01)
    assert (await task.done_callback).get() == 2
    assert (await stored.done_callback).get() == 2


async def test_arguments_arrive_as_they_were_sent(serving: Producer) -> None:
    """Tuples stay tuples, sets stay sets, and the common value types keep their type."""
    import datetime as dt
    import uuid
    from decimal import Decimal

    value = {"t": (1, (2, 3)), "s": {1, 2}, "d": dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "n": None}
    value |= {"u": uuid.UUID(int=7), "m": Decimal("1.10"), "b": b"\x00\xff", "big": 2**70, 3: "int key"}
    task = await serving.tasks.queue("echo", value)
    assert task.get() == value
    assert type(task.get()["t"][1]) is tuple


async def test_json_workers_and_msgpack_workers_read_each_other(make_app: Any, start_worker: Any) -> None:
    """The serializer is the producer's choice; any worker answers in the same format."""
    await start_worker(make_app())
    async with make_app(message_serializer="json").api() as api:
        task = await api.tasks.queue("echo", {"a": (1, 2)})
        assert task.get() == {"a": (1, 2)}
        assert task.format.name == "json"


async def test_many_tasks_in_order(serving: Producer) -> None:
    """`map` gives the tasks in the order of the items, whatever the order of their ends."""
    tasks = await serving.tasks.map("slow.add", range(500))
    assert [task.get() for task in tasks] == list(range(1, 501))


async def test_queue_many_takes_items_of_several_shapes(serving: Producer) -> None:
    """A job, or a tuple of a job with keywords, positions, or both."""
    futures = serving.tasks.queue_many(
        ["addition", ("addition", {"a": 1}), ("addition", (1, 2)), (addition, (1,), {"b": 3})]
    )
    assert [(await future).get() for future in futures] == [0, 1, 3, 4]


async def test_queue_many_queues_all_or_nothing(api: Producer) -> None:
    """One wrong item, and nothing of the lot is queued."""
    with pytest.raises(pq.BadArguments):
        api.tasks.queue_many([("addition", {"a": 1}), ("addition", {"c": 1})])
    assert await api.tasks.size("default") == {"default": 0}


async def test_as_completed_gives_tasks_as_they_end(serving: Producer) -> None:
    """`async for` over the futures, first come first served."""
    futures = serving.tasks.queue_many([("addition", {"a": n}) for n in range(20)])
    results = [task.get() async for task in serving.tasks.as_completed(futures)]
    assert sorted(results) == list(range(20))


async def test_queue_to_another_queue(
    app: pq.PulsarQueue, api: Producer, make_app: Any, start_worker: Any
) -> None:
    """A task goes to the queue it names, or its job's own; only a worker of that queue takes it."""
    first = api.tasks.queue("addition", a=1, queue="special")
    second = api.tasks.queue("lives.elsewhere")
    await start_worker(app)
    assert (await api.tasks.queue("addition", a=2)).queue == "default"
    assert not first.done()
    await start_worker(make_app(task_queues=["special", "elsewhere"]), name="w2")
    assert (await first).worker == "w2"
    assert (await second).queue == "elsewhere"


async def test_queue_local_goes_to_the_node_s_own_queue(serving: Producer) -> None:
    """`queue_local` is `queue=tasks.node_name`, and the server of this node consumes it."""
    assert serving.tasks.node_name == "here"
    assert serving.tasks.queues() == ["here", "default"]
    assert (await serving.tasks.queue_local("addition", a=1)).queue == "here"


async def test_execute_runs_here_without_a_queue(api: Producer) -> None:
    """`execute` and `queue=False` run the job at once, with no worker and no queue."""
    task = await api.tasks.execute("addition", a=1, b=2)
    assert (task.queue, task.status_string, task.result) == (None, "SUCCESS", 3)
    again = await api.tasks.queue("addition", a=2, b=2, queue=False)
    assert (again.queue, again.result) == (None, 4)


async def test_a_message_is_queued_and_executed(serving: Producer) -> None:
    """`api.queue` and `api.execute` take a task as a message."""
    made = serving.tasks.make("addition", {"a": 1, "b": 1})
    assert (await serving.queue(made)).get() == 2
    other = serving.tasks.make("addition", {"a": 2, "b": 2})
    assert (await serving.execute(other)).get() == 4
    with pytest.raises(pq.InvalidValue):
        serving.queue("text")


async def test_jobs_are_listed(api: Producer) -> None:
    """`job_list` returns the jobs, with type, mode and documentation."""
    jobs = dict(api.tasks.job_list())
    assert set(jobs) == {"addition", "no.self", "echo", "slow.add", "lives.elsewhere", "asclass"}
    assert jobs["addition"]["doc"] == "Add two numbers."
    assert (jobs["addition"]["type"], jobs["addition"]["concurrency"]) == ("regular", "asyncio")
    assert jobs["addition"]["doc_syntax"] == "markdown"
    assert [name for name, _ in api.tasks.job_list(["echo"])] == ["echo"]
    with pytest.raises(pq.TaskNotAvailable):
        api.tasks.job_list(["ecco"])


async def test_sizes_and_flushing(api: Producer) -> None:
    """`size` counts waiting tasks; `flush_queues` revokes them, and resolves their futures."""
    futures = [api.tasks.queue("addition", a=n) for n in range(3)]
    delayed = api.tasks.queue("addition", a=9, delay=60)
    other = await api.tasks.queue("addition", queue="other", callback=False)
    assert await api.tasks.size("default", "other") == {"default": 4, "other": 1}
    assert await api.tasks.flush_queues("default") == 4
    assert {(await future).status_string for future in [*futures, delayed]} == {"REVOKED"}
    assert await api.tasks.size() == {"default": 0, "other": 1}
    with pytest.raises(pq.TaskRevoked):
        (await delayed).get()
    assert await api.tasks.cancel(other.id)


async def test_get_finds_a_task_in_any_queue(serving: Producer) -> None:
    """`get` knows queued and finished tasks, and returns None for an unknown id."""
    queued = await serving.tasks.queue("addition", queue="unserved", callback=False)
    found = await serving.tasks.get(queued.id)
    assert isinstance(found, Task)
    assert (found.status_string, found.queue) == ("QUEUED", "unserved")
    assert await serving.tasks.get("i" + "0" * 32) is None
    await serving.tasks.cancel(queued.id)
    found = await serving.tasks.get(queued.id)
    assert found is not None
    assert found.status_string == "REVOKED"


async def test_meta_data_travels_with_the_task(serving: Producer) -> None:
    """`meta_params` overrides options of the job; the rest of it is the user's."""
    task = await serving.tasks.queue(
        "addition", meta_params={"max_retries": 3, "priority": 2, "tenant": "acme"}
    )
    assert (task.max_retries, task.priority, task.meta) == (3, 2, {"tenant": "acme"})
