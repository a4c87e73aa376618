"""The number of workers that the demand asks for: numbers in, a decision out, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from pq.server.autoscaler import Autoscaler, Measure, Meter, Reading
from pq.worker.load import Load, Use

IDLE = 30.0


def reading(
    at: float = 0.0,
    *,
    workers: int,
    waiting: int = 0,
    busy: float = 1.0,
    rate: float | None = 20.0,
    ready: int | None = None,
    leaving: int = 0,
    slots: float = 1.0,
) -> Reading:
    ready = workers if ready is None else ready
    return Reading(at, workers, leaving, waiting, Measure(ready, busy, busy, slots, rate))


# ------------------------------------------------------------------------------------------- up
@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        # Tasks of 50 ms, one at a time: 20 a second for each worker; 40 of them in the 2 s they may wait.
        (reading(workers=1, waiting=40), None),
        (reading(workers=1, waiting=41), 2),
        (reading(workers=1, waiting=120), 3),
        (reading(workers=2, waiting=80), None),
        (reading(workers=2, waiting=120), 3),
        # A large backlog: four more, then twice as many, and never above the most.
        (reading(workers=1, waiting=2000), 5),
        (reading(workers=5, waiting=1900), 8),
        (reading(workers=8, waiting=1900), None),
        # Workers that start are counted: tasks that they will take are not a reason for more workers.
        (reading(workers=3, ready=1, waiting=100), None),
        (reading(workers=3, ready=1, waiting=400), 7),
        # Tasks so long that none has ended: one worker for each that waits, and not twice the same.
        (reading(workers=1, waiting=2, rate=0.0), 3),
        (reading(workers=3, ready=1, waiting=2, rate=0.0), None),
        (reading(workers=1, waiting=2, rate=0.0, slots=100.0), 2),
        # A long wait behind few tasks: not more workers than tasks.
        (reading(workers=4, waiting=1, rate=0.01), 5),
        # Nothing is known yet; or there is room, and the tasks wait for something else.
        (reading(workers=1, waiting=2000, rate=None), None),
        (reading(workers=1, waiting=2000, busy=0.4), None),
        (reading(workers=1, ready=0, waiting=2000, busy=0.0), None),
        # A worker that leaves takes nothing, but is still a process.
        (reading(workers=6, waiting=2000, leaving=1), 7),
        (reading(workers=7, waiting=2000, leaving=1), None),
        # In use, and nothing waits.
        (reading(workers=1), None),
    ],
)
def test_up(now: Reading, wanted: int | None) -> None:
    """One look at a server of 1 to 8 workers, and the decision."""
    decision = Autoscaler(1, 8, IDLE).decide(now)
    assert (decision.workers if decision else None) == wanted


# ----------------------------------------------------------------------------------------- down
def play(
    scaler: Autoscaler, workers: int, looks: list[tuple[float, int]], **more: Any
) -> list[tuple[int, int]]:
    """A look each second: (busy, waiting). Returns (second, workers) for each decision; all are obeyed at once."""
    decided = []
    for second, (busy, waiting) in enumerate(looks):
        decision = scaler.decide(reading(float(second), workers=workers, busy=busy, waiting=waiting, **more))
        if decision is not None:
            workers = decision.workers
            decided.append((second, workers))
    return decided


def test_an_idle_server_goes_down_one_by_one_after_a_while() -> None:
    """Nothing for 30 s; then one a look, to the least and no further."""
    assert play(Autoscaler(2, 8, IDLE), 5, [(0.0, 0)] * 60) == [(30, 4), (31, 3), (32, 2)]


def test_one_moment_of_use_is_remembered_for_the_whole_time() -> None:
    """A second in which all five were needed, 20 s ago, keeps all five."""
    looks = [(0.0, 0)] * 20 + [(0.9, 0)] + [(0.0, 0)] * 35
    assert play(Autoscaler(1, 8, IDLE), 5, looks)[0] == (51, 4)


@pytest.mark.parametrize(
    ("workers", "busy", "end"),
    [(2, 0.34, 1), (2, 0.36, 2), (4, 0.5, 3), (4, 0.53, 4), (8, 0.08, 1), (8, 1.0, 8)],
)
def test_down_to_where_one_more_less_would_be_too_few(workers: int, busy: float, end: int) -> None:
    """Enough workers stay that at most 70 % of them are in use."""
    total, scaler = busy * workers, Autoscaler(1, 8, IDLE)
    for second in range(100):
        decision = scaler.decide(reading(float(second), workers=workers, busy=min(1.0, total / workers)))
        workers = decision.workers if decision else workers
    assert workers == end


def test_the_number_does_not_swing() -> None:
    """A load that comes for ten seconds in each twenty: up once, and never down."""
    looks = ([(1.0, 200)] * 10 + [(0.0, 0)] * 10) * 20
    decided = play(Autoscaler(1, 8, IDLE), 1, looks)
    assert [workers for _, workers in decided] == sorted({workers for _, workers in decided})


def test_the_next_goes_when_the_one_before_has_gone() -> None:
    """While one finishes what it runs, or another starts, no worker is stopped."""
    scaler = Autoscaler(1, 8, IDLE)
    for second in range(100):
        assert scaler.decide(reading(float(second), workers=5, busy=0.0, leaving=1)) is None
    assert scaler.decide(reading(100.0, workers=5, busy=0.0, ready=4)) is None
    decision = scaler.decide(reading(101.0, workers=5, busy=0.0))
    assert decision is not None
    assert decision.workers == 4


def test_with_a_backlog_no_worker_ends() -> None:
    """While tasks wait longer than they should, all workers stay, whatever else is seen."""
    assert play(Autoscaler(1, 5, 2.0), 5, [(0.5, 1000)] * 60) == []


def test_what_is_not_known_counts_as_needed() -> None:
    """A store that was away for a minute: the time begins again, and no worker is stopped at once."""
    scaler = Autoscaler(1, 8, IDLE)
    for second in range(29):
        scaler.decide(reading(float(second), workers=5, busy=0.0))
    scaler.hold(90.0, 5)
    assert [scaler.decide(reading(at, workers=5, busy=0.0)) for at in (91.0, 119.0)] == [None, None]
    assert scaler.decide(reading(121.0, workers=5, busy=0.0)) is not None


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            reading(workers=2, waiting=1950, rate=40.6),
            "1,950 tasks wait, about 24 s of work, 2 workers 100 % busy",
        ),
        (reading(workers=1, waiting=1, rate=0.1), "1 task waits, about 10 s of work, 1 worker 100 % busy"),
        (reading(workers=1, waiting=9, rate=0.0), "9 tasks wait, none has ended lately, 1 worker 100 % busy"),
    ],
)
def test_a_decision_says_why(now: Reading, why: str) -> None:
    """In words and with the numbers."""
    decision = Autoscaler(1, 8, IDLE).decide(now)
    assert decision is not None
    assert decision.why == why


def test_a_decision_to_have_fewer_says_why() -> None:
    """Return the use, and for how long it lasted."""
    scaler = Autoscaler(1, 8, 5.0)
    scaler.hold(0.0, 1)
    decision = scaler.decide(reading(6.0, workers=4, busy=0.03))
    assert decision is not None
    assert decision.why == "nothing waits, 4 workers 3 % busy; for 5 s fewer were enough"


# ---------------------------------------------------------------------------------------- meter
def load(
    at: float, done: int = 0, *, slots: tuple[int, int, float] = (0, 10, 0.0), cpu: float = 0.0, **more: Any
) -> Load:
    return Load(0.0, at, done, Use(*slots), Use(*more.get("children", (0, 2, 0.0))), cpu)


def test_what_is_in_use_is_an_average_and_what_is_now() -> None:
    """Ten slots, of which five were in use on average, and two are now."""
    measure = Meter().look({"w1": load(1.0, slots=(2, 10, 5.0))}, 1.0)
    assert (measure.ready, measure.utilisation, measure.now) == (1, 0.5, 0.2)


@pytest.mark.parametrize(
    ("told", "used", "slots"),
    [
        (load(1.0, slots=(10, 10, 10.0)), 1.0, 10.0),
        (load(1.0, slots=(2, 10, 2.0), children=(2, 2, 1.8)), 0.9, 2.0),
        (load(1.0, slots=(2, 10, 2.0), cpu=0.8), 0.8, 1.0),
        (load(1.0, slots=(10, 10, 10.0), children=(6, 2, 6.0)), 1.0, 2.0),
        (None, 1.0, 1.0),
    ],
)
def test_what_is_scarce_decides(told: Load | None, used: float, slots: float) -> None:
    """Slots, child processes, the one event loop; a worker that does not answer has a job that holds that loop."""
    measure = Meter().look({"w1": told}, 1.0)
    assert (measure.utilisation, measure.slots) == (pytest.approx(used), slots)


def test_a_rate_is_that_of_a_worker_in_full_use() -> None:
    """Five tasks ended while a tenth of the worker was in use: in full use it would be 50 a second."""
    meter = Meter()
    assert meter.look({"w1": load(1.0, 5, slots=(0, 10, 1.0))}, 1.0).rate == pytest.approx(50.0)


def test_a_rate_forgets_the_tasks_of_before() -> None:
    """Quick tasks, then a long one: after a second the long one does not count as quick."""
    meter = Meter()
    assert meter.look({"w1": load(1.0, 100, slots=(0, 1, 0.1))}, 1.0).rate == pytest.approx(1000.0)
    assert meter.look({"w1": load(2.0, 100, slots=(1, 1, 1.1))}, 1.0).rate == 0.0


def test_nothing_is_said_before_there_is_something_to_say() -> None:
    """No task has ended, but they have hardly begun."""
    meter = Meter()
    assert meter.look({"w1": load(1.0, slots=(1, 1, 0.3))}, 1.0).rate is None
    assert meter.look({"w1": load(2.0, slots=(1, 1, 1.3))}, 1.0).rate == 0.0


def test_a_repeated_answer_is_not_counted_twice() -> None:
    """Two looks without an answer, and then the report of all three seconds: three seconds of use, six tasks."""
    meter = Meter()
    meter.look({"w1": load(1.0, slots=(0, 1, 0.0))}, 1.0)
    for _ in range(2):
        meter.look({"w1": None}, 1.0)
    assert meter.look({"w1": load(4.0, 6, slots=(0, 1, 3.0))}, 1.0).rate == pytest.approx(6.0)


def test_workers_come_and_go() -> None:
    """One that is gone is forgotten; one of the same name later begins at nothing."""
    meter = Meter()
    meter.look({"w1": load(1.0, 50, slots=(0, 1, 1.0)), "w2": load(1.0, slots=(0, 1, 0.0))}, 1.0)
    assert meter.look({"w2": load(2.0, slots=(1, 1, 1.0))}, 1.0).utilisation == 1.0
    assert meter.look({}, 1.0)[:3] == (0, 0.0, 0.0)
