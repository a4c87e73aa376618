"""Reactions of a server to signals: a table, by the signal and its count.

| signal | first | second | third and later |
|---|---|---|---|
| SIGINT | drain | kill | kill |
| SIGTERM | drain | release | kill |
| SIGHUP | reload | reload | reload |
| SIGTTIN, SIGTTOU | one worker more, one less | the same | the same |
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from enum import Enum

ONE_PRESS = 0.3
"""Seconds within which two stop signals are one: the terminal and a program that passes the signal on both send it."""


class Intention(Enum):
    """The intention of a signal."""

    DRAIN = "drain"
    """Take no more tasks, give running ones `graceful_timeout`, then release them and end."""
    RELEASE = "release"
    """Release the running tasks to their queues now, and end."""
    KILL = "kill"
    """Kill the workers and release their tasks."""
    RELOAD = "reload"
    """Read settings and code again."""
    MORE = "more"
    """Have one worker more."""
    FEWER = "fewer"
    """Have one worker less."""


INTENTIONS: Mapping[signal.Signals, tuple[Intention, ...]] = {
    signal.SIGINT: (Intention.DRAIN, Intention.KILL),
    signal.SIGTERM: (Intention.DRAIN, Intention.RELEASE, Intention.KILL),
    signal.SIGHUP: (Intention.RELOAD,),
    signal.SIGTTIN: (Intention.MORE,),
    signal.SIGTTOU: (Intention.FEWER,),
}
"""By signal, the intention of the first, the second, …; the last one counts for all that follow."""

STOPPING = frozenset({signal.SIGINT, signal.SIGTERM})


def intention(number: signal.Signals, count: int) -> Intention:
    """Return what a signal asks for that came for the `count`-th time (from 1)."""
    row = INTENTIONS[number]
    return row[min(count, len(row)) - 1]


class Signals:
    """Count the signals of one server. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._counts: Counter[signal.Signals] = Counter()
        self._last_stop = float("-inf")

    def received(self, number: signal.Signals, now: float) -> Intention | None:
        """Count a signal and return what it asks for; None where it belongs to the stop signal just before it."""
        if number in STOPPING:
            before, self._last_stop = self._last_stop, now
            if now - before < ONE_PRESS:
                return None
        self._counts[number] += 1
        return intention(number, self._counts[number])
