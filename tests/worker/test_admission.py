"""The reserved tasks that may start: a table for each check, and the end of those that may not."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pq import api as pq
from pq.broker import records
from pq.broker.contract.values import Reserved
from pq.errors import PayloadMissing
from pq.execution.attempt import Attempt
from pq.model import outcome as outcomes
from pq.model.job import Job
from pq.model.operations import FAIL, RELEASE, RETRY, REVOKE
from pq.model.payloads import dump_payload
from pq.model.registry import Registry
from pq.model.serializers import MSGPACK
from pq.model.states import QUEUED, STARTED
from pq.model.task import Task
from pq.worker import admission
from pq.worker.admission import (
    CHECKS,
    LONGEST_WAIT,
    NO_FREE_CHILD,
    UNKNOWN_JOB,
    UNKNOWN_JOB_TRIES,
    Admission,
    Case,
    Refused,
    check_child,
    check_crashes,
    check_expiry,
    check_limit,
    check_stated_limits,
    is_plain,
)

NOW = 1000.0


@pq.job()
async def plain() -> None: ...


@pq.job(concurrency=pq.CPUBOUND)
def process() -> None: ...


@pq.job(max_concurrency=2)
async def limited() -> None: ...


@pq.job(max_concurrency=2, limits=[pq.Concurrency(1, key="customer")])
async def limited_by_customer(customer: str) -> None: ...


REGISTRY = Registry()
for _job in (plain, process, limited, limited_by_customer):
    REGISTRY.add(_job)


def job_named(name: str) -> type[Job]:
    job = REGISTRY.get(name)
    assert job is not None
    return job


def task_of(name: str = "plain", **values: Any) -> Task[Any]:
    task: Task[Any] = Task("t1", name, "default")
    task.time_queued = NOW - 60
    for key, value in values.items():
        setattr(task, key, value)
    return task


def case_of(name: str = "plain", task: Task[Any] | None = None, **values: Any) -> Case:
    facts: dict[str, Any] = {"crashes": 0, "limit": "", "now": NOW, "max_crashes": 3, "has_child": True}
    return Case(task or task_of(name), job_named(name), **(facts | values))


def admission_of(free_children: int = 8) -> Admission:
    cfg: Any = SimpleNamespace(max_crashes=3, largest_message=100_000)
    backend: Any = SimpleNamespace()
    return Admission(
        REGISTRY,
        cfg,
        worker="w1",
        node="here",
        backend=backend,
        finished=lambda attempt, outcome: None,
        free_children=lambda: free_children,
        time=lambda: NOW,
        chance=lambda: 0.5,
    )


def reserved(task: Task[Any], crashes: int = 0, limit: str = "", id: str = "t1") -> Reserved:
    return Reserved("default", id, 7, records.live_header(0) + task.to_wire(), crashes, limit)


def refused(task: Task[Any], **values: Any) -> Refused:
    found = admission_of().admit(reserved(task, **values))
    assert isinstance(found, Refused)
    return found


# ------------------------------------------------------------------------------------- the checks
@pytest.mark.parametrize(("crashes", "fails"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_task_that_took_too_many_workers_fails(crashes: int, fails: bool) -> None:
    """From `max_crashes` on; the limit counts, not the retries of the task."""
    outcome = check_crashes(case_of(crashes=crashes))
    assert (outcome is not None) == fails
    if outcome is not None:
        assert (outcome.kind, outcome.reason, outcome.final) == (outcomes.FAILED, "worker-lost", True)


@pytest.mark.parametrize(("limit", "kind"), [("", None), ("g", outcomes.REVOKED)])
def test_a_task_that_does_not_wait_at_a_limit_is_revoked(limit: str, kind: int | None) -> None:
    """The store names the limit that is reached."""
    outcome = check_limit(case_of(limit=limit))
    assert (outcome.kind if outcome else None) == kind


@pytest.mark.parametrize(
    ("name", "limits_text", "kwargs", "released"),
    [
        pytest.param("plain", "", {}, False, id="a job without limits"),
        pytest.param("limited", "", {}, True, id="limits that its producer did not know"),
        pytest.param("limited", "g 2 limited", {}, False, id="limits that it states"),
        pytest.param("limited.by.customer", "", {"customer": "a"}, True, id="a limit by an argument"),
        pytest.param(
            "limited.by.customer", "", {}, False, id="without the argument: the attempt reports that"
        ),
    ],
)
def test_a_task_without_the_limits_of_its_job_is_released_with_them(
    name: str, limits_text: str, kwargs: dict[str, Any], released: bool
) -> None:
    """They count from then on; a task that states them starts."""
    task = task_of(name, limits_text=limits_text, call=dump_payload(MSGPACK, [[], kwargs], what="call"))
    ending = check_stated_limits(case_of(name, task))
    assert (ending is not None) == released
    assert bool(task.limits_text) == (released or bool(limits_text))


@pytest.mark.parametrize(
    ("expires", "delay", "expired"),
    [
        pytest.param(None, None, False, id="no expiry"),
        pytest.param(61.0, None, False, id="in time"),
        pytest.param(60.0, None, False, id="at the last moment"),
        pytest.param(59.0, None, True, id="too late"),
        pytest.param(59.0, 10.0, False, id="counted from the end of its delay"),
    ],
)
def test_a_task_that_was_not_started_in_time_is_revoked(
    expires: float | None, delay: float | None, expired: bool
) -> None:
    """It was queued 60 seconds ago."""
    outcome = check_expiry(case_of(task=task_of(expires=expires, delay=delay)))
    assert (outcome is not None) == expired
    if outcome is not None:
        assert (outcome.kind, outcome.reason) == (outcomes.REVOKED, "revoked")


@pytest.mark.parametrize(("has_child", "kind"), [(True, None), (False, outcomes.RELEASED)])
def test_a_process_task_without_a_free_child_is_released(has_child: bool, kind: int | None) -> None:
    """It is at the front of its queue again, and charged with nothing."""
    outcome = check_child(case_of("process", has_child=has_child))
    assert (outcome.kind if outcome else None) == kind


def test_what_can_never_run_is_ended_before_it_is_released() -> None:
    """A task that is all of it at once fails for its crashes; without these it is revoked, and so on."""
    assert (check_crashes, check_limit, check_stated_limits, check_expiry, check_child) == CHECKS
    full = {"crashes": 3, "limit": "g", "has_child": False}
    case = case_of("limited", task_of("limited", expires=1.0), **full)
    assert [check for check in CHECKS if check(case) is not None] == list(CHECKS)


# ----------------------------------------------------------------------------- the whole admission
def test_a_task_that_passes_is_an_attempt() -> None:
    """It is marked with its start, and with its worker."""
    attempt = admission_of().admit(reserved(task_of()))
    assert isinstance(attempt, Attempt)
    task = attempt.task
    assert (task.status, task.time_started, task.worker, task.node) == (STARTED, NOW, "w1", "here")
    assert (attempt.job_class, attempt.done, task.run_info) == (job_named("plain"), False, {})


def test_an_attempt_after_crashes_says_so() -> None:
    """The number of workers that died with it is in `run_info`."""
    attempt = admission_of().admit(reserved(task_of(), crashes=2))
    assert isinstance(attempt, Attempt)
    assert attempt.task.run_info == {"crashes": 2}


def test_another_attempt_has_not_streamed_yet() -> None:
    """The number of parts of the attempt before does not count for this one."""
    task = task_of(retry=2)
    task.note(streamed=5)
    attempt = admission_of().admit(reserved(task))
    assert isinstance(attempt, Attempt)
    assert "streamed" not in attempt.task.run_info


@pytest.mark.parametrize(
    ("values", "more", "op", "why"),
    [
        pytest.param({}, {"crashes": 3}, FAIL, "", id="crashes"),
        pytest.param({}, {"limit": "g"}, REVOKE, "", id="limit"),
        pytest.param({"name": "limited"}, {}, RETRY, "", id="limits unstated"),
        pytest.param({"expires": 1.0}, {}, REVOKE, "", id="expired"),
    ],
)
def test_a_task_that_is_refused_has_its_ending(
    values: dict[str, Any], more: dict[str, Any], op: str, why: str
) -> None:
    """The consumer settles it with that, and starts nothing."""
    found = refused(task_of(**values), **more)
    assert (found.ending.op, found.why) == (op, why)
    assert found.task.status == (QUEUED if op == RETRY else found.task.status)
    assert found.task.time_started is None


@pytest.mark.parametrize(("free", "starts"), [(1, True), (0, False)])
def test_a_process_task_starts_when_a_child_is_free(free: int, starts: bool) -> None:
    """Without one the task is released, and the consumer gets the reason."""
    found = admission_of(free).admit(reserved(task_of("process")))
    assert isinstance(found, Attempt) == starts
    if isinstance(found, Refused):
        assert (found.ending.op, found.why, found.task.status) == (RELEASE, NO_FREE_CHILD, QUEUED)


def test_a_record_that_is_not_a_message_fails(caplog: pytest.LogCaptureFixture) -> None:
    """With its first bytes, for a person to look at; and with an error in the log."""
    found = admission_of().admit(Reserved("default", "t1", 7, b"q\nnonsense", 0))
    assert isinstance(found, Refused)
    assert (found.ending.op, found.task.id, found.task.reason) == (FAIL, "t1", "unreadable-message")
    assert found.task.run_info == {"raw": b"q\nnonsense"}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_record_with_the_message_of_another_task_fails() -> None:
    """It is settled under its own id, and the other task is left alone."""
    found = refused(task_of(), id="t2")
    assert (found.ending.op, found.task.id, found.task.name) == (FAIL, "t2", "unreadable")


def test_a_task_whose_payload_is_lost_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub in its record has the name."""
    stub = task_of().to_wire()

    def lost(message: bytes) -> Task[Any]:
        if message == b"lost":
            raise PayloadMissing("its file is gone", stub=stub)
        return read(message)

    read = Task.from_wire
    monkeypatch.setattr(admission.Task, "from_wire", lost)
    found = admission_of().admit(Reserved("default", "t1", 7, b"q\nlost", 0))
    assert isinstance(found, Refused)
    assert (found.ending.op, found.task.name, found.task.reason) == (FAIL, "plain", "payload-missing")


@pytest.mark.parametrize(
    ("before", "wait"), [(0, 1.0), (1, 2.0), (5, 32.0), (7, LONGEST_WAIT), (UNKNOWN_JOB_TRIES, None)]
)
def test_a_task_of_an_unknown_job_is_released_for_a_worker_that_knows_it(
    before: int, wait: float | None
) -> None:
    """Later and later, because a deploy takes a while; after eight tries it fails."""
    task = task_of("other.job")
    if before:
        task.note(unknown=before)
    found = refused(task)
    if wait is None:
        assert (found.ending.op, found.task.reason, found.why) == (FAIL, "unknown-job", "")
    else:
        assert (found.ending, found.why, found.task.status) == ((RETRY, wait), UNKNOWN_JOB, QUEUED)
        assert found.task.run_info == {"unknown": before + 1}


@pytest.mark.parametrize("crashes", [0, 2, 3])
@pytest.mark.parametrize("limit", ["", "g"])
@pytest.mark.parametrize("expires", [None, 1.0, 100.0])
@pytest.mark.parametrize("name", ["plain", "process", "limited"])
@pytest.mark.parametrize("has_child", [True, False])
def test_a_plain_task_is_refused_by_no_check(
    crashes: int, limit: str, expires: float | None, name: str, has_child: bool
) -> None:
    """Nearly all tasks are plain, and are spared the checks: so none of these may have anything to say."""
    task, job = task_of(name, expires=expires), job_named(name)
    if is_plain(reserved(task, crashes, limit), task, job):
        needs_child = job.concurrency == pq.CPUBOUND
        case = case_of(name, task, crashes=crashes, limit=limit, has_child=has_child or not needs_child)
        assert [check(case) for check in CHECKS] == [None] * len(CHECKS)


# --------------------------------------------------------------------------------- foreign messages
@pytest.mark.parametrize(
    "noted",
    [{"a": 1}, "xx", float("inf"), float("nan"), -(10**12), [1], None, True],
    ids=repr,
)
def test_a_count_that_is_not_a_count_starts_from_zero(noted: Any) -> None:
    """`int()` of it ended the consumer, and with it one worker after the other."""
    task = task_of("nowhere")
    task.note(unknown=noted)
    found = refused(task)
    assert (found.why, found.task.run_info["unknown"]) == (UNKNOWN_JOB, 1)


@pytest.mark.parametrize("name", ["plain", "limited", "nowhere"])
@pytest.mark.parametrize("notes", [b"\xc1", MSGPACK.dumps([1]), MSGPACK.dumps({1: 2})], ids=repr)
def test_notes_that_cannot_be_read_end_no_worker(name: str, notes: bytes) -> None:
    """The task starts where nothing asks for them; else it fails with its reason."""
    task = task_of(name, retry=2, run_info_bytes=notes)
    found = admission_of().admit(reserved(task))
    if isinstance(found, Refused) and found.ending.op == FAIL:
        assert found.task.reason == "unreadable-message"
        assert found.task.name == name


def test_a_check_that_raises_sets_its_task_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the fault of one record; the loop goes on, and its caller gets the reason."""

    def broken(case: Case) -> None:
        raise ZeroDivisionError("no such number")

    monkeypatch.setattr(admission, "CHECKS", (broken,))
    with caplog.at_level(logging.ERROR):
        found = refused(task_of("limited", reply="pq:reply:me"))
    assert (found.ending.op, found.task.reason) == (FAIL, "not-admitted")
    assert (found.task.name, found.task.reply) == ("limited", "pq:reply:me")
    assert found.task.exception == "ZeroDivisionError: no such number"
    assert "task t1 in queue default cannot be admitted" in caplog.text
