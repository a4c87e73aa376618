"""Turn endings into settlements, and keep them until a round trip has taken them to the store.

The ends of attempts gather here by queue. The next round trip takes all of them; where it fails they are put back,
before those that came since. What the store refuses, or a lost lease makes void, is not counted as done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ..broker import records
from ..broker.contract.values import Settlement
from ..model.ending import Ending
from ..model.operations import ACK, FAIL, RELEASE, RETRY, REVOKE
from ..model.serializers import MSGPACK
from ..model.states import SUCCESS
from ..model.task import Task
from .attempts import Attempts
from .context import Context

logger = logging.getLogger("pq.worker")

HEADERS = 1000
"""Headers of finished records that are remembered, one for each batch."""

Settlements = dict[str, list[Settlement]]
"""Settlements by queue."""


class Settling:
    """The settlements of one worker that wait for a round trip."""

    def __init__(self, context: Context, attempts: Attempts) -> None:
        self.pending: Settlements = {}
        self._context = context
        self._counts = context.counts
        self._running = attempts.running
        self._held = attempts.held
        self._headers: dict[int, bytes] = {}

    def settle(self, task: Task[Any], ending: Ending) -> bool:
        """Put the end of an attempt into the next round trip; False where the task is not held any more."""
        id = task.id
        self._running.pop(id, None)
        held = self._held.pop(id, None)
        if held is None:
            return False
        queue, batch = held
        counts = self._counts
        if ending.op == ACK:
            header = self._headers.get(batch)
            if header is None:
                header = self._new_header(batch)
            counts.processed += 1
            counts.succeeded += 1
            settlement = Settlement(
                ACK, id, batch, header + task.to_wire(), task.reply or "", 0, task.limits_text != ""
            )
        else:
            settlement = self._rarer(task, ending, batch)
        pending = self.pending.get(queue)
        if pending is None:
            self.pending[queue] = [settlement]
        else:
            pending.append(settlement)
        return True

    def _rarer(self, task: Task[Any], ending: Ending, batch: int) -> Settlement:
        """Return the settlement of any end but a success, and count it."""
        counts = self._counts
        token = f"{self._context.lease}:{batch}"
        if ending.op in (FAIL, REVOKE):
            counts.processed += 1
            counts.failed += ending.op == FAIL
            counts.revoked += ending.op == REVOKE
            record = records.finished_header(task.status, token) + task.to_wire()
            return Settlement(ending.op, task.id, batch, record, task.reply or "")
        if ending.op == RETRY:
            counts.retried += 1
            if task.format is MSGPACK:
                task.result_bytes = None
            record = records.live_header(task.priority, token, task.limits_text) + task.to_wire()
            return Settlement(RETRY, task.id, batch, record, "", max(0, round(ending.wait * 1000)))
        return Settlement(ending.op, task.id, batch)

    def _new_header(self, batch: int) -> bytes:
        if len(self._headers) > HEADERS:
            self._headers.clear()
        header = self._headers[batch] = records.finished_header(SUCCESS, f"{self._context.lease}:{batch}")
        return header

    def release(self, queue: str, id: str, batch: int) -> None:
        """Release a task that the store counts as held and that does not run here."""
        self.pending.setdefault(queue, []).append(Settlement(RELEASE, id, batch))

    def lengths(self) -> dict[str, int]:
        """Return how many settlements there are by queue, for `order_released`."""
        return {queue: len(ended) for queue, ended in self.pending.items()}

    def order_released(self, before: dict[str, int]) -> None:
        """Have the tasks of one batch that were released keep their order.

        Each goes to the front of its queue, one before the other: so the last one has to be settled first.
        """
        for queue, ended in self.pending.items():
            since = before.get(queue, 0)
            released = [s for s in ended[since:] if s.op == RELEASE]
            others = [s for s in ended[since:] if s.op != RELEASE]
            ended[since:] = others + released[::-1]

    def take(self) -> Settlements:
        """Take all settlements out, for a round trip."""
        pending, self.pending = self.pending, {}
        return pending

    def put_back(self, taken: Settlements) -> None:
        """Put settlements back that did not reach the store, or not surely: before those that came since."""
        for queue, ended in taken.items():
            self.pending[queue] = ended + self.pending.get(queue, [])

    def refused(self, refused: list[tuple[str, str]], sent: Settlements) -> None:
        """Uncount settlements that the store refused."""
        ids = {id for _, id in refused}
        self._uncount(s for ended in sent.values() for s in ended if s.id in ids)
        logger.warning(
            "%d results were refused: this worker lost its lease on them, and other workers have the tasks (first: %s)",
            len(refused),
            refused[0][1],
        )

    def abandon(self) -> None:
        """Drop all settlements, because the lease is lost: other workers have these tasks."""
        for ended in self.pending.values():
            self._uncount(ended)
        self.pending.clear()
        self._headers.clear()

    def _uncount(self, dropped: Iterable[Settlement]) -> None:
        counts = self._counts
        for settlement in dropped:
            op = settlement.op
            counts.refused += 1
            counts.processed -= op in (ACK, FAIL, REVOKE)
            counts.succeeded -= op == ACK
            counts.failed -= op == FAIL
            counts.revoked -= op == REVOKE


def strays(
    held: Iterable[tuple[str, str, int]],
    known: dict[str, tuple[str, int]],
    pending: Settlements,
    last_batch: int,
) -> list[tuple[str, str, int]]:
    """Return (queue, id, batch) of what the store counts as held here, and that is neither held nor settled here.

    A batch above `last_batch` belongs to a reservation under way: what it has brought comes with its answer.
    """
    settled = {(s.id, s.batch) for ended in pending.values() for s in ended}
    return [
        (queue, id, batch)
        for queue, id, batch in held
        if batch <= last_batch and known.get(id) != (queue, batch) and (id, batch) not in settled
    ]
