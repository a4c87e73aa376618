"""The partition that a task goes to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pq import api as pq
from pq.errors import InvalidValue
from pq.model.partitions import Partitions
from pq.model.task import Task
from pq.producer.making import check_partition, key_of, partition_of

PARTITIONS = Partitions({"orders": 4})


@pq.job(partition_key="customer")
def keyed(customer: str | None, n: int = 0) -> None: ...


@pq.job()
def plain(customer: str = "") -> None: ...


def key(job: Any, kwargs: dict[str, Any], stated: Any = None, limits_text: str = "") -> str | None:
    task: Task[Any] = Task("i1", job.name, "orders")
    task.limits_text = limits_text
    return key_of(task, job.job_class, (), kwargs, stated)


@pytest.mark.parametrize(
    ("job", "kwargs", "stated", "limits_text", "found"),
    [
        (keyed, {"customer": "anna"}, None, "", "anna"),
        (keyed, {"customer": "anna"}, "berta", "", "berta"),
        (keyed, {"customer": "anna"}, 12, "", "12"),
        (keyed, {"customer": None}, None, "", None),
        (keyed, {"customer": None}, None, "c1:gate", "gate"),
        (plain, {"customer": "anna"}, None, "", None),
        (plain, {}, None, "c1:gate,c2:other", "gate"),
        (plain, {}, None, "c1:gate,uf:plain/key", "plain/key"),
    ],
)
def test_the_key_of_a_task(
    job: Any, kwargs: dict[str, Any], stated: Any, limits_text: str, found: str | None
) -> None:
    """The stated key counts first, then that of the job, then the unique key, then the first limit."""
    assert key(job, kwargs, stated, limits_text) == found


def test_a_job_that_is_not_known_has_the_stated_key() -> None:
    """A producer by name alone knows no more."""
    task: Task[Any] = Task("i1", "elsewhere", "orders")
    assert key_of(task, None, (), {"customer": "anna"}, "berta") == "berta"
    assert key_of(task, None, (), {"customer": "anna"}, None) is None


def test_equal_keys_meet_in_one_partition() -> None:
    """Whatever the turn; each key in one of the partitions of its queue."""
    turns = itertools.count()
    for name in ("anna", "berta", "12"):
        places = {partition_of(PARTITIONS, "orders", name, turns) for _ in range(10)}
        assert len(places) == 1
        assert places <= set(PARTITIONS.of("orders"))
    assert next(turns) == 0


def test_tasks_without_a_key_are_spread_evenly() -> None:
    """Each partition in its turn."""
    turns = itertools.count(2)
    found = [partition_of(PARTITIONS, "orders", None, turns) for _ in range(8)]
    assert found == [f"orders.p{n % 4}" for n in range(2, 10)]


@pytest.mark.parametrize("queue", ["orders.p0", "orders.p3", "other", "other.p9", "orders.px"])
def test_a_queue_that_exists_may_be_named(queue: str) -> None:
    """A partition, and a queue without any."""
    check_partition(PARTITIONS, queue)


def test_a_partition_that_does_not_exist_is_refused() -> None:
    """No worker would look at it."""
    with pytest.raises(InvalidValue, match=r"queue 'orders' has 4 partitions, and 'orders\.p4' is not one"):
        check_partition(PARTITIONS, "orders.p4")
