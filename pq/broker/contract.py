"""What a broker promises: its verbs, and the guarantee of each.

A broker keeps tasks and hands them out. `RedisBroker` (Redis, Valkey) and `MemoryBroker` (one process)
both keep this contract, and one suite of tests holds both to it. Times are milliseconds of the *store's*
clock; no verb trusts the clock of its caller. Every verb may be repeated blindly with the same arguments
(its reply may have been lost): the second time changes nothing.

States of a lease: *open* (its holder renews it), *expired* (deadline passed; still good until somebody
reclaims it, so a late renewal is better than running everything twice), *gone*.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

# Operations of a settlement.
ACK = "a"  # succeeded: finished record, done event
FAIL = "f"  # failed for good: the same, and into the dead set
REVOKE = "v"  # cancelled, timed out, expired: finished, not dead
RETRY = "t"  # again after `wait` ms; the record is replaced by a live one
RELEASE = "l"  # handed back unspent: to the front, the record as it was
CRASH = "c"  # the same, charged with a crash: the process that ran it died

SOLO_AFTER = 2
"""From this many crashes on a task runs alone in its worker, so that it can take nobody with it."""


class Entry(NamedTuple):
    """A task to be queued. `record` has its header; `delay` is in ms, None for none."""

    id: str
    record: bytes
    delay: int | None = None
    priority: int = 0


class Reserved(NamedTuple):
    """A task that was handed out. `crashes`: workers that died with it so far."""

    queue: str
    id: str
    batch: int
    record: bytes
    crashes: int


class Settlement(NamedTuple):
    """The end of an attempt. `wait` (ms) counts for RETRY alone, `reply` is the producer's channel."""

    op: str
    id: str
    batch: int
    record: bytes = b""
    reply: str = ""
    wait: int = 0


@dataclass(slots=True)
class Exchange:
    """The answer to `Broker.exchange`."""

    tasks: list[Reserved] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(queue, id) of settlements that were not accepted: the lease was lost, somebody else has the task."""
    lost_lease: bool = False
    """The lease is gone: cancel what runs under it, take a new one."""
    next_due: int | None = None
    """Milliseconds to the next delayed task; None when there is none."""
    left: bool = False
    """More tasks are ready than were taken."""
    blocked: bool = False
    """The next task must run alone: come back when nothing runs."""
    solo: bool = False
    """The one task handed out must run alone: reserve nothing beside it."""
    vanished: int = 0
    """Ids whose record was gone (evicted, or deleted by hand)."""


class Renewal(NamedTuple):
    """The answer to `Broker.renew`, over all queues."""

    alive: bool
    cancelling: frozenset[str]


class QueueState(NamedTuple):
    """How much lies where."""

    ready: int
    prio: int
    delayed: int
    held: int
    leases: int
    dead: int
    paused: bool

    @property
    def waiting(self) -> int:
        """Tasks that nobody has taken yet."""
        return self.ready + self.prio + self.delayed


# Answers of `cancel`.
CANCELLED = "cancelled"  # it was waiting, and is REVOKED now
CANCELLING = "cancelling"  # it runs; its worker was asked to stop it
FINISHED = "finished"  # too late
UNKNOWN = "unknown"


class Message(NamedTuple):
    """One event from a channel. `payload` is raw."""

    channel: str
    payload: bytes


class Subscription(Protocol):
    """An open ear. Iterating ends when the subscription is closed."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    async def subscribe(self, *channels: str) -> None:
        """Hear these too; returns when the store has confirmed it."""

    async def close(self) -> None: ...


class Broker(Protocol):
    """The verbs. See the module's docstring for what holds for all of them."""

    @property
    def connected_since(self) -> float | None:
        """Since when, by the loop's clock, the connection for reserving has stood unbroken; None while it does not."""
        ...

    async def open(self) -> None:
        """Connect and check the store. Raises `StoreUnavailable`, `StoreRefused`."""

    async def close(self) -> None:
        """Let go of all connections. Twice is harmless."""

    async def enqueue(self, queue: str, entries: Sequence[Entry]) -> set[str]:
        """Queue tasks; returns the ids that were already known (and were left alone).

        All or nothing per call; idempotent by id as long as the record is kept. Announces `queued`.
        Raises `QueueFull` when the store has no room: then nothing was queued.
        """
        ...

    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        """Take a lease of `ttl` ms in each queue."""

    async def exchange(
        self,
        lease: str,
        settlements: dict[str, list[Settlement]],
        queues: Sequence[str],
        want: int,
        batch: int,
        *,
        idle: bool = False,
        may_reclaim: bool = False,
        note: str = "",
        block: float = 0.0,
    ) -> Exchange:
        """Settle what ended and reserve up to `want` tasks, in one round trip.

        Settling is fenced: only who holds the task under `lease` and its batch is accepted.
        Reserving takes from `queues` in their order; the same `batch` again returns the same tasks.
        On the way it promotes due tasks and, where `may_reclaim`, takes over expired leases, a bounded
        number each. `idle` says that the caller runs nothing, so may get a task that must run alone.

        With `block` (seconds, and no settlements) the reserving waits until there is something, or the
        time is over: still one round trip, so an idle worker has a new task as soon as it is there.
        """
        ...

    async def poke(self, queue: str) -> None:
        """Have one blocked reservation answered now, though nothing was queued."""

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        """Push the deadline of a lease; says whether it still stands, and which held tasks to cancel."""
        ...

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        """Return all that a lease holds to the front of its queues and end the lease.

        `crashed` charges each task with a crash: its worker died. Returns how many went back.
        """
        ...

    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        """Cancel tasks: (id, finished record for one that waits, reply channel) each; an answer each.

        `at_front`: the ids are the first of the queue, so it is cheap to take them out of it at once.
        """
        ...

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        """Make a finished task live again with a new record. False when it is unknown or live already."""
        ...

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """The stored records."""
        ...

    async def peek(self, queue: str, count: int) -> list[str]:
        """The first ids of a queue, in the order in which they would be handed out; then the delayed ones."""
        ...

    async def state(self, queue: str) -> QueueState:
        """How much lies where."""
        ...

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        """The dead set, youngest first: (id, seconds since the epoch)."""
        ...

    async def pause(self, queue: str, paused: bool) -> None:
        """Stop or go on handing out tasks of a queue; lasts over restarts."""

    async def queue_names(self) -> list[str]:
        """All queues that were ever used."""
        ...

    async def wait(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait until one of the queues has something; False when the time is over."""
        ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Send an event; nobody may be listening."""

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        """Store a consumer's heartbeat for `ttl` seconds and announce it."""

    async def consumers(self) -> list[bytes]:
        """The stored heartbeats of the consumers alive."""
        ...

    async def subscription(self) -> Subscription:
        """A new, empty subscription."""
        ...

    async def now(self) -> int:
        """The store's clock, ms since the epoch."""
        ...
