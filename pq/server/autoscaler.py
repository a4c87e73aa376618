"""Decide how many workers the demand asks for: numbers in, a decision out. No process, no store, no clock.

Two questions decide. *How long do the waiting tasks take?* is their number divided by the rate of the workers.
That rate is unknown before they have worked, so `Meter` measures it: the tasks that ended, and how much of the
workers was in use meanwhile. *Would fewer workers do?* is how much of the workers is in use.

Up is quick: as many workers as could do the waiting tasks in `TARGET_WAIT`, though at most twice as many, or
four more, at once. Down is slow: only when no moment of the last `idle_timeout` seconds needed the worker, one
at a time. The two thresholds are apart: workers are added when tasks wait, and removed when the others have
capacity to spare without them. So the number does not follow every change of the load.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from ..worker.load import Load, Use

TARGET_WAIT = 2.0
"""Seconds in which the waiting tasks should be done; a shorter wait does not ask for another worker."""
IN_USE = 0.5
"""Part of the workers that must be in use for waiting tasks to count: with capacity left, tasks wait for something
other than workers."""
IN_USE_AFTER = 0.7
"""Part of the workers that may be in use after one was removed."""
STEP = 4
"""Workers that may always be added at once; beyond it their number at most doubles."""
ENOUGH = 1.0
"""Seconds of one fully used worker after which the tasks that ended make a rate."""
TOO_LONG = 0.5
"""Seconds of one fully used worker after which tasks count as long, when none has ended."""
LOOKS = 10
"""Looks that a measure may reach back."""


class Measure(NamedTuple):
    """The use of all workers together that are ready."""

    ready: int
    utilisation: float
    """Part of them that was in use since the last look, from 0 to 1."""
    now: float
    """The same at this very moment."""
    slots: float
    """Tasks that one worker more could start at once: its share of the scarcest resource."""
    rate: float | None
    """Tasks a second that one fully used worker ends; 0.0 when none has ended although workers were in use, None when
    nothing is known yet."""

    @property
    def in_use(self) -> float:
        """Part of the workers that is in use, since the last look or now, whichever is more."""
        return max(self.utilisation, self.now)

    def wait(self, waiting: int) -> float:
        """Return the seconds in which all workers do that many tasks."""
        if not waiting:
            return 0.0
        return waiting / (self.rate * self.ready) if self.rate and self.ready else math.inf


class Meter:
    """Make measures of the loads that workers report."""

    def __init__(self) -> None:
        self._last: dict[str, Load] = {}
        self._assumed: dict[str, float] = {}
        self._looks: deque[tuple[int, float]] = deque(maxlen=LOOKS)  # tasks that ended, workers in use

    def look(self, loads: Mapping[str, Load | None], elapsed: float) -> Measure:
        """Measure all workers that are ready, `elapsed` seconds after the last time.

        A worker that does not answer (None) has a job that blocks its event loop, so it is in use.
        """
        for name in self._last.keys() - loads.keys():
            self._last.pop(name)
            self._assumed.pop(name, None)
        done, in_use, utilisation, now, slots = 0, 0.0, 0.0, 0.0, 0
        for name, load in loads.items():
            if load is None:
                self._assumed[name] = self._assumed.get(name, 0.0) + elapsed
                utilisation, now, in_use, slots = utilisation + 1, now + 1, in_use + elapsed, slots + 1
                continue
            before = self._last.get(name) or Load(load.since, load.since, 0, Use(0, 1, 0), Use(0, 1, 0), 0)
            self._last[name] = load
            passed = max(load.at - before.at, 0.001)
            # Slots, children and the one event loop: the most used of them is the scarce one.
            used, total = max(
                (_used(before.slots, load.slots, passed), load.slots.total),
                (_used(before.children, load.children, passed), load.children.total),
                ((load.cpu - before.cpu) / passed, 1),
            )
            used = min(max(used, 0.0), 1.0)
            utilisation += used
            slots += total
            now += min(max(_part(load.slots), _part(load.children)), 1.0)
            in_use += max(0.0, used * passed - self._assumed.pop(name, 0.0))
            done += max(0, load.done - before.done)
        self._looks.append((done, in_use))
        ready = len(loads)
        each = max(1, ready)
        return Measure(ready, utilisation / each, now / each, max(1.0, slots / each), self._rate())

    def _rate(self) -> float | None:
        """Return the rate by the fewest last looks that make one: the tasks of a minute ago may be others."""
        done, in_use = 0, 0.0
        for ended, used in reversed(self._looks):
            done, in_use = done + ended, in_use + used
            if in_use >= ENOUGH:
                break
        if done and in_use > 0:
            return done / in_use
        return 0.0 if in_use >= TOO_LONG else None


class Reading(NamedTuple):
    """The facts that a decision is made of."""

    at: float
    """Seconds of any clock that does not go backwards."""
    workers: int
    """Workers that are wanted: those that work, and those that start."""
    leaving: int
    """Workers that finish what they run and end. They are still processes, and take no task."""
    waiting: int
    """Tasks that could be started now."""
    measure: Measure


class Decision(NamedTuple):
    """Another number of workers, and the reason for the log."""

    was: int
    workers: int
    why: str


class Autoscaler:
    """Decide on the number of workers, from `least` to `most`."""

    def __init__(self, least: int, most: int, idle_timeout: float) -> None:
        self.least = least
        self.most = most
        self._idle_timeout = idle_timeout
        # (time, workers needed then), without those that a later need exceeds. So the first need is the largest,
        # and there are at most as many as workers, however long the time is.
        self._needs: deque[tuple[float, int]] = deque()
        self._since: float | None = None

    def hold(self, at: float, workers: int) -> None:
        """Note that `workers` were needed at that moment; also where nothing is known, so none is removed for it."""
        while self._needs and self._needs[-1][1] <= workers:
            self._needs.pop()
        self._needs.append((at, workers))
        if self._since is None:
            self._since = at

    def decide(self, reading: Reading) -> Decision | None:
        """Return another number of workers, or None when the number is right."""
        workers = reading.workers
        need = self._needed(reading)
        self.hold(reading.at, min(need, workers))
        if need > workers:
            return self._more(reading, need)
        return self._fewer(reading)

    def _needed(self, reading: Reading) -> int:
        """Return the workers that this moment asks for; more than there are only when tasks wait too long."""
        measure, waiting, workers = reading.measure, reading.waiting, reading.workers
        # A rounding error must not ask for a worker: 2.0000001 are two.
        enough = math.ceil(measure.utilisation * measure.ready / IN_USE_AFTER - 1e-6)
        enough = min(max(enough, self.least), workers)
        if not measure.ready or measure.in_use < IN_USE or measure.rate is None:
            return enough
        wait = measure.wait(waiting)
        if wait <= TARGET_WAIT:
            return enough
        wanted = math.ceil(wait * measure.ready / TARGET_WAIT) if math.isfinite(wait) else self.most
        # With more than that, a worker would find no task to start. Workers that start count already, so the same
        # tasks do not ask for workers twice.
        useful = measure.ready + math.ceil(waiting / measure.slots)
        return max(workers, min(wanted, useful))

    def _more(self, reading: Reading, need: int) -> Decision | None:
        workers = reading.workers
        allowed = min(need, max(2 * workers, workers + STEP), self.most - reading.leaving)
        if allowed <= workers:
            return None
        self.hold(reading.at, allowed)
        return Decision(workers, allowed, _why(reading))

    def _fewer(self, reading: Reading) -> Decision | None:
        """Decide for one worker less, when no moment of the last `idle_timeout` seconds needed it."""
        needs, begin = self._needs, reading.at - self._idle_timeout
        while needs[0][0] < begin:
            needs.popleft()
        seen_enough = self._since is not None and self._since <= begin
        if reading.leaving or reading.measure.ready < reading.workers or not seen_enough:
            return None
        if max(needs[0][1], self.least) >= reading.workers:
            return None
        fewer = f"for {self._idle_timeout:g} s fewer were enough"
        return Decision(reading.workers, reading.workers - 1, f"{_why(reading)}; {fewer}")


def _used(before: Use, after: Use, passed: float) -> float:
    """Return the part of a resource that was in use on average."""
    return (after.seconds - before.seconds) / (passed * max(1, after.total))


def _part(use: Use) -> float:
    """Return the part of a resource that is in use now."""
    return use.running / max(1, use.total)


def _why(reading: Reading) -> str:
    """Return the facts behind a decision, for the log."""
    measure, waiting = reading.measure, reading.waiting
    ready = f"{measure.ready} worker{'s' * (measure.ready != 1)} {measure.in_use:.0%}".replace("%", " % busy")
    if not waiting:
        return f"nothing waits, {ready}"
    wait = measure.wait(waiting)
    length = f"about {_seconds(wait)} of work" if math.isfinite(wait) else "none has ended lately"
    return f"{waiting:,} task{'s wait' if waiting != 1 else ' waits'}, {length}, {ready}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
