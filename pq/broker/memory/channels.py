"""Events, heartbeats, what tasks say, and locks, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..contract.values import FENCE_KEPT, KEPT_LINES, Locked, Part, Streamed
from ..keys import Keys
from .store import MemoryStore, MemorySubscription


class MemoryChannels:
    """Keeps `Channels` on a `MemoryStore`."""

    def __init__(self, store: MemoryStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    # ---------------------------------------------------------------------------------- events
    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Channels.publish`."""
        self._store.publish(channel, payload)

    async def subscription(self) -> MemorySubscription:
        """See `Channels.subscription`."""
        return MemorySubscription(self._store)

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        """See `Channels.beat`."""
        self._store.heartbeats[consumer] = (self._store.now() + int(ttl * 1000), payload)
        self._store.publish(self._keys.consumer_channel, payload)

    async def consumers(self) -> list[bytes]:
        """See `Channels.consumers`."""
        now = self._store.now()
        return [beat for until, beat in self._store.heartbeats.values() if until > now]

    # --------------------------------------------------------------------------- what tasks say
    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        """See `Channels.keep_lines`."""
        with self._store.lock:
            kept = self._store.kept(queue, id, "log") or []
            self._store.keep(queue, id, "log", [*kept, *lines][-KEPT_LINES:], ttl)

    async def lines(self, queue: str, id: str) -> list[bytes]:
        """See `Channels.lines`."""
        return self._store.kept(queue, id, "log") or []

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        """See `Channels.keep_progress`."""
        for id, text in facts.items():
            self._store.keep(queue, id, "progress", text, ttl)

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """See `Channels.progress`."""
        return [self._store.kept(queue, id, "progress") for id in ids]

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        """See `Channels.keep_parts`."""
        with self._store.lock:
            return [self._keep_parts(lease, each, ttl) for each in streamed]

    def _keep_parts(self, lease: str, streamed: Streamed, ttl: int) -> bool:
        queue, id, batch, first, oldest, bodies = streamed
        if (id, batch) not in self._store.queue(queue).held_by(lease):
            return False
        token = f"{lease}:{batch}"
        known: list[Part] = self._store.kept(queue, id, "stream") or []
        attempt, last = self._store.now(), 0
        if known and known[-1].token == token:
            attempt, last = known[-1].attempt, known[-1].number
        elif known:
            known, attempt = [], max(attempt, known[-1].attempt + 1)
        new = [
            Part(attempt, number, token, body) for number, body in enumerate(bodies, first) if number > last
        ]
        self._store.keep(queue, id, "stream", [part for part in known + new if part.number >= oldest], ttl)
        self._store.publish(self._keys.stream_channel, id.encode())
        return True

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        """See `Channels.parts`."""
        known: list[Part] = self._store.kept(queue, id, "stream") or []
        return [part for part in known if after is None or part[:2] > after][:count]

    # ----------------------------------------------------------------------------------- locks
    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        """See `Channels.lock`."""
        with self._store.lock:
            now, locks = self._store.now(), self._store.locks
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
        """See `Channels.unlock`."""
        with self._store.lock:
            holder, fence, until = self._store.locks.get(name, ("", 0, 0))
            if holder != token:
                return False
            self._store.locks[name] = ("", fence, until)
            self._store.publish(self._keys.lock_channel, name.encode())
            return True
