"""What brokers between us and another one have in common: every verb by which a record goes into the store.

Two classes stand on this one: one seals what goes down (`pq.broker.layers.sealing`), one puts large messages aside
(`pq.broker.layers.large_payloads`). A new verb that carries a record is added here, once, so that neither can forget it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from ...model.seal import FINISHED, LIVE
from .. import records
from ..contract.work import Broker, Entry, Exchange, Message, Queued, Settlement, Subscription, Tick
from ..keys import Keys

Reader = Callable[[Message], Awaitable[Message]]


class Layer:
    """Keeps the contract by another broker. What is not here carries no record, and is the other's own."""

    def __init__(self, inner: Broker, namespace: str) -> None:
        self._inner = inner
        keys = Keys(namespace)
        self._events = keys.task_channel
        self._replies = keys.reply("")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _down(self, record: bytes, queue: str, id: str) -> bytes:
        """The record as the other broker is to have it."""
        raise NotImplementedError

    async def _up(self, message: Message) -> Message:
        """A message of a subscription as we are to have it."""
        raise NotImplementedError

    async def _up_exchange(self, settled: dict[str, list[Settlement]], answer: Exchange) -> None:
        """Make an answer, to settlements as they went down, what we are to have."""
        raise NotImplementedError

    async def _down_settlement(self, queue: str, ended: Settlement) -> Settlement:
        if not ended.record:
            return ended
        return ended._replace(record=await self._down(ended.record, queue, ended.id))

    async def _down_entry(self, queue: str, entry: Entry) -> Entry:
        return entry._replace(record=await self._down(entry.record, queue, entry.id))

    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        lower = [await self._down_entry(queue, entry) for entry in entries]
        return await self._inner.enqueue(queue, lower, durability)

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        return await self._inner.replace(queue, id, await self._down(record, queue, id), delay)

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        id, record, reply = old
        ended = (id, await self._down(record, queue, id), reply)
        return await self._inner.displace(queue, ended, await self._down_entry(queue, entry))

    async def exchange(
        self,
        lease: str,
        settlements: dict[str, list[Settlement]],
        queues: Sequence[str],
        want: int,
        batch: int,
        **options: Any,
    ) -> Exchange:
        lower = {
            queue: [await self._down_settlement(queue, each) for each in ended]
            for queue, ended in settlements.items()
        }
        answer = await self._inner.exchange(lease, lower, queues, want, batch, **options)
        await self._up_exchange(lower, answer)
        return answer

    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        lower = [(id, await self._down(record, queue, id), reply) for id, record, reply in items]
        return await self._inner.cancel(queue, lower, at_front=at_front)

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        return await self._inner.retry_dead(queue, await self._down_entry(queue, entry))

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        lower = [tick._replace(record=await self._down(tick.record, queue, tick.id)) for tick in ticks]
        return await self._inner.tick(queue, lower)

    async def subscription(self) -> Subscription:
        return _Read(await self._inner.subscription(), self._up)


class _Read:
    """A subscription whose messages pass through a function."""

    def __init__(self, inner: Subscription, read: Reader) -> None:
        self._inner = inner
        self._read = read

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in self._inner:
            yield await self._read(message)

    async def subscribe(self, *channels: str) -> None:
        await self._inner.subscribe(*channels)

    async def close(self) -> None:
        await self._inner.close()


def kind_of(record: bytes) -> bytes:
    """What the message of a record is sealed as."""
    return FINISHED if records.is_finished(record) else LIVE
