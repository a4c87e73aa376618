"""The dead set: look at tasks that failed for good, run them again, delete them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pq import api as pq
from pq.api import Producer


@pq.job()
def divide(a: float, b: float = 0) -> float:
    return a / b


@pq.job(default_queue="other")
def divide_elsewhere(a: float, b: float = 0) -> float:
    return a / b


@pytest.fixture
def app(make_app: Any) -> pq.PulsarQueue:
    made: pq.PulsarQueue = make_app(task_queues=["default", "other"])
    return made


async def test_the_newest_first(serving: Producer) -> None:
    """All queues, or one of them; no more than asked for. A success is not there."""
    ids = []
    for n, job in enumerate(["divide", "divide.elsewhere", "divide"]):
        ids.append((await serving.tasks.queue(job, n)).id)
    await serving.tasks.queue("divide", 1, b=1)
    dead = await serving.tasks.dead()
    assert [task.id for task in dead] == ids[::-1]
    assert dead[0].exception == "ZeroDivisionError: division by zero"
    assert [task.id for task in await serving.tasks.dead(count=2)] == ids[:0:-1]
    assert [task.id for task in await serving.tasks.dead("other")] == [ids[1]]
    assert await serving.tasks.dead("unserved") == []
    with pytest.raises(pq.InvalidValue, match="count is 0"):
        serving.tasks.dead(count=0)


async def test_again_with_other_arguments(serving: Producer) -> None:
    """Arguments change by name, at any place; others stay. The task keeps its id and leaves the dead set."""
    task = await serving.tasks.queue("divide", 8, b=0)
    assert await serving.tasks.retry(task.id, b=2)
    again = await (await serving.tasks.get(task.id)).done_callback
    assert (again.get(), again.args, again.kwargs, again.retry) == (4, [8], {"b": 2}, 1)
    assert await serving.tasks.dead() == []
    assert await serving.tasks.retry(task.id, a=10)
    again = await (await serving.tasks.get(task.id)).done_callback
    assert (again.get(), again.args) == (5, [10])


async def test_changes_are_checked(serving: Producer) -> None:
    """The checks are those of `queue`, and precede any change."""
    task = await serving.tasks.queue("divide", 8)
    with pytest.raises(pq.BadArguments, match="got an unexpected keyword argument 'c'"):
        await serving.tasks.retry(task.id, c=2)
    with pytest.raises(pq.NotSerializable, match="argument 'b' of divide"):
        await serving.tasks.retry(task.id, b=threading.Lock())
    assert [dead.id for dead in await serving.tasks.dead()] == [task.id]
    assert not await serving.tasks.retry("i" + "0" * 32, b=2)


async def test_forgetting(serving: Producer) -> None:
    """A finished task is gone with its result; one that waits is not to be forgotten."""
    failed = await serving.tasks.queue("divide", 8)
    fine = await serving.tasks.queue("divide", 8, 2)
    waiting = serving.tasks.queue("divide", 8, delay=60)
    assert await serving.tasks.forget(failed.id)
    assert await serving.tasks.forget(fine.id)
    assert not await serving.tasks.forget(failed.id)
    assert not await serving.tasks.forget(waiting.id)
    assert await serving.tasks.dead() == []
    assert await serving.tasks.get(fine.id) is None
    await serving.tasks.cancel(waiting.id)


async def test_what_has_expired_is_taken_off_the_list(serving: Producer, valkey: Any) -> None:
    """The record expires after `dead_ttl`; its entry is removed at the next listing."""
    ids = [(await serving.tasks.queue("divide", n)).id for n in range(5)]
    for id in ids[2:]:
        valkey.client.delete(f"pq:{{default}}:task:{id}")
    assert [task.id for task in await serving.tasks.dead(count=2)] == [ids[1], ids[0]]
    assert valkey.client.zcard("pq:{default}:dead") == 2


def test_in_a_plain_shell(make_app: Any) -> None:
    """The same with `.wait()`."""
    api = make_app(data_store="memory://dead-set").api()
    task = api.tasks.queue("divide", 1).wait(10)
    assert [dead.id for dead in api.tasks.dead().wait(10)] == [task.id]
    assert api.tasks.retry(task.id, b=4).wait(10)
    assert api.tasks.get(task.id).wait(10).done_callback.wait(10).get() == 0.25
    assert api.tasks.forget(task.id).wait(10)
    api.close()
