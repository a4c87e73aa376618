"""Work of a known size, for the job and for the bare processes of the comparison."""

from __future__ import annotations

import time


def burn(rounds: int) -> int:
    """Compute in pure Python on one core."""
    total = 0
    for number in range(rounds):
        total += number & 7
    return total


def calibrate(seconds: float) -> int:
    """Return the rounds of `burn` in that time on this machine; the best of some tries, since noise only slows."""
    probe = 200_000
    fastest = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        burn(probe)
        fastest = min(fastest, time.perf_counter() - started)
    return max(1, round(probe * seconds / fastest))
