"""A task: one requested run of a job, with its arguments and its state. This is what travels.

On the wire a task is a flat list, in the order of `WIRE`; what is None at its end is left out, so a
queued task is small and one that has run says more. New fields are appended and readers ignore what
they do not know, so workers of two versions can share a queue. Arguments, result, meta data and run
info are *payloads*: packed by themselves, unpacked when they are first read (see `pq.model.payloads`).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from ..errors import (
    FORMER_SLUGS,
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
from .envelopes import unpack_envelope
from .payloads import load_payload
from .serializers import MSGPACK, Serializer
from .states import QUEUED, READY_STATES, SUCCESS, status_string

R = TypeVar("R")

WIRE_VERSION = 1

WIRE = (
    "version", "id", "name", "queue", "call", "status", "retry", "time_queued", "reply",
    "delay", "timeout", "expires", "max_retries", "retry_delay", "priority", "meta",
    "time_started", "time_ended", "worker", "node", "result", "exception", "stacktrace", "reason", "run_info",
)  # fmt: skip

_ERRORS: dict[str | None, type[TaskError]] = {
    kind.slug: kind
    for kind in (TaskTimeout, TaskRevoked, TaskCrashed, TaskLost, ResultNotSerializable, TooManyTasksForJob)
}
_UNSET: Any = object()


_TEXT, _BYTES = (str,), (bytes, str)  # JSON has no bytes: a payload is text there
_REAL, _WHOLE, _NONE = (int, float), (int,), (type(None),)
_TYPES: dict[str, tuple[type, ...]] = {
    "id": _TEXT, "name": _TEXT, "queue": _TEXT + _NONE, "call": _BYTES, "status": _WHOLE, "retry": _WHOLE,
    "time_queued": _REAL + _NONE, "reply": _TEXT + _NONE, "delay": _REAL + _NONE, "timeout": _REAL + _NONE,
    "expires": _REAL + _NONE, "max_retries": _WHOLE + _NONE, "retry_delay": _REAL + _NONE,
    "priority": _WHOLE + _NONE, "meta": _BYTES + _NONE, "time_started": _REAL + _NONE, "time_ended": _REAL + _NONE,
    "worker": _TEXT + _NONE, "node": _TEXT + _NONE, "result": _BYTES + _NONE, "exception": _TEXT + _NONE,
    "stacktrace": _TEXT + _NONE, "reason": _TEXT + _NONE, "run_info": _BYTES + _NONE,
}  # fmt: skip
_SHAPES: dict[tuple[type, ...], tuple[int, ...]] = {}
"""Types of the fields of messages that passed before, and which of these are numbers to be counted with."""
_PLAIN = 8
"""Fields of a message that says no more than it must; nothing is counted with its numbers."""
_FARTHEST = 1e12
"""Seconds, or times, beyond which a number is not believed."""


def _check_types(shape: tuple[type, ...]) -> tuple[int, ...]:
    """Return where the numbers are. Raises `UnreadableMessage` unless each field has a type that it may have.

    Fields that are newer than this program may be anything.
    """
    for (name, types), kind in zip(_TYPES.items(), shape, strict=False):
        if kind not in types:
            raise UnreadableMessage(f"a message whose {name} is of a wrong type, {kind.__name__}")
    known = shape[: len(_TYPES)]
    numbers = tuple(at for at, kind in enumerate(known) if kind in _REAL and at != 4)  # a status is looked up
    if len(_SHAPES) < 1000:
        _SHAPES[shape] = numbers
    return numbers


class Task(Generic[R]):
    """One run of a job.

    Attributes:
        id: unique, made by the producer; stays the same through all attempts.
        name: the job's name.
        queue: where it was queued; None when it was executed without a queue.
        args, kwargs: what the job is called with.
        status: a number of `pq.model.states`; `status_string` is its name.
        retry: the attempt, from 1.
        max_retries: how many attempts may follow the first; None means none.
        delay: seconds to wait before the first attempt.
        timeout: seconds that an attempt may run.
        expires: seconds after `time_queued` past which it is not started any more.
        priority: higher runs first; 0 is usual.
        time_queued, time_started, time_ended: seconds since the epoch.
        worker, node: which worker ran it, and on which server.
        result: what the job returned.
        exception, stacktrace: texts, when it failed. `reason` is the slug of the error.
        limits_text: the limits it has to keep, as the header of its record has them (`pq.model.limits`); it does
            not travel in the message.
        durability: where it has to be before its queueing counts; set where it has one, for its producer alone.
        meta: the user's own data about the task. run_info: what the worker noted about the run.
    """

    __slots__ = (
        "_args",
        "_kwargs",
        "_meta",
        "_result",
        "_run_info",
        "awaiter",
        "call",
        "delay",
        "durability",
        "exception",
        "expires",
        "format",
        "id",
        "limits_text",
        "max_retries",
        "max_wait",
        "meta_bytes",
        "name",
        "node",
        "priority",
        "queue",
        "reason",
        "reply",
        "result_bytes",
        "retry",
        "retry_delay",
        "run_info_bytes",
        "stacktrace",
        "status",
        "time_ended",
        "time_queued",
        "time_started",
        "timeout",
        "worker",
    )  # fmt: skip

    type = "task"

    # One positional call makes a task of its wire list. Parameters are in the order of WIRE, after the
    # version; `call`, `result`, `meta` and `run_info` are bytes here.
    def __init__(
        self,
        id: str,
        name: str,
        queue: str | None = None,
        call: bytes | str = b"",
        status: int = QUEUED,
        retry: int = 1,
        time_queued: float | None = None,
        reply: str | None = None,
        delay: float | None = None,
        timeout: float | None = None,
        expires: float | None = None,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        priority: int | None = None,
        meta: bytes | None = None,
        time_started: float | None = None,
        time_ended: float | None = None,
        worker: str | None = None,
        node: str | None = None,
        result: bytes | None = None,
        exception: str | None = None,
        stacktrace: str | None = None,
        reason: str | None = None,
        run_info: bytes | None = None,
        *_newer: object,
    ) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.call = call
        self.status = status
        self.retry = retry
        self.time_queued = time_queued
        self.reply = reply
        self.delay = delay
        self.timeout = timeout
        self.expires = expires
        self.max_retries = max_retries
        self.retry_delay = retry_delay
        self.priority = priority
        self.meta_bytes = meta
        self.time_started = time_started
        self.time_ended = time_ended
        self.worker = worker
        self.node = node
        self.result_bytes = result
        self.exception = exception
        self.stacktrace = stacktrace
        self.reason = reason
        self.run_info_bytes = run_info
        self.format: Serializer = MSGPACK
        self.limits_text = ""
        self._kwargs: dict[str, Any] | None = None
        self._result: Any = _UNSET
        self._meta: dict[str, Any] | None = None
        self._run_info: dict[str, Any] | None = None

    awaiter: Any
    limits_text: str
    max_wait: float | None
    durability: str

    # ------------------------------------------------------------------------------- wire
    @classmethod
    def from_wire(cls, body: bytes) -> Task[Any]:
        """Read the task in `body`. Raises `UnreadableMessage` for anything else."""
        fmt, fields = unpack_envelope(body)
        if len(fields) < 9 or fields[0] != WIRE_VERSION:
            raise UnreadableMessage(
                f"a message of wire version {fields[0] if fields else None!r}, and this program reads {WIRE_VERSION}",
                hint="upgrade pq here, or let the newer workers have this queue",
            )
        del fields[0]
        if (
            len(fields) == _PLAIN
        ):  # most messages that are queued; the fields that broker and worker rely on are checked
            if (
                type(fields[0]) is not str
                or type(fields[1]) is not str
                or type(fields[2]) is not str
                or type(fields[4]) is not int
                or type(fields[5]) is not int
                or type(fields[6]) is not float
                or (type(fields[7]) is not str and fields[7] is not None)
                or (type(fields[3]) is not bytes and type(fields[3]) is not str)
            ):
                _check_types(tuple(map(type, fields)))
        else:
            # A shape that passed before is right: there are few, and to check each field would cost as much as reading it.
            shape = tuple(map(type, fields))
            numbers = _SHAPES.get(shape)
            if numbers is None:
                numbers = _check_types(shape)
            for at in numbers:
                if not -_FARTHEST < fields[at] < _FARTHEST:  # NaN is not either
                    raise UnreadableMessage(
                        f"a message whose {WIRE[at + 1]} is out of range: {fields[at]!r:.40}"
                    )
        task = cls(*fields)
        if fmt is not MSGPACK:
            task.format = fmt
        return task

    def to_wire(self) -> bytes:
        """Return the task as bytes, in the format that it came in."""
        status = self.status
        if (
            status == SUCCESS
        ):  # most messages that are written: one list, without the fields that a success lacks
            fields = [
                WIRE_VERSION, self.id, self.name, self.queue, self.call, status, self.retry, self.time_queued,
                self.reply, self.delay, self.timeout, self.expires, self.max_retries, self.retry_delay,
                self.priority, self.meta_bytes, self.time_started, self.time_ended, self.worker, self.node,
                self.result_bytes,
            ]  # fmt: skip
            if self.run_info_bytes is not None or self.exception is not None:
                fields += (self.exception, self.stacktrace, self.reason, self.run_info_bytes)
            return self.format.pack(fields)
        ended = status in READY_STATES
        fields = [
            WIRE_VERSION, self.id, self.name, self.queue, self.call, status, self.retry, self.time_queued,
            self.reply, self.delay, self.timeout, self.expires, self.max_retries, self.retry_delay,
            self.priority, self.meta_bytes, self.time_started, self.time_ended if ended else None, self.worker,
            self.node, self.result_bytes if ended else None, self.exception, self.stacktrace, self.reason,
            self.run_info_bytes,
        ]  # fmt: skip
        end = len(fields)
        while end > 9 and fields[end - 1] is None:
            end -= 1
        del fields[end:]
        return self.format.pack(fields)

    # ------------------------------------------------------------------------------- payloads
    def _load_call(self) -> dict[str, Any]:
        if not self.call:
            self._args, self._kwargs = [], {}
            return self._kwargs
        loaded = load_payload(self.format, self.call)
        if (
            type(loaded) is not list
            or len(loaded) != 2
            or type(loaded[0]) is not list
            or type(loaded[1]) is not dict
        ):
            raise UnreadableMessage("the arguments of a task are a list and a mapping, and these are not")
        self._args, self._kwargs = loaded
        kwargs: dict[str, Any] = loaded[1]
        return kwargs

    def replace_call(self, call: bytes | str) -> None:
        """Put in other arguments, packed in the task's own format."""
        self.call = call
        self._kwargs = None

    def _load_mapping(self, data: bytes | None) -> dict[str, Any]:
        loaded = load_payload(self.format, data) if data else {}
        if type(loaded) is not dict:
            raise UnreadableMessage(f"meta data are a mapping, and this is a {type(loaded).__name__}")
        return loaded

    @property
    def args(self) -> list[Any]:
        """The positional arguments. Raises `UnreadableMessage` when they cannot be read here."""
        if self._kwargs is None:
            self._load_call()
        args: list[Any] = self._args
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments. Raises `UnreadableMessage` when they cannot be read here."""
        kwargs = self._kwargs
        return kwargs if kwargs is not None else self._load_call()

    @property
    def result(self) -> R | None:
        """The value that the job returned; None before its end, and for a job that returns nothing."""
        if self._result is _UNSET:
            self._result = None if self.result_bytes is None else load_payload(self.format, self.result_bytes)
        result: R | None = self._result
        return result

    @result.setter
    def result(self, value: R) -> None:
        self._result = value

    @property
    def meta(self) -> dict[str, Any]:
        """The user's own data about this task."""
        if self._meta is None:
            self._meta = self._load_mapping(self.meta_bytes)
        meta: dict[str, Any] = self._meta
        return meta

    @property
    def run_info(self) -> dict[str, Any]:
        """Notes of the worker about the run: crashes so far, the process of a process job, progress."""
        if self._run_info is None:
            self._run_info = self._load_mapping(self.run_info_bytes)
        info: dict[str, Any] = self._run_info
        return info

    def note(self, **facts: Any) -> None:
        """Add to `run_info`."""
        self.run_info.update(facts)
        self.run_info_bytes = self.format.dumps(self.run_info)

    # ------------------------------------------------------------------------------- looks
    @property
    def status_string(self) -> str:
        """The name of the status: `'SUCCESS'`, …"""
        return status_string(self.status)

    @property
    def expiry(self) -> float | None:
        """Seconds since the epoch after which the task is not started any more, or None."""
        if self.expires is None or self.time_queued is None:
            return None
        return self.time_queued + (self.delay or 0.0) + self.expires

    @property
    def full_name(self) -> str:
        """`task.<name of the job>`."""
        return f"{self.type}.{self.name}"

    def done(self) -> bool:
        """Return True when the task is finished, however it ended."""
        return self.status in READY_STATES

    def info(self) -> str:
        """Return one short line: `task.addition<i26a…><SUCCESS>`."""
        return f"{self.full_name}<{self.id}><{self.status_string}>"

    def __repr__(self) -> str:
        return f"{self.full_name}<{self.id[:9]}><{self.status_string}>"

    def tojson(self) -> dict[str, Any]:
        """Return all of it as a dictionary of plain names, without what is None."""
        facts: dict[str, Any] = {"type": self.type, "status_string": self.status_string}
        for key in WIRE[1:]:
            if key in ("call", "reply"):
                continue
            value = getattr(self, key)
            if value is not None and not (key in ("meta", "run_info") and not value):
                facts[key] = value
        facts["args"], facts["kwargs"] = self.args, self.kwargs
        return facts

    @property
    def done_callback(self) -> Any:
        """The future of this task's end, for a task that was queued with `callback=False`."""
        try:
            return self.awaiter(self)
        except AttributeError:
            raise PqError(
                f"{self.info()} did not come from a producer",
                hint="use the task that api.tasks.queue or get returned",
            ) from None

    # ------------------------------------------------------------------------------- outcome
    def get(self) -> R:
        """Return the result of a task that succeeded; raise the error of one that did not.

        Raises a `TaskError`: `TaskTimeout`, `TaskRevoked`, `TaskCrashed`, … by how it ended. The
        original exception is text (type, message, traceback): errors are data, no class is imported
        because a message names it.
        """
        if self.status == SUCCESS:
            return self.result  # type: ignore[return-value]
        if self.status not in READY_STATES:
            raise PqError(f"{self.info()} is not finished", hint="await its future first")
        reason = self.reason or ""
        kind = _ERRORS.get(FORMER_SLUGS.get(reason, reason), TaskError)
        text = self.exception or f"{self.full_name} ended {self.status_string}"
        raise kind(text, remote_traceback=self.stacktrace)
