"""The reading port, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..contract.values import AT_LIMIT, DEAD, DELAYED, ENDED, RUNNING, WAITING, QueueState
from .store import MemoryStore


class MemoryLooks:
    """Keeps `Looks` on a `MemoryStore`."""

    def __init__(self, store: MemoryStore, where: str) -> None:
        self._store = store
        self._where = where

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """See `Looks.records`."""
        with self._store.lock:
            return [self._store.queue(queue).task.get(id) for id in ids]

    async def peek(self, queue: str, count: int) -> list[str]:
        """See `Looks.peek`."""
        with self._store.lock:
            data = self._store.queue(queue)
            order = data.ordered_prio()
            high = [id for id in order if data.prio[id][0] < 0]
            low = [id for id in order if data.prio[id][0] > 0]
            delayed = sorted(data.delayed, key=lambda id: (data.delayed[id], id))
            ready = [id for id in data.ready if id not in data.revoked]
            return [*high, *ready, *low, *data.limits.in_order(), *delayed][:count]

    async def state(self, queue: str) -> QueueState:
        """See `Looks.state`."""
        with self._store.lock:
            data, now = self._store.queue(queue), self._store.now()
            return QueueState(
                len(data.ready) - len(data.revoked),
                len(data.prio),
                len(data.delayed),
                sum(len(members) for members in data.held.values()),
                len(data.leases),
                len(data.dead),
                data.paused,
                len(data.limits.parked),
                sum(due <= now for due in data.delayed.values()),
            )

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        """See `Looks.ids`."""
        with self._store.lock:
            data = self._store.queue(queue)
            if place == WAITING:
                state = await self.state(queue)
                return await self.peek(queue, min(count, state.ready + state.prio))
            found: Iterable[str] = {
                RUNNING: [id for members in data.held.values() for id, _ in members],
                AT_LIMIT: data.limits.in_order(),
                DELAYED: sorted(data.delayed, key=lambda id: (data.delayed[id], id)),
                ENDED: dict.fromkeys(data.recent),
                DEAD: sorted(data.dead, key=lambda id: (data.dead[id], id), reverse=True),
            }[place]
            return list(found)[:count]

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        """See `Looks.held`."""
        with self._store.lock:
            return [
                (queue, id, batch)
                for queue in queues
                for id, batch in self._store.queue(queue).held_by(lease)
            ]

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        """See `Looks.dead`."""
        with self._store.lock:
            dead = self._store.queue(queue).dead
            newest = sorted(dead, key=lambda id: (dead[id], id), reverse=True)[:count]
            return [(id, dead[id] / 1000) for id in newest]

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        """See `Looks.matching`."""
        with self._store.lock:
            found = [(name, id) for name in self._store.queues for id in self._store.queue(name).task]
            return sorted(pair for pair in found if pair[1].startswith(prefix))[:most]

    async def next_due(self, queues: Sequence[str], after: int) -> int | None:
        """See `Looks.next_due`."""
        with self._store.lock:
            datas = [self._store.queue(queue) for queue in queues]
            moments = [at for data in datas for at in (*data.delayed.values(), *data.limits.timers.values())]
            return min((at for at in moments if at > after), default=None)

    async def queue_names(self) -> list[str]:
        """See `Looks.queue_names`."""
        return sorted(self._store.queues)

    async def facts(self) -> dict[str, Any]:
        """See `Looks.facts`."""
        return {
            "kind": "memory", "version": "", "where": self._where, "memory": "", "round_trip": 0.0,
            "append_only": False, "policy": "noeviction", "now": self._store.now() / 1000,
        }  # fmt: skip

    async def now(self) -> int:
        """See `Looks.now`."""
        return self._store.now()
