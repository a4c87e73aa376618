"""What a broker promises: its verbs, and the guarantee of each.

A broker keeps tasks and hands them out. `RedisBroker` (Redis, Valkey) and `MemoryBroker` (one process)
both keep this contract, and one suite of tests holds both to it. Times are milliseconds of the *store's*
clock; no verb trusts the clock of its caller. Every verb may be repeated blindly with the same arguments
(its reply may have been lost): the second time changes nothing.

States of a lease: *open* (its holder renews it), *expired* (deadline passed; still good until somebody
reclaims it, so a late renewal is better than running everything twice), *gone*.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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
    """A task to be queued. `record` has its header; `delay` is in ms, None for none.

    `unique`: the header has a unique key, to be looked at.
    """

    id: str
    record: bytes
    delay: int | None = None
    priority: int = 0
    unique: bool = False


class Rival(NamedTuple):
    """The task that has the unique key which another one wanted. `first`: it keeps it until its end."""

    id: str
    first: bool


@dataclass(slots=True)
class Queued:
    """The answer to `Broker.enqueue`: what was not queued."""

    known: set[str] = field(default_factory=set)
    """Ids that were known already, and were left alone."""
    rivals: dict[str, Rival] = field(default_factory=dict)
    """By id, who has the unique key of a task that was not queued for that reason."""


class Reserved(NamedTuple):
    """A task that was handed out. `crashes`: workers that died with it so far.

    `closed`: the gate that did not let it through, and it does not want to wait: it is to be ended.
    """

    queue: str
    id: str
    batch: int
    record: bytes
    crashes: int
    closed: str = ""


class Settlement(NamedTuple):
    """The end of an attempt. `wait` (ms) counts for RETRY alone, `reply` is the producer's channel.

    `limited`: its record had demands; others may wait for what it lets go.
    """

    op: str
    id: str
    batch: int
    record: bytes = b""
    reply: str = ""
    wait: int = 0
    limited: bool = False


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
    parked: int = 0
    """Tasks that wait at a gate."""
    due: int = 0
    """Those of `delayed` whose time has come."""

    @property
    def waiting(self) -> int:
        """Tasks that nobody has taken yet."""
        return self.ready + self.prio + self.delayed + self.parked

    @property
    def startable(self) -> int:
        """Tasks that a worker could take now."""
        return 0 if self.paused else self.ready + self.prio + self.due


class Tick(NamedTuple):
    """A tick of a schedule, and the task that is to be queued for it. `at` is in ms."""

    schedule: str
    at: int
    id: str
    record: bytes


# Answers of `tick`.
QUEUED_NOW = 1
CLAIMED = 0  # by somebody, before
TOO_EARLY = -1  # by the store's clock

# Verbs of `change_schedule`.
CODE = "code"  # this is what a program's code says
CHANGE = "changed"  # this is what counts from now on, whatever the code says
FORGET = "forget"  # the code says it no more
UNDO = "undo"  # what the code says counts again
DROP = "drop"  # away with both
PAUSE = "pause"
RESUME = "resume"

# Answers of `change_schedule`.
CHANGED = 1
AS_BEFORE = 0
NO_SCHEDULE = -1
TOO_MANY = -2


class StoredSchedule(NamedTuple):
    """A schedule as the store has it. `text` is what counts; ticks count from `since` (ms) on."""

    text: bytes
    in_code: bool
    changed: bool
    since: int
    paused: bool


class Locked(NamedTuple):
    """The answer to `Broker.lock`. `fence` is 0 when it was refused, else larger than any before."""

    fence: int
    wait: int
    """Milliseconds after which the holder's time is over, unless it is pushed."""


class Streamed(NamedTuple):
    """Parts that a held task streams: numbered from `first` on; those before `oldest` are not kept any more."""

    queue: str
    id: str
    batch: int
    first: int
    oldest: int
    parts: Sequence[bytes]


class Part(NamedTuple):
    """A part of what a task has streamed. `attempt` grows with each attempt that streams, `number` counts from 1.

    `token` names who held the task, as in a finished record; `body` is empty for the end of an attempt.
    """

    attempt: int
    number: int
    token: str
    body: bytes


FENCE_KEPT = 86_400_000
"""Milliseconds for which the last fence of a lock stays known after its time."""

# Places of tasks, for `ids`.
WAITING = "waiting"  # in line
AT_LIMIT = "at limit"  # at a gate
DELAYED = "delayed"
RUNNING = "running"
ENDED = "ended"  # of late
DEAD = "dead"

KEPT_LINES = 1000
"""Log lines that are kept of one task; the last ones."""

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

    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        """Queue tasks; returns those that were not: known already, or their unique key is another's.

        All or nothing per call; idempotent by id as long as the record is kept. Announces `queued`.
        Raises `QueueFull` when the store has no room: then nothing was queued. With a `durability` (`replica`,
        `fsync`) it returns when a replica has them, or the disk, and raises `NotDurable` when that is not so in
        time: then they may be queued all the same.
        """
        ...

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        """Give a task that waits under a unique key another record; it keeps its place.

        With `delay` (ms) a delayed one begins to wait anew. False: it has started or ended, and its key is
        free. Raises `QueueFull`.
        """
        ...

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        """End the task that waits under a unique key, and queue another under it, in one step.

        `old`: its id, its finished record, its reply channel. False: it has started or ended, and its key
        is free; then nothing was done. Raises `QueueFull`.
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
        calm: int | None = None,
        note: str = "",
        block: float = 0.0,
    ) -> Exchange:
        """Settle what ended and reserve up to `want` tasks, in one round trip.

        Settling is fenced: only who holds the task under `lease` and its batch is accepted.
        Reserving takes from `queues` in their order; the same `batch` again returns the same tasks. A `batch`
        below one that was used is a call that its caller has given up: it takes nothing.
        A task whose gates are closed waits at the first of them, in its turn, and is in nobody's way;
        whoever lets a slot go lets the next one through, to the front of the queue.
        On the way it promotes due tasks and, where leases have been renewed without a gap for `calm` ms,
        takes over those that expired, a bounded number each. After an outage, or a jump of the clock, all
        look expired, and their holders get that long to renew; 0: whatever was, None: nothing is taken over. `idle` says that the caller runs nothing, so may get a task that must run alone.

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

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        """(queue, id, batch) of all that is held under a lease."""
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
        """The first ids of a queue, in the order in which they would be handed out.

        Then those that wait at gates, then the delayed ones.
        """
        ...

    async def state(self, queue: str) -> QueueState:
        """How much lies where."""
        ...

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        """Ids of tasks in one place: what comes next first, of what has ended the youngest first.

        A look, not a promise: they may be somewhere else by now. Of what has ended the last thousand are known.
        """
        ...

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        """(queue, id) of tasks, live or finished, whose id begins so. It goes through the whole store."""
        ...

    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        """Add to the log lines of a task, of which the last `KEPT_LINES` are kept for `ttl` ms."""

    async def lines(self, queue: str, id: str) -> list[bytes]:
        """The log lines of a task that are kept."""
        ...

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        """Note how far running tasks are, by id, for `ttl` ms."""

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """How far tasks are."""
        ...

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        """Keep what tasks stream for `ttl` ms, and announce it; for each whether it was accepted.

        Only what is held under `lease` and its batch is. The parts of an attempt take the place of those of the
        one before. Raises `QueueFull`.
        """
        ...

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        """The first `count` parts after one (attempt, number) that a task has streamed, of those that are kept."""
        ...

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        """The dead set, youngest first: (id, seconds since the epoch)."""
        ...

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        """Remove finished records, from the dead set too; how many there were. Live ones stay."""
        ...

    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        """Take a lock for `ttl` ms, or push its deadline where `token` has it already.

        `keep`: push the deadline, and take nothing. A deadline that has passed is no loss as long as
        nobody else took the lock.
        """
        ...

    async def unlock(self, name: str, token: str) -> bool:
        """Let a lock go and announce that; False when `token` does not have it."""
        ...

    async def pause(self, queue: str, paused: bool) -> None:
        """Stop or go on handing out tasks of a queue; lasts over restarts."""

    async def limit(self, queue: str, most: int | None) -> None:
        """How many tasks may wait in a queue; None for any number. Lasts over restarts.

        `enqueue` raises `QueueFull` beyond it. What comes back to a queue (retries, released tasks) is
        always taken.
        """

    async def queue_names(self) -> list[str]:
        """All queues that were ever used."""
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

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        """Queue the tasks of ticks that nobody has claimed; an answer for each: now, before, or too early.

        Claiming a tick and queueing its task is one step. Each tick of a schedule is claimed once for
        ever, and none that is older than one that was claimed; so those of one schedule come in order.
        Raises `QueueFull`: then none was claimed.
        """
        ...

    async def last_ticks(self, queue: str, schedules: Sequence[str]) -> list[int]:
        """The last tick of each whose task was queued there; 0 for none."""
        ...

    async def change_schedule(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        """State, change, take away or pause a schedule; see the verbs.

        Its ticks count from the moment in which its text first stood with this first line, or in which
        it was resumed. Raises `QueueFull`.
        """
        ...

    async def schedules(self) -> tuple[int, dict[str, StoredSchedule]]:
        """All schedules by name, and the version they have at least."""
        ...

    async def schedules_version(self) -> tuple[int, int]:
        """The version of the schedules, which grows with each change, and the store's clock in ms."""
        ...

    async def facts(self) -> dict[str, Any]:
        """What the store says of itself: kind, version, where, memory, round_trip (s), append_only, policy, now (s)."""
        ...

    async def now(self) -> int:
        """The store's clock, ms since the epoch."""
        ...
