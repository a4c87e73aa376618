"""Lists of tasks, by where they are and what they are: for people.

What runs is known by the held sets and not by the records, which are not written when a task starts. A list
is a look at many things one after the other, so a task may be missing in it or stand in an old state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import AT_LIMIT, DEAD, DELAYED, ENDED, RUNNING, WAITING
from ..errors import InvalidValue, PqError, UnreadableMessage, did_you_mean
from ..model.states import FAILURE, QUEUED, STARTED, status_string
from ..model.task import Task

PLACES = (RUNNING, WAITING, AT_LIMIT, DELAYED, ENDED, DEAD)
_WAIT = (WAITING, AT_LIMIT, DELAYED)
_PLACES_OF = {
    "STARTED": (RUNNING,),
    "QUEUED": _WAIT,
    "RETRY": _WAIT,
    "SUCCESS": (ENDED,),
    "FAILURE": (ENDED, DEAD),
    "REVOKED": (ENDED,),
    "DEAD": (DEAD,),
}
PAGE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter of a list; see `Tasks.search`. Raises `InvalidValue` for an unknown status, and for a text that is not a str."""

    status: str | None
    job: str | None
    text: str | None
    since: float | None
    count: int

    def __post_init__(self) -> None:
        for what, value in (("job", self.job), ("text", self.text)):
            if value is not None and not isinstance(value, str):
                raise InvalidValue(
                    f"{what} is {value!r:.40}, and must be a text", hint=f"{what}={str(value)[:40]!r}"
                )
        if self.status is not None and str(self.status).upper() not in _PLACES_OF:
            known = [name.lower() for name in _PLACES_OF]
            raise InvalidValue(
                f"{self.status!r:.40} is not a status",
                hint=did_you_mean(str(self.status).lower(), known) or "use " + ", ".join(known),
            )

    @property
    def places(self) -> Sequence[str]:
        """Where to look."""
        return PLACES if self.status is None else _PLACES_OF[self.status.upper()]

    def has(self, task: Task[Any], now: float) -> bool:
        """Return True for a task that passes the filter."""
        if self.status is not None:
            name = self.status.upper()
            if status_string(task.status) != ("FAILURE" if name == "DEAD" else name):
                return False
        if self.job is not None and task.name != self.job:
            return False
        if self.since is not None and max(task.time_queued or 0.0, task.time_ended or 0.0) < now - self.since:
            return False
        return self.text is None or self.text.lower() in _words(task).lower()


def _words(task: Task[Any]) -> str:
    """Return all text of a task that may be searched for."""
    try:
        values = (task.args, task.kwargs, task.result, task.meta)
    except UnreadableMessage:
        values = ([], {}, None, {})
    return f"{task.id} {task.name} {values!r} {task.exception or ''}"


async def tasks(broker: Broker, wanted: Wanted, queues: Sequence[str], now: float) -> list[Task[Any]]:
    """Return the tasks of these queues that are wanted: place by place, in each place queue by queue."""
    found: dict[str, Task[Any]] = {}
    for place in wanted.places:
        for queue in queues:
            plain = wanted.job is None and wanted.text is None and wanted.since is None
            ids = await broker.looks.ids(queue, place, wanted.count if plain and place != ENDED else 10_000)
            for start in range(0, len(ids), PAGE):
                if len(found) >= wanted.count:
                    break
                for task in await _read(broker, queue, ids[start : start + PAGE], place):
                    if task.id not in found and wanted.has(task, now) and len(found) < wanted.count:
                        found[task.id] = task
    return list(found.values())


async def _read(broker: Broker, queue: str, ids: Sequence[str], place: str) -> list[Task[Any]]:
    """Return these tasks, as they stand in that place."""
    read: list[Task[Any]] = []
    for id, record in zip(ids, await broker.looks.records(queue, ids), strict=True):
        if record is None:
            continue
        try:
            task = Task.from_wire(records.message(record))
        except UnreadableMessage as exc:
            task = Task(id, "unreadable", queue, status=QUEUED if records.is_live(record) else FAILURE)
            task.exception = f"UnreadableMessage: {exc}"
        if place in (ENDED, DEAD) and records.is_live(record):
            continue  # it was retried
        if place == RUNNING and records.is_live(record):
            task.status = STARTED
        read.append(task)
    if place == RUNNING:
        await _note_progress(broker, queue, read)
    return read


async def as_it_stands(broker: Broker, queue: str, live: Sequence[Task[Any]]) -> None:
    """Write into live tasks of a queue whether they run, and how far they are."""
    running = set(await broker.looks.ids(queue, RUNNING, 100_000))
    started = [task for task in live if task.id in running]
    for task in started:
        task.status = STARTED
    await _note_progress(broker, queue, started)


async def _note_progress(broker: Broker, queue: str, running: Sequence[Task[Any]]) -> None:
    facts = await broker.channels.progress(queue, [task.id for task in running]) if running else []
    for task, text in zip(running, facts, strict=True):
        if text is not None:
            try:
                task.note(progress=json.loads(text))
            except (ValueError, RecursionError, PqError):
                pass  # it is only how far a task was


async def latency(broker: Broker, queue: str) -> float:
    """Return the seconds for which the next task has been ready to start; 0 when none is."""
    ids = await broker.looks.ids(queue, WAITING, 1)
    (record,) = await broker.looks.records(queue, ids) if ids else (None,)
    if record is None:
        return 0.0
    try:
        task = Task.from_wire(records.message(record))
    except UnreadableMessage:
        return 0.0
    # One that is tried again stands in line since the end of its last attempt, more or less.
    ready = max((task.time_queued or 0.0) + (task.delay or 0.0), task.time_ended or 0.0)
    return max(0.0, await broker.looks.now() / 1000 - ready)
