"""A long run at a steady rate: does anything grow? `./run soak [--minutes 30] [--rate 500]`.

A server of two workers on a store of its own; a producer in this process that queues at the stated rate and awaits
every result. Every ten seconds it is noted how much memory the workers, the producer and the store have, how many
keys, threads and descriptors. Growth is what the medians of the third and of the fourth quarter of the run differ
by: results are kept for a minute, so from the second minute on the store should be as full as it will ever be.
Exit code 1 when a worker, the producer or the store grew by more than a twentieth and 2 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1]))
from oracle import JOBS
from servers import MANAGE, ServerProcess
from stores import Server

from pq.api import Producer, PulsarQueue
from pq.broker.embedded import find_binary

EVERY = 10.0
"""Seconds between two looks."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> float:
    """Megabytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def look(name: str, pid: int) -> dict[str, float]:
    """The figures of one process."""
    return {
        f"{name}: MB": resident(pid),
        f"{name}: threads": len(os.listdir(f"/proc/{pid}/task")),
        f"{name}: descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


class Soak:
    """One run."""

    def __init__(self, minutes: float, rate: float, directory: Path) -> None:
        self._seconds = minutes * 60
        self._rate = rate
        self._directory = directory
        self.samples: list[dict[str, float]] = []
        self.done = 0
        self.wrong = 0

    async def run(self) -> None:
        directory = self._directory
        (directory / "manage.py").write_text(MANAGE)
        (directory / "config.py").write_text('task_paths = ["jobs"]\n')
        # The oracle is a file that grows; here nothing reads it.
        (directory / "jobs.py").write_text(JOBS.replace('os.environ["PQ_ORACLE"]', "os.devnull"))
        store = Server(find_binary(), "--appendonly", "yes")
        server = ServerProcess(
            directory, "-w", "2", "--processes", "1", "--data-store", store.url, "--result-ttl", "60",
            env={"PQ_LOG_LEVEL": "info"},
        )  # fmt: skip
        try:
            await asyncio.to_thread(server.ready, 2)
            names = [(f"worker {n + 1}", pid) for n, pid in enumerate(server.worker_pids())]
            names += [
                ("supervisor", server.process.pid),
                ("producer", os.getpid()),
                ("store", store.process.pid),
            ]
            app = PulsarQueue(data_store=store.url, task_paths=[], name="soak")
            async with app.api() as api:
                queueing = asyncio.create_task(self._queue(api))
                watching = asyncio.create_task(self._watch(names, store, server))
                await queueing
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            server.stop()
            server.kill()
            store.close()

    async def _queue(self, api: Producer) -> None:
        waves: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        number = 0
        while (elapsed := time.monotonic() - started) < self._seconds:
            due = int(elapsed * self._rate)
            if due > number:
                wave = asyncio.create_task(self._wave(api, range(number, due)))
                waves.add(wave)
                wave.add_done_callback(waves.discard)
                number = due
            await asyncio.sleep(0.05)
        if waves:
            await asyncio.wait(waves, timeout=60)

    async def _wave(self, api: Producer, numbers: range) -> None:
        jobs = [
            "by.process"
            if n % 50 == 0
            else "by.thread"
            if n % 7 == 0
            else "fails.once"
            if n % 31 == 0
            else "by.loop"
            for n in numbers
        ]
        calls = [(job, {"n": n}) for job, n in zip(jobs, numbers, strict=True)]
        for n, future in zip(numbers, api.tasks.queue_many(calls), strict=True):
            task = await future
            self.done += 1
            self.wrong += task.result != n * 3 + 1

    async def _watch(self, names: list[tuple[str, int]], store: Server, server: ServerProcess) -> None:
        with redis.Redis.from_url(store.url) as client:
            while True:
                await asyncio.sleep(EVERY)
                sample: dict[str, float] = {}
                for name, pid in names:
                    sample.update(look(name, pid))
                info: Any = client.info("memory")
                sample["store: used MB"] = info["used_memory"] / 1e6
                sample["store: keys"] = client.dbsize()
                self.samples.append(sample)
                del server.lines[:]  # ours, and no part of what is measured

    def report(self) -> tuple[str, bool]:
        """For a person, and whether something grew."""
        quarter = len(self.samples) // 4
        if not quarter:
            return "too short to tell", True
        lines = [
            f"{self.done:,} tasks in {self._seconds / 60:g} min, {self.wrong} with a wrong result, {len(self.samples)} looks",
            f"{'':28}{'3rd quarter':>14}{'4th quarter':>14}{'growth':>10}",
        ]
        grew = self.wrong > 0
        for name in self.samples[0]:
            third, fourth = (
                statistics.median(sample[name] for sample in part)
                for part in (self.samples[2 * quarter : 3 * quarter], self.samples[3 * quarter :])
            )
            lines.append(f"{name:28}{third:14.2f}{fourth:14.2f}{fourth - third:+10.2f}")
            grew = grew or ("MB" in name and fourth - third > max(2.0, third / 20))
        return "\n".join(lines), grew


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run soak", description="A long run at a steady rate: does anything grow?"
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=500.0, help="tasks a second")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pq-soak-") as directory:
        soak = Soak(args.minutes, args.rate, Path(directory))
        asyncio.run(soak.run())
    text, grew = soak.report()
    print(text)
    return 1 if grew else 0


if __name__ == "__main__":
    sys.exit(main())
