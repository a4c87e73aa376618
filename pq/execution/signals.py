"""Signals that a process survives, while the programs that it starts obey them.

A service manager signals every process of a service. A child that runs a task must outlive that, because its worker
decides when it ends. An ignored signal is inherited by every program and every fork, so their `terminate()` would
have no effect. A handler is not inherited by programs; forks get the default reactions back.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

_REACTIONS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
"""The reactions of a new Python process, where they are not those of the system."""


def disregard(*numbers: signal.Signals) -> None:
    """Go on after these signals; forks of this process and programs that it starts react as usual."""
    for number in numbers:
        signal.signal(number, _no_reaction)
        signal.siginterrupt(number, False)  # system calls of C libraries are restarted, too
    _restore_in_forks(numbers, ours=_is_no_reaction)


def restore_in_forks(*numbers: signal.Signals) -> None:
    """Give forks of this process the default reactions to these signals.

    A fork of an event loop's process has the loop's handlers, and its signals wake that loop: a signal to the fork
    would be taken for one to this process.
    """
    _restore_in_forks(numbers, ours=lambda number: callable(signal.getsignal(number)))


def _restore_in_forks(numbers: tuple[signal.Signals, ...], *, ours: Callable[[int], bool]) -> None:
    held = threading.local()  # threads may fork at once

    # A signal that comes before the fork has its own reactions waits for them. Without this it would be lost, and
    # `process.start(); process.terminate(); process.join()` would never end.
    def before() -> None:
        held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    def in_fork() -> None:
        signal.set_wakeup_fd(-1)
        for number in numbers:
            if ours(number):  # not a handler that the job has set
                signal.signal(number, _REACTIONS.get(number, signal.SIG_DFL))
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_fork)


def _is_no_reaction(number: int) -> bool:
    return signal.getsignal(number) is _no_reaction


def _no_reaction(number: int, frame: object) -> None:
    """React to a signal with nothing."""
