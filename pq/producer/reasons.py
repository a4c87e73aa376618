"""Why a task waits: the answer to the question why it does not start.

Reasons are looked for from the one that never passes by itself to the one that will: no worker is running, none
serves the queue, the queue is paused, a limit is reached, the task is delayed, others are before it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from ..broker.contract.broker import Broker
from ..broker.contract.values import AT_LIMIT, DELAYED, RUNNING, WAITING
from ..broker.records import read_limits
from ..errors import did_you_mean
from ..model.task import Task


class Reason(NamedTuple):
    """Why a task waits: `slug`, `text`, `hint`. `lasts`: it waits forever, unless the hint is followed."""

    slug: str
    text: str
    hint: str | None = None
    lasts: bool = False


async def workers(broker: Broker) -> list[dict[str, Any]]:
    """Return the last heartbeat of each live worker, by node and name. Unreadable ones are left out."""
    found = []
    for beat in await broker.channels.consumers():
        try:
            facts = msgpack.unpackb(beat)
        except (ValueError, msgpack.UnpackException, TypeError, RecursionError):
            continue
        if isinstance(facts, dict) and not facts.get("leaving") and _plausible(facts):
            found.append(facts)
    return sorted(found, key=lambda facts: (str(facts.get("node")), str(facts.get("worker"))))


_LISTS = ("queues", "jobs", "modules")
_NUMBERS = (
    "pid", "concurrency", "running", "processed", "succeeded", "failed", "revoked", "retried", "refused", "cores", "time",
)  # fmt: skip


def _plausible(facts: dict[Any, Any]) -> bool:
    """Return True for facts that a worker may have sent; other programs can write to the store too."""
    return (
        all(type(name) is str for name in facts)
        and all(
            type(facts.get(name, [])) is list and all(type(one) is str for one in facts.get(name, []))
            for name in _LISTS
        )
        and all(
            type(facts.get(name, 0)) in (int, float) and -1e12 < facts.get(name, 0) < 1e12
            for name in _NUMBERS
        )
        and all(type(facts.get(name, "")) is str for name in ("node", "worker"))
    )


def unserved(queue: str, living: Sequence[Mapping[str, Any]]) -> Reason | None:
    """Return the reason, where no worker serves this queue."""
    if not living:
        return Reason(
            "no-worker", "no worker is running", "start one: python manage.py -w 2 (or pq -w 2)", True
        )
    served = sorted({str(name) for facts in living for name in facts.get("queues") or ()})
    if queue in served:
        return None
    near = did_you_mean(queue, served)
    return Reason(
        "queue-unserved",
        f"it is in queue {queue!r}, and the workers serve {', '.join(served)}",
        f"{near} " * bool(near) + f"start one for it: python manage.py -q {queue}",
        True,
    )


def not_served(name: str, queue: str, living: Sequence[Mapping[str, Any]]) -> Reason | None:
    """Return the reason, where no worker of this queue knows the job. A worker that does not list its jobs may know it."""
    there = [facts for facts in living if queue in (facts.get("queues") or ())]
    for facts in there:
        jobs, modules = facts.get("jobs"), facts.get("modules")
        if not isinstance(jobs, list) or name in jobs:
            return None
        if isinstance(modules, list) and name.rpartition(".")[0] in modules:
            return None  # a plain function of a module of its, perhaps
    names = sorted({str(facts.get("worker")) for facts in there})
    known = {str(name) for facts in there for name in facts["jobs"]}
    who = ", ".join(names[:4]) + ", …" * (len(names) > 4)
    return Reason(
        "job-not-served",
        f"no worker of queue {queue!r} knows the job {name!r} ({who}: {len(known)} jobs)",
        did_you_mean(name, known)
        or "restart the servers, or reload them (kill -HUP), so that they have the new code",
        True,
    )


async def why(broker: Broker, task: Task[Any]) -> Reason | None:
    """Return why this task waits; None when it does not, or is about to start."""
    queue = task.queue or ""
    if task.done() or task.id in await broker.looks.ids(queue, RUNNING, 100_000):
        return None
    living = await workers(broker)
    reason = unserved(queue, living) or not_served(task.name, queue, living)
    if reason is not None:
        return reason
    state = await broker.looks.state(queue)
    if state.paused:
        return Reason("queue-paused", f"queue {queue!r} is paused", f"pq resume {queue}", True)
    if task.id in await broker.looks.ids(queue, DELAYED, 100_000):
        at = (task.time_queued or time.time()) + (task.delay or 0.0)
        left = max(0.0, at - time.time())
        what = f"its next attempt ({task.retry}) comes later" if task.retry > 1 else "it is delayed"
        return Reason("delayed", f"{what}, for about {left:.0f} s" if left and task.retry == 1 else what)
    parked = await broker.looks.ids(queue, AT_LIMIT, 100_000)
    if task.id in parked:
        names = ", ".join(limit.name for limit in read_limits(task.limits_text)) or "its job"
        return Reason("at-limit", f"a limit is reached ({names}); {parked.index(task.id)} wait before it")
    waiting = await broker.looks.ids(queue, WAITING, 100_000)
    if task.id in waiting:
        before = waiting.index(task.id)
        return Reason("in-line", f"{before:,} tasks are before it in queue {queue!r}") if before else None
    return None
