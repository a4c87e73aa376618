"""Measure the load of many workers on a store: `python bench/fleet.py [--workers 200] [--seconds 20]`.

All workers are real, each with its connections, lease thread, heartbeat and services, fifty to a process, on
one store. The script measures requests, CPU time and memory of the store for each worker, while nothing is queued and
while tasks come at a steady rate that gives all of them some work.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a clone that is not installed

import machine
import redis
from stage import OwnStore

from pq.api import PulsarQueue
from pq.loops import run

EACH = 50
"""Workers in one process."""


def application(url: str, **settings: Any) -> PulsarQueue:
    """Return the measured application."""
    return PulsarQueue(
        name="fleet", data_store=url, task_paths=["jobs"], concurrent_tasks=10, processes=1, **settings
    )


def run_group(url: str, first: int, count: int, up: Any, over: Event) -> None:
    """Run one process of workers."""
    run(_run_group(url, first, count, up, over))


async def _run_group(url: str, first: int, count: int, up: Any, over: Event) -> None:
    app = application(url, node_name=f"host{first}")
    workers = [app.worker(f"w{first + n}") for n in range(count)]
    for worker in workers:
        await worker.start()
        up.release()
    await asyncio.to_thread(over.wait)
    await asyncio.gather(*(worker.stop(grace=1.0) for worker in workers))


class Meter:
    """Counters of the store between two samples."""

    def __init__(self, store: OwnStore) -> None:
        self._client = redis.Redis.from_url(store.url)
        self._pid = store.process.pid

    def look(self) -> tuple[float, int, float]:
        """Return the time, the requests (commands of one write count once) and the seconds of CPU."""
        requests = int(self._client.info("stats")["total_reads_processed"])
        return time.monotonic(), requests, machine.cpu_seconds(self._pid)

    def memory(self) -> float:
        """Return the memory of the store in MB."""
        return float(self._client.info("memory")["used_memory"]) / 1e6

    def clients(self) -> int:
        """Return the number of connections."""
        return int(self._client.info("clients")["connected_clients"])


async def measure(store: OwnStore, workers: int, seconds: float, rate: float) -> None:
    """Measure idle workers, then `rate` tasks a second for all of them together."""
    meter = Meter(store)
    print(f"{workers} workers, {meter.clients()} connections, {meter.memory():.1f} MB in the store")
    await asyncio.sleep(5)  # until all of them are idle
    before = meter.look()
    await asyncio.sleep(seconds)
    say("idle", workers, before, meter.look())
    async with application(store.url, node_name="producer").api() as api:
        done = 0
        started = time.monotonic()
        before = meter.look()
        waves: list[asyncio.Future[Any]] = []
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate)
            if due > done:
                waves += api.tasks.queue_many([("addition", {"a": 1})] * (due - done))
                done = due
            await asyncio.sleep(0.02)
        await asyncio.gather(*waves)
        say(f"{rate:g} tasks/s", workers, before, meter.look(), done)


def say(
    what: str, workers: int, before: tuple[float, int, float], after: tuple[float, int, float], tasks: int = 0
) -> None:
    """Print one line of the table."""
    seconds, requests, cpu = (b - a for a, b in zip(before, after, strict=True))
    line = (
        f"{what}: each worker {requests / seconds / workers:.2f} requests/s and"
        f" {1000 * cpu / seconds / workers:.3f} ms/s of the store's CPU; together {100 * cpu / seconds:.1f} % of a core"
    )
    if tasks:
        line += f"; {1e6 * cpu / tasks:.0f} µs and {requests / tasks:.1f} requests a task"
    print(line)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python bench/fleet.py", description="Measure the load of many workers on a store."
    )
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=400.0, help="tasks a second")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    store = OwnStore()
    up, over = context.Semaphore(0), context.Event()
    crews = [
        context.Process(target=run_group, args=(store.url, n, min(EACH, args.workers - n), up, over))
        for n in range(0, args.workers, EACH)
    ]
    try:
        for each in crews:
            each.start()
        for _ in range(args.workers):
            if not up.acquire(timeout=120):
                print("the workers did not start", file=sys.stderr)
                return 1
        asyncio.run(measure(store, args.workers, args.seconds, args.rate))
    finally:
        over.set()
        for each in crews:
            each.join(30)
            if each.is_alive():
                each.kill()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
