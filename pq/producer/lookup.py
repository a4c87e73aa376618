"""Tasks and queues as they stand in the store: everything that only looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import QueueState
from ..clock import Clock
from ..errors import InvalidValue, UnreadableMessage
from ..model.events import LogLine, log_line
from ..model.partitions import Partitions
from ..model.task import Task
from . import listing, reasons
from .connections import Connections
from .reasons import Reason

Bind = Callable[[Task[Any]], Task[Any]]
"""Gives a task of the store its `done_callback`."""


class Lookup:
    """Reads tasks and queues. Every coroutine runs in the loop of an engine (`Connections.call`)."""

    def __init__(
        self, connections: Connections, bind: Bind, partitions: Partitions, default_queue: str, clock: Clock
    ) -> None:
        self._connections = connections
        self._bind = bind
        self._partitions = partitions
        self._default_queue = default_queue
        self._clock = clock

    # ---------------------------------------------------------------------------------- one task
    async def find(self, broker: Broker, id: str) -> tuple[str, bytes] | None:
        """Return the queue and the record of a task that may be in any queue; None where there is none."""
        for queue in [self._default_queue, *await broker.looks.queue_names()]:
            (record,) = await broker.looks.records(queue, [id])
            if record is not None:
                return queue, record
        return None

    async def get(self, id: str) -> Task[Any] | None:
        """Return a task as it stands; None where there is none."""
        broker = await self._connections.broker()
        found = await self.find(broker, id)
        if found is None:
            return None
        queue, record = found
        task = Task.from_wire(records.message(record))
        if records.is_live(record):
            await listing.as_it_stands(broker, queue, [task])
        return self._bind(task)

    async def by_prefix(self, prefix: str) -> Task[Any]:
        """Return the one task whose id begins with `prefix`. Raises `InvalidValue` for none, or for several."""
        broker = await self._connections.broker()
        found = await broker.looks.matching(prefix, 6)
        if len(found) > 1:
            ids = ", ".join(id[: len(prefix) + 4] for _, id in found[:5])
            raise InvalidValue(
                f"{len(found) if len(found) < 6 else 'many'} tasks begin with {prefix!r}: {ids}",
                hint="give more of the id",
            )
        task = await self.get(found[0][1]) if found else None
        if task is None:
            raise InvalidValue(
                f"no task begins with {prefix!r}",
                hint="results are kept for result_ttl; api.tasks.search() shows what there is",
            )
        return task

    async def log(self, id: str) -> list[LogLine]:
        """Return what a task logged; none for an unknown task."""
        broker = await self._connections.broker()
        found = await self.find(broker, id)
        return [] if found is None else [log_line(line) for line in await broker.channels.lines(found[0], id)]

    async def why(self, id: str) -> Reason | None:
        """Return why a task waits; None where it does not, or is unknown."""
        broker = await self._connections.broker()
        found = await self.find(broker, id)
        if found is None or not records.is_live(found[1]):
            return None
        task = Task.from_wire(records.message(found[1]))
        task.queue, task.limits_text = found[0], records.limits_text(found[1])
        return await reasons.why(broker, task)

    # --------------------------------------------------------------------------------- many tasks
    async def search(self, wanted: listing.Wanted, queue: str | None) -> list[Task[Any]]:
        """Return the tasks that are wanted, of one queue or of all."""
        broker = await self._connections.broker()
        found = await listing.tasks(broker, wanted, await self._named(broker, queue), self._clock.time())
        return [self._bind(task) for task in found]

    async def dead(self, queue: str | None, count: int) -> list[Task[Any]]:
        """Return the last `count` tasks of the dead set, newest first."""
        broker = await self._connections.broker()
        found: list[tuple[float, Task[Any]]] = []
        for name in await self._named(broker, queue):
            found += await self._dead_of(broker, name, count)
        # The store's time is the one that all queues share; within one of its milliseconds the worker's decides.
        found.sort(key=lambda pair: (pair[0], pair[1].time_ended or 0.0), reverse=True)
        return [task for _, task in found[:count]]

    async def _dead_of(self, broker: Broker, queue: str, count: int) -> list[tuple[float, Task[Any]]]:
        """Return the dead tasks of one queue with their times. Entries whose record is gone are removed."""
        while True:
            entries = await broker.looks.dead(queue, count)
            stored = await broker.looks.records(queue, [id for id, _ in entries])
            gone = [id for (id, _), record in zip(entries, stored, strict=True) if record is None]
            if not gone:
                break
            await broker.work.forget(queue, gone)
        found = []
        for (id, at), record in zip(entries, stored, strict=True):
            if record is not None and not records.is_live(record):  # a live one is being retried right now
                found.append((at, self._bind(readable(record, id, queue))))
        return found

    # -------------------------------------------------------------------------------------- queues
    async def all_of(self, broker: Broker, queue: str) -> list[str]:
        """Return a queue and its partitions, where it has any."""
        partitions = self._partitions
        return partitions.all_of(queue, await broker.looks.queue_names()) if queue in partitions else [queue]

    async def _named(self, broker: Broker, queue: str | None) -> Sequence[str]:
        return await (broker.looks.queue_names() if queue is None else self.all_of(broker, queue))

    async def queue_states(self) -> dict[str, QueueState]:
        """Return the state of each queue that was ever used."""
        broker = await self._connections.broker()
        return {name: await broker.looks.state(name) for name in await broker.looks.queue_names()}

    async def latency(self, queues: Sequence[str]) -> dict[str, float]:
        """Return the seconds for which the next task of each queue has been ready to start."""
        broker = await self._connections.broker()
        return {
            name: max([await listing.latency(broker, part) for part in await self.all_of(broker, name)])
            for name in queues
        } or {name: await listing.latency(broker, name) for name in await broker.looks.queue_names()}

    async def size(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many tasks wait in each queue."""
        broker = await self._connections.broker()
        return {
            queue: sum(
                [(await broker.looks.state(part)).waiting for part in await self.all_of(broker, queue)]
            )
            for queue in queues
        } or {queue: (await broker.looks.state(queue)).waiting for queue in await broker.looks.queue_names()}

    # ------------------------------------------------------------------------------------ the rest
    async def store(self) -> dict[str, Any]:
        """Return the facts of the store."""
        return await (await self._connections.broker()).looks.facts()

    async def workers(self) -> list[dict[str, Any]]:
        """Return the last heartbeat of each live worker."""
        return await reasons.workers(await self._connections.broker())


def readable(record: bytes | None, id: str, queue: str) -> Task[Any]:
    """Return the task of a record; one named `unreadable` where it cannot be read, so that it can still be listed."""
    try:
        return Task.from_wire(records.message(record or b""))
    except UnreadableMessage:
        return Task(id, "unreadable", queue)
