"""The action of a server at each signal, by the number of times that it came."""

from __future__ import annotations

import signal

import pytest

from pq.server.signals import INTENTIONS, ONE_PRESS, Intention, Signals, intention

INT, TERM = signal.SIGINT, signal.SIGTERM
DRAIN, RELEASE, KILL = Intention.DRAIN, Intention.RELEASE, Intention.KILL


@pytest.mark.parametrize(
    ("number", "intentions"),
    [
        (signal.SIGINT, [DRAIN, KILL, KILL, KILL]),
        (signal.SIGTERM, [DRAIN, RELEASE, KILL, KILL]),
        (signal.SIGHUP, [Intention.RELOAD] * 4),
        (signal.SIGTTIN, [Intention.MORE] * 4),
        (signal.SIGTTOU, [Intention.FEWER] * 4),
    ],
)
def test_a_signal_asks_for_more_each_time(number: signal.Signals, intentions: list[Intention]) -> None:
    """The last intention of a row counts for all that follow."""
    assert [intention(number, count) for count in (1, 2, 3, 9)] == intentions


def test_the_table_has_every_signal_of_a_server() -> None:
    """A server listens to the signals of the table, and to nothing else."""
    assert {number.name for number in INTENTIONS} == {"SIGINT", "SIGTERM", "SIGHUP", "SIGTTIN", "SIGTTOU"}


@pytest.mark.parametrize(
    ("presses", "intentions"),
    [
        pytest.param([(INT, 0.0), (INT, 1.0)], [DRAIN, KILL], id="two presses"),
        pytest.param([(INT, 0.0), (INT, 0.1), (INT, 1.0)], [DRAIN, None, KILL], id="delivered twice"),
        pytest.param([(TERM, 0.0), (INT, 0.1)], [DRAIN, None], id="one press as two signals"),
        pytest.param([(TERM, 0.0), (INT, 1.0), (TERM, 2.0)], [DRAIN, DRAIN, RELEASE], id="counted apart"),
        pytest.param([(INT, 0.2 * n) for n in range(4)], [DRAIN, None, None, None], id="a key held down"),
        pytest.param([(INT, 0.0), (INT, ONE_PRESS)], [DRAIN, KILL], id="just late enough"),
        pytest.param(
            [(signal.SIGTTIN, 0.0), (signal.SIGTTIN, 0.0)], [Intention.MORE] * 2, id="others count at once"
        ),
    ],
)
def test_signals_of_one_press_are_one(
    presses: list[tuple[signal.Signals, float]], intentions: list[Intention | None]
) -> None:
    """A Ctrl-C reaches the server from the terminal, and from the program that passes it on."""
    signals = Signals()
    assert [signals.received(number, at) for number, at in presses] == intentions
