"""Reserving in memory: what one call of a worker gets, and the housekeeping that it does on the way.

The reference for `pq/broker/lua/reserve.lua`, which is held against it by a test with random steps.
"""

from __future__ import annotations

from .. import records
from ..contract.values import SOLO_AFTER, Exchange, ReserveCall, Reserved
from .store import MemoryStore, QueueData

BOUND = 100
"""Tasks that the housekeeping of one call moves at most, of each kind."""
AT_ONCE = 1000
"""Ids that one call looks at in a queue at most."""


class Reservation:
    """One call that reserves, over all its queues."""

    def __init__(self, store: MemoryStore, call: ReserveCall, answer: Exchange) -> None:
        self._store = store
        self._call = call
        self._answer = answer
        self._left = call.want
        self._stopped = False
        """A task that must run alone comes next: nothing more is taken, from no queue."""
        self.started: list[tuple[str, bytes]] = []
        """Id and record of each task that was handed out for the first time."""

    def run(self) -> None:
        """Add to the answer what the call gets."""
        call = self._call
        # A call that was met already gives the same again and no more; one before it gives nothing.
        is_new_batch = all(
            self._store.queue(queue).batches.get(call.lease, -1) < call.batch for queue in call.queues
        )
        leased: QueueData | None = None
        for queue in call.queues:
            data = self._store.queue(queue)
            if data.leases.get(call.lease, 0) <= 0:
                self._answer.lost_lease = True
                continue
            leased = data
            self._look_at(queue, data, is_new_batch)
        if is_new_batch and not self.started and leased is not None:
            leased.batches[call.lease] = call.batch

    def _look_at(self, queue: str, data: QueueData, is_new_batch: bool) -> None:
        answer, now = self._answer, self._store.now()
        self._keep_up(data, now)
        if data.batches.get(self._call.lease) == self._call.batch:
            self._give_again(queue, data)
        elif self._left > 0 and is_new_batch and not self._stopped and not data.paused:
            self._take(queue, data, now)
        if data.limits.let_through(now):
            self._store.wake()
        answer.more_ready = answer.more_ready or bool(data.ready or data.prio)
        if data.delayed or data.limits.timers:
            due = max(0, min([*data.delayed.values(), *data.limits.timers.values()]) - now)
            answer.next_due = due if answer.next_due is None else min(answer.next_due, due)

    def _give_again(self, queue: str, data: QueueData) -> None:
        """Hand out once more what this batch was given: its answer was lost."""
        call, answer = self._call, self._answer
        for id, batch in sorted(data.held_by(call.lease)):
            if batch != call.batch:
                continue
            record = data.task.get(id)
            if record is None:
                answer.vanished += 1
                data.drop_held(call.lease, (id, batch))
                data.drop_marks(id)
                continue
            crashes = data.crashes.get(id, 0)
            answer.tasks.append(Reserved(queue, id, batch, record, crashes, data.limits.refusing(id)))
            answer.solo = answer.solo or crashes >= SOLO_AFTER

    def _take(self, queue: str, data: QueueData, now: int) -> None:
        looked = 0
        while True:
            popped = data.pop(min(self._left, AT_ONCE))
            ids = [id for id in popped if not _skip(data.revoked, id)]
            ids = self._admit(data, ids)
            parked = self._hand_out(queue, data, ids, now)
            looked += len(popped)
            if not parked or self._left <= 0 or self._stopped or looked >= AT_ONCE:
                break

    def _admit(self, data: QueueData, ids: list[str]) -> list[str]:
        """Return what may start of `ids`. A task that must run alone starts by itself or not at all."""
        answer = self._answer
        for i, id in enumerate(ids):
            if data.crashes.get(id, 0) < SOLO_AFTER:
                continue
            alone = self._call.idle and not self.started and i == 0
            answer.solo, answer.blocked = answer.solo or alone, answer.blocked or not alone
            kept = ids[: i + 1] if alone else ids[:i]
            for back in reversed(ids[len(kept) :]):
                data.place(back, front=True)
            self._stopped = True
            return kept
        return ids

    def _hand_out(self, queue: str, data: QueueData, ids: list[str], now: int) -> int:
        """Hand out `ids`; return how many are parked at a limit instead."""
        call, answer = self._call, self._answer
        parked = 0
        for id in ids:
            record = data.task.get(id)
            if record is None or not records.is_live(record):
                answer.vanished += 1
                data.drop_marks(id)
            elif record[:1] == b"g" and not data.limits.admit(id, record, now):
                parked += 1
            else:
                data.held.setdefault(call.lease, set()).add((id, call.batch))
                data.batches[call.lease] = call.batch
                crashes, limit = data.crashes.get(id, 0), data.limits.refusing(id)
                answer.tasks.append(Reserved(queue, id, call.batch, record, crashes, limit))
                self.started.append((id, record))
                self._left -= 1
        return parked

    def _keep_up(self, data: QueueData, now: int) -> None:
        """Take over one expired lease, promote what is due, open limits in time."""
        call = self._call
        if call.stable_for is not None and data.is_stable(now, call.stable_for):
            expired = sorted((at, other) for other, at in data.leases.items() if at <= now)[:2]
            for _, other in expired:
                if other != call.lease:
                    data.reclaim(other, charge=True, limit=BOUND)
                    break
        due = sorted((at, id) for id, at in data.delayed.items() if at <= now)[:BOUND]
        for _, id in due:
            del data.delayed[id]
            if not data.place(id, front=False):
                self._answer.vanished += 1
        data.limits.let_through(now, data.limits.due(now))


def _skip(revoked: set[str], id: str) -> bool:
    """Return True, once, for an id that was cancelled while it lay in `ready`."""
    if id in revoked:
        revoked.remove(id)
        return True
    return False
