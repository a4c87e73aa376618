"""How much a worker has to do: what it tells of that, for whoever decides how many workers there are.

The numbers are running totals, and two reports of them make a rate. So nothing has to be measured in
between, and a report that is lost is no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Use(NamedTuple):
    """How far something of which there is a limited number is in use."""

    running: int
    """Attempts that have one, or wait for one here."""
    room: int
    """How many there are."""
    seconds: float
    """Seconds that all attempts together have taken so far."""


class Load(NamedTuple):
    """One report. Times are seconds of the worker's clock."""

    since: float
    """When the worker began."""
    at: float
    """When it tells this."""
    done: int
    """Attempts that have ended."""
    slots: Use
    """Of all attempts: `concurrent_tasks`."""
    children: Use
    """Of the attempts of process jobs."""
    cpu: float
    """Seconds of CPU that the process has used since. An event loop has one second of that in each second, however
    many slots are free."""

    @classmethod
    def of(cls, plain: Sequence[Any]) -> Load:
        """A report that came in a message."""
        since, at, done, slots, children, cpu = plain
        return cls(since, at, done, Use(*slots), Use(*children), cpu)
