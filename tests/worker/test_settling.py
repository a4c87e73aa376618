"""Endings become settlements, and wait for a round trip; refused ones are not counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pq.broker import records
from pq.broker.contract.values import Settlement
from pq.model.ending import Ending
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY, REVOKE
from pq.model.states import FAILURE, QUEUED, REVOKED, SUCCESS
from pq.model.states import RETRY as RETRY_STATUS
from pq.model.task import Task
from pq.worker.attempts import Attempts
from pq.worker.context import Counts
from pq.worker.settling import HEADERS, Settling, strays

STATUS = {ACK: SUCCESS, FAIL: FAILURE, REVOKE: REVOKED, RETRY: RETRY_STATUS, RELEASE: QUEUED, CRASH: QUEUED}


class World:
    """A settling of one worker, and the tasks that it holds."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.attempts = Attempts()
        self.context: Any = SimpleNamespace(lease="L", counts=self.counts)
        self.settling = Settling(self.context, self.attempts)

    def end(
        self, op: str, id: str = "t1", *, queue: str = "default", batch: int = 7, wait: float = 0.0
    ) -> bool:
        """A task that is held ends."""
        task: Task[Any] = Task(id, "work", queue)
        task.status, task.reply = STATUS[op], "reply"
        self.attempts.held[id] = (queue, batch)
        return self.settling.settle(task, Ending(op, wait))

    def one(self) -> Settlement:
        """The one settlement that waits."""
        ((one,),) = self.settling.pending.values()
        return one

    def counted(self) -> dict[str, int]:
        """The counts that are not zero."""
        names = ("processed", "succeeded", "failed", "revoked", "retried", "refused")
        return {name: count for name in names if (count := getattr(self.counts, name))}


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("op", "header", "reply", "counted"),
    [
        (ACK, records.finished_header(SUCCESS, "L:7"), "reply", {"processed": 1, "succeeded": 1}),
        (FAIL, records.finished_header(FAILURE, "L:7"), "reply", {"processed": 1, "failed": 1}),
        (REVOKE, records.finished_header(REVOKED, "L:7"), "reply", {"processed": 1, "revoked": 1}),
        (RETRY, records.live_header(None, "L:7"), "", {"retried": 1}),
        (RELEASE, None, "", {}),
        (CRASH, None, "", {}),
    ],
)
def test_an_ending_becomes_a_settlement(
    world: World, op: str, header: bytes | None, reply: str, counted: dict[str, int]
) -> None:
    """Under the batch in which the task was reserved; a task that is released keeps the record that it has."""
    assert world.end(op)
    one = world.one()
    assert (one.op, one.id, one.batch, one.reply, one.wait) == (op, "t1", 7, reply, 0)
    assert one.record.startswith(header) if header is not None else one.record == b""
    assert world.counted() == counted
    assert "t1" not in world.attempts.held


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.0, 0), (1.5, 1500), (0.0004, 0), (-1.0, 0)])
def test_the_wait_before_another_attempt_is_in_milliseconds(
    world: World, seconds: float, milliseconds: int
) -> None:
    """Never negative."""
    world.end(RETRY, wait=seconds)
    assert world.one().wait == milliseconds


def test_a_task_with_limits_says_so_when_it_succeeds(world: World) -> None:
    """Other tasks may wait for the slots that it leaves."""
    task: Task[Any] = Task("t1", "work", "default")
    task.status, task.limits_text = SUCCESS, "g 1 x"
    world.attempts.held["t1"] = ("default", 7)
    world.settling.settle(task, Ending(ACK))
    assert world.one().limited


def test_a_task_that_is_not_held_is_not_settled(world: World) -> None:
    """It was abandoned with its lease: another worker has it."""
    task: Task[Any] = Task("t1", "work", "default")
    assert not world.settling.settle(task, Ending(ACK))
    assert (world.settling.pending, world.counted()) == ({}, {})


def test_each_batch_has_a_header_of_its_own(world: World) -> None:
    """It names the lease and the batch; headers of very many batches are forgotten."""
    for batch in range(HEADERS + 5):
        world.end(ACK, f"t{batch}", batch=batch)
    for batch, one in enumerate(world.settling.pending["default"]):
        assert one.record.startswith(records.finished_header(SUCCESS, f"L:{batch}"))


def test_what_did_not_reach_the_store_comes_first_the_next_time(world: World) -> None:
    """They come before tasks that have ended since, in each queue."""
    world.end(ACK, "t1")
    world.end(ACK, "t2", queue="slow")
    taken = world.settling.take()
    assert world.settling.pending == {}
    world.end(ACK, "t3")
    world.settling.put_back(taken)
    ids = {queue: [one.id for one in ended] for queue, ended in world.settling.pending.items()}
    assert ids == {"default": ["t1", "t3"], "slow": ["t2"]}


def test_released_tasks_of_a_batch_keep_their_order(world: World) -> None:
    """Each is put before the other at the front of the queue, so the last one is settled first."""
    world.end(RELEASE, "t0")
    before = world.settling.lengths()
    for id, op in (("t1", RELEASE), ("t2", ACK), ("t3", RELEASE), ("t4", RELEASE)):
        world.end(op, id)
    world.end(RELEASE, "t5", queue="slow")
    world.settling.order_released(before)
    assert [one.id for one in world.settling.pending["default"]] == ["t0", "t2", "t4", "t3", "t1"]
    assert [one.id for one in world.settling.pending["slow"]] == ["t5"]


@pytest.mark.parametrize("op", [ACK, FAIL, REVOKE, RETRY, RELEASE])
def test_a_refused_result_does_not_count(world: World, op: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another worker has the task, and counts it."""
    world.end(op)
    world.end(ACK, "t2")
    sent = world.settling.take()
    world.settling.refused([("default", "t1")], sent)
    retried = {"retried": 1} if op == RETRY else {}
    assert world.counted() == {"processed": 1, "succeeded": 1, "refused": 1} | retried
    assert "1 results were refused" in caplog.text


def test_results_of_a_lost_lease_are_dropped(world: World) -> None:
    """None of them comes to count, and the headers of the old lease are forgotten."""
    world.end(ACK, "t1")
    world.end(FAIL, "t2")
    world.settling.abandon()
    assert world.settling.pending == {}
    assert world.counted() == {"refused": 2}
    world.context.lease = "M"
    world.end(ACK, "t3")
    assert world.one().record.startswith(records.finished_header(SUCCESS, "M:7"))


def test_tasks_held_here_and_not_running_are_found() -> None:
    """It knows of a claim and not of its end; held, settled, or pending tasks are none of those."""
    held = [
        ("default", "runs", 3),
        ("default", "runs in a later batch", 2),
        ("default", "settled", 3),
        ("default", "on its way", 5),
        ("default", "stray", 4),
    ]
    known = {"runs": ("default", 3), "runs in a later batch": ("default", 4)}
    pending = {"default": [Settlement(ACK, "settled", 3)]}
    assert strays(held, known, pending, 4) == [
        ("default", "runs in a later batch", 2),
        ("default", "stray", 4),
    ]
