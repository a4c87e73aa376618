"""A layer that seals what goes into the store and opens what comes out.

All that lies in a store passes here: records, events, log lines, progress, streams, schedules. So no worker, no
producer and no verb of the command line knows of keys, and none can forget them. Where no setting asks for a seal this
layer is not used, and costs nothing (`pq.broker.connect`).

The header of a record stays as it is, since the scripts read it: a program that can write to the store can delay a
task, cancel it or delete it. It cannot make one, change one, or say how one ended.

What cannot be opened is handed on as an `Unopened`: bytes that raise the reason when their message is read.
So they are handled as any other unreadable record is, with a better text. Events that cannot
be opened are dropped: the record is the truth, and a waiting caller looks it up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ...errors import UnreadableMessage
from ...model.seal import EVENT, LINE, PART, PROGRESS, SCHEDULE, Seal, Unopened
from .. import records
from ..contract.broker import Broker
from ..contract.channels import Channels, Subscription
from ..contract.schedules import Schedules
from ..contract.values import Exchange, Message, Part, Settlement, StoredSchedule, Streamed
from ..keys import Keys
from .layer import LayeredBroker, LayeredLooks, LayeredWork, ReadSubscription, kind_of

logger = logging.getLogger("pq.broker")


class RecordSeal:
    """Seals the message of each record for its queue and id. Keeps `RecordLayer`."""

    def __init__(self, seal: Seal, namespace: str) -> None:
        self._seal = seal
        keys = Keys(namespace)
        self._events = keys.task_channel
        self._replies = keys.reply("")

    async def down(self, record: bytes, queue: str, id: str) -> bytes:
        """Return the same record, its message sealed for this place."""
        cut = records.beginning(record)
        if not cut:
            return record
        return record[:cut] + self._seal.close(record[cut:], kind_of(record), queue, id)

    async def down_settlement(self, queue: str, ended: Settlement) -> Settlement:
        """Seal its record, if it has one."""
        if not ended.record:
            return ended
        return ended._replace(record=await self.down(ended.record, queue, ended.id))

    async def up_exchange(self, settled: Mapping[str, Sequence[Settlement]], answer: Exchange) -> None:
        """Open the records that were handed out."""
        answer.tasks = [
            task._replace(record=self.open(task.record, task.queue, task.id)) for task in answer.tasks
        ]

    async def up_records(
        self, queue: str, ids: Sequence[str], found: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Open stored records."""
        return [
            None if record is None else self.open(record, queue, id)
            for id, record in zip(ids, found, strict=True)
        ]

    def open(self, record: bytes, queue: str | None, id: str, kinds: bytes = b"") -> bytes:
        """Return the same record with a message that can be read, or an `Unopened`."""
        cut = records.beginning(record)
        if not cut:
            return record  # not one of our records
        try:
            return record[:cut] + self._seal.open(record[cut:], kinds or kind_of(record), queue, id)
        except UnreadableMessage as exc:
            return Unopened(record, exc)

    async def up_message(self, message: Message) -> Message:
        """Return an event with what can be opened in it."""
        channel, payload = message
        if channel != self._events and not channel.startswith(self._replies):
            return message
        head, _, body = payload.partition(b"\n")
        opened = []
        for id, record in records.parcels(body):
            kinds = kind_of(record) if channel != self._events else kind_of(record) + EVENT
            readable = self.open(record, None, id, kinds)
            if type(readable) is Unopened:
                logger.debug("an event of task %s was dropped: %s", id[:9], readable.why)
            else:
                opened.append(records.parcel(id, readable))
        return Message(channel, head + b"\n" + b"".join(opened))


class SealedChannels:
    """`Channels` of an inner broker; what tasks say is sealed, each kind for its own place."""

    def __init__(self, inner: Channels, seal: Seal, record_seal: RecordSeal, namespace: str) -> None:
        self._inner = inner
        self._seal = seal
        self._record_seal = record_seal
        self._events = Keys(namespace).task_channel
        # Heartbeats of workers and names of locks are not sealed: they are not about a task.
        self.beat = inner.beat
        self.consumers = inner.consumers
        self.lock = inner.lock
        self.unlock = inner.unlock

    async def publish(self, channel: str, payload: bytes) -> None:
        """Seal the records in a task event."""
        if channel == self._events:
            head, _, body = payload.partition(b"\n")
            closed = []
            for id, record in records.parcels(body):
                cut = records.beginning(record)
                message = self._seal.close(record[cut:], EVENT, "", id)
                closed.append(records.parcel(id, record[:cut] + message))
            payload = head + b"\n" + b"".join(closed)
        await self._inner.publish(channel, payload)

    async def subscription(self) -> Subscription:
        """Return a subscription whose records are opened."""
        return ReadSubscription(await self._inner.subscription(), self._record_seal.up_message)

    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        """Seal each line."""
        closed = [self._seal.close(line, LINE, queue, id) for line in lines]
        await self._inner.keep_lines(queue, id, closed, ttl)

    async def lines(self, queue: str, id: str) -> list[bytes]:
        """Open each line; in place of one that cannot be opened stands a warning."""
        opened = []
        for line in await self._inner.lines(queue, id):
            try:
                opened.append(self._seal.open(line, LINE, queue, id))
            except UnreadableMessage as exc:
                opened.append(f"0.000 WARNING a line of the log cannot be read: {exc}".encode())
        return opened

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        """Seal what each task says."""
        closed = {id: self._seal.close(text, PROGRESS, queue, id) for id, text in facts.items()}
        await self._inner.keep_progress(queue, closed, ttl)

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """Open what each task says; None where it cannot be opened."""
        opened: list[bytes | None] = []
        for id, text in zip(ids, await self._inner.progress(queue, ids), strict=True):
            try:
                opened.append(None if text is None else self._seal.open(text, PROGRESS, queue, id))
            except UnreadableMessage:
                opened.append(None)  # it is for display alone
        return opened

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        """Seal each part with its number, so that it cannot be moved to another place in its stream."""
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
        """Open each part. Raises `UnreadableMessage` where one cannot be opened."""
        return [
            part._replace(body=self._seal.open(part.body, PART, queue, f"{id} {part.number}"))
            for part in await self._inner.parts(queue, id, after, count)
        ]


class SealedSchedules:
    """`Schedules` of an inner broker, sealed but for the first line.

    The first line stays readable: the script compares it, to know when the ticks have changed.
    """

    def __init__(self, inner: Schedules, seal: Seal) -> None:
        self._inner = inner
        self._seal = seal
        # These carry names and times alone.
        self.last_ticks = inner.last_ticks
        self.version = inner.version

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        """Seal the text behind its first line."""
        if text:
            rule, _, rest = text.partition(b"\n")
            text = rule + b"\n" + self._seal.close(rest, SCHEDULE, "", f"{name} {rule.decode()}")
        return await self._inner.change(verb, name, text, most=most)

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        """Open each text; one that cannot be opened is an `Unopened`."""
        version, stored = await self._inner.stored()
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


def sealed(broker: Broker, seal: Seal | None, namespace: str) -> Broker:
    """Return `broker` with its store sealed; itself where nothing is to be sealed."""
    if seal is None:
        return broker
    record_seal = RecordSeal(seal, namespace)
    return LayeredBroker(
        broker,
        work=LayeredWork(broker.work, record_seal),
        looks=LayeredLooks(broker.looks, record_seal),
        schedules=SealedSchedules(broker.schedules, seal),
        channels=SealedChannels(broker.channels, seal, record_seal, namespace),
    )
