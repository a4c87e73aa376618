"""The jobs of the tour, one for each thing it shows."""

import asyncio
import os
import random
from collections import Counter
from typing import Any

from pq import api

WORDS = (
    *("actor", "answer", "bridge", "broker", "clock", "crash", "delay", "event", "forest", "future"),
    *("job", "lease", "letter", "loop", "message", "night", "order", "parcel", "queue", "river"),
)


@api.job()
def addition(self: api.Job, a: float = 0, b: float = 0) -> float:
    """Add two numbers."""
    return a + b


@api.job()
async def pause(self: api.Job, seconds: float = 0.1) -> float:
    """Wait without blocking other tasks: thousands of these fit in one worker."""
    await asyncio.sleep(seconds)
    return seconds


@api.job(concurrency=api.CPUBOUND, timeout=60)
def count_words(self: api.Job, chapters: int = 100, length: int = 60_000) -> dict[str, Any]:
    """Make up a book and count its words: a core is busy, so it runs in a process of its own."""
    dice = random.Random(chapters)  # noqa: S311  a book, not a secret
    found: Counter[str] = Counter()
    for chapter in range(chapters):
        text = " ".join(dice.choices(WORDS, k=length))
        found.update(text.split())
        self.progress(chapter + 1, chapters)
    (word, times), *_ = found.most_common(1)
    return {"words": found.total(), "top": word, "times": times, "pid": os.getpid()}


@api.job()
async def walk(self: api.Job, steps: int = 16, lag: float = 0.06) -> int:
    """Walk slowly and say at each step which process we are in. Returns that process."""
    for step in range(steps):
        self.progress(step + 1, steps, message=str(os.getpid()))
        await asyncio.sleep(lag)
    return os.getpid()
