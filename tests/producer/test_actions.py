"""The calculations before a task or a queue is changed."""

from __future__ import annotations

from typing import Any

import pytest

from pq.model.states import FAILURE, QUEUED
from pq.model.task import Task
from pq.producer.actions import reset, share_of
from pq.producer.lookup import readable


@pytest.mark.parametrize(
    ("most", "partitions", "share"),
    [(None, 4, None), (16, 4, 4), (17, 4, 5), (0, 4, 0), (7, 0, 7), (1, 8, 1)],
)
def test_each_partition_gets_its_share_of_a_limit(
    most: int | None, partitions: int, share: int | None
) -> None:
    """Rounded up: a limit that is larger than nothing lets at least one task wait in each."""
    assert share_of(most, partitions) == share


def test_a_task_that_is_run_again_is_as_it_was_queued() -> None:
    """With its id, its arguments and its options; nothing of the attempts before is left."""
    task: Task[Any] = Task(
        "i1", "addition", "default", b"call", FAILURE, 4, 1.0, "reply", 5.0, 6.0, None, 3, None, 7, b"meta",
        2.0, 3.0, "w1", "node", b"result", "ValueError: x", "stack", "task-failed", b"info",
    )  # fmt: skip
    reset(task, 100.0)
    assert (task.status, task.retry, task.time_queued, task.delay) == (QUEUED, 1, 100.0, None)
    assert [
        task.time_started, task.worker, task.node, task.exception, task.stacktrace, task.reason, task.run_info_bytes,
        task.result_bytes,
    ] == [None] * 8  # fmt: skip
    assert (task.id, task.call, task.timeout, task.max_retries, task.priority, task.meta_bytes) == (
        "i1", b"call", 6.0, 3, 7, b"meta",
    )  # fmt: skip


@pytest.mark.parametrize("record", [None, b"", b"q\n\xc1", b"no record at all"])
def test_a_record_that_cannot_be_read_is_listed_all_the_same(record: bytes | None) -> None:
    """By its id and its queue, under a name that says so."""
    task = readable(record, "i1", "default")
    assert (task.id, task.name, task.queue) == ("i1", "unreadable", "default")
