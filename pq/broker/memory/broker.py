"""The broker in one process: for tests, notebooks, and as the reference model of the protocol.

It keeps the whole contract (`pq.broker.contract.work`) with plain dicts and lists, so it can be read in one
sitting; the Lua scripts are held against it by property tests. What it does not have is other
processes, and data that outlive this one. It is safe within one event loop's thread; the lease thread
of a worker may renew, so each verb holds a lock.

`MemoryStore` is the data, `MemoryBroker` a connection to it: two brokers on one store see each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import QueueFull
from ...model.operations import ACK, CRASH, FAIL, RELEASE, RETRY
from .. import records
from ..contract.values import (
    AS_BEFORE,
    AT_LIMIT,
    CANCELLED,
    CANCELLING,
    CHANGE,
    CHANGED,
    CLAIMED,
    CODE,
    DEAD,
    DELAYED,
    DROP,
    ENDED,
    FENCE_KEPT,
    FINISHED,
    FORGET,
    KEPT_LINES,
    NO_SCHEDULE,
    PAUSE,
    QUEUED_NOW,
    RUNNING,
    SOLO_AFTER,
    TOO_EARLY,
    TOO_MANY,
    UNDO,
    UNKNOWN,
    WAITING,
    Entry,
    Exchange,
    Locked,
    Part,
    Queued,
    QueueState,
    Renewal,
    ReserveCall,
    Reserved,
    Settlement,
    StoredSchedule,
    Streamed,
    Tick,
)
from ..keys import Keys
from ..records import unique_key
from .store import MemoryStore, MemorySubscription, QueueData

BOUND = 100
"""How much housekeeping one reserve does."""


class MemoryBroker:
    """Keeps the contract on a `MemoryStore`."""

    where = "memory://"
    connected_since: float | None = 0.0

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        namespace: str = "pq",
        result_ttl: float = 3600.0,
        dead_ttl: float = 7 * 86_400.0,
    ) -> None:
        self.store = store or MemoryStore()
        self.work = self.looks = self.channels = self.schedules = self
        self.keys = Keys(namespace)
        self._ttl = int(max(60.0, result_ttl) * 1000)
        self._dead_ttl = int(max(60.0, result_ttl, dead_ttl) * 1000)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check_rights(self) -> None:
        """Nothing is refused within one process."""

    def renewer(self) -> MemoryRenewer:
        return MemoryRenewer(self)

    async def own_name(self, proposed: str) -> str:
        return proposed

    async def sweep(self) -> int:
        return 0

    async def next_due(self, queues: Sequence[str], after: int) -> int | None:
        with self.store.lock:
            datas = [self.store.queue(queue) for queue in queues]
            moments = [at for data in datas for at in (*data.delayed.values(), *data.gates.timers.values())]
            return min((at for at in moments if at > after), default=None)

    # ------------------------------------------------------------------------------- queueing
    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        answer = Queued()
        with self.store.lock:
            data, now = self.store.queue(queue), self.store.now()
            fresh: list[tuple[str, bytes]] = []
            new = sum(entry.id not in data.task for entry in entries)
            if data.limit is not None and new and data.waiting + new > data.limit:
                raise QueueFull(
                    f"queue {queue!r}: {data.waiting} tasks wait, and {data.limit} may",
                    hint="let the workers catch up, or raise the limit of the queue",
                )
            first = next((n for n, entry in enumerate(entries) if entry.unique), len(entries))
            head, tail = entries[:first], entries[first:]
            # As on the wire, where the plain ones travel first, but none passes a unique one by.
            head = sorted(head, key=lambda e: e.delay is not None or e.priority != 0)
            for id, record, delay, _, unique in [*head, *tail]:
                rival = data.gates.rival_of(id, records.demands(record)) if unique else None
                if rival is not None:
                    answer.conflicts[id] = rival
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
                self.store.wake()
        return answer

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        with self.store.lock:
            data = self.store.queue(queue)
            if data.task.get(id) == record:
                return True
            way, key = unique_key(records.demands(record))
            if id not in data.task or data.gates.unique.get(key) not in ("l" + id, "r" + id):
                return False
            data.task[id] = record
            data.gates.unique[key] = way + id
            if delay is not None and id in data.delayed:
                data.delayed[id] = self.store.now() + delay
                self.store.wake()
            return True

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        with self.store.lock:
            data, now = self.store.queue(queue), self.store.now()
            way, key = unique_key(records.demands(entry.record))
            if entry.id in data.task:
                return True
            if data.gates.rival(key) not in ("l" + old[0], "r" + old[0]):
                return False
            data.task[entry.id] = entry.record
            demands = records.demands(data.task[old[0]])
            if not data.withdraw(old[0], demands, at_front=False):
                data.revoked.add(old[0])
            self._revoke(data, *old, demands)
            data.gates.unique[key] = way + entry.id
            if entry.delay is not None and entry.delay > 0:
                data.delayed[entry.id] = now + entry.delay
            else:
                data.place(entry.id, front=False)
            data.gates.open_gates(now)
            self._announce(b"queued", [(entry.id, entry.record)])
            self.store.wake()
            return True

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        with self.store.lock:
            data = self.store.queue(queue)
            record = data.task.get(entry.id)
            if record is None or records.is_live(record):
                return False
            data.dead.pop(entry.id, None)
            data.expires.pop(entry.id, None)
            data.crashes.pop(entry.id, None)
            self.store.beside.pop((queue, entry.id, "stream"), None)
            data.task[entry.id] = entry.record
            if entry.id in data.revoked:
                data.revoked.remove(entry.id)
            else:
                data.place(entry.id, front=False)
            self._announce(b"queued", [(entry.id, entry.record)])
            self.store.wake()
            return True

    # ------------------------------------------------------------------------- leases and work
    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        with self.store.lock:
            for queue in queues:
                data = self.store.queue(queue)
                data.leases.pop(lease, None)
                data.note_renewal(self.store.now(), ttl)
                data.leases[lease] = self.store.now() + ttl

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        return self.renew_now(lease, queues, ttl)

    def renew_now(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        """The same for a thread."""
        with self.store.lock:
            alive, cancelling = True, set[str]()
            for queue in queues:
                data = self.store.queue(queue)
                if data.leases.get(lease, 0) > 0:
                    data.note_renewal(self.store.now(), ttl)
                    data.leases[lease] = self.store.now() + ttl
                    cancelling |= data.cancelling
                else:
                    alive = False
            return Renewal(alive, frozenset(cancelling))

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        with self.store.lock:
            total = 0
            for queue in queues:
                data = self.store.queue(queue)
                total += data.reclaim(lease, charge=crashed, limit=len(data.held_by(lease)))
                data.gates.open_gates(self.store.now())
            if total:
                self.store.wake()
            return total

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        with self.store.lock:
            return [
                (queue, id, batch) for queue in queues for id, batch in self.store.queue(queue).held_by(lease)
            ]

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        lease, queues, want, batch, idle, stable_for, worker_name, block = call
        if block > 0:
            await self._wait(queues, block)
        with self.store.lock:
            answer = Exchange()
            for queue, ended in settlements.items():
                if ended:
                    answer.refused += [(queue, id) for id in self._settle(queue, lease, ended)]
            if want > 0:
                self._reserve(answer, lease, queues, want, batch, idle, stable_for, worker_name)
            return answer

    def _settle(self, queue: str, lease: str, ended: Sequence[Settlement]) -> list[str]:
        data, now = self.store.queue(queue), self.store.now()
        refused: list[str] = []
        done: list[tuple[str, bytes]] = []
        again: list[tuple[str, bytes]] = []
        replies: dict[str, list[tuple[str, bytes]]] = {}
        # Successes go first, as on the wire, where they travel in a denser form.
        for op, id, batch, record, reply, wait, limited in sorted(
            ended, key=lambda s: s.op != ACK or s.limited
        ):
            if not data.drop_held(lease, (id, batch)):
                mine = records.token(data.task.get(id, b"")) == f"{lease}:{batch}"
                if op not in (RELEASE, CRASH) and not mine:
                    refused.append(id)
                continue
            if op in (RELEASE, CRASH):
                if data.place(id, front=True) and op == CRASH:
                    data.crashes[id] = data.crashes.get(id, 0) + 1
                self.store.wake()
                continue
            data.crashes.pop(id, None)
            if op == RETRY:
                data.gates.leave(id)
                data.task[id] = record
                data.delayed[id] = now + wait
                if data.delayed[id] == min(data.delayed.values()):
                    self.store.wake()
                again.append((id, record))
                continue
            if op != ACK or limited:
                data.gates.over(id)
            data.cancelling.discard(id)  # one that goes back keeps its mark
            data.finish(id, record, now + (self._dead_ttl if op == FAIL else self._ttl))
            done.append((id, record))
            if reply:
                replies.setdefault(reply, []).append((id, record))
            if op == FAIL:
                data.dead[id] = now
                for old in [old for old, at in data.dead.items() if at <= now - self._dead_ttl]:
                    del data.dead[old]
        if data.gates.open_gates(now):
            self.store.wake()
        data.recent.extendleft(id for id, _ in done)
        for reply, sent in replies.items():
            self.store.publish(reply, b"done\n" + b"".join(records.parcel(*item) for item in sent))
        self._announce(b"done", done)
        self._announce(b"retry", again)
        return refused

    def _reserve(
        self,
        answer: Exchange,
        lease: str,
        queues: Sequence[str],
        want: int,
        batch: int,
        idle: bool,
        calm: int | None,
        note: str,
    ) -> None:
        taken, stop = 0, False
        stands: QueueData | None = None
        started: list[tuple[str, bytes]] = []
        # A call that was met already gives the same again and no more; one before it gives nothing.
        fresh = all(self.store.queue(queue).batches.get(lease, -1) < batch for queue in queues)
        for queue in queues:
            data, now = self.store.queue(queue), self.store.now()
            if data.leases.get(lease, 0) <= 0:
                answer.lost_lease = True
                continue
            stands = data
            self._housekeeping(data, lease, now, calm, answer)
            if data.batches.get(lease) == batch:
                for id, its in sorted(data.held_by(lease)):
                    record = data.task.get(id)
                    if its != batch:
                        continue
                    if record is None:
                        answer.vanished += 1
                        data.drop_held(lease, (id, its))
                        data.cancelling.discard(id)
                        data.crashes.pop(id, None)
                        data.gates.leave(id)
                        continue
                    crashes = data.crashes.get(id, 0)
                    answer.tasks.append(Reserved(queue, id, batch, record, crashes, data.gates.refusing(id)))
                    answer.solo = answer.solo or crashes >= SOLO_AFTER
            elif want > 0 and fresh and not stop and not data.paused:
                looked = 0
                while True:
                    popped = data.pop(min(want, 1000))
                    ids = [id for id in popped if not _skip(data.revoked, id)]
                    ids, stop = self._admit(data, ids, answer, idle=idle and not taken)
                    given, parked = self._hand_out(data, queue, lease, batch, ids, answer, now)
                    started += given
                    taken, want, looked = taken + len(given), want - len(given), looked + len(popped)
                    if not parked or want <= 0 or stop or looked >= 1000:
                        break
            if data.gates.open_gates(now):
                self.store.wake()
            answer.more_ready = answer.more_ready or bool(data.ready or data.prio)
            if data.delayed or data.gates.timers:
                due = max(0, min([*data.delayed.values(), *data.gates.timers.values()]) - now)
                answer.next_due = due if answer.next_due is None else min(answer.next_due, due)
        if fresh and not taken and stands is not None:
            stands.batches[lease] = batch
        self._announce(f"started {self.store.now()} {note}".encode(), started)

    def _hand_out(
        self,
        data: QueueData,
        queue: str,
        lease: str,
        batch: int,
        ids: list[str],
        answer: Exchange,
        now: int,
    ) -> tuple[list[tuple[str, bytes]], int]:
        """What is handed out of `ids`, and how many wait at a gate instead."""
        given: list[tuple[str, bytes]] = []
        parked = 0
        for id in ids:
            record = data.task.get(id)
            if record is None or not records.is_live(record):
                answer.vanished += 1
                data.crashes.pop(id, None)
                data.cancelling.discard(id)
                data.gates.leave(id)
            elif record[:1] == b"g" and not data.gates.let_in(id, record, now):
                parked += 1
            else:
                data.held.setdefault(lease, set()).add((id, batch))
                data.batches[lease] = batch
                crashes, closed = data.crashes.get(id, 0), data.gates.refusing(id)
                answer.tasks.append(Reserved(queue, id, batch, record, crashes, closed))
                given.append((id, record))
        return given, parked

    def _housekeeping(
        self, data: QueueData, lease: str, now: int, calm: int | None, answer: Exchange
    ) -> None:
        if calm is not None and data.is_calm(now, calm):
            expired = sorted((at, other) for other, at in data.leases.items() if at <= now)[:2]
            for _, other in expired:
                if other != lease:
                    data.reclaim(other, charge=True, limit=BOUND)
                    break
        due = sorted((at, id) for id, at in data.delayed.items() if at <= now)[:BOUND]
        for _, id in due:
            del data.delayed[id]
            if not data.place(id, front=False):
                answer.vanished += 1
        data.gates.open_gates(now, data.gates.due(now))

    def _admit(
        self, data: QueueData, ids: list[str], answer: Exchange, *, idle: bool
    ) -> tuple[list[str], bool]:
        """What may start of `ids`, and whether to stop there: a suspect runs by itself or not at all."""
        for i, id in enumerate(ids):
            if data.crashes.get(id, 0) < SOLO_AFTER:
                continue
            alone = idle and i == 0
            answer.solo, answer.blocked = answer.solo or alone, answer.blocked or not alone
            kept = ids[: i + 1] if alone else ids[:i]
            for back in reversed(ids[len(kept) :]):
                data.place(back, front=True)
            return kept, True
        return ids, False

    # ---------------------------------------------------------------------------------- cancel
    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        with self.store.lock:
            answers = [self._cancel(queue, *item, at_front=at_front) for item in items]
            if self.store.queue(queue).gates.open_gates(self.store.now()):
                self.store.wake()
            return answers

    def _cancel(self, queue: str, id: str, record: bytes, reply: str, *, at_front: bool) -> str:
        data = self.store.queue(queue)
        stored = data.task.get(id)
        if stored is None:
            return UNKNOWN
        if not records.is_live(stored):
            return CANCELLED if stored == record else FINISHED
        demands = records.demands(stored)
        if not data.withdraw(id, demands, at_front=at_front):
            if any(id == held for members in data.held.values() for held, _ in members):
                data.cancelling.add(id)
                return CANCELLING
            data.revoked.add(id)
        self._revoke(data, id, record, reply, demands)
        return CANCELLED

    def _revoke(self, data: QueueData, id: str, record: bytes, reply: str, demands: str) -> None:
        """Write the end of a task that waited."""
        data.finish(id, record, self.store.now() + self._ttl)
        data.recent.appendleft(id)
        data.crashes.pop(id, None)
        data.cancelling.discard(id)
        data.gates.leave(id)
        data.gates.free_key(id, demands)
        if reply:
            self.store.publish(reply, b"done\n" + records.parcel(id, record))
        self._announce(b"done", [(id, record)])

    # ----------------------------------------------------------------------------------- looks
    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        with self.store.lock:
            return [self.store.queue(queue).task.get(id) for id in ids]

    async def peek(self, queue: str, count: int) -> list[str]:
        with self.store.lock:
            data = self.store.queue(queue)
            order = data.ordered_prio()
            high = [id for id in order if data.prio[id][0] < 0]
            low = [id for id in order if data.prio[id][0] > 0]
            delayed = sorted(data.delayed, key=lambda id: (data.delayed[id], id))
            ready = [id for id in data.ready if id not in data.revoked]
            return [*high, *ready, *low, *data.gates.in_order(), *delayed][:count]

    async def state(self, queue: str) -> QueueState:
        with self.store.lock:
            data, now = self.store.queue(queue), self.store.now()
            return QueueState(
                len(data.ready) - len(data.revoked),
                len(data.prio),
                len(data.delayed),
                sum(len(members) for members in data.held.values()),
                len(data.leases),
                len(data.dead),
                data.paused,
                len(data.gates.parked),
                sum(due <= now for due in data.delayed.values()),
            )

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        with self.store.lock:
            data = self.store.queue(queue)
            if place == WAITING:
                state = await self.state(queue)
                return await self.peek(queue, min(count, state.ready + state.prio))
            found: Iterable[str] = {
                RUNNING: [id for members in data.held.values() for id, _ in members],
                AT_LIMIT: data.gates.in_order(),
                DELAYED: sorted(data.delayed, key=lambda id: (data.delayed[id], id)),
                ENDED: dict.fromkeys(data.recent),
                DEAD: sorted(data.dead, key=lambda id: (data.dead[id], id), reverse=True),
            }[place]
            return list(found)[:count]

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        with self.store.lock:
            found = [(name, id) for name in self.store.queues for id in self.store.queue(name).task]
            return sorted(pair for pair in found if pair[1].startswith(prefix))[:most]

    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        with self.store.lock:
            kept = self.store.kept(queue, id, "log") or []
            self.store.keep(queue, id, "log", [*kept, *lines][-KEPT_LINES:], ttl)

    async def lines(self, queue: str, id: str) -> list[bytes]:
        return self.store.kept(queue, id, "log") or []

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        for id, text in facts.items():
            self.store.keep(queue, id, "progress", text, ttl)

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        return [self.store.kept(queue, id, "progress") for id in ids]

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        with self.store.lock:
            return [self._keep_parts(lease, each, ttl) for each in streamed]

    def _keep_parts(self, lease: str, streamed: Streamed, ttl: int) -> bool:
        queue, id, batch, first, oldest, bodies = streamed
        if (id, batch) not in self.store.queue(queue).held_by(lease):
            return False
        token = f"{lease}:{batch}"
        known: list[Part] = self.store.kept(queue, id, "stream") or []
        attempt, last = self.store.now(), 0
        if known and known[-1].token == token:
            attempt, last = known[-1].attempt, known[-1].number
        elif known:
            known, attempt = [], max(attempt, known[-1].attempt + 1)
        new = [
            Part(attempt, number, token, body) for number, body in enumerate(bodies, first) if number > last
        ]
        self.store.keep(queue, id, "stream", [part for part in known + new if part.number >= oldest], ttl)
        self.store.publish(self.keys.stream_channel, id.encode())
        return True

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        known: list[Part] = self.store.kept(queue, id, "stream") or []
        return [part for part in known if after is None or part[:2] > after][:count]

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        with self.store.lock:
            dead = self.store.queue(queue).dead
            newest = sorted(dead, key=lambda id: (dead[id], id), reverse=True)[:count]
            return [(id, dead[id] / 1000) for id in newest]

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        with self.store.lock:
            data, removed = self.store.queue(queue), 0
            for id in ids:
                record = data.task.get(id)
                if record is not None and records.is_live(record):
                    continue
                data.dead.pop(id, None)
                data.expires.pop(id, None)
                self.store.beside.pop((queue, id, "stream"), None)
                removed += data.task.pop(id, None) is not None
            return removed

    # ----------------------------------------------------------------------------------- locks
    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        with self.store.lock:
            now, locks = self.store.now(), self.store.locks
            for old in [n for n, (_, _, until) in locks.items() if until <= now - FENCE_KEPT]:
                del locks[old]
            holder, fence, until = locks.get(name, ("", 0, 0))
            if holder != token:
                if keep:
                    return Locked(0, 0)
                if holder and until > now:
                    return Locked(0, until - now)
                fence = max(fence + 1, now)
            locks[name] = (token, fence, now + ttl)
            return Locked(fence, 0)

    async def unlock(self, name: str, token: str) -> bool:
        with self.store.lock:
            holder, fence, until = self.store.locks.get(name, ("", 0, 0))
            if holder != token:
                return False
            self.store.locks[name] = ("", fence, until)
            self.store.publish(self.keys.lock_channel, name.encode())
            return True

    # ----------------------------------------------------------------------------------- pause
    async def pause(self, queue: str, paused: bool) -> None:
        with self.store.lock:
            self.store.queue(queue).paused = paused
            self.store.wake()

    async def limit(self, queue: str, most: int | None) -> None:
        with self.store.lock:
            self.store.queue(queue).limit = most

    async def queue_names(self) -> list[str]:
        return sorted(self.store.queues)

    # ------------------------------------------------------------------------------- schedules
    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        with self.store.lock:
            data, now = self.store.queue(queue), self.store.now()
            answers: list[int] = []
            fresh: list[tuple[str, bytes]] = []
            for schedule, at, id, record in ticks:
                if at > now:
                    answers.append(TOO_EARLY)
                elif at <= data.ticks.get(schedule, 0):
                    answers.append(CLAIMED)
                else:
                    new = id not in data.task and data.gates.rival_of(id, records.demands(record)) is None
                    answers.append(QUEUED_NOW if new else CLAIMED)
                    if new:
                        data.task[id] = record
                        data.place(id, front=False)
                        fresh.append((id, record))
                    data.ticks[schedule] = at
            self._announce(b"queued", fresh)
            if fresh:
                self.store.wake()
            return answers

    async def last_ticks(self, queue: str, names: Sequence[str]) -> list[int]:
        with self.store.lock:
            ticks = self.store.queue(queue).ticks
            return [ticks.get(name, 0) for name in names]

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        with self.store.lock:
            return self._change_schedule(verb, name, text, most)

    def _change_schedule(self, verb: str, name: str, text: bytes, most: int) -> int:
        data, now = self.store.schedules, self.store.now()
        before = data.effective(name)
        if verb in (CODE, CHANGE):
            texts = data.code if verb == CODE else data.changed
            if texts.get(name) == text:
                return AS_BEFORE
            if before is None and len(data.since) >= most:
                return TOO_MANY
            texts[name] = text
        elif verb in (FORGET, UNDO, DROP):
            gone = [texts.pop(name, None) for texts in self._said(verb)]
            if gone.count(None) == len(gone):
                return AS_BEFORE
        else:
            if before is None:
                return NO_SCHEDULE
            if (verb == PAUSE) == (name in data.paused):
                return AS_BEFORE
            if verb == PAUSE:
                data.paused.add(name)
            else:
                data.paused.remove(name)
                data.since[name] = now
            data.version += 1
            return CHANGED
        after = data.effective(name)
        if after is None:
            data.since.pop(name, None)
            data.paused.discard(name)
        elif before is None or after.partition(b"\n")[0] != before.partition(b"\n")[0]:
            data.since[name] = now
        data.version += 1
        return CHANGED

    def _said(self, verb: str) -> list[dict[str, bytes]]:
        data = self.store.schedules
        return {FORGET: [data.code], UNDO: [data.changed], DROP: [data.code, data.changed]}[verb]

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        with self.store.lock:
            data = self.store.schedules
            return data.version, {
                name: StoredSchedule(
                    data.effective(name) or b"",
                    name in data.code,
                    name in data.changed,
                    at,
                    name in data.paused,
                )
                for name, at in data.since.items()
            }

    async def version(self) -> tuple[int, int]:
        return self.store.schedules.version, self.store.now()

    # ---------------------------------------------------------------------------------- events
    async def _wait(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait until one of the queues may have something; False when the time is over."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        self.store.waiters.add(waiter)
        try:
            with self.store.lock:
                datas = [self.store.queue(queue) for queue in queues]
                if any((data.ready or data.prio) and not data.paused for data in datas):
                    return True
            async with asyncio.timeout(seconds):
                await event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self.store.waiters.discard(waiter)

    async def poke(self, queue: str) -> None:
        self.store.wake()

    async def publish(self, channel: str, payload: bytes) -> None:
        self.store.publish(channel, payload)

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        self.store.heartbeats[consumer] = (self.store.now() + int(ttl * 1000), payload)
        self.store.publish(self.keys.consumer_channel, payload)

    async def consumers(self) -> list[bytes]:
        now = self.store.now()
        return [beat for until, beat in self.store.heartbeats.values() if until > now]

    async def subscription(self) -> MemorySubscription:
        return MemorySubscription(self.store)

    async def facts(self) -> dict[str, Any]:
        return {
            "kind": "memory", "version": "", "where": self.where, "memory": "", "round_trip": 0.0,
            "append_only": False, "policy": "noeviction", "now": self.store.now() / 1000,
        }  # fmt: skip

    async def now(self) -> int:
        return self.store.now()

    def _announce(self, head: bytes, items: Sequence[tuple[str, bytes]]) -> None:
        if items:
            self.store.publish(
                self.keys.task_channel, head + b"\n" + b"".join(records.parcel(*i) for i in items)
            )


def _skip(revoked: set[str], id: str) -> bool:
    """True, once, for an id that was cancelled while it lay in `ready`."""
    if id in revoked:
        revoked.remove(id)
        return True
    return False


class MemoryRenewer:
    """Renews in the store itself, which locks."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def renew(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        return self._broker.renew_now(lease, queues, ttl), self._broker.store.now()

    def close(self) -> None:
        pass
