"""The periodic schedules, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract.values import (
    AS_BEFORE,
    CHANGE,
    CHANGED,
    CODE,
    DROP,
    FORGET,
    NO_SCHEDULE,
    PAUSE,
    TOO_MANY,
    UNDO,
    StoredSchedule,
)
from .store import MemoryStore


class MemorySchedules:
    """Keeps `Schedules` on a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def last_ticks(self, queue: str, names: Sequence[str]) -> list[int]:
        """See `Schedules.last_ticks`."""
        with self._store.lock:
            ticks = self._store.queue(queue).ticks
            return [ticks.get(name, 0) for name in names]

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        """See `Schedules.change`."""
        with self._store.lock:
            return self._change_schedule(verb, name, text, most)

    def _change_schedule(self, verb: str, name: str, text: bytes, most: int) -> int:
        data, now = self._store.schedules, self._store.now()
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
        data = self._store.schedules
        return {FORGET: [data.code], UNDO: [data.changed], DROP: [data.code, data.changed]}[verb]

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        """See `Schedules.stored`."""
        with self._store.lock:
            data = self._store.schedules
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
        """See `Schedules.version`."""
        return self._store.schedules.version, self._store.now()
