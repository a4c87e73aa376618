"""Work of a known size: the same function for the job and for the bare processes it is compared with."""

from __future__ import annotations

import time


def burn(rounds: int) -> int:
    """Pure Python that holds one core."""
    total = 0
    for number in range(rounds):
        total += number & 7
    return total


def calibrate(seconds: float) -> int:
    """How many rounds of `burn` take that long here; the fastest of some tries, since noise only slows."""
    probe = 200_000
    fastest = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        burn(probe)
        fastest = min(fastest, time.perf_counter() - started)
    return max(1, round(probe * seconds / fastest))
