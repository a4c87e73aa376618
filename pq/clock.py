"""Time and chance, as things that are handed in.

Code that asks the system for the time cannot be tested without waiting, and cannot be simulated. So
a module that needs time or chance takes a `Clock`; programs run on `SYSTEM`, tests and simulations on one
that they move by hand.
"""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Where time and chance come from."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards, from an arbitrary start."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class SystemClock:
    """The real thing."""

    # The functions themselves, so that asking costs no extra call.
    def __init__(self) -> None:
        self.time = time.time
        self.monotonic = time.monotonic
        self.random = random.random


SYSTEM: Clock = SystemClock()


class MovedClock:
    """The system's time, moved on. It goes on by itself as well, but for while it is held.

    What must not jump does not: `monotonic` measures how long something really takes.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._held: float | None = None
        self.monotonic = time.monotonic
        self.random = random.random

    def time(self) -> float:
        """Seconds since the epoch, as they would be by now."""
        return self._held if self._held is not None else time.time() + self._ahead

    def hold(self) -> None:
        """Stand still until `go_on`, but for `move`."""
        if self._held is None:
            self._held = self.time()

    def go_on(self) -> None:
        """Go on from where it stands."""
        if self._held is not None:
            self._ahead, self._held = self._held - time.time(), None

    def move(self, seconds: float) -> None:
        """Move on by `seconds`."""
        if self._held is not None:
            self._held += seconds
        else:
            self._ahead += seconds
