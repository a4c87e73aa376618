"""When periodic jobs run: intervals against a naive oracle, cron lines against tables of the odd days."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.errors import BadSetting, UnreadableMessage
from pq.model.plan import Plan, load_plan
from pq.model.schedule import (
    ALIASES,
    ALL,
    GRACE,
    ONCE,
    SKIP,
    Cron,
    Interval,
    anchorDate,
    due,
    make_schedule,
    next_runs,
)

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
"""Lord Howe's clocks are changed by half an hour."""


def ms(text: str) -> int:
    """`2026-03-29 01:30+01:00` or, in UTC, `2026-03-29 01:30`."""
    moment = dt.datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1000)


# --------------------------------------------------------------------------------------- intervals
def oracle(every: int, phase: int, a: int, b: int) -> list[int]:
    """Every millisecond looked at by itself."""
    return [t for t in range(a + 1, b + 1) if (t - phase) % every == 0]


@given(
    every=st.integers(1, 60),
    phase=st.integers(-200, 200),
    a=st.integers(-300, 300),
    length=st.integers(0, 400),
)
def test_intervals_against_a_naive_oracle(every: int, phase: int, a: int, length: int) -> None:
    """Each tick is in its phase, and none is left out."""
    interval = Interval(every, phase)
    expected = oracle(every, phase, a, a + length)
    assert interval.ticks_between(a, a + length, 10_000) == expected
    assert interval.ticks_between(a, a + length, 3) == expected[-3:]
    assert interval.next_after(a) == oracle(every, phase, a, a + every)[0]


def test_an_interval_has_the_same_ticks_for_every_scheduler() -> None:
    """They are multiples of it since 1970, so any number of schedulers agree."""
    minute = make_schedule(60)
    assert minute.next_after(ms("2026-05-01 10:00:30")) == ms("2026-05-01 10:01")
    assert minute.next_after(ms("2026-05-01 10:01")) == ms("2026-05-01 10:02")
    assert make_schedule(dt.timedelta(minutes=1)).text == minute.text == "every 60 s"
    assert make_schedule(1.5).text == "every 1.5 s"


@pytest.mark.parametrize(
    ("anchor", "zone", "first"),
    [
        (dt.datetime(2026, 5, 1, 3), None, "2026-05-03 03:00"),
        (dt.datetime(2026, 5, 1, 3), BERLIN, "2026-05-02 01:00"),
        (dt.datetime(2026, 5, 1, 3, tzinfo=dt.UTC), BERLIN, "2026-05-03 03:00"),
        (dt.datetime(2030, 1, 1, 12), None, "2026-05-02 12:00"),
    ],
)
def test_an_anchor_fixes_the_phase(anchor: dt.datetime, zone: str | None, first: str) -> None:
    """One of the past or of the future, in its own zone or that of the job."""
    daily = make_schedule(dt.timedelta(days=1), zone, anchor)
    looked = ms("2026-05-02 03:00") if first.startswith("2026-05-03") else ms("2026-05-02 00:30")
    assert daily.next_after(looked) == ms(first)


def test_anchor_date_is_a_time_of_today() -> None:
    """The day does not matter where the interval divides a day."""
    anchor = anchorDate(hour=3, minute=15)
    assert (anchor.hour, anchor.minute, anchor.second, anchor.microsecond) == (3, 15, 0, 0)
    yesterday = anchor - dt.timedelta(days=1)
    assert make_schedule(3600, None, anchor).text == make_schedule(3600, None, yesterday).text


# -------------------------------------------------------------------------------------------- cron
# Each row: line, zone, from where (UTC), and the ticks that follow (UTC).
ODD_DAYS = [
    # The hour from 02:00 to 03:00 does not exist in Berlin on 29 March 2026: right after the gap, once.
    ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
    ("0,30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:00"]),
    ("0 3 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 01:00"]),
    (
        "*/30 * * * *",
        BERLIN,
        "2026-03-29 00:15",
        ["2026-03-29 00:30", "2026-03-29 01:00", "2026-03-29 01:30"],
    ),
    ("@hourly", BERLIN, "2026-03-28 23:30", ["2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 02:00"]),
    # The hour from 02:00 to 03:00 comes twice on 25 October 2026: a line with an hour counts the first.
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25 01:15", ["2026-10-26 01:30"]),
    ("0 3 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:00", "2026-10-26 02:00"]),
    ("30 * * * *", BERLIN, "2026-10-24 23:45", ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"]),
    (
        "*/20 2 * * *",
        BERLIN,
        "2026-10-25 00:30",
        ["2026-10-25 00:40", "2026-10-25 01:00", "2026-10-25 01:20"],
    ),
    # New York, 8 March and 1 November 2026.
    ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["2026-03-08 07:00", "2026-03-09 06:30"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["2026-11-01 05:30", "2026-11-02 06:30"]),
    ("0 0 * * *", NEW_YORK, "2026-10-31 12:00", ["2026-11-01 04:00", "2026-11-02 05:00"]),
    # Lord Howe: 02:00 to 02:30 is skipped on 4 October 2026, 01:30 to 02:00 comes twice on 5 April.
    ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-03 15:30", "2026-10-04 15:15"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["2026-04-04 14:45", "2026-04-05 15:15"]),
    ("0 12 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-04 01:00", "2026-10-05 01:00"]),
    # Leap days, the ends of months, and both day fields at once.
    ("0 0 29 2 *", "UTC", "2023-03-01 00:00", ["2024-02-29 00:00", "2028-02-29 00:00"]),
    ("0 0 29 2 *", "UTC", "2096-03-01 00:00", ["2104-02-29 00:00"]),
    ("0 0 31 * *", "UTC", "2026-01-31 00:00", ["2026-03-31 00:00", "2026-05-31 00:00"]),
    ("0 0 L * *", "UTC", "2026-01-31 00:00", ["2026-02-28 00:00", "2026-03-31 00:00"]),
    ("0 0 13 * 5", "UTC", "2026-02-12 00:00", ["2026-02-13 00:00", "2026-02-20 00:00"]),
    ("0 0 * * 7", "UTC", "2026-05-01 00:00", ["2026-05-03 00:00", "2026-05-10 00:00"]),
    ("@weekly", "UTC", "2026-05-01 00:00", ["2026-05-03 00:00", "2026-05-10 00:00"]),
    ("@monthly", "UTC", "2026-12-01 00:00", ["2027-01-01 00:00", "2027-02-01 00:00"]),
    ("@yearly", BERLIN, "2026-05-01 00:00", ["2026-12-31 23:00", "2027-12-31 23:00"]),
    # Seconds come first, where there are six fields.
    ("*/20 * * * * *", "UTC", "2026-05-01 00:00:10", ["2026-05-01 00:00:20", "2026-05-01 00:00:40"]),
]


@pytest.mark.parametrize(("line", "zone", "start", "ticks"), ODD_DAYS)
def test_cron_on_odd_days(line: str, zone: str, start: str, ticks: list[str]) -> None:
    """Step by step, and looked back upon from the last one."""
    schedule = make_schedule(line, zone)
    found, at = [], ms(start)
    for _ in ticks:
        at = schedule.next_after(at) or 0
        found.append(at)
    assert found == [ms(tick) for tick in ticks]
    assert schedule.ticks_between(ms(start), found[-1], 100) == found
    assert schedule.ticks_between(ms(start), found[-1] - 1, 100) == found[:-1]


LINES = [
    "* * * * *",
    "7 * * * *",
    "30 2 * * *",
    "*/7 1-4 * * *",
    "0 0 1 * *",
    "15 2 * * 0",
    "30 1,2 L * *",
    "@daily",
]
MOMENTS = st.integers(ms("2026-01-01 00:00"), ms("2027-01-01 00:00"))


@settings(max_examples=300, deadline=None)
@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC"]),
    t=MOMENTS,
    back=MOMENTS,
)
def test_cron_is_the_same_from_wherever_one_looks(line: str, zone: str, t: int, back: int) -> None:
    """Schedulers that come at different times see the same next tick."""
    schedule = make_schedule(line, zone)
    first = schedule.next_after(t)
    assert first is not None
    assert first > t
    assert schedule.next_after(first - 1) == first
    between = t + back % (first - t)
    assert schedule.next_after(between) == first
    assert schedule.ticks_between(t, first, 5) == [first]
    if first - t > 1:
        assert schedule.ticks_between(t, first - 1, 5) == []
    walked, at = [], t
    while len(walked) < 4:
        at = schedule.next_after(at) or 0
        walked.append(at)
    assert schedule.ticks_between(t, walked[-1], 3) == walked[-3:]


def test_a_minute_line_against_a_naive_oracle_over_a_change_of_clocks() -> None:
    """Each minute of two days is looked at by itself, on the wall clock."""
    zone = zoneinfo.ZoneInfo(BERLIN)
    for day in ("2026-03-28 12:00", "2026-10-24 12:00"):
        start = ms(day)
        expected = [
            t
            for t in range(start + 60_000, start + 48 * 3_600_000 + 1, 60_000)
            if dt.datetime.fromtimestamp(t / 1000, zone).minute % 25 == 0
        ]
        assert Cron("*/25 * * * *", BERLIN).ticks_between(start, start + 48 * 3_600_000, 10_000) == expected


def test_years_of_ticks_are_counted_quickly() -> None:
    """Only the last ticks are looked for, after any time without a look."""
    long_ago, now = ms("1990-01-01 00:00"), ms("2026-05-01 00:00:00")
    for run_every in (1, "* * * * * *", "* * * * *", "0 0 29 2 *"):
        ticks = make_schedule(run_every).ticks_between(long_ago, now, 9)
        assert len(ticks) == 9
        assert ticks == sorted(ticks)
        assert ticks[-1] <= now


# ------------------------------------------------------------------------------------ the mistakes
@pytest.mark.parametrize(
    ("options", "says", "hint"),
    [
        ({"run_every": "61 * * * *"}, "the minute '61' cannot be (it is 0-59)", "minute hour day-of-month"),
        ({"run_every": "* 25 * * *"}, "the hour", "minute hour"),
        ({"run_every": "* * * 13 *"}, "the month", "minute hour"),
        ({"run_every": "* * * * FOO"}, "the day-of-week", "minute hour"),
        ({"run_every": "61 * * * * *"}, "the second '61'", "six fields"),
        ({"run_every": "*/0 * * * *"}, "the minute", "minute hour"),
        ({"run_every": "* * *"}, "3 fields", "30 3 * * *"),
        ({"run_every": ""}, "0 fields", "minute hour"),
        ({"run_every": "@dayly"}, "no '@dayly'", "did you mean '@daily'"),
        ({"run_every": "@reboot"}, "no '@reboot'", "@"),
        ({"run_every": "0 0 30 2 *"}, "the day-of-month", "minute hour"),
        ({"run_every": "0 0 * 2 MON#5", "timezone": None}, None, None),
        (
            {"run_every": "* * * * *", "timezone": "Europe/Berlni"},
            "no time zone 'Europe/Berlni'",
            "'Europe/Berlin'",
        ),
        ({"run_every": "* * * * *", "timezone": "../etc/passwd"}, "no time zone", "Europe/Berlin"),
        ({"run_every": 5, "timezone": 5}, "no time zone 5", "Europe/Berlin"),
        ({"run_every": 0.5}, "0.5 seconds, and must be from 1", "several rounds"),
        ({"run_every": 0}, "must be from 1", None),
        ({"run_every": -5}, "must be from 1", None),
        ({"run_every": float("nan")}, "must be from 1", None),
        ({"run_every": float("inf")}, "must be from 1", None),
        ({"run_every": True}, "run_every is True", "seconds, a timedelta, or a cron line"),
        ({"run_every": [5]}, "run_every is", "seconds"),
        ({"run_every": None}, "run_every is None", "seconds"),
        ({"run_every": 5, "anchor": "noon"}, "anchor is 'noon'", "anchorDate"),
        ({"run_every": "@daily", "anchor": dt.datetime(2026, 1, 1)}, "an anchor is for intervals", "leave"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], says: str | None, hint: str | None) -> None:
    """The error has the wrong value, and what to type instead."""
    if says is None:
        assert make_schedule(**options)
        return
    with pytest.raises(BadSetting) as caught:
        make_schedule(**options)
    assert says in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_a_line_that_comes_once_in_a_generation() -> None:
    """The 29th of February that is a Sunday: every 28 years, and found."""
    schedule = make_schedule("0 0 29 2 */7")
    years = [run.year for run in next_runs(schedule, ms("2026-01-01 00:00"), 2)]
    assert years == [2032, 2060]


def test_aliases_and_spaces() -> None:
    """An alias is its line, and spaces do not count."""
    for alias, line in ALIASES.items():
        assert (
            make_schedule(alias).text == make_schedule(f"  {line.replace(' ', '   ')} ").text == f"{line} UTC"
        )
    assert make_schedule("@DAILY", BERLIN).text == "0 0 * * * Europe/Berlin"


def test_the_next_runs_are_shown_in_the_zone() -> None:
    """The list is in the form for a reader."""
    runs = next_runs(make_schedule("30 2 * * *", BERLIN), ms("2026-03-28 12:00"))
    assert [run.isoformat() for run in runs] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
    ]
    assert next_runs(make_schedule(3600), 0, 1)[0].isoformat() == "1970-01-01T01:00:00+00:00"


# ------------------------------------------------------------------------------------- catching up
@pytest.mark.parametrize(
    ("policy", "away", "expected"),
    [
        (SKIP, 1, [1]),
        (SKIP, 3, [3]),
        (ONCE, 3, [3]),
        (ALL, 3, [1, 2, 3]),
        (ALL, 9, [5, 6, 7, 8, 9]),
        (SKIP, 0, []),
        (ONCE, 0, []),
        (ALL, 0, []),
    ],
)
def test_what_is_caught_up(policy: str, away: int, expected: list[int]) -> None:
    """Hours after the last tick that was seen; the limit is five."""
    hour = 3_600_000
    assert due(Interval(hour), 0, away * hour, policy, 5) == [tick * hour for tick in expected]


def test_a_tick_that_is_a_minute_late_is_not_missed() -> None:
    """A restart costs no daily run; a longer time without a scheduler does, with `skip`."""
    day = 86_400_000
    assert due(Interval(day), 0, day + GRACE, SKIP) == [day]
    assert due(Interval(day), 0, day + GRACE + 1, SKIP) == []
    assert due(Interval(day), 0, day + GRACE + 1, ONCE) == [day]


# ------------------------------------------------------------------------------------------- plans
@pytest.mark.parametrize("schedule", [Interval(60_000, 15_000), Cron("*/5 * * * *", BERLIN)])
def test_a_plan_comes_back_as_it_was(schedule: Any) -> None:
    """With all kinds of arguments; its first line is the rule."""
    kwargs = {"when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "n": 1, "words": ["ä", b"\xff"]}
    plan = Plan("nightly", "report", schedule, "slow", kwargs, ALL, 7, "jobs.py:3")
    text = plan.dump()
    again = load_plan("nightly", text)
    assert text.split(b"\n")[0].decode() == schedule.text == again.schedule.text
    assert again.dump() == text
    assert (again.kwargs, again.task_id(5)) == (kwargs, "cron.nightly.5")


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_error_and_no_crash(data: bytes) -> None:
    """A newer version, or a user by hand, may have written it."""
    with pytest.raises(UnreadableMessage):
        load_plan("s", data)


@pytest.mark.parametrize(
    "text",
    [
        b"r\n{}",
        b"r\n[1]",
        b'r\n{"job":"j","queue":"q","kwargs":{},"catch_up":"skip","catch_up_limit":1,"defined_at":"","every":0,"phase":0}',
        b'r\n{"job":"j","queue":"q","kwargs":{},"catch_up":"skip","catch_up_limit":1,"defined_at":"","cron":"x","zone":"UTC"}',
        b'r\n{"job":"j","queue":"q","kwargs":{},"catch_up":"skip","catch_up_limit":1,"defined_at":"","cron":"@daily","zone":"Nowhere"}',
    ],
)
def test_texts_that_are_nearly_plans(text: bytes) -> None:
    """The error names each of them."""
    with pytest.raises(UnreadableMessage, match="the schedule 's' cannot be read"):
        load_plan("s", text)
