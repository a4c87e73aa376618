"""Print a timeline of the workers during a burst: `python bench/autoscale.py`.

2,000 tasks that sleep for 50 ms are queued at once, for a server of 1 to 8 workers that run one task at a
time: they sleep and need no core, so eight workers are eight times as fast as one on any machine. Each second it
prints the numbers of waiting tasks, ready workers and done tasks. It uses a store of its own and removes it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from stage import OwnStore, Server, Store

from pq.loops import run


def alive(pid: int) -> bool:
    """Return True for a live process; a zombie is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def decisions(server: Server) -> list[str]:
    """Return the decisions in the log of the server."""
    return [line for line in server.log.read_text("utf-8").splitlines() if re.search(r"\d → \d", line)]


async def watch(store: Store, server: Server, tasks: int, seconds: float, end: float) -> None:
    """Queue the burst and print the timeline until the initial number of workers, or for `end` seconds."""
    async with store.application().api() as api:
        before, told = len(server.workers()), 0
        began = time.monotonic()
        futures = api.tasks.queue_many([("nap", {"seconds": seconds})] * tasks)
        print(f"{'s':>5} {'waiting':>8} {'workers':>8} {'done':>6}")
        while True:
            waiting = sum((await api.tasks.size("default")).values())
            workers = sum(map(alive, server.workers()))
            done = sum(future.done() for future in futures)
            news = decisions(server)[told:]
            told += len(news)
            print(
                f"{time.monotonic() - began:5.1f} {waiting:8,} {workers:8} {done:6,}",
                *(f"  {line.split(' server ', 1)[-1].strip()}" for line in news),
                flush=True,
            )
            if (done == tasks and workers == before) or time.monotonic() - began > end:
                return
            await asyncio.sleep(1.0 - (time.monotonic() - began) % 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workers", default="1..8")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.05, help="how long one task sleeps")
    parser.add_argument("--concurrent-tasks", default="1")
    parser.add_argument("--idle-timeout", default="30")
    parser.add_argument("--end", type=float, default=120.0, help="seconds after which to stop watching")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="pq-bench-"))
    own = OwnStore()
    try:
        store = Store(own.url, "scale")
        flags = ("--workers", given.workers, "--concurrent-tasks", given.concurrent_tasks)
        server = Server((*flags, "--idle-timeout", given.idle_timeout), store, directory)
        try:
            server.ready(int(given.workers.partition("..")[0]))
            run(watch(store, server, given.tasks, given.seconds, given.end))
        finally:
            server.stop()
            store.close()
    finally:
        own.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
