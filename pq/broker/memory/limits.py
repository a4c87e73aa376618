"""Flow control of one queue, as the reference model has it: what the scripts' part `gates` is held against.

A gate lets so many tasks through at once (slots) or so often (a rate). Who finds one closed waits there, by
priority and turn; who lets a slot go opens the gate for the next. What a task was granted it keeps until it
ends or goes away, through crashes and hand-backs: so there is nothing to heal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .. import records
from ..contract.values import UniqueConflict
from ..records import Gate, gates, unique_key

AT_ONCE = 1000
"""Tasks that one opening of a gate moves at most."""


class Data(Protocol):
    """What is needed of a queue's data."""

    task: dict[str, bytes]
    tail: int

    def place(self, id: str, *, front: bool) -> bool: ...


@dataclass
class Gates:
    """The gates of a queue, and who waits at them."""

    queue: Data
    parked: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> (-priority, turn)
    parked_at: dict[str, set[str]] = field(default_factory=dict)
    slots: dict[str, set[str]] = field(default_factory=dict)
    holds: dict[str, str] = field(default_factory=dict)  # id -> the demands that were met
    timers: dict[str, int] = field(default_factory=dict)  # gate -> ms
    rates: dict[str, int] = field(default_factory=dict)  # gate -> its mark, µs
    unique: dict[str, str] = field(default_factory=dict)  # key -> way and id
    opened: list[str] = field(default_factory=list)  # where a slot was let go since the last `open_gates`
    news: bool = False
    """Somebody should look: a timer is the earliest now."""

    # ------------------------------------------------------------------------------ unique keys
    def rival(self, key: str) -> str:
        """Way and id of the unfinished task that has this key."""
        holder = self.unique.get(key, "")
        record = self.queue.task.get(holder[1:])
        return holder if record is not None and records.is_live(record) else ""

    def rival_of(self, id: str, demands: str) -> UniqueConflict | None:
        """The same for a task that is to be queued, which takes the key if there is none."""
        way, key = unique_key(demands)
        if not key:
            return None
        holder = self.rival(key)
        if holder and id not in self.queue.task:
            return UniqueConflict(holder[1:], holder[0] == "f")
        if id not in self.queue.task:
            self.unique[key] = way + id
        return None

    def free_key(self, id: str, demands: str) -> None:
        way, key = unique_key(demands)
        if key and self.unique.get(key) == way + id:
            del self.unique[key]

    # ------------------------------------------------------------------------------- the gates
    def _early(self, gate: Gate, now: int) -> tuple[int, int]:
        """µs too early for one more, and the mark after it (GCRA, ITU-T I.371)."""
        at, interval, burst = now * 1000, gate.most, gate.burst
        mark = max(at, self.rates.get(gate.name, 0))
        mark = min(mark, at + interval * burst) + interval
        return mark - interval * burst - at, mark

    def closed(self, demands: str, now: int, opening: str = "") -> tuple[str, int | None]:
        """The first gate that does not let it through, and when it may, if that is known."""
        for gate in gates(demands):
            if gate.name != opening and self.parked_at.get(gate.name):
                return gate.name, None
            if gate.kind == "c":
                if len(self.slots.get(gate.name, ())) >= gate.most:
                    return gate.name, None
            else:
                by, _ = self._early(gate, now)
                if by > 0:
                    return gate.name, now - (-by // 1000)
        return "", None

    def grant(self, id: str, demands: str, now: int) -> None:
        for gate in gates(demands):
            if gate.kind == "c":
                self.slots.setdefault(gate.name, set()).add(id)
            else:
                self.rates[gate.name] = self._early(gate, now)[1]
        self.holds[id] = demands

    def leave(self, id: str) -> None:
        """Let go what a task was granted, if anything."""
        for gate in gates(self.holds.pop(id, "")):
            slots = self.slots.get(gate.name, set())
            if gate.kind == "c" and id in slots:
                slots.remove(id)
                self.opened.append(gate.name)
                if not slots:
                    del self.slots[gate.name]

    def over(self, id: str) -> None:
        """The task has ended under a lease."""
        demands = self.holds.get(id, "")
        self.leave(id)
        self.free_key(id, demands)

    def let_in(self, id: str, record: bytes, now: int) -> bool:
        """Whether a task that was taken from its queue may start; else it waits at a gate."""
        demands = records.demands(record)
        if id not in self.holds:
            gate, at = self.closed(demands, now)
            if not gate:
                self.grant(id, demands, now)
            elif "x" in demands.split(","):
                self.holds[id] = f"!{gate},{demands}"
            else:
                self.queue.tail += 1
                self._park(id, (-records.priority(record), self.queue.tail), gate, at)
                return False
        way, _ = unique_key(demands)
        if way != "f":
            self.free_key(id, demands)
        return True

    def refusing(self, id: str) -> str:
        """The gate that does not let a task through which does not want to wait."""
        held = self.holds.get(id, "")
        return held[1:].partition(",")[0] if held.startswith("!") else ""

    def _open_at(self, gate: str, at: int) -> None:
        self.timers[gate] = at
        self.news = self.news or at == min(self.timers.values())

    def _park(self, id: str, turn: tuple[int, int], gate: str, at: int | None) -> None:
        self.parked[id] = turn
        self.parked_at.setdefault(gate, set()).add(id)
        if at is not None:
            self._open_at(gate, at)

    def _take_from(self, gate: str, id: str) -> None:
        waiting = self.parked_at.get(gate, set())
        waiting.discard(id)
        if not waiting:
            self.parked_at.pop(gate, None)

    def unpark(self, id: str, demands: str) -> bool:
        """Take a task away from where it waits; False when it waits at no gate."""
        if self.parked.pop(id, None) is None:
            return False
        for gate in gates(demands):
            if id in self.parked_at.get(gate.name, ()):
                self._take_from(gate.name, id)
                self.opened.append(gate.name)
        return True

    def in_order(self) -> list[str]:
        """All that wait, as they would be let through."""
        return sorted(self.parked, key=lambda id: (self.parked[id], id))

    def _open(self, gate: str, now: int, let: list[str]) -> None:
        for _ in range(AT_ONCE):
            waiting = self.parked_at.get(gate)
            if not waiting:
                return
            id = min(waiting, key=lambda id: (self.parked[id], id))
            demands = records.demands(self.queue.task.get(id, b""))
            other, at = self.closed(demands, now, gate) if demands else ("", None)
            if other == gate:
                if at is not None:
                    self._open_at(gate, at)
                return
            self._take_from(gate, id)
            if other:
                self._park(id, self.parked[id], other, at)
            else:
                del self.parked[id]
                if demands:
                    self.grant(id, demands, now)
                    let.append(id)
        self._open_at(gate, now)

    def open_gates(self, now: int, due: Sequence[str] = ()) -> bool:
        """Open where a slot was let go, and what is due; whether anybody got through, or should look."""
        opened, self.opened = self.opened, []
        let: list[str] = []
        for gate in [*opened, *due]:
            self._open(gate, now, let)
        for id in reversed(let):
            self.queue.place(id, front=True)
        news, self.news = self.news, False
        return bool(let) or news

    def due(self, now: int) -> list[str]:
        """Take the timers that are due, the earliest first."""
        found = sorted((at, gate) for gate, at in self.timers.items() if at <= now)[:100]
        for _, gate in found:
            del self.timers[gate]
        return [gate for _, gate in found]
