"""A task on the wire and in the hand."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.errors import (
    PqError,
    ResultNotSerializable,
    TaskCrashed,
    TaskError,
    TaskLost,
    TaskRevoked,
    TaskTimeout,
    TooManyTasksForJob,
    UnreadableMessage,
)
from pq.model.serializers import JSON, MSGPACK, Serializer
from pq.model.states import FAILURE, QUEUED, RETRY, REVOKED, STARTED, SUCCESS, Status, status_string
from pq.model.task import WIRE, Task

FORMATS = pytest.mark.parametrize("fmt", [MSGPACK, JSON], ids=["msgpack", "json"])


def made(fmt: Serializer = MSGPACK, **facts: Any) -> Task[Any]:
    task: Task[Any] = Task("i1", "add", "q", fmt.dumps([[1], {"b": 2}]), **facts)
    task.format = fmt
    return task


def full(fmt: Serializer, status: int) -> Task[Any]:
    return made(
        fmt, status=status, retry=2, time_queued=1.5, reply="pq:reply:x", delay=1.0, timeout=2.0, expires=3.0,
        max_retries=4, retry_delay=5.0, priority=6, meta=fmt.dumps({"from": "x"}), time_started=7.0, time_ended=8.0,
        worker="w", node="n", result=fmt.dumps((1, 2)), exception="E: x", stacktrace="tb", reason="timed-out",
        run_info=fmt.dumps({"pid": 1}),
    )  # fmt: skip


def facts(task: Task[Any]) -> dict[str, Any]:
    """All that travels, with its payloads unpacked."""
    return {key: getattr(task, key) for key in WIRE if key not in ("version", "call")} | {
        "args": task.args, "kwargs": task.kwargs,
    }  # fmt: skip


@FORMATS
@pytest.mark.parametrize("status", [SUCCESS, FAILURE, REVOKED])
def test_a_finished_task_travels_whole(fmt: Serializer, status: int) -> None:
    """Every field arrives, payloads included, and the format is kept."""
    sent = full(fmt, status)
    there = Task.from_wire(sent.to_wire())
    assert facts(there) == facts(sent)
    assert there.format is fmt
    assert there.result == (1, 2)


@FORMATS
@pytest.mark.parametrize("status", [QUEUED, RETRY, STARTED])
def test_a_task_that_has_not_ended_carries_no_result(fmt: Serializer, status: int) -> None:
    """Result and time of the end belong to an end; all else arrives."""
    sent = full(fmt, status)
    there = Task.from_wire(sent.to_wire())
    assert facts(there) == facts(sent) | {"result": None, "time_ended": None}


@FORMATS
def test_a_queued_task_is_small(fmt: Serializer) -> None:
    """A value of None at the end is left out."""
    assert len(fmt.unpack(made(fmt).to_wire())) == 9


def test_a_success_carries_no_room_for_errors() -> None:
    """Unless there is something to say about the run."""
    task = made(status=SUCCESS, result=MSGPACK.dumps(3), time_ended=1.0)
    assert len(MSGPACK.unpack(task.to_wire())) == WIRE.index("result") + 1
    task.note(pid=7)
    assert Task.from_wire(task.to_wire()).run_info == {"pid": 7}


def test_a_task_without_arguments_has_empty_ones() -> None:
    """No payload at all is the empty list and mapping."""
    there = Task.from_wire(Task("i1", "add").to_wire())
    assert (there.args, there.kwargs, there.meta, there.run_info, there.result) == ([], {}, {}, {}, None)


def test_fields_of_a_newer_version_are_ignored() -> None:
    """New fields are appended: an old worker reads those that it knows."""
    fields = MSGPACK.unpack(full(MSGPACK, SUCCESS).to_wire())
    there = Task.from_wire(MSGPACK.pack([*fields, "newer", {"still": "newer"}]))
    assert there.reason == "timed-out"


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, [1]])
def test_another_wire_version_is_refused(version: Any) -> None:
    """The error has the version, and what to do."""
    fields = [version, *MSGPACK.unpack(made().to_wire())[1:]]
    with pytest.raises(UnreadableMessage, match="wire version") as caught:
        Task.from_wire(msgpack.packb(fields))
    assert "upgrade" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("place", "value"),
    [("id", 5), ("id", None), ("name", b"x"), ("retry", "1"), ("retry", None), ("reply", 5), ("call", None), ("call", [])],
)  # fmt: skip
def test_wrong_types_are_refused(place: str, value: Any) -> None:
    """Values that broker and worker rely on are checked."""
    fields = MSGPACK.unpack(full(MSGPACK, SUCCESS).to_wire())
    fields[WIRE.index(place)] = value
    with pytest.raises(UnreadableMessage, match="wrong type"):
        Task.from_wire(msgpack.packb(fields))


@pytest.mark.parametrize("body", [b"", b"[]", b"[1]", b"\x90", b"\x91\x01", b"{}", msgpack.packb([1] * 8)])
def test_a_short_record_is_not_a_task(body: bytes) -> None:
    """A message has its nine first fields."""
    with pytest.raises(UnreadableMessage):
        Task.from_wire(body)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=100) | st.lists(st.none() | st.integers() | st.text() | st.binary(), max_size=30))
def test_no_bytes_break_the_reader(body: Any) -> None:
    """A task or `UnreadableMessage`; its arguments likewise."""
    if isinstance(body, list):
        try:
            body = msgpack.packb([1, "i", "n", "q", b"", 6, 1, None, None, *body])
        except (OverflowError, UnicodeEncodeError):
            return
    try:
        task = Task.from_wire(body)
        task.args, task.kwargs, task.result, task.meta, task.run_info  # noqa: B018
    except UnreadableMessage:
        return
    assert isinstance(task.id, str)


@pytest.mark.parametrize(
    "call", [b"\xc1", MSGPACK.dumps([1]), MSGPACK.dumps({}), MSGPACK.dumps([{}, []]), MSGPACK.dumps(5)]
)
def test_arguments_that_are_none_leave_the_task_readable(call: bytes) -> None:
    """The envelope is read, so the task can be failed; asking for its arguments raises."""
    task = Task.from_wire(Task("i1", "add", "q", call).to_wire())
    assert task.name == "add"
    for ask in (lambda: task.args, lambda: task.kwargs):
        with pytest.raises(UnreadableMessage):
            ask()


# ------------------------------------------------------------------------------------------ endings
def test_get_gives_the_result() -> None:
    """A task that succeeded gives its result, None included."""
    assert made(status=SUCCESS, result=MSGPACK.dumps({"x": (1,)})).get() == {"x": (1,)}
    assert made(status=SUCCESS).get() is None


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (FAILURE, "task-failed", TaskError), (FAILURE, None, TaskError), (FAILURE, "of.a.newer.version", TaskError),
        (REVOKED, "timed-out", TaskTimeout), (REVOKED, "revoked", TaskRevoked), (FAILURE, "worker-lost", TaskCrashed),
        (REVOKED, "task-lost", TaskLost), (FAILURE, "result-not-serializable", ResultNotSerializable),
        (REVOKED, "too-many-tasks", TooManyTasksForJob),
    ],
)  # fmt: skip
def test_get_raises_how_it_ended(status: int, reason: str | None, error: type[TaskError]) -> None:
    """The error by its slug, with the texts from the worker."""
    with pytest.raises(TaskError) as caught:
        made(status=status, reason=reason, exception="ValueError: no", stacktrace="Traceback …").get()
    assert type(caught.value) is error
    assert str(caught.value) == "ValueError: no"
    assert caught.value.remote_traceback == "Traceback …"
    assert any("in the worker" in note for note in caught.value.__notes__)


def test_get_without_a_text_says_what_is_known() -> None:
    """An ending without words still has a sentence."""
    with pytest.raises(TaskError, match=r"task\.add ended FAILURE"):
        made(status=FAILURE).get()


@pytest.mark.parametrize("status", [QUEUED, STARTED, RETRY])
def test_get_before_the_end_is_a_mistake(status: int) -> None:
    """The error is not a `TaskError`: the task may yet succeed."""
    with pytest.raises(PqError, match="is not finished") as caught:
        made(status=status).get()
    assert not isinstance(caught.value, TaskError)


# -------------------------------------------------------------------------------------------- looks
def test_words_about_a_task() -> None:
    """Name, status and a short line."""
    task = made(status=SUCCESS)
    assert task.full_name == "task.add"
    assert task.status_string == "SUCCESS"
    assert task.info() == "task.add<i1><SUCCESS>"
    assert repr(made()) == "task.add<i1><QUEUED>"
    assert task.done()
    assert not made().done()
    assert not made(status=RETRY).done()


def test_expiry_counts_from_the_planned_start() -> None:
    """Queued, plus the delay, plus `expires`; without one a task does not expire."""
    assert made(time_queued=100.0, expires=5.0).expiry == 105.0
    assert made(time_queued=100.0, delay=50.0, expires=5.0).expiry == 155.0
    assert made(time_queued=100.0, expires=0).expiry == 100.0
    assert made(time_queued=100.0).expiry is None
    assert made(expires=5.0).expiry is None


def test_tojson_has_plain_names_and_no_nones() -> None:
    """Everything but the reply channel; the call as args and kwargs."""
    told = full(MSGPACK, SUCCESS).tojson()
    assert told["result"] == (1, 2)
    assert (told["args"], told["kwargs"]) == ([1], {"b": 2})
    assert (told["type"], told["status"], told["status_string"]) == ("task", 1, "SUCCESS")
    assert (told["meta"], told["run_info"]) == ({"from": "x"}, {"pid": 1})
    assert not told.keys() & {"call", "reply", "version"}
    short = made().tojson()
    assert None not in short.values()
    assert short.keys() == {
        "type",
        "status_string",
        "id",
        "name",
        "queue",
        "status",
        "retry",
        "args",
        "kwargs",
    }
    json.dumps(short)


def test_notes_add_up() -> None:
    """The notes of a task travel with it."""
    task = made()
    task.note(pid=1)
    task.note(crashes=2)
    assert Task.from_wire(task.to_wire()).run_info == {"pid": 1, "crashes": 2}


def test_a_task_of_no_producer_has_no_future() -> None:
    """It says where to get one that has."""
    with pytest.raises(PqError, match="did not come from a producer"):
        _ = made().done_callback
    task = made()
    task.awaiter = lambda task: f"the future of {task.id}"
    assert task.done_callback == "the future of i1"


def test_status_names() -> None:
    """One name per number; anything else is unknown."""
    assert [status_string(int(status)) for status in Status] == [status.name for status in Status]
    assert {status.name: int(status) for status in Status} == {
        "SUCCESS": 1, "FAILURE": 2, "REVOKED": 3, "RETRY": 4, "STARTED": 5, "QUEUED": 6,
    }  # fmt: skip
    for odd in (0, 7, -1, "SUCCESS", None, 1.5, []):
        assert status_string(odd) == "UNKNOWN"
