"""Unique conflicts: the unique key of a task that is queued is held by another task.

The store only reports it, since it cannot read messages. What happens to the two is in the limits of the new one: it
follows the first, takes its place, or gives it its arguments. Each of these is one step in the store, refused when
the other task has started or ended meanwhile; then the key is free, mostly.
"""

from __future__ import annotations

import copy
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import Entry, UniqueConflict
from ..broker.records import unique_key
from ..clock import Clock
from ..errors import PqError
from ..model.states import REVOKED
from ..model.task import Task

TRIES = 20


async def settle(
    broker: Broker,
    task: Task[Any],
    entry: Entry,
    conflict: UniqueConflict,
    max_wait: float | None,
    clock: Clock,
) -> Task[Any]:
    """Return the task that does what `task` was to do: itself, when it was queued, or the one that has its key.

    Raises `PqError` where the key changes hands `TRIES` times meanwhile.
    """
    queue = task.queue or ""
    way, _ = unique_key(task.limits_text)
    holder: UniqueConflict | None = conflict
    for _ in range(TRIES):
        if holder is None:
            return task
        (record,) = await broker.looks.records(queue, [holder.id])
        if record is not None:
            other: Task[Any] = Task.from_wire(records.message(record))
            if way == "f" or holder.first:
                return other  # it may have ended since; when the store was asked it had not
            live = records.is_live(record)
            if live and way == "l":
                if await broker.work.displace(queue, revoked(other, "replaced by a later one", clock), entry):
                    return task
            elif live and await broker.work.replace(queue, *_instead(task, other, entry, max_wait, clock)):
                return other
        holder = (await broker.work.enqueue(queue, [entry])).conflicts.get(task.id)
    raise PqError(
        f"the unique key of {task.info()} changed hands {TRIES} times while it was queued",
        hint="queue it again; if this repeats, give the tasks different keys",
    )


def _instead(
    task: Task[Any], other: Task[Any], entry: Entry, max_wait: float | None, clock: Clock
) -> tuple[str, bytes, int | None]:
    """Return the id, the record by which `other` does what `task` was to do, and the delay that starts again, in ms."""
    new = copy.copy(task)
    new.id, new.time_queued = other.id, other.time_queued
    delay = entry.delay
    if delay is not None and max_wait is not None and other.time_queued is not None:
        left = other.time_queued + max_wait - clock.time()
        delay = max(0, min(delay, round(left * 1000)))
    other.format = new.format
    other.replace_call(new.call)
    return other.id, records.live_header(new.priority, "", new.limits_text) + new.to_wire(), delay


def revoked(task: Task[Any], why: str, clock: Clock) -> tuple[str, bytes, str]:
    """Return what `work.cancel` takes: the id, the finished record, the channel of the program that awaits it."""
    task.status, task.time_ended, task.reason = REVOKED, clock.time(), "revoked"
    task.exception = f"TaskRevoked: {why} before it ran"
    record = records.finished_header(REVOKED, "cancel:0") + task.to_wire()
    return task.id, record, task.reply or ""
