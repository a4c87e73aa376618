"""The port that moves tasks, in memory: the reference model of the Lua scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import QueueFull
from ...model.operations import ACK, CRASH, FAIL, RELEASE, RETRY
from .. import records
from ..contract.values import (
    CANCELLED,
    CANCELLING,
    CLAIMED,
    FINISHED,
    QUEUED_NOW,
    TOO_EARLY,
    UNKNOWN,
    Entry,
    Exchange,
    Queued,
    Renewal,
    ReserveCall,
    Settlement,
    Tick,
)
from ..records import unique_key
from .reserving import Reservation
from .store import MemoryStore, QueueData


class MemoryWork:
    """Keeps `Work` on a `MemoryStore`. The lease thread of a worker may renew, so each verb holds the lock."""

    def __init__(self, store: MemoryStore, task_channel: str, *, ttl: int, dead_ttl: int) -> None:
        self._store = store
        self._task_channel = task_channel
        self._ttl = ttl
        self._dead_ttl = dead_ttl

    def _announce(self, head: bytes, items: Sequence[tuple[str, bytes]]) -> None:
        self._store.announce(self._task_channel, head, items)

    # ------------------------------------------------------------------------------- queueing
    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        """See `Work.enqueue`."""
        answer = Queued()
        with self._store.lock:
            data, now = self._store.queue(queue), self._store.now()
            fresh: list[tuple[str, bytes]] = []
            new = sum(entry.id not in data.task for entry in entries)
            if data.limit is not None and new and data.waiting + new > data.limit:
                raise QueueFull(
                    f"queue {queue!r}: {data.waiting} tasks wait, and {data.limit} may",
                    hint="let the workers catch up, or raise the limit of the queue",
                )
            first = next((n for n, entry in enumerate(entries) if entry.unique), len(entries))
            head, tail = entries[:first], entries[first:]
            # As on the wire, where the plain ones travel first, but none overtakes a unique one.
            head = sorted(head, key=lambda e: e.delay is not None or e.priority != 0)
            for id, record, delay, _, unique in [*head, *tail]:
                conflict = data.limits.take_key(id, records.limits_text(record)) if unique else None
                if conflict is not None:
                    answer.conflicts[id] = conflict
                    continue
                if id in data.task:
                    answer.known.add(id)
                    continue
                data.task[id] = record
                fresh.append((id, record))
                if delay is not None and delay > 0:
                    data.delayed[id] = now + delay
                else:
                    data.place(id, front=False)
            self._announce(b"queued", fresh)
            if fresh:
                self._store.wake()
        return answer

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        """See `Work.replace`."""
        with self._store.lock:
            data = self._store.queue(queue)
            if data.task.get(id) == record:
                return True
            way, key = unique_key(records.limits_text(record))
            if id not in data.task or data.limits.unique.get(key) not in ("l" + id, "r" + id):
                return False
            data.task[id] = record
            data.limits.unique[key] = way + id
            if delay is not None and id in data.delayed:
                data.delayed[id] = self._store.now() + delay
                self._store.wake()
            return True

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        """See `Work.displace`."""
        with self._store.lock:
            data, now = self._store.queue(queue), self._store.now()
            way, key = unique_key(records.limits_text(entry.record))
            if entry.id in data.task:
                return True
            if data.limits.holder(key) not in ("l" + old[0], "r" + old[0]):
                return False
            data.task[entry.id] = entry.record
            limits_text = records.limits_text(data.task[old[0]])
            if not data.withdraw(old[0], limits_text, at_front=False):
                data.revoked.add(old[0])
            self._revoke(data, *old, limits_text)
            data.limits.unique[key] = way + entry.id
            if entry.delay is not None and entry.delay > 0:
                data.delayed[entry.id] = now + entry.delay
            else:
                data.place(entry.id, front=False)
            data.limits.let_through(now)
            self._announce(b"queued", [(entry.id, entry.record)])
            self._store.wake()
            return True

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        """See `Work.retry_dead`."""
        with self._store.lock:
            data = self._store.queue(queue)
            record = data.task.get(entry.id)
            if record is None or records.is_live(record):
                return False
            data.dead.pop(entry.id, None)
            data.expires.pop(entry.id, None)
            data.crashes.pop(entry.id, None)
            self._store.beside.pop((queue, entry.id, "stream"), None)
            data.task[entry.id] = entry.record
            if entry.id in data.revoked:
                data.revoked.remove(entry.id)
            else:
                data.place(entry.id, front=False)
            self._announce(b"queued", [(entry.id, entry.record)])
            self._store.wake()
            return True

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        """See `Work.tick`."""
        with self._store.lock:
            data, now = self._store.queue(queue), self._store.now()
            answers: list[int] = []
            fresh: list[tuple[str, bytes]] = []
            for schedule, at, id, record in ticks:
                if at > now:
                    answers.append(TOO_EARLY)
                elif at <= data.ticks.get(schedule, 0):
                    answers.append(CLAIMED)
                else:
                    new = (
                        id not in data.task and data.limits.take_key(id, records.limits_text(record)) is None
                    )
                    answers.append(QUEUED_NOW if new else CLAIMED)
                    if new:
                        data.task[id] = record
                        data.place(id, front=False)
                        fresh.append((id, record))
                    data.ticks[schedule] = at
            self._announce(b"queued", fresh)
            if fresh:
                self._store.wake()
            return answers

    # ------------------------------------------------------------------------------------ leases
    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        """See `Work.open_lease`."""
        with self._store.lock:
            for queue in queues:
                data = self._store.queue(queue)
                data.leases.pop(lease, None)
                data.note_renewal(self._store.now(), ttl)
                data.leases[lease] = self._store.now() + ttl

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        """See `Work.renew`."""
        return self.renew_now(lease, queues, ttl)[0]

    def renew_now(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """Do the same for a thread; return the store's clock in ms too."""
        with self._store.lock:
            alive, cancelling, now = True, set[str](), self._store.now()
            for queue in queues:
                data = self._store.queue(queue)
                if data.leases.get(lease, 0) > 0:
                    data.note_renewal(now, ttl)
                    data.leases[lease] = now + ttl
                    cancelling |= data.cancelling
                else:
                    alive = False
            return Renewal(alive, frozenset(cancelling)), now

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        """See `Work.hand_back`."""
        with self._store.lock:
            total = 0
            for queue in queues:
                data = self._store.queue(queue)
                total += data.reclaim(lease, charge=crashed, limit=len(data.held_by(lease)))
                data.limits.let_through(self._store.now())
            if total:
                self._store.wake()
            return total

    # ---------------------------------------------------------------------- settling and reserving
    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        """See `Work.exchange`."""
        if call.block > 0:
            await self._store.wait(call.queues, call.block)
        with self._store.lock:
            answer = Exchange()
            for queue, ended in settlements.items():
                if ended:
                    answer.refused += [(queue, id) for id in self._settle(queue, call.lease, ended)]
            if call.want > 0:
                reservation = Reservation(self._store, call, answer)
                reservation.run()
                head = f"started {self._store.now()} {call.worker_name}"
                self._announce(head.encode(), reservation.started)
            return answer

    def _settle(self, queue: str, lease: str, ended: Sequence[Settlement]) -> list[str]:
        """Settle what ended in one queue; return the ids that are refused."""
        data, now = self._store.queue(queue), self._store.now()
        refused: list[str] = []
        done: list[tuple[str, bytes]] = []
        again: list[tuple[str, bytes]] = []
        replies: dict[str, list[tuple[str, bytes]]] = {}
        # Successes go first, as on the wire, where they travel in a denser form.
        for end in sorted(ended, key=lambda s: s.op != ACK or s.limited):
            id = end.id
            if not data.drop_held(lease, (id, end.batch)):
                mine = records.token(data.task.get(id, b"")) == f"{lease}:{end.batch}"
                if end.op not in (RELEASE, CRASH) and not mine:
                    refused.append(id)
            elif end.op in (RELEASE, CRASH):
                self._release(data, id, crashed=end.op == CRASH)
            elif end.op == RETRY:
                self._retry(data, end, now)
                again.append((id, end.record))
            else:
                self._end(data, end, now)
                done.append((id, end.record))
                if end.reply:
                    replies.setdefault(end.reply, []).append((id, end.record))
        if data.limits.let_through(now):
            self._store.wake()
        data.recent.extendleft(id for id, _ in done)
        for reply, sent in replies.items():
            self._store.announce(reply, b"done", sent)
        self._announce(b"done", done)
        self._announce(b"retry", again)
        return refused

    def _release(self, data: QueueData, id: str, *, crashed: bool) -> None:
        """Put a task back to the front, as it was."""
        if data.place(id, front=True) and crashed:
            data.crashes[id] = data.crashes.get(id, 0) + 1
        self._store.wake()

    def _retry(self, data: QueueData, end: Settlement, now: int) -> None:
        """Delay the next attempt of a task."""
        data.crashes.pop(end.id, None)
        data.limits.leave(end.id)
        data.task[end.id] = end.record
        data.delayed[end.id] = now + end.wait
        if data.delayed[end.id] == min(data.delayed.values()):
            self._store.wake()

    def _end(self, data: QueueData, end: Settlement, now: int) -> None:
        """Store the end of a task."""
        data.crashes.pop(end.id, None)
        if end.op != ACK or end.limited:
            data.limits.end(end.id)
        data.cancelling.discard(end.id)  # one that goes back keeps its mark
        data.finish(end.id, end.record, now + (self._dead_ttl if end.op == FAIL else self._ttl))
        if end.op == FAIL:
            data.dead[end.id] = now
            for old in [old for old, at in data.dead.items() if at <= now - self._dead_ttl]:
                del data.dead[old]

    async def poke(self, queue: str) -> None:
        """See `Work.poke`."""
        self._store.wake()

    # ---------------------------------------------------------------------------- cancel, forget
    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        """See `Work.cancel`."""
        with self._store.lock:
            answers = [self._cancel(queue, *item, at_front=at_front) for item in items]
            if self._store.queue(queue).limits.let_through(self._store.now()):
                self._store.wake()
            return answers

    def _cancel(self, queue: str, id: str, record: bytes, reply: str, *, at_front: bool) -> str:
        data = self._store.queue(queue)
        stored = data.task.get(id)
        if stored is None:
            return UNKNOWN
        if not records.is_live(stored):
            return CANCELLED if stored == record else FINISHED
        limits_text = records.limits_text(stored)
        if not data.withdraw(id, limits_text, at_front=at_front):
            if any(id == held for members in data.held.values() for held, _ in members):
                data.cancelling.add(id)
                return CANCELLING
            data.revoked.add(id)
        self._revoke(data, id, record, reply, limits_text)
        return CANCELLED

    def _revoke(self, data: QueueData, id: str, record: bytes, reply: str, limits_text: str) -> None:
        """Write the end of a task that waited."""
        data.finish(id, record, self._store.now() + self._ttl)
        data.recent.appendleft(id)
        data.drop_marks(id)
        data.limits.free_key(id, limits_text)
        if reply:
            self._store.publish(reply, b"done\n" + records.parcel(id, record))
        self._announce(b"done", [(id, record)])

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        """See `Work.forget`."""
        with self._store.lock:
            data, removed = self._store.queue(queue), 0
            for id in ids:
                record = data.task.get(id)
                if record is not None and records.is_live(record):
                    continue
                data.dead.pop(id, None)
                data.expires.pop(id, None)
                self._store.beside.pop((queue, id, "stream"), None)
                removed += data.task.pop(id, None) is not None
            return removed

    # ------------------------------------------------------------------------------------ switches
    async def pause(self, queue: str, paused: bool) -> None:
        """See `Work.pause`."""
        with self._store.lock:
            self._store.queue(queue).paused = paused
            self._store.wake()

    async def limit(self, queue: str, most: int | None) -> None:
        """See `Work.limit`."""
        with self._store.lock:
            self._store.queue(queue).limit = most
