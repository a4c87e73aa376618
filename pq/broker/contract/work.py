"""The verbs that move tasks. See `pq.broker.contract.broker` for what holds for all verbs.

Every record that goes into a store goes through one of these, so a layer that seals records or offloads large ones
(`pq.broker.layers`) has them all in one place.

States of a lease: *open* (its holder renews it), *expired* (deadline passed; still good until another worker
reclaims it, so a late renewal is better than running everything twice), *gone*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .values import Entry, Exchange, Queued, Renewal, ReserveCall, Settlement, Tick


class Work(Protocol):
    """Queue, reserve, settle, cancel; and the leases under which that is done."""

    # -------------------------------------------------------------------------------- queueing
    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        """Queue tasks; return those that were not: known already, or their unique key is another task's.

        All or nothing per call; idempotent by id as long as the record is kept. Announces `queued`.
        Raises `QueueFull` when the store has no room: then nothing was queued. With a `durability` (`replica`,
        `fsync`) it returns when a replica has them, or the disk, and raises `NotDurable` when that is not so in
        time: then they may be queued all the same.
        """
        ...

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        """Give a task that waits under a unique key another record; it keeps its place.

        With `delay` (ms) the delay of a delayed one starts again. False: it has started or ended, and its key is
        free. Raises `QueueFull`.
        """
        ...

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        """End the task that waits under a unique key, and queue another under it, in one step.

        `old`: its id, its finished record, its reply channel. False: it has started or ended, and its key
        is free; then nothing was done. Raises `QueueFull`.
        """
        ...

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        """Queue the tasks of ticks that are unclaimed; an answer for each: now, before, or too early.

        Claiming a tick and queueing its task is one step. Each tick of a schedule is claimed once
        forever, and none that is older than one that was claimed; so those of one schedule come in order.
        Raises `QueueFull`: then none was claimed.
        """
        ...

    # ------------------------------------------------------------------------ leases and settling
    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        """Take a lease of `ttl` ms in each queue."""

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        """Settle what ended, by queue, and reserve up to `call.want` tasks, in one round trip.

        Settling is fenced: only the worker that holds the task under `call.lease` and its batch is accepted.
        Reserving takes from `call.queues` in their order; the same `batch` again returns the same tasks. A `batch`
        below one that was used is a call that its caller has given up: it takes nothing.
        A task with a limit that is reached is parked at it, in its turn, and blocks nothing; the task that leaves
        a slot lets the next one through, to the front of the queue.
        On the way it promotes due tasks and, where leases have been renewed without a gap for `stable_for` ms,
        takes over those that expired, a bounded number each. After an outage, or a jump of the clock, all
        look expired, and their holders get that long to renew; 0 takes over without that.

        With `block` (seconds, and no settlements) the reserving waits until there is something, or the
        time is over: still one round trip, so an idle worker has a new task as soon as it is there.
        """
        ...

    async def poke(self, queue: str) -> None:
        """Have one blocked reservation answered now, though nothing was queued."""

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        """Push the deadline of a lease; return whether it is valid, and which held tasks to cancel."""
        ...

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        """Return all that a lease holds to the front of its queues and end the lease.

        `crashed` charges each task with a crash: its worker died. Returns how many went back.
        """
        ...

    # ----------------------------------------------------------------------------- cancel, forget
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

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        """Remove finished records, from the dead set too; return how many there were. Live ones stay."""
        ...

    # ------------------------------------------------------------------------------------ switches
    async def pause(self, queue: str, paused: bool) -> None:
        """Stop dispatching from a queue, or go on; lasts over restarts."""

    async def limit(self, queue: str, most: int | None) -> None:
        """Let at most `most` tasks wait in a queue; None for any number. Lasts over restarts.

        `enqueue` raises `QueueFull` beyond it. What comes back to a queue (retries, released tasks) is
        always taken.
        """
