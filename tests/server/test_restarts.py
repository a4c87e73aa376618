"""When a dead worker is replaced."""

from __future__ import annotations

import pytest

from pq.server.restarts import BETWEEN, LONGEST, STARTS, YOUNG, Restarts


def test_one_that_was_killed_is_replaced_at_once_however_many_are() -> None:
    """A kill of all workers of a young server, one after the other, is not a failed start."""
    restarts = Restarts()
    restarts.ready()
    for n in range(8):
        restarts.died(ready=True, lived=0.5, workers=3, now=n * 0.1)
        assert restarts.wait(n * 0.1) == 0


def test_many_that_die_young_are_replaced_with_pauses() -> None:
    """A crash at the beginning of work, over and over."""
    restarts = Restarts()
    for n in range(5):
        restarts.ready()
        restarts.died(ready=True, lived=0.5, workers=1, now=n * 0.6)
    assert restarts.wait(2.4) == BETWEEN
    assert restarts.wait(2.4 + BETWEEN) == 0
    restarts.died(ready=True, lived=0.5, workers=1, now=2.5 + YOUNG)
    assert restarts.wait(2.5 + YOUNG) == 0, "those before are long ago"
    assert not restarts.hopeless


def test_one_that_had_worked_for_a_while_may_die_as_often_as_it_likes() -> None:
    restarts = Restarts()
    restarts.ready()
    for n in range(100):
        restarts.died(ready=True, lived=YOUNG, workers=1, now=n * 0.01)
    assert restarts.wait(1.0) == 0


@pytest.mark.parametrize("lived", [0.1, 60.0])
def test_workers_that_cannot_start_are_tried_later_and_later(lived: float) -> None:
    """The same holds for workers that take long before they fail."""
    restarts = Restarts()
    restarts.ready()
    delays = []
    now = 0.0
    for _ in range(20):
        restarts.died(ready=False, lived=lived, workers=1, now=now)
        delays.append(restarts.wait(now))
        now += delays[-1]
    assert delays[:4] == [0, 1, 2, 4]
    assert delays[-1] == LONGEST
    assert not restarts.hopeless, "some have started before"
    restarts.ready()
    restarts.died(ready=False, lived=lived, workers=1, now=now)
    assert restarts.wait(now) == 0


def test_a_server_whose_workers_never_start_gives_up() -> None:
    restarts = Restarts()
    for _ in range(STARTS):
        assert not restarts.hopeless
        restarts.died(ready=False, lived=7.0, workers=2, now=1.0)
    assert restarts.hopeless


def test_a_pause_is_not_cut_short_by_another_death() -> None:
    restarts = Restarts()
    restarts.died(ready=False, lived=0.1, workers=2, now=0.0)
    restarts.died(ready=False, lived=0.1, workers=2, now=0.0)
    restarts.died(ready=True, lived=0.1, workers=2, now=0.1)
    assert restarts.wait(0.1) == pytest.approx(0.9)
