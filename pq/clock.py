"""Time and chance, as things that are handed in.

Code that asks the system for the time cannot be tested without waiting, and cannot be simulated. So
whoever needs time or chance takes a `Clock`; programs run on `SYSTEM`, tests and simulations on one
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
