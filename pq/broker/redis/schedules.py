"""The periodic schedules, on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract.values import StoredSchedule
from .calls import Calls
from .codec import read_schedules


class RedisSchedules:
    """Keeps `Schedules`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._keys = calls.keys

    async def last_ticks(self, queue: str, names: Sequence[str]) -> list[int]:
        """See `Schedules.last_ticks`."""
        if not names:
            return []
        found = await self._calls.run("HMGET", self._keys.ticks(queue), *names)
        return [int(at or 0) for at in found]

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        """See `Schedules.change`."""
        answer: int = await self._calls.run_script(
            "schedule", self._keys.schedules, self._calls.given_time(), verb, name, text, most
        )
        return answer

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        """See `Schedules.stored`."""
        keys = self._keys
        # The version first: a change that comes in between is then seen as one that is still to come.
        version, code, changed, since, paused = await self._calls.run_all(
            ("HGET", keys.schedules_meta, "version"),
            ("HGETALL", keys.schedule_code),
            ("HGETALL", keys.schedule_changes),
            ("HGETALL", keys.schedule_since),
            ("SMEMBERS", keys.schedules_paused),
        )
        return int(version or 0), read_schedules(code, changed, since, paused)

    async def version(self) -> tuple[int, int]:
        """See `Schedules.version`."""
        version, time = await self._calls.run_all(("HGET", self._keys.schedules_meta, "version"), ("TIME",))
        return int(version or 0), self._calls.store_time(time)
