"""Actions on stored tasks and queues: cancel, retry, forget, pause, limit, flush."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..broker import records
from ..broker.contract.values import CANCELLED, CANCELLING, Entry
from ..broker.keys import Keys
from ..clock import Clock
from ..model.partitions import Partitions
from ..model.registry import Registry
from ..model.states import QUEUED
from ..model.task import Task
from .connections import Connections
from .lookup import Lookup, readable
from .making import Making
from .unique import revoked


class Actions:
    """Acts on tasks and queues. Every coroutine runs in the loop of an engine (`Connections.call`)."""

    def __init__(
        self,
        connections: Connections,
        lookup: Lookup,
        making: Making,
        registry: Callable[[], Registry],
        partitions: Partitions,
        keys: Keys,
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._lookup = lookup
        self._making = making
        self._registry = registry
        self._partitions = partitions
        self._keys = keys
        self._clock = clock

    # ---------------------------------------------------------------------------------- one task
    async def cancel(self, id: str) -> bool:
        """Cancel a task; return False when it is finished or unknown."""
        broker = await self._connections.broker()
        found = await self._lookup.find(broker, id)
        if found is None:
            return False
        queue, record = found
        task = Task.from_wire(records.message(record))
        (answer,) = await broker.work.cancel(queue, [revoked(task, "cancelled", self._clock)])
        if answer == CANCELLING:
            # The renewal of its lease would tell the worker within seconds; this tells it at once.
            await broker.channels.publish(self._keys.control_channel, f"cancel {id}".encode())
        return answer in (CANCELLED, CANCELLING)

    async def retry(self, id: str, changes: dict[str, Any]) -> bool:
        """Run a finished task again, with other arguments where `changes` has any; return False where it cannot be."""
        broker = await self._connections.broker()
        found = await self._lookup.find(broker, id)
        if found is None or records.is_live(found[1]):
            return False
        queue, record = found
        task = Task.from_wire(records.message(record))
        reset(task, self._clock.time())
        if changes:
            self._making.change(task, changes)
        kind = self._registry().get(task.name)
        if kind is not None:
            task.limits_text = kind.limits_text_of(task)
        header = records.live_header(task.priority, "", task.limits_text)
        return await broker.work.retry_dead(queue, Entry(id, header + task.to_wire()))

    async def forget(self, id: str) -> bool:
        """Remove a finished task; return False for any other."""
        broker = await self._connections.broker()
        found = await self._lookup.find(broker, id)
        return found is not None and await broker.work.forget(found[0], [id]) > 0

    # -------------------------------------------------------------------------------------- queues
    async def pause(self, queues: Sequence[str], paused: bool) -> None:
        """Pause or resume queues, with all their partitions."""
        broker = await self._connections.broker()
        for queue in queues:
            for part in await self._lookup.all_of(broker, queue):
                await broker.work.pause(part, paused)

    async def limit(self, queue: str, most: int | None) -> None:
        """Limit how many tasks may wait in a queue; each of its partitions gets its share."""
        broker = await self._connections.broker()
        share = share_of(most, len(self._partitions.of(queue)))
        for part in await self._lookup.all_of(broker, queue):
            await broker.work.limit(part, share)

    async def flush(self, queues: Sequence[str]) -> int:
        """Revoke all tasks that wait in these queues; return how many there were."""
        broker = await self._connections.broker()
        total = 0
        parts = [part for name in queues for part in await self._lookup.all_of(broker, name)]
        for queue in dict.fromkeys(parts):
            while ids := await broker.looks.peek(queue, 100):
                stored = await broker.looks.records(queue, ids)
                items = [
                    revoked(readable(record, id, queue), "flushed from its queue", self._clock)
                    for id, record in zip(ids, stored, strict=True)
                ]
                answers = await broker.work.cancel(queue, items, at_front=True)
                total += answers.count(CANCELLED)
                if CANCELLED not in answers:
                    break
        return total


def reset(task: Task[Any], now: float) -> None:
    """Make a finished task one that was queued `now`, before its first attempt."""
    task.status, task.retry, task.time_queued, task.delay = QUEUED, 1, now, None
    task.time_started = task.worker = task.node = None
    task.exception = task.stacktrace = task.reason = task.run_info_bytes = task.result_bytes = None


def share_of(most: int | None, partitions: int) -> int | None:
    """Return the limit of one of N partitions, rounded up; None for no limit."""
    return None if most is None else -(-most // max(1, partitions))
