"""Which futures are looked up, which queues are warned about, and which error a lost task gets."""

from __future__ import annotations

from typing import Any

import pytest

from pq.errors import ResultExpired, TaskLost
from pq.model.task import Task
from pq.producer.awaiting import late_ids, longest_waiting, lost


def task(
    id: str = "i1", queue: str | None = "default", at: float | None = 100.0, delay: float | None = None
) -> Task[Any]:
    made: Task[Any] = Task(id, "addition", queue, time_queued=at)
    made.delay = delay
    return made


@pytest.mark.parametrize(
    ("since", "before", "most", "late"),
    [
        ({}, 10.0, 5, []),
        ({"a": 10.0, "b": 10.1, "c": 9.0}, 10.0, 5, ["a", "c"]),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, 10.0, 2, ["a", "b"]),
        ({"a": 0.0, "b": 0.0}, 0.0, 5, ["a", "b"]),
        ({"a": 11.0}, 10.0, 5, []),
    ],
)
def test_futures_that_have_waited_long_are_late(
    since: dict[str, float], before: float, most: int, late: list[str]
) -> None:
    """Futures whose last look is old enough come in their order, never more than one turn can take."""
    assert late_ids(since, before, most) == late


def test_one_task_of_each_queue_is_warned_about() -> None:
    """The first of a queue that has waited since then; a delayed task may wait, and one warning is enough."""
    tasks = [
        task("young", "a", at=99.0),
        task("first", "a", at=10.0),
        task("second", "a", at=9.0),
        task("delayed", "b", at=1.0, delay=60.0),
        task("warned", "c", at=1.0),
        task("nowhere", None, at=None),
    ]
    found = longest_waiting(tasks, {"c"}, 50.0)
    assert {queue: one.id for queue, one in found.items()} == {"a": "first", "": "nowhere"}


@pytest.mark.parametrize(
    ("queued", "delay", "now", "kind"),
    [
        (100.0, None, 130.0, TaskLost),
        (100.0, None, 160.0, TaskLost),
        (100.0, None, 160.1, ResultExpired),
        (100.0, 50.0, 160.1, TaskLost),
        (100.0, 50.0, 210.1, ResultExpired),
        (None, None, 9e9, TaskLost),
    ],
)
def test_a_task_that_is_gone_is_lost_or_expired(
    queued: float | None, delay: float | None, now: float, kind: type[TaskLost]
) -> None:
    """Results are kept for a minute here: older ones may have expired, younger ones were lost."""
    error = lost(task(at=queued, delay=delay), now, 60.0)
    assert type(error) is kind
    assert "task i1 is not in the store any more" in str(error)
