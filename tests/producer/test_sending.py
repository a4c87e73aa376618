"""The tasks of one call, and the error that a refused task gets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from pq.broker.contract.values import Entry
from pq.errors import PqError, QueueFull
from pq.model.task import Task
from pq.producer import sending
from pq.producer.future import TaskFuture
from pq.producer.sending import Answers, Outgoing, by_queue, take_batch


def outgoing(id: str, queue: str | None = "default", size: int = 10) -> Outgoing:
    task: Task[Any] = Task(id, "addition", queue)
    return TaskFuture(task, loop=asyncio.get_running_loop()), Entry(id, b"x" * size), False


def ids(batch: list[Outgoing]) -> list[str]:
    return [entry.id for _, entry, _ in batch]


async def test_a_batch_has_a_largest_number_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stays in the outbox, in its order."""
    monkeypatch.setattr(sending, "BATCH", 3)
    outbox = deque(outgoing(f"i{n}") for n in range(4))
    assert ids(take_batch(outbox)) == ["i0", "i1", "i2"]
    assert ids(take_batch(outbox)) == ["i3"]
    assert take_batch(outbox) == []


async def test_a_batch_ends_when_it_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that passes the bound still goes with it, so one that is larger than the bound goes alone."""
    monkeypatch.setattr(sending, "BATCH_BYTES", 25)
    outbox = deque([outgoing("i0"), outgoing("i1"), outgoing("i2"), outgoing("i3", size=99), outgoing("i4")])
    assert ids(take_batch(outbox)) == ["i0", "i1", "i2"]
    assert ids(take_batch(outbox)) == ["i3"]
    assert ids(take_batch(outbox)) == ["i4"]


async def test_a_batch_goes_queue_by_queue() -> None:
    """Within a queue in the order in which the tasks were queued."""
    batch = [outgoing("i0", "a"), outgoing("i1", "b"), outgoing("i2", "a"), outgoing("i3", None)]
    found = by_queue(batch)
    assert {queue: [entry.id for entry in entries] for queue, entries in found.items()} == {
        "a": ["i0", "i2"],
        "b": ["i1"],
        "": ["i3"],
    }


def test_a_task_is_refused_with_its_queue_or_by_itself() -> None:
    """The error of the whole queue counts first."""
    whole, own = PqError("the queue"), QueueFull("the task")
    answers = Answers(refused_queues={"a": whole}, refused={"i1": own, "i2": own})
    errors = [
        answers.error_of(Task(id, "addition", queue))
        for id, queue in (("i0", "a"), ("i1", "a"), ("i2", "b"), ("i3", "b"))
    ]
    assert errors == [whole, whole, own, None]
