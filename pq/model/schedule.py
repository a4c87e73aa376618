"""When periodic jobs run: pure arithmetic, without a clock of its own.

A schedule is a rule that gives *ticks*, moments in milliseconds since the epoch:

    Interval   every n seconds, in a phase that an anchor fixes; elapsed time, so no zone matters to it
    Cron       a line of five fields (six with seconds first) or an alias, on the wall clock of a zone

Ticks depend on the rule alone, not on when a scheduler started. So any number of schedulers that never talk to
each other agree on them, and the moment of a tick is its name.

On the days on which clocks are changed a cron line does what Debian's cron does. A line that names an hour
runs once: an hour that is skipped makes it run right after the gap, and an hour that comes twice counts the
first time. A line with `*` as its hour or minute goes on through the change by elapsed time.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Protocol

from cronsim import CronSim, CronSimError

from ..errors import BadCron, BadSetting, did_you_mean

UTC = "UTC"
SHORTEST, LONGEST = 1.0, 10 * 366 * 86_400.0
"""Seconds between two runs of an interval, at least and at most."""

SKIP, ONCE, ALL = "skip", "once", "all"
CATCH_UP = (SKIP, ONCE, ALL)
"""The fate of ticks missed while no scheduler was alive."""
GRACE = 60_000
"""Milliseconds by which a tick may be late before it counts as missed: a restart must not cost a daily run."""

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_FIELDS = "minute hour day-of-month month day-of-week, as in '30 3 * * *' (03:30 every day)"
_HOUR = 3_600_000
_WINDOWS = (_HOUR, 24 * _HOUR, 40 * 24 * _HOUR, 400 * 24 * _HOUR, 9 * 366 * 24 * _HOUR)
"""Steps back in search of the last ticks, in seconds: cron lines are walked forwards only."""


class Schedule(Protocol):
    """A rule. Times are ms since the epoch."""

    @property
    def text(self) -> str:
        """Return the rule in a few words; two rules with the same text have the same ticks."""
        ...

    def next_after(self, t: int) -> int | None:
        """Return the first tick later than `t`; None when there is none."""
        ...

    def ticks_between(self, a: int, b: int, limit: int) -> list[int]:
        """Return the last `limit` ticks later than `a` and not later than `b`, oldest first."""
        ...


class Interval:
    """A tick every `every` milliseconds."""

    def __init__(self, every: int, phase: int = 0) -> None:
        self.every = every
        self.phase = phase % every

    @property
    def text(self) -> str:
        seconds = f"{self.every / 1000:.3f}".rstrip("0").rstrip(".")
        return f"every {seconds} s" + (f" from {self.phase / 1000:.3f}" if self.phase else "")

    def next_after(self, t: int) -> int | None:
        return self.phase + ((t - self.phase) // self.every + 1) * self.every

    def ticks_between(self, a: int, b: int, limit: int) -> list[int]:
        last = self.phase + (b - self.phase) // self.every * self.every
        first = max(
            self.phase + ((a - self.phase) // self.every + 1) * self.every, last - (limit - 1) * self.every
        )
        return list(range(first, last + 1, self.every))


class Cron:
    """A cron line in a time zone."""

    def __init__(self, line: str, zone: str = UTC) -> None:
        self.line = line
        self.zone = zone
        self.tzinfo = _zone(zone)

    @property
    def text(self) -> str:
        return f"{self.line} {self.zone}"

    def next_after(self, t: int) -> int | None:
        walk = CronSim(self.line, self._local(t))
        while True:
            try:
                tick = _ms(next(walk))
            except (StopIteration, OverflowError, ValueError):  # not within 50 years, or past the year 9999
                return None
            # A walk that begins in an hour's second coming passes the first one's ticks.
            if tick > t:
                return tick

    def ticks_between(self, a: int, b: int, limit: int) -> list[int]:
        found: list[int] = []
        for window in (*_WINDOWS, b - a):
            start = max(a, b - window)
            found = self._walk(start, b)
            if start == a or len(found) >= limit:
                break
        return found[-limit:]

    def _walk(self, a: int, b: int) -> list[int]:
        ticks: list[int] = []
        for moment in CronSim(self.line, self._local(a)):
            tick = _ms(moment)
            if tick > b:
                break
            if tick > (ticks[-1] if ticks else a):
                ticks.append(tick)
        return ticks

    def _local(self, t: int) -> dt.datetime:
        return dt.datetime.fromtimestamp(t // 1000, self.tzinfo)


def due(schedule: Schedule, since: int, now: int, catch_up: str = SKIP, limit: int = 100) -> list[int]:
    """Return the ticks later than `since` and not later than `now` that are to run, oldest first.

    `skip`: the last one, unless it is later than a minute; `once`: the last one; `all`: the last `limit`.
    """
    ticks = schedule.ticks_between(since, now, limit if catch_up == ALL else 1)
    if catch_up == SKIP and ticks and now - ticks[-1] > GRACE:
        return []
    return ticks


def next_runs(schedule: Schedule, t: int, count: int = 3) -> list[dt.datetime]:
    """Return the next ticks as dates in the zone of the schedule."""
    zone = dt.UTC if not isinstance(schedule, Cron) else schedule.tzinfo
    runs: list[dt.datetime] = []
    tick = schedule.next_after(t)
    while tick is not None and len(runs) < count:
        runs.append(dt.datetime.fromtimestamp(tick / 1000, zone))
        tick = schedule.next_after(tick)
    return runs


# ------------------------------------------------------------------------------------ from settings
def make_schedule(run_every: Any, timezone: str | None = None, anchor: dt.datetime | None = None) -> Schedule:
    """Make the schedule that these options of a job state. Raises `BadSetting`.

    `run_every` is seconds, a `timedelta` or a cron line; `timezone` the zone of a cron line and of an
    anchor without one, UTC when None; `anchor` a moment at which an interval ticks.
    """
    zone = _checked_zone(timezone)
    if isinstance(run_every, str):
        if anchor is not None:
            raise BadSetting(
                f"run_every is the cron line {run_every!r}, and an anchor is for intervals",
                hint="leave the anchor out: the line says when",
            )
        return _cron(run_every, zone)
    seconds = run_every.total_seconds() if isinstance(run_every, dt.timedelta) else run_every
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise BadSetting(
            f"run_every is {run_every!r}", hint="give seconds, a timedelta, or a cron line like '*/5 * * * *'"
        )
    if not SHORTEST <= seconds <= LONGEST:
        raise BadSetting(
            f"run_every is {_brief(seconds)} seconds, and must be from {SHORTEST:g} to {LONGEST:g}",
            hint="for more than one run a second let one task do several rounds"
            if seconds < SHORTEST
            else None,
        )
    phase = 0
    if anchor is not None:
        if not isinstance(anchor, dt.datetime):
            raise BadSetting(f"anchor is {anchor!r}", hint="give a datetime, or api.anchorDate(hour=3)")
        phase = _ms(anchor if anchor.tzinfo is not None else anchor.replace(tzinfo=_zone(zone)))
    return Interval(round(seconds * 1000), phase)


def _brief(seconds: float) -> str:
    try:
        return f"{seconds:g}"
    except OverflowError:  # a whole number may be larger than any float
        return f"{seconds!s:.20}…"


def check_catch_up(catch_up: Any, limit: Any) -> None:
    """Refuse a policy that does not exist. Raises `BadSetting`."""
    if catch_up not in CATCH_UP:
        raise BadSetting(f"catch_up is {catch_up!r}", hint="use 'skip', 'once' or 'all'")
    if type(limit) is not int or not 1 <= limit <= 10_000:
        raise BadSetting(f"catch_up_limit is {limit!r}, and must be a whole number from 1 to 10000")


def _cron(text: str, zone: str) -> Cron:
    line = " ".join(text.split())
    if line.startswith("@"):
        alias = ALIASES.get(line.lower())
        if alias is None:
            raise BadCron(
                f"run_every: there is no {line!r}",
                hint=did_you_mean(line, ALIASES) or "there are " + ", ".join(ALIASES),
            )
        line = alias
    fields = len(line.split())
    if fields not in (5, 6):
        raise BadCron(
            f"run_every: {text!r} has {fields} field{'s' * (fields != 1)}, and a cron line has five",
            hint=f"they are {_FIELDS}",
        )
    try:
        CronSim(line, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    except (CronSimError, ValueError, AssertionError, TypeError) as exc:
        raise BadCron(
            f"run_every: {text!r}: {_what_is_bad(line, str(exc))}",
            hint=f"the fields are {'second ' * (fields == 6)}{_FIELDS}"
            if fields == 5
            else "six fields are second minute hour day-of-month month day-of-week",
        ) from None
    cron = Cron(line, zone)
    if cron.next_after(1_704_067_200_000) is None:
        raise BadCron(
            f"run_every: {text!r} never comes", hint="no year has such a day: look at its day and month"
        )
    return cron


_RANGES = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}


def _what_is_bad(line: str, said: str) -> str:
    """Return the wrong field with its value and what it may be. `said` is `Bad hour`, or of another kind."""
    words = line.split()
    field = said.removeprefix("Bad ")
    names = list(_RANGES)[-len(words) :]
    if field not in names:
        return "the line cannot be"
    value = words[names.index(field)]
    if field == "day-of-month" and value.isdigit() and 1 <= int(value) <= 31:
        return f"the {field} {value} never comes in month {words[names.index('month')]}"
    return f"the {field} {value!r} cannot be (it is {_RANGES[field]})"


def _checked_zone(name: Any) -> str:
    if name is None or name == UTC:
        return UTC
    try:
        if not isinstance(name, str):
            raise ValueError
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        known = zoneinfo.available_timezones()
        hint = (
            did_you_mean(str(name), known) or "use a name like 'Europe/Berlin'"
            if known
            else "this system has no time zones: install the package tzdata"
        )
        raise BadSetting(f"there is no time zone {name!r}", hint=hint) from None
    return name


def _zone(name: str) -> dt.tzinfo:
    return dt.UTC if name == UTC else zoneinfo.ZoneInfo(name)  # UTC needs no time zone data


def _ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1000)


def anchorDate(hour: int = 0, minute: int = 0, second: int = 0) -> dt.datetime:
    """Return today at that time of the day: the phase of a periodic job.

    Its runs are a multiple of `run_every` away from it, in the `timezone` of the job, UTC where it has none.
    """
    return dt.datetime.now().replace(hour=hour, minute=minute, second=second, microsecond=0)
