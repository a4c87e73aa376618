"""Limits of one queue, in memory: the reference for the part `limits` of the scripts.

A limit lets a number of tasks run at once (slots) or one every so often (a rate). A task that finds one reached is
parked at it, by priority and turn; a task that leaves a slot lets the next one through. What a task was granted it
keeps until it ends or goes back to wait, through crashes and releases: so there is nothing to repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .. import records
from ..contract.values import UniqueConflict
from ..records import Limit, read_limits, unique_key

AT_ONCE = 1000
"""Tasks that one opening of a limit moves at most."""
TIMERS_AT_ONCE = 100
"""Limits in time that one call opens at most."""


class Data(Protocol):
    """The part of a queue's data that limits need."""

    task: dict[str, bytes]
    tail: int

    def place(self, id: str, *, front: bool) -> bool:
        """Put a live task where it waits; False when its record is gone."""
        ...


@dataclass
class Limits:
    """The limits of a queue, the tasks parked at them, and the unique keys."""

    queue: Data
    parked: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Id -> (-priority, turn)."""
    parked_at: dict[str, set[str]] = field(default_factory=dict)
    slots: dict[str, set[str]] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=dict)
    """Id -> the limits that it was let through, or `!<limit>,…` where that one refused it."""
    timers: dict[str, int] = field(default_factory=dict)
    """Limit -> when to open it, ms."""
    rates: dict[str, int] = field(default_factory=dict)
    """Limit -> its mark, µs."""
    unique: dict[str, str] = field(default_factory=dict)
    """Unique key -> way and id of its holder."""
    freed: list[str] = field(default_factory=list)
    """Limits where a slot was left since the last `let_through`."""
    earlier: bool = False
    """A timer is the earliest now: an idle worker has to look again."""

    # ------------------------------------------------------------------------------ unique keys
    def holder(self, key: str) -> str:
        """Return way and id of the unfinished task that has this unique key; empty when it is free."""
        holder = self.unique.get(key, "")
        record = self.queue.task.get(holder[1:])
        return holder if record is not None and records.is_live(record) else ""

    def take_key(self, id: str, limits_text: str) -> UniqueConflict | None:
        """Take the unique key for a task that is to be queued; return the holder where another task has it."""
        way, key = unique_key(limits_text)
        if not key:
            return None
        holder = self.holder(key)
        if holder and id not in self.queue.task:
            return UniqueConflict(holder[1:], holder[0] == "f")
        if id not in self.queue.task:
            self.unique[key] = way + id
        return None

    def free_key(self, id: str, limits_text: str) -> None:
        """Free the unique key of a task, if it has one."""
        way, key = unique_key(limits_text)
        if key and self.unique.get(key) == way + id:
            del self.unique[key]

    # ------------------------------------------------------------------------------- the limits
    def _early(self, limit: Limit, now: int) -> tuple[int, int]:
        """Return the µs too early for one more, and the mark after it (GCRA, ITU-T I.371)."""
        at, interval, burst = now * 1000, limit.most, limit.burst
        mark = max(at, self.rates.get(limit.name, 0))
        mark = min(mark, at + interval * burst) + interval
        return mark - interval * burst - at, mark

    def reached(self, limits_text: str, now: int, opening: str = "") -> tuple[str, int | None]:
        """Return the first limit that is reached, and when it opens, if that is known.

        Behind tasks that are parked at a limit every other one waits too, but for the limit `opening`.
        """
        for limit in read_limits(limits_text):
            if limit.name != opening and self.parked_at.get(limit.name):
                return limit.name, None
            if limit.kind == "c":
                if len(self.slots.get(limit.name, ())) >= limit.most:
                    return limit.name, None
            else:
                by, _ = self._early(limit, now)
                if by > 0:
                    return limit.name, now - (-by // 1000)
        return "", None

    def _grant(self, id: str, limits_text: str, now: int) -> None:
        for limit in read_limits(limits_text):
            if limit.kind == "c":
                self.slots.setdefault(limit.name, set()).add(id)
            else:
                self.rates[limit.name] = self._early(limit, now)[1]
        self.granted[id] = limits_text

    def leave(self, id: str) -> None:
        """Give up what a task was granted, if anything."""
        for limit in read_limits(self.granted.pop(id, "")):
            slots = self.slots.get(limit.name, set())
            if limit.kind == "c" and id in slots:
                slots.remove(id)
                self.freed.append(limit.name)
                if not slots:
                    del self.slots[limit.name]

    def end(self, id: str) -> None:
        """Give up all that a task has: it has ended under a lease."""
        limits_text = self.granted.get(id, "")
        self.leave(id)
        self.free_key(id, limits_text)

    def admit(self, id: str, record: bytes, now: int) -> bool:
        """Return whether a task that was taken from its queue may start; otherwise it is parked at a limit."""
        limits_text = records.limits_text(record)
        if id not in self.granted:
            limit, at = self.reached(limits_text, now)
            if not limit:
                self._grant(id, limits_text, now)
            elif "x" in limits_text.split(","):
                self.granted[id] = f"!{limit},{limits_text}"
            else:
                self.queue.tail += 1
                self._park(id, (-records.priority(record), self.queue.tail), limit, at)
                return False
        way, _ = unique_key(limits_text)
        if way != "f":
            self.free_key(id, limits_text)
        return True

    def refusing(self, id: str) -> str:
        """Return the limit that refuses a task which is not to wait for it; empty for none."""
        granted = self.granted.get(id, "")
        return granted[1:].partition(",")[0] if granted.startswith("!") else ""

    # ---------------------------------------------------------------------------------- parking
    def _open_at(self, limit: str, at: int) -> None:
        self.timers[limit] = at
        self.earlier = self.earlier or at == min(self.timers.values())

    def _park(self, id: str, turn: tuple[int, int], limit: str, at: int | None) -> None:
        self.parked[id] = turn
        self.parked_at.setdefault(limit, set()).add(id)
        if at is not None:
            self._open_at(limit, at)

    def _take_from(self, limit: str, id: str) -> None:
        waiting = self.parked_at.get(limit, set())
        waiting.discard(id)
        if not waiting:
            self.parked_at.pop(limit, None)

    def unpark(self, id: str, limits_text: str) -> bool:
        """Take a task away from where it is parked; False when it is parked at no limit."""
        if self.parked.pop(id, None) is None:
            return False
        for limit in read_limits(limits_text):
            if id in self.parked_at.get(limit.name, ()):
                self._take_from(limit.name, id)
                self.freed.append(limit.name)
        return True

    def in_order(self) -> list[str]:
        """Return all that are parked, as they would be let through."""
        return sorted(self.parked, key=lambda id: (self.parked[id], id))

    def _open(self, limit: str, now: int, through: list[str]) -> None:
        for _ in range(AT_ONCE):
            waiting = self.parked_at.get(limit)
            if not waiting:
                return
            id = min(waiting, key=lambda id: (self.parked[id], id))
            limits_text = records.limits_text(self.queue.task.get(id, b""))
            other, at = self.reached(limits_text, now, limit) if limits_text else ("", None)
            if other == limit:
                if at is not None:
                    self._open_at(limit, at)
                return
            self._take_from(limit, id)
            if other:
                self._park(id, self.parked[id], other, at)
            else:
                del self.parked[id]
                if limits_text:
                    self._grant(id, limits_text, now)
                    through.append(id)
        self._open_at(limit, now)

    def let_through(self, now: int, due: Sequence[str] = ()) -> bool:
        """Open where a slot was left, and the limits that are due.

        Return whether an idle worker has to look again: a task got through, or a timer is earlier than before.
        """
        freed, self.freed = self.freed, []
        through: list[str] = []
        for limit in [*freed, *due]:
            self._open(limit, now, through)
        for id in reversed(through):
            self.queue.place(id, front=True)
        earlier, self.earlier = self.earlier, False
        return bool(through) or earlier

    def due(self, now: int) -> list[str]:
        """Take the timers that are due, the earliest first."""
        found = sorted((at, limit) for limit, at in self.timers.items() if at <= now)[:TIMERS_AT_ONCE]
        for _, limit in found:
            del self.timers[limit]
        return [limit for _, limit in found]
