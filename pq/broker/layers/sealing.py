"""A broker between us and another one, which seals what goes into the store and opens what comes out.

All that lies in a store passes here: records, events, log lines, progress, streams, schedules. So no worker, no
producer and no verb of the command line knows of keys, and none can forget them. Where no setting asks for a seal this
class is not used, and costs nothing (`pq.broker.connect`).

The header of a record stays as it is, since the scripts read it: who can write to the store can delay a task,
cancel it or delete it. He cannot make one, change one, or say how one ended.

What cannot be opened is handed on as an `Unopened`: bytes that say why when somebody wants the message in
them. So it meets whoever reads it as any other unreadable record does, with a better text. Events that cannot
be opened are dropped: the record is the truth, and whoever waits looks it up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ...errors import UnreadableMessage
from ...model.seal import EVENT, LINE, PART, PROGRESS, SCHEDULE, Seal, Unopened
from .. import records
from ..contract.work import Broker, Exchange, Message, Part, Settlement, StoredSchedule, Streamed
from .layer import Layer, kind_of

logger = logging.getLogger("pq.broker")


class SealedBroker(Layer):
    """What of the contract is not here has no payload, and is the other's own."""

    def __init__(self, inner: Broker, seal: Seal, namespace: str) -> None:
        super().__init__(inner, namespace)
        self._seal = seal

    # --------------------------------------------------------------------------------- records
    async def _down(self, record: bytes, queue: str, id: str) -> bytes:
        """The same record, its message sealed for this place."""
        cut = records.beginning(record)
        if not cut:
            return record
        return record[:cut] + self._seal.close(record[cut:], kind_of(record), queue, id)

    def _open(self, record: bytes, queue: str | None, id: str, kinds: bytes = b"") -> bytes:
        """The same record with a message that can be read, or an `Unopened`."""
        cut = records.beginning(record)
        if not cut:
            return record  # no record of anybody's
        try:
            return record[:cut] + self._seal.open(record[cut:], kinds or kind_of(record), queue, id)
        except UnreadableMessage as exc:
            return Unopened(record, exc)

    async def _up_exchange(self, settled: dict[str, list[Settlement]], answer: Exchange) -> None:
        answer.tasks = [
            task._replace(record=self._open(task.record, task.queue, task.id)) for task in answer.tasks
        ]

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        found = await self._inner.records(queue, ids)
        return [
            None if record is None else self._open(record, queue, id)
            for id, record in zip(ids, found, strict=True)
        ]

    # --------------------------------------------------------------------------- what tasks say
    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        closed = [self._seal.close(line, LINE, queue, id) for line in lines]
        await self._inner.keep_lines(queue, id, closed, ttl)

    async def lines(self, queue: str, id: str) -> list[bytes]:
        opened = []
        for line in await self._inner.lines(queue, id):
            try:
                opened.append(self._seal.open(line, LINE, queue, id))
            except UnreadableMessage as exc:
                opened.append(f"0.000 WARNING a line of the log cannot be read: {exc}".encode())
        return opened

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        closed = {id: self._seal.close(text, PROGRESS, queue, id) for id, text in facts.items()}
        await self._inner.keep_progress(queue, closed, ttl)

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        opened: list[bytes | None] = []
        for id, text in zip(ids, await self._inner.progress(queue, ids), strict=True):
            try:
                opened.append(None if text is None else self._seal.open(text, PROGRESS, queue, id))
            except UnreadableMessage:
                opened.append(None)  # nobody depends on it
        return opened

    # A part is sealed with its number: who can write to the store cannot put it somewhere else in its stream.
    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        closed = [
            each._replace(
                parts=[
                    self._seal.close(part, PART, each.queue, f"{each.id} {number}")
                    for number, part in enumerate(each.parts, each.first)
                ]
            )
            for each in streamed
        ]
        return await self._inner.keep_parts(lease, closed, ttl)

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        """Raises `UnreadableMessage` where one of them cannot be opened."""
        return [
            part._replace(body=self._seal.open(part.body, PART, queue, f"{id} {part.number}"))
            for part in await self._inner.parts(queue, id, after, count)
        ]

    # ------------------------------------------------------------------------------- schedules
    # The first line stays readable: the script compares it, to know when the ticks have changed.
    async def change_schedule(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        if text:
            rule, _, rest = text.partition(b"\n")
            text = rule + b"\n" + self._seal.close(rest, SCHEDULE, "", f"{name} {rule.decode()}")
        return await self._inner.change_schedule(verb, name, text, most=most)

    async def schedules(self) -> tuple[int, dict[str, StoredSchedule]]:
        version, stored = await self._inner.schedules()
        opened = {}
        for name, schedule in stored.items():
            rule, _, rest = schedule.text.partition(b"\n")
            try:
                rest = self._seal.open(rest, SCHEDULE, "", f"{name} {rule.decode('utf-8', 'replace')}")
            except UnreadableMessage as exc:
                opened[name] = schedule._replace(text=Unopened(schedule.text, exc))
                continue
            opened[name] = schedule._replace(text=rule + b"\n" + rest)
        return version, opened

    # ---------------------------------------------------------------------------------- events
    async def publish(self, channel: str, payload: bytes) -> None:
        if channel == self._events:
            head, _, body = payload.partition(b"\n")
            closed = []
            for id, record in records.parcels(body):
                cut = records.beginning(record)
                message = self._seal.close(record[cut:], EVENT, "", id)
                closed.append(records.parcel(id, record[:cut] + message))
            payload = head + b"\n" + b"".join(closed)
        await self._inner.publish(channel, payload)

    async def _up(self, message: Message) -> Message:
        """An event with what can be opened in it."""
        channel, payload = message
        if channel != self._events and not channel.startswith(self._replies):
            return message
        head, _, body = payload.partition(b"\n")
        opened = []
        for id, record in records.parcels(body):
            kinds = kind_of(record) if channel != self._events else kind_of(record) + EVENT
            readable = self._open(record, None, id, kinds)
            if type(readable) is bytes:
                opened.append(records.parcel(id, readable))
            else:
                logger.debug("an event of task %s was dropped: %s", id[:9], cast("Any", readable).why)
        return Message(channel, head + b"\n" + b"".join(opened))


def sealed(broker: Broker, seal: Seal | None, namespace: str) -> Broker:
    """`broker` itself where nothing is sealed."""
    return broker if seal is None else cast("Broker", SealedBroker(broker, seal, namespace))
