"""The values that go into the verbs of a broker and come out of them. Times are milliseconds of the store's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SOLO_AFTER = 2
"""From this many crashes on a task runs alone in its worker, so that it can take no other task with it."""


# ------------------------------------------------------------------------------------ queueing
class Entry(NamedTuple):
    """A task to be queued. `record` has its header; `delay` is in ms, None for none.

    `unique`: the header has a unique key, which is to be checked.
    """

    id: str
    record: bytes
    delay: int | None = None
    priority: int = 0
    unique: bool = False


class UniqueConflict(NamedTuple):
    """The unfinished task that holds the unique key which another task wanted.

    `first`: the holder keeps the key until its end; otherwise the later task takes it over.
    """

    id: str
    first: bool


@dataclass(slots=True)
class Queued:
    """The answer to `Work.enqueue`: what was not queued."""

    known: set[str] = field(default_factory=set)
    """Ids that were known already, and were left alone."""
    conflicts: dict[str, UniqueConflict] = field(default_factory=dict)
    """By id of a task that was not queued: the holder of its unique key."""


# --------------------------------------------------------------------------------- the exchange
class ReserveCall(NamedTuple):
    """One call of a worker to its store: under which lease, and what it wants.

    `queues` are in the order of preference; `want` is the most tasks to be taken, 0 for none. `batch` numbers the
    calls of a lease that reserve. `idle`: the worker runs nothing, so it may get a task that must run alone.
    `stable_for` (ms): take over expired leases where leases were renewed without a gap for that long; None: take
    over none. `worker_name` is announced with each task that starts. `block`: seconds to wait for a task.
    """

    lease: str
    queues: Sequence[str] = ()
    want: int = 0
    batch: int = 0
    idle: bool = False
    stable_for: int | None = None
    worker_name: str = ""
    block: float = 0.0


class Reserved(NamedTuple):
    """A task that was handed out. `crashes`: workers that died with it so far.

    `limit`: the limit that is reached, where the task is not to wait for it: it is to be ended.
    """

    queue: str
    id: str
    batch: int
    record: bytes
    crashes: int
    limit: str = ""


class Settlement(NamedTuple):
    """The end of an attempt. `op` is one of `pq.model.operations`, `reply` the producer's channel.

    `wait` (ms) counts for RETRY alone. `limited`: its record has limits, and other tasks may wait for its slots.
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
    """The answer to `Work.exchange`."""

    tasks: list[Reserved] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(queue, id) of settlements that were not accepted: the lease was lost, another worker has the task."""
    lost_lease: bool = False
    """The lease is gone: cancel what runs under it, take a new one."""
    next_due: int | None = None
    """Milliseconds to the next delayed task; None when there is none."""
    more_ready: bool = False
    """More tasks are ready than were taken."""
    blocked: bool = False
    """The next task must run alone: reserve again when nothing runs."""
    solo: bool = False
    """The one task handed out must run alone: reserve nothing beside it."""
    vanished: int = 0
    """Ids whose record was gone (evicted, or deleted by hand)."""


class Renewal(NamedTuple):
    """The answer to a renewal, over all queues: whether the lease is valid, and which held tasks to cancel."""

    alive: bool
    cancelling: frozenset[str]


# Answers of `Work.cancel`.
CANCELLED = "cancelled"  # it was waiting, and is REVOKED now
CANCELLING = "cancelling"  # it runs; its worker was asked to stop it
FINISHED = "finished"  # too late
UNKNOWN = "unknown"


# ---------------------------------------------------------------------------------------- looks
class QueueState(NamedTuple):
    """The number of tasks in each place of a queue."""

    ready: int
    prio: int
    delayed: int
    held: int
    leases: int
    dead: int
    paused: bool
    parked: int = 0
    """Tasks that wait at a limit."""
    due: int = 0
    """Those of `delayed` whose time has come."""

    @property
    def waiting(self) -> int:
        """Tasks that no worker has taken yet."""
        return self.ready + self.prio + self.delayed + self.parked

    @property
    def startable(self) -> int:
        """Tasks that a worker could take now."""
        return 0 if self.paused else self.ready + self.prio + self.due


# Places of tasks, for `Looks.ids`.
WAITING = "waiting"  # in line
AT_LIMIT = "at limit"
DELAYED = "delayed"
RUNNING = "running"
ENDED = "ended"  # recently
DEAD = "dead"


# ------------------------------------------------------------------------------------ schedules
class Tick(NamedTuple):
    """A tick of a schedule, and the task that is to be queued for it. `at` is in ms."""

    schedule: str
    at: int
    id: str
    record: bytes


# Answers of `Work.tick`.
QUEUED_NOW = 1
CLAIMED = 0  # by another worker, before
TOO_EARLY = -1  # by the store's clock

# Verbs of `Schedules.change`.
CODE = "code"  # this is what a program's code says
CHANGE = "changed"  # this is what counts from now on, whatever the code says
FORGET = "forget"  # the code no longer says it
UNDO = "undo"  # what the code says counts again
DROP = "drop"  # remove both
PAUSE = "pause"
RESUME = "resume"

# Answers of `Schedules.change`.
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


# ------------------------------------------------------------------------------------- channels
class Message(NamedTuple):
    """One event from a channel. `payload` is raw."""

    channel: str
    payload: bytes


class Locked(NamedTuple):
    """The answer to `Channels.lock`. `fence` is 0 when it was refused, else larger than any before."""

    fence: int
    wait: int
    """Milliseconds after which the holder's time is over, unless it is pushed."""


FENCE_KEPT = 86_400_000
"""Milliseconds for which the last fence of a lock stays known after its time."""

KEPT_LINES = 1000
"""Log lines that are kept of one task; the last ones."""


class Streamed(NamedTuple):
    """Parts that a held task streams: numbered from `first` on; those before `oldest` are no longer kept."""

    queue: str
    id: str
    batch: int
    first: int
    oldest: int
    parts: Sequence[bytes]


class Part(NamedTuple):
    """A part of what a task has streamed. `attempt` grows with each attempt that streams, `number` counts from 1.

    `token` names the holder of the task, as in a finished record; `body` is empty for the end of an attempt.
    """

    attempt: int
    number: int
    token: str
    body: bytes
