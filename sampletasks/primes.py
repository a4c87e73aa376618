"""A process job: for long computations. It runs in a child process, and a time-out kills it."""

import os

from pq import api


@api.job(concurrency=api.CPUBOUND, timeout=60)
def count_primes(self: api.Job, limit: int = 100_000, parts: int = 20) -> dict[str, int]:
    """Count the primes below `limit`, and report the progress after each part."""
    found = 0
    for part in range(parts):
        first, last = limit * part // parts, limit * (part + 1) // parts
        found += sum(1 for number in range(first, last) if is_prime(number))
        self.progress(part + 1, parts)
    print(f"{found} primes below {limit}")  # the log of the worker has this line
    return {"primes": found, "pid": os.getpid()}


def is_prime(number: int) -> bool:
    """Return whether `number` is a prime; by division, which takes a while."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
