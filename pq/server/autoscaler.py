"""How many workers the demand asks for: numbers in, a decision out. No process, no store, no clock.

Two questions decide. *How long would what waits take?* is the number of waiting tasks divided by what the
workers get done; the latter is not known before they have worked, so `Meter` watches them: what ended, and
how much of the workers was in use meanwhile. *Would fewer do?* is how much of the workers is in use.

Up is quick: as many as could do what waits in `TARGET_WAIT`, though never more than twice as many, or four
more, at once. Down is slow: only when nothing in the last `idle_timeout` seconds would have needed the
worker, and then one, and the next when that one has gone. The two marks are apart: workers are added when
tasks wait, and taken away when so little is left for each that one fewer has room to spare. So the number
does not swing with every breath of the load.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from ..worker.load import Load, Use

TARGET_WAIT = 2.0
"""Seconds in which what waits now should be done; a shorter wait is no reason for another worker."""
IN_USE = 0.5
"""Part of the workers that must be in use for waiting tasks to count: with room left, tasks wait for
something else than workers."""
ROOM = 0.7
"""Part of the workers that may be in use when there is one fewer."""
STEP = 4
"""Workers that may always be added at once; beyond it their number at most doubles."""
ENOUGH = 1.0
"""Seconds of one fully used worker after which what was done is a measure of the tasks."""
TOO_LONG = 0.5
"""Seconds of one fully used worker after which tasks count as long, when none has ended."""
LOOKS = 10
"""Looks that a measure may reach back."""


class Measure(NamedTuple):
    """What the workers do, all those together that are ready."""

    ready: int
    utilisation: float
    """Part of them that was in use since the last look, from 0 to 1."""
    now: float
    """The same at this very moment."""
    slots: float
    """Tasks that one worker more could start at once: its room of what is scarce."""
    rate: float | None
    """Tasks a second that one worker ends when it is fully used; 0.0 when none has ended in a while for
    which they were, None when nothing can be said yet."""

    @property
    def in_use(self) -> float:
        """Part of the workers that is in use, going by what was or by what is."""
        return max(self.utilisation, self.now)

    def wait(self, waiting: int) -> float:
        """Seconds that so many tasks take all workers."""
        if not waiting:
            return 0.0
        return waiting / (self.rate * self.ready) if self.rate and self.ready else math.inf


class Meter:
    """Makes measures of what workers tell."""

    def __init__(self) -> None:
        self._last: dict[str, Load] = {}
        self._assumed: dict[str, float] = {}
        self._looks: deque[tuple[int, float]] = deque(maxlen=LOOKS)  # tasks that ended, workers in use

    def look(self, loads: Mapping[str, Load | None], elapsed: float) -> Measure:
        """One look at all workers that are ready, `elapsed` seconds after the last one.

        One that does not answer (None) has a job that holds its event loop, and so is in use.
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
            # Slots, children, and the one event loop: what is used most is what is scarce.
            used, room = max(
                (_used(before.slots, load.slots, passed), load.slots.room),
                (_used(before.children, load.children, passed), load.children.room),
                ((load.cpu - before.cpu) / passed, 1),
            )
            used = min(max(used, 0.0), 1.0)
            utilisation += used
            slots += room
            now += min(max(_part(load.slots), _part(load.children)), 1.0)
            in_use += max(0.0, used * passed - self._assumed.pop(name, 0.0))
            done += max(0, load.done - before.done)
        self._looks.append((done, in_use))
        ready = len(loads)
        each = max(1, ready)
        return Measure(ready, utilisation / each, now / each, max(1.0, slots / each), self._rate())

    def _rate(self) -> float | None:
        """From as few looks as are a measure, the last ones: the tasks of a minute ago may be others."""
        done, in_use = 0, 0.0
        for ended, used in reversed(self._looks):
            done, in_use = done + ended, in_use + used
            if in_use >= ENOUGH:
                break
        if done and in_use > 0:
            return done / in_use
        return 0.0 if in_use >= TOO_LONG else None


class Reading(NamedTuple):
    """All that a decision is made of."""

    at: float
    """Seconds of any clock that does not go backwards."""
    workers: int
    """Workers that there are to be: those that work, and those that start."""
    leaving: int
    """Those that finish what they run and end. They are processes still, and take no task."""
    waiting: int
    """Tasks that could be started now."""
    measure: Measure


class Decision(NamedTuple):
    """Another number of workers, and the reason in words."""

    was: int
    workers: int
    why: str


class Autoscaler:
    """Decides on the number of workers, from `least` to `most`."""

    def __init__(self, least: int, most: int, idle_timeout: float) -> None:
        self.least = least
        self.most = most
        self._idle_timeout = idle_timeout
        # When, and how many workers were needed then; of them, those that no later one exceeds. So the first
        # is the most, and there are no more of them than workers, however long the time is.
        self._needs: deque[tuple[float, int]] = deque()
        self._since: float | None = None

    def hold(self, at: float, workers: int) -> None:
        """Nothing is known at this moment: it counts as one at which all workers were needed."""
        while self._needs and self._needs[-1][1] <= workers:
            self._needs.pop()
        self._needs.append((at, workers))
        if self._since is None:
            self._since = at

    def decide(self, reading: Reading) -> Decision | None:
        """Another number of workers, or None when it is right as it is."""
        workers = reading.workers
        need = self._needed(reading)
        self.hold(reading.at, min(need, workers))
        if need > workers:
            return self._more(reading, need)
        return self._fewer(reading)

    def _needed(self, reading: Reading) -> int:
        """Workers that this moment asks for; more than there are only when tasks wait too long."""
        measure, waiting, workers = reading.measure, reading.waiting, reading.workers
        # Of what is rounded up, a trifle is no worker: 2.0000001 are two.
        enough = math.ceil(measure.utilisation * measure.ready / ROOM - 1e-6)
        enough = min(max(enough, self.least), workers)
        if not measure.ready or measure.in_use < IN_USE or measure.rate is None:
            return enough
        wait = measure.wait(waiting)
        if wait <= TARGET_WAIT:
            return enough
        wanted = math.ceil(wait * measure.ready / TARGET_WAIT) if math.isfinite(wait) else self.most
        # With more than that, a worker would find nothing to start. Those that start already count, so the
        # same tasks do not ask for workers twice.
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
        """One worker less, when none of the last `idle_timeout` seconds needed it."""
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
    """The part of it that was in use on average."""
    return (after.seconds - before.seconds) / (passed * max(1, after.room))


def _part(use: Use) -> float:
    """The part of it that is in use now."""
    return use.running / max(1, use.room)


def _why(reading: Reading) -> str:
    """What was seen, for a log."""
    measure, waiting = reading.measure, reading.waiting
    ready = f"{measure.ready} worker{'s' * (measure.ready != 1)} {measure.in_use:.0%}".replace("%", " % busy")
    if not waiting:
        return f"nothing waits, {ready}"
    wait = measure.wait(waiting)
    length = f"about {_seconds(wait)} of work" if math.isfinite(wait) else "none has ended lately"
    return f"{waiting:,} task{'s wait' if waiting != 1 else ' waits'}, {length}, {ready}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
