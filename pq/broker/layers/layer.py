"""A layer around a broker that changes records on their way: the base of both layers.

Two layers stand on this one: one seals what goes down (`pq.broker.layers.sealing`), one offloads large messages
(`pq.broker.layers.large_payloads`). Each says in a `RecordLayer` what becomes of one record; where records pass is
written here, once, so that neither layer can forget a verb. Every verb of a port is either a method below, or bound
to the inner port by name; a test holds that none that carries a record is bound (`tests/broker/test_layer.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from ...model.seal import FINISHED, LIVE
from .. import records
from ..contract.broker import Broker
from ..contract.channels import Channels, Subscription
from ..contract.looks import Looks
from ..contract.schedules import Schedules
from ..contract.values import Entry, Exchange, Message, Queued, ReserveCall, Settlement, Tick
from ..contract.work import Work


class RecordLayer(Protocol):
    """The change of a record by a layer. Down is into the store, up is out of it."""

    async def down(self, record: bytes, queue: str, id: str) -> bytes:
        """Return the record as the inner broker is to have it."""
        ...

    async def down_settlement(self, queue: str, ended: Settlement) -> Settlement:
        """Return the same for the end of an attempt."""
        ...

    async def up_exchange(self, settled: Mapping[str, Sequence[Settlement]], answer: Exchange) -> None:
        """Change an answer, to settlements as they went down, into what the caller is to have."""
        ...

    async def up_records(
        self, queue: str, ids: Sequence[str], found: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Return stored records as the caller is to have them."""
        ...

    async def up_message(self, message: Message) -> Message:
        """Return a message of a subscription as the caller is to have it."""
        ...


class LayeredWork:
    """`Work` of an inner broker, whose records pass a layer."""

    def __init__(self, inner: Work, layer: RecordLayer) -> None:
        self._inner = inner
        self._layer = layer
        # These carry no record.
        self.open_lease = inner.open_lease
        self.poke = inner.poke
        self.renew = inner.renew
        self.hand_back = inner.hand_back
        self.forget = inner.forget
        self.pause = inner.pause
        self.limit = inner.limit

    async def _down_entry(self, queue: str, entry: Entry) -> Entry:
        return entry._replace(record=await self._layer.down(entry.record, queue, entry.id))

    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        """See `Work.enqueue`."""
        lower = [await self._down_entry(queue, entry) for entry in entries]
        return await self._inner.enqueue(queue, lower, durability)

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        """See `Work.replace`."""
        return await self._inner.replace(queue, id, await self._layer.down(record, queue, id), delay)

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        """See `Work.displace`."""
        id, record, reply = old
        ended = (id, await self._layer.down(record, queue, id), reply)
        return await self._inner.displace(queue, ended, await self._down_entry(queue, entry))

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        """See `Work.tick`."""
        lower = [tick._replace(record=await self._layer.down(tick.record, queue, tick.id)) for tick in ticks]
        return await self._inner.tick(queue, lower)

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        """See `Work.exchange`."""
        lower = {
            queue: [await self._layer.down_settlement(queue, each) for each in ended]
            for queue, ended in settlements.items()
        }
        answer = await self._inner.exchange(call, lower)
        await self._layer.up_exchange(lower, answer)
        return answer

    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        """See `Work.cancel`."""
        lower = [(id, await self._layer.down(record, queue, id), reply) for id, record, reply in items]
        return await self._inner.cancel(queue, lower, at_front=at_front)

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        """See `Work.retry_dead`."""
        return await self._inner.retry_dead(queue, await self._down_entry(queue, entry))


class LayeredLooks:
    """`Looks` of an inner broker, whose records pass a layer."""

    def __init__(self, inner: Looks, layer: RecordLayer) -> None:
        self._inner = inner
        self._layer = layer
        # These return no record.
        self.peek = inner.peek
        self.state = inner.state
        self.ids = inner.ids
        self.held = inner.held
        self.dead = inner.dead
        self.matching = inner.matching
        self.next_due = inner.next_due
        self.queue_names = inner.queue_names
        self.facts = inner.facts
        self.now = inner.now

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """See `Looks.records`."""
        return await self._layer.up_records(queue, ids, await self._inner.records(queue, ids))


class LayeredBroker:
    """A broker whose ports are layered over those of another one, whose life it shares."""

    def __init__(
        self, inner: Broker, *, work: Work, looks: Looks, schedules: Schedules, channels: Channels
    ) -> None:
        self._inner = inner
        self.work = work
        self.looks = looks
        self.schedules = schedules
        self.channels = channels
        self.where = inner.where
        self.close = inner.close
        self.check_rights = inner.check_rights
        self.renewer = inner.renewer
        self.own_name = inner.own_name

    @property
    def connected_since(self) -> float | None:
        """See `Broker.connected_since`."""
        return self._inner.connected_since

    async def open(self) -> None:
        """See `Broker.open`."""
        await self._inner.open()

    async def sweep(self) -> int:
        """See `Broker.sweep`."""
        return await self._inner.sweep()


class ReadSubscription:
    """A subscription whose messages pass through a function."""

    def __init__(self, inner: Subscription, read: Callable[[Message], Awaitable[Message]]) -> None:
        self._inner = inner
        self._read = read
        self.subscribe = inner.subscribe
        self.close = inner.close

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in self._inner:
            yield await self._read(message)


def kind_of(record: bytes) -> bytes:
    """Return as what the message of a record is sealed."""
    return FINISHED if records.is_finished(record) else LIVE
