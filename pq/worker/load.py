"""The load of a worker: what it reports of its use, for the decision how many workers there are.

The numbers are running totals, and two reports of them make a rate. So no rate has to be measured in between, and a
lost report does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..execution.attempt import Attempt
from ..model.options import CPUBOUND


class Use(NamedTuple):
    """Usage of a bounded resource."""

    running: int
    """Attempts that have one, or wait for one here."""
    total: int
    """Their number."""
    seconds: float
    """Seconds that all attempts together have taken so far."""


class Load(NamedTuple):
    """One report. Times are seconds of the worker's clock."""

    since: float
    """When the worker began."""
    at: float
    """When it reports this."""
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
        """Return a report that came in a message."""
        since, at, done, slots, children, cpu = plain
        return cls(since, at, done, Use(*slots), Use(*children), cpu)


class LoadMeter:
    """The running totals of one worker.

    Attributes:
        done: attempts that have ended.
        seconds: what they took together.
        child_seconds: the same of those of process jobs.
    """

    __slots__ = ("_cpu_before", "_since", "child_seconds", "done", "seconds")

    def __init__(self, now: float) -> None:
        self.done = 0
        self.seconds = 0.0
        self.child_seconds = 0.0
        self._since = now
        self._cpu_before = time.process_time()

    def load(self, now: float, attempts: Iterable[Attempt], *, slots: int, children: Use) -> Load:
        """Return a report; `attempts` are those under way, `children` counts process tasks without their seconds."""
        running, seconds, child_seconds = 0, self.seconds, self.child_seconds
        for attempt in attempts:
            running += 1
            took = now - (attempt.task.time_started or now)
            seconds += took
            if attempt.job_class.concurrency == CPUBOUND:
                child_seconds += took
        return Load(
            self._since,
            now,
            self.done,
            Use(running, slots, seconds),
            children._replace(seconds=child_seconds),
            time.process_time() - self._cpu_before,
        )
