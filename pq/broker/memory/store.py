"""The data of the broker in memory: every queue, as the tables in `pq.broker.keys` have it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...clock import SYSTEM, Clock
from .. import records
from ..contract.values import Message
from .limits import Limits

JITTER = 1000
"""Milliseconds by which a clock may go back without having been set back."""


@dataclass
class QueueData:
    """One queue, as the table in `pq.broker.keys` has it."""

    ready: deque[str] = field(default_factory=deque)
    prio: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> (-priority, turn)
    delayed: dict[str, int] = field(default_factory=dict)
    task: dict[str, bytes] = field(default_factory=dict)
    expires: dict[str, int] = field(default_factory=dict)  # finished id -> ms
    held: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    cancelling: set[str] = field(default_factory=set)
    dead: dict[str, int] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=1000))  # finished, the youngest first
    ticks: dict[str, int] = field(default_factory=dict)  # schedule -> the last one claimed
    seen: int = 0  # when a lease was last renewed, ms
    since: int = 0  # from when on that was done without a gap
    paused: bool = False
    limit: int | None = None
    head: int = 0
    tail: int = 0

    def __post_init__(self) -> None:
        self.limits = Limits(self)

    # ------------------------------------------------------------------------------- places
    def place(self, id: str, *, front: bool) -> bool:
        """Put a live task where it waits. False when there is none: its record is gone."""
        record = self.task.get(id)
        if record is None or not records.is_live(record):
            if front:
                self.crashes.pop(id, None)
            self.cancelling.discard(id)
            self.limits.leave(id)
            return False
        priority = records.priority(record)
        if priority:
            if front:
                self.head -= 1
            else:
                self.tail += 1
            self.prio[id] = (-priority, self.head if front else self.tail)
        elif front:
            self.ready.appendleft(id)
        else:
            self.ready.append(id)
        return True

    def ordered_prio(self) -> list[str]:
        """Return the ids with a priority, in the order in which they are handed out."""
        return sorted(self.prio, key=lambda id: (self.prio[id], id))

    def pop(self, want: int) -> list[str]:
        """Take up to `want` ids: higher priorities, then the ordinary, then lower priorities."""
        order = self.ordered_prio()
        high = [id for id in order if self.prio[id][0] < 0][:want]
        ids = list(high)
        while self.ready and len(ids) < want:
            ids.append(self.ready.popleft())
        ids += [id for id in order if self.prio[id][0] > 0][: max(0, want - len(ids))]
        for id in ids:
            self.prio.pop(id, None)
        return ids

    def held_by(self, lease: str) -> set[tuple[str, int]]:
        """Return id and batch of what is held under a lease."""
        return self.held.get(lease, set())

    def drop_held(self, lease: str, member: tuple[str, int]) -> bool:
        """End the hold on one task; False when the lease does not hold it."""
        members = self.held.get(lease)
        if not members or member not in members:
            return False
        members.remove(member)
        if not members:
            del self.held[lease]
        return True

    @property
    def waiting(self) -> int:
        """Tasks that no worker has taken yet."""
        return (
            len(self.ready) - len(self.revoked) + len(self.prio) + len(self.delayed) + len(self.limits.parked)
        )

    def drop_marks(self, id: str) -> None:
        """Forget what is known of a task beside its record, which is gone or finished."""
        self.crashes.pop(id, None)
        self.cancelling.discard(id)
        self.limits.leave(id)

    def withdraw(self, id: str, limits_text: str, *, at_front: bool) -> bool:
        """Take a task out of where it waits; False when it lies in the middle of `ready`, or is held."""
        if self.delayed.pop(id, None) is not None or self.prio.pop(id, None) is not None:
            return True
        if self.limits.unpark(id, limits_text):
            return True
        if at_front and id in self.ready:
            self.ready.remove(id)
            return True
        return False

    def finish(self, id: str, record: bytes, until: int) -> None:
        """Store a finished record, which is kept until then."""
        self.task[id] = record
        self.expires[id] = until

    # --------------------------------------------------------------------------- transitions
    def expire(self, now: int) -> None:
        """Drop finished records whose time is over, as the server does by itself."""
        for id in [id for id, at in self.expires.items() if at <= now]:
            del self.expires[id]
            self.task.pop(id, None)

    def is_stable(self, now: int, stable_for: int) -> bool:
        """Return whether leases were renewed here without a gap for that many ms, by a clock that did not jump."""
        return stable_for == 0 or (abs(now - self.seen) <= stable_for / 2 and now - self.since >= stable_for)

    def note_renewal(self, now: int, ttl: int) -> None:
        """Note that a lease is renewed. Where the clock was set back the deadlines are set back too."""
        if now < self.seen - JITTER:
            back = self.seen - now
            self.leases = {lease: max(1, at - back) if at > 0 else at for lease, at in self.leases.items()}
            self.seen = self.since = now
        elif now - self.seen > ttl / 2:
            self.since = now
        self.seen = max(self.seen, now)

    def reclaim(self, lease: str, *, charge: bool, limit: int) -> int:
        """Take at most `limit` tasks from a lease and put them back to the front, oldest batch first."""
        members = sorted(self.held_by(lease), key=lambda m: (m[1], m[0]))[:limit]
        for id, batch in sorted(members, key=lambda m: (m[1], f"{m[0]}:{m[1]}"), reverse=True):
            self.drop_held(lease, (id, batch))
            if self.place(id, front=True) and charge:
                self.crashes[id] = self.crashes.get(id, 0) + 1
        if not self.held_by(lease):
            self.leases.pop(lease, None)
            self.batches.pop(lease, None)
            if not self.leases:
                self.seen = self.since = 0
        else:
            self.leases[lease] = 0
        return len(members)


@dataclass
class ScheduleData:
    """The schedules, as the second table in `pq.broker.keys` has them."""

    code: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, bytes] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    version: int = 0

    def effective(self, name: str) -> bytes | None:
        """Return the text that counts."""
        return self.changed.get(name) or self.code.get(name)


class MemoryStore:
    """The data of all queues, and the open subscriptions."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self.clock = clock
        self.queues: dict[str, QueueData] = {}
        self.schedules = ScheduleData()
        self.locks: dict[str, tuple[str, int, int]] = {}  # name -> (token, fence, deadline)
        self.heartbeats: dict[str, tuple[int, bytes]] = {}
        self.beside: dict[tuple[str, str, str], tuple[int, Any]] = {}
        self.listeners: set[MemorySubscription] = set()
        self.waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.lock = threading.RLock()

    def now(self) -> int:
        """Return its clock, ms since the epoch."""
        return int(self.clock.time() * 1000)

    def queue(self, name: str) -> QueueData:
        """Return a queue, made on first use, without the records whose time is over."""
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = QueueData()
        found.expire(self.now())
        return found

    def keep(self, queue: str, id: str, what: str, value: Any, ttl: int) -> None:
        """Keep something beside the record of a task for `ttl` ms."""
        now = self.now()
        with self.lock:
            for key in [key for key, (until, _) in self.beside.items() if until <= now]:
                del self.beside[key]
            self.beside[queue, id, what] = (now + ttl, value)

    def kept(self, queue: str, id: str, what: str) -> Any:
        """Return what is kept of it; None for nothing."""
        until, value = self.beside.get((queue, id, what), (0, None))
        return value if until > self.now() else None

    def wake(self) -> None:
        """Wake all blocked reservations."""
        for loop, event in list(self.waiters):
            loop.call_soon_threadsafe(event.set)

    async def wait(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait until one of the queues may have something; False when the time is over."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        self.waiters.add(waiter)
        try:
            with self.lock:
                datas = [self.queue(queue) for queue in queues]
                if any((data.ready or data.prio) and not data.paused for data in datas):
                    return True
            async with asyncio.timeout(seconds):
                await event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self.waiters.discard(waiter)

    def announce(self, channel: str, head: bytes, items: Sequence[tuple[str, bytes]]) -> None:
        """Publish records as one event, if there are any."""
        if items:
            self.publish(channel, head + b"\n" + b"".join(records.parcel(*item) for item in items))

    def publish(self, channel: str, payload: bytes) -> None:
        """Deliver an event to all that subscribed to its channel."""
        for listener in list(self.listeners):
            listener.deliver(channel, payload)


class MemorySubscription:
    """A subscription within the process; bounded, the oldest message is dropped for a new one."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._channels: set[str] = set()
        self._messages: deque[Message] = deque(maxlen=10_000)
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._closed = False

    def deliver(self, channel: str, payload: bytes) -> None:
        """Take a message, from any thread, if its channel is subscribed to."""
        if channel in self._channels:
            self._messages.append(Message(channel, payload))
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def subscribe(self, *channels: str) -> None:
        """See `Subscription.subscribe`."""
        self._channels.update(channels)
        self._store.listeners.add(self)

    async def close(self) -> None:
        """End it, and the iteration over it."""
        self._closed = True
        self._store.listeners.discard(self)
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while not self._closed:
            while self._messages:
                yield self._messages.popleft()
            self._arrived.clear()
            if not self._messages:
                await self._arrived.wait()
