"""The holder of each task, by the events, and how long the tasks of those that are hit lie with them.

The store announces each hand-out with the name of the worker, and each end. So a task that goes from a dead worker
to one that is hit in its turn counts for both, for each from its own death on: that is what a lease bounds. How long
it took until a task really ran again, whatever was hit meanwhile, is in the oracle's file (`oracle.Story`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

LATE = 1.0
"""Seconds for which hand-outs to a dead worker are still heard of: the store had made them before."""


@dataclass
class Case:
    """One worker that was hit."""

    what: str
    who: str
    at: float
    tasks: int = 0
    """The number of its tasks that were dispatched to others."""
    heard: list[tuple[float, str]] = field(default_factory=list)
    """The events of the last of them, up to that: time and text."""

    @property
    def longest(self) -> float | None:
        """Seconds until the last of its tasks was dispatched to another."""
        return self.heard[-1][0] - self.at if self.heard else None

    def text(self) -> str:
        """The story of the task that waited longest, in seconds from the blow on."""
        story = ", ".join(f"{at - self.at:+.2f} {what}" for at, what in self.heard)
        return f"{self.what} {self.who}, {self.tasks} tasks: {story}"


class Handouts:
    """The contents of events. Workers are `<node>/<name>`, times those of the oracle's clock."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self._holder: dict[str, str] = {}
        self._held: dict[str, set[str]] = defaultdict(set)
        self._missed: dict[str, list[Case]] = {}
        self._last: dict[str, Case] = {}
        self._heard: dict[str, list[tuple[float, str]]] = {}

    def started(self, id: str, who: str, at: float) -> None:
        """A task was dispatched to a worker."""
        heard = self._heard.setdefault(id, [])
        heard.append((at, who))
        missed = self._missed.pop(id, [])
        for case in missed:
            if case.who == who:
                self._missed.setdefault(id, []).append(case)
            else:
                case.tasks += 1
                case.heard = heard[:]
        self._leave(id)
        self._holder[id] = who
        self._held[who].add(id)
        last = self._last.get(who)
        if last is not None and at - last.at < LATE and last not in self._missed.get(id, ()):
            self._missed.setdefault(id, []).append(last)

    def ended(self, id: str) -> None:
        """An attempt has ended: no worker holds the task any more."""
        self._leave(id)
        self._missed.pop(id, None)
        self._heard.pop(id, None)

    def hit(self, what: str, who: str, at: float) -> None:
        """A worker is killed, or frozen for longer than its lease."""
        case = Case(what, who, at)
        self.cases.append(case)
        self._last[who] = case
        for id in self._held.pop(who, ()):
            self._holder.pop(id, None)
            self._missed.setdefault(id, []).append(case)
            self._heard.setdefault(id, []).append((at, what))

    def forget(self) -> None:
        """Events were lost, a store that dies publishes nothing: the holders are not known any more."""
        self._holder.clear()
        self._held.clear()
        self._missed.clear()
        self._heard.clear()

    def of_node(self, node: str) -> list[str]:
        """The workers of a node that hold something."""
        return [who for who, ids in self._held.items() if ids and who.startswith(f"{node}/")]

    def _leave(self, id: str) -> None:
        who = self._holder.pop(id, None)
        if who is not None:
            self._held[who].discard(id)
