"""Reap orphans where the server is process 1 of a container.

The kernel gives a process whose parent has died to process 1: what killed workers and ended jobs leave behind. Without
a `wait` for it, it stays a zombie after its end, and a container runs out of process ids. The server's own children are
left to the code that started them (`multiprocessing`, the embedded store): their exit codes are asked for there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger("pq.server")

EVERY = 2.0
"""Seconds between two looks for orphans that have ended."""
_PROC = Path("/proc")


def is_wanted() -> bool:
    """Return True for process 1, where `/proc` can be read."""
    return os.getpid() == 1 and (_PROC / "1/task").is_dir()


async def reap(own: frozenset[int]) -> None:
    """Reap orphans until it is cancelled. `own`: the children of this process at the start, which are left alone."""
    while True:
        await asyncio.sleep(EVERY)
        count = reap_once(own)
        if count:
            logger.debug("%d orphans have ended", count)


def reap_once(own: Iterable[int]) -> int:
    """Reap the orphans that have ended; return their number."""
    count = 0
    for pid in children() - set(own):
        try:
            count += os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            pass  # reaped meanwhile
    return count


def children() -> frozenset[int]:
    """Return the process ids of the children of this process."""
    found: set[int] = set()
    for thread in (_PROC / "self/task").iterdir():
        try:
            found.update(map(int, (thread / "children").read_text().split()))
        except OSError:
            pass  # the thread has ended
    return frozenset(found)
