"""Chaos: real servers on a real store, killed in every way, while a producer queues and awaits.

One run: a store with its append-only file, some *hosts* (servers, each a supervisor with its workers), and a
producer in this process that awaits every task it queues. A seeded plan says who is hit next:

    worker   SIGKILL of one that is at work
    child    SIGKILL of a child process with a process job
    freeze   SIGSTOP of a worker, for longer than its lease, then SIGCONT: a zombie
    host     SIGKILL of a supervisor with all its workers, at one moment; another takes its place
    store    SIGKILL of the store, which is started again on its file

In the end the blows stop, and everything has to come to its end. Then the run checks: every task that was
acknowledged has its own result; no end was accepted twice (by the store's own counters, and by the events);
no future hangs; no key is left without an owner; and how long it took until the tasks of the dead went on.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from handouts import Handouts
from oracle import JOBS, Story, now, result_of
from stores import Server, broken_invariants, dump_server

from pq.api import Producer, PulsarQueue
from pq.broker.embedded import find_binary
from pq.errors import TaskLost

sys.path.append(str(Path(__file__).parents[1]))
from servers import MANAGE, ServerProcess, alive

KINDS = {"loop": "by.loop", "thread": "by.thread", "process": "by.process", "retry": "fails.once"}
WAVE = 200
"""Tasks queued in one call."""
DEAF = 3.0
"""Seconds after the return of a store in which events may be missed: clients come back up to 2 s later."""
SHOWN = 5
"""The number of longest cases that are reported in full, of each kind of blow."""


@dataclass
class Plan:
    """The amounts of a run. `pause`: seconds between two blows."""

    tasks: int = 5000
    worker_kills: int = 50
    child_kills: int = 2
    freezes: int = 2
    host_kills: int = 1
    store_kills: int = 2
    hosts: int = 2
    workers: int = 2
    concurrency: int = 20
    lease: float = 3.0
    pause: float = 0.35
    store_away: float = 0.5
    appendfsync: str = "always"
    seed: int = 1
    patience: float = 120.0
    """Seconds that everything gets to end once the blows have stopped."""

    def blows(self, chance: random.Random) -> list[str]:
        """The targets in their order. Not the store first: something is to be under way."""
        rare = (
            ["child"] * self.child_kills
            + ["freeze"] * self.freezes
            + ["host"] * self.host_kills
            + ["store"] * self.store_kills
        )
        all_of_them = ["worker"] * max(0, self.worker_kills - self.host_kills * self.workers) + rare
        chance.shuffle(all_of_them)
        return all_of_them


@dataclass
class Report:
    """The result of a run."""

    plan: Plan
    seconds: float = 0.0
    tasks: int = 0
    succeeded: int = 0
    wrong: list[str] = field(default_factory=list)
    """The violations, a line each; empty when nothing is wrong."""
    starts: int = 0
    blows: Counter[str] = field(default_factory=Counter)
    workers_killed: int = 0
    handed_on: dict[str, list[float]] = field(default_factory=dict)
    """Target → seconds until the last of its tasks was dispatched to another."""
    begun_again: dict[str, list[float]] = field(default_factory=dict)
    """Dead worker → seconds until the last of its tasks ran again, whatever was hit meanwhile; where the store was killed
    meanwhile also the part of them since it came back."""
    longest: list[str] = field(default_factory=list)
    """The history of the tasks that waited longest, for each kind of blow."""
    refused: int = 0
    lost: int = 0

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{self.tasks:,} tasks in {self.seconds:,.0f} s, {self.starts:,} starts, {self.succeeded:,} right results",
            f"blows: {', '.join(f'{n} {what}' for what, n in sorted(self.blows.items()))}"
            f" ({self.workers_killed:,} workers killed); refused results of zombies: {self.refused}",
        ]
        for what, found in (("handed on after", self.handed_on), ("begun again after", self.begun_again)):
            for who, times in sorted(found.items()):
                times.sort()
                p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
                lines.append(
                    f"tasks of a {who} were {what}: median {statistics.median(times):.2f} s, p99 {p99:.2f} s,"
                    f" longest {times[-1]:.2f} s ({len(times)} times; lease {self.plan.lease:g} s)"
                )
        lines += [f"  {line}" for line in self.longest]
        lines.append(
            f"{len(self.wrong)} things wrong"
            if self.wrong
            else "0 lost, 0 settled twice, 0 hanging, 0 keys left"
        )
        lines += [f"  {line}" for line in self.wrong[:50]]
        return "\n".join(lines)


class Chaos:
    """One run in `directory`."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self._directory = directory
        self._chance = random.Random(plan.seed)
        self._story = Story(directory / "oracle.txt")
        self._handouts = Handouts()
        self._store = Server(
            find_binary(), "--appendonly", "yes", "--appendfsync", plan.appendfsync, start=False
        )
        self._hosts: list[ServerProcess] = []
        self._ended_hosts: list[ServerProcess] = []
        self._nodes: dict[int, str] = {}
        self._report = Report(plan)
        self._killed: list[tuple[str, int, float]] = []
        self._store_times: list[tuple[float, float]] = []
        self._frozen: dict[int, asyncio.TimerHandle] = {}
        self._done_events: Counter[str] = Counter()
        self._deaf: asyncio.TimerHandle | None = None
        self._unacknowledged = 0
        self._queued = 0

    async def run(self) -> Report:
        """Run all of it. The report has the violations; a run that cannot be made at all raises."""
        started = now()
        (self._directory / "manage.py").write_text(MANAGE)
        (self._directory / "config.py").write_text('task_paths = ["jobs"]\n')
        (self._directory / "jobs.py").write_text(JOBS)
        self._store.start()
        try:
            await self._run()
        finally:
            for timer in [*self._frozen.values(), *([self._deaf] if self._deaf else [])]:
                timer.cancel()
            for pid in self._frozen:
                _signal(pid, signal.SIGCONT)
            for host in [*self._hosts, *self._ended_hosts]:
                await asyncio.to_thread(host.kill)
            self._store.close()
        self._report.seconds = now() - started
        return self._report

    async def _run(self) -> None:
        report, plan = self._report, self.plan
        self._hosts = [self._new_host() for _ in range(plan.hosts)]
        app = PulsarQueue(task_paths=[], data_store=self._store.url, name="chaos")
        async with app.api() as api:
            await api.on_events("task", "done", self._on_done)
            await api.on_events("task", "started", self._on_started)
            await api.on_events("task", "retry", self._on_retry)
            tries: set[asyncio.Task[None]] = set()
            blows = plan.blows(self._chance)
            per_blow = plan.tasks / max(1, len(blows))
            number = 0
            for i, blow in enumerate([*blows, None]):
                upto = plan.tasks if blow is None else int(per_blow * (i + 1))
                while number < upto:
                    wave = range(number, min(upto, number + WAVE))
                    number = wave.stop
                    task = asyncio.create_task(self._work(api, wave))
                    tries.add(task)
                    task.add_done_callback(tries.discard)
                    while len(tries) > 40:  # enough is under way
                        await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
                if blow is not None:
                    await asyncio.sleep(self._chance.uniform(0.3, 1.7) * plan.pause)
                    await self._hit(blow)
            await self._come_to_an_end(tries)
        self._look_at_ends()
        report.tasks = self._queued

    def _on_done(self, channel: str, event: str, task: Any) -> None:
        self._done_events[task.id] += 1
        self._handouts.ended(task.id)

    def _on_started(self, channel: str, event: str, task: Any) -> None:
        self._handouts.started(task.id, f"{task.node}/{task.worker}", now())

    def _on_retry(self, channel: str, event: str, task: Any) -> None:
        self._handouts.ended(task.id)

    def _new_host(self) -> ServerProcess:
        plan = self.plan
        node = f"host{len(self._nodes)}"
        host = ServerProcess(
            self._directory,
            *(
                "-w",
                str(plan.workers),
                "--concurrent-tasks",
                str(plan.concurrency),
                "--lease",
                f"{plan.lease:g}",
            ),
            *("--max-crashes", "100", "--log-level", "warning", "--data-store", self._store.url),
            env={"PQ_ORACLE": str(self._story.path), "PQ_NODE_NAME": node},
        )
        self._nodes[host.process.pid] = node
        return host

    # -------------------------------------------------------------------------------- the work
    async def _work(self, api: Producer, numbers: range) -> None:
        """Queue a wave and await each of its tasks; note the wrong results."""
        calls = []
        for n in numbers:
            kind = (
                "process" if n % 97 == 0 else "thread" if n % 10 == 1 else "retry" if n % 31 == 2 else "loop"
            )
            calls.append((KINDS[kind], {"n": n, "ms": (n * 7919) % 40}))
        futures = api.tasks.queue_many(calls)
        for n, future in zip(numbers, futures, strict=True):
            try:
                task = await future
            except TaskLost:
                self._report.lost += 1
                self._report.wrong.append(f"task {n} was lost by the store, and it was said so")
                continue
            except Exception as exc:
                self._unacknowledged += 1
                self._report.wrong.append(f"task {n}: {type(exc).__name__}: {exc}")
                continue
            if task.status_string != "SUCCESS" or task.result != result_of(n):
                self._report.wrong.append(
                    f"task {n}: {task.status_string}, {task.result!r}, {task.exception}"
                )
            else:
                self._report.succeeded += 1
        self._queued += len(numbers)

    async def _come_to_an_end(self, tries: set[asyncio.Task[None]]) -> None:
        if tries:
            _, hanging = await asyncio.wait(tries, timeout=self.plan.patience)
            for task in hanging:
                task.cancel()
            if hanging:
                await asyncio.gather(*hanging, return_exceptions=True)
                self._report.wrong.append(
                    f"{len(hanging)} waves hang {self.plan.patience:g} s after the last blow; {self._where_it_stands()}"
                )

    def _where_it_stands(self) -> str:
        with redis.Redis.from_url(self._store.url, socket_timeout=300) as client:
            queues, _ = dump_server(client, live=True)
        return ", ".join(
            f"{name}: {len(q.ready)} ready, {len(q.delayed)} delayed, {sum(map(len, q.held.values()))} held"
            f" under {len(q.leases)} leases"
            for name, q in queues.items()
        )

    # -------------------------------------------------------------------------------- the blows
    async def _hit(self, blow: str) -> None:
        self._report.blows[blow] += 1
        await getattr(self, f"_hit_{blow}")()

    async def _victim(self, kind: str | None = None) -> int | None:
        """Return a process that runs a task; wait a while for one."""
        for _ in range(100):
            self._story.read()
            if kind is None:
                pids = self._story.workers()
            else:
                pids = list(dict.fromkeys(pid for pid, its in self._story.recent if its == kind))
            pids = [pid for pid in pids if pid not in self._frozen and alive(pid)]
            if pids:
                return self._chance.choice(pids)
            await asyncio.sleep(0.05)
        return None

    async def _hit_worker(self) -> None:
        pid = await self._victim()
        if pid is not None:
            self._kill("worker", pid)

    async def _hit_child(self) -> None:
        pid = await self._victim("process")
        if pid is not None:
            self._kill("child", pid)

    def _kill(self, what: str, pid: int) -> None:
        at = now()
        _signal(pid, signal.SIGKILL)
        self._killed.append((what, pid, at))
        if what == "worker":
            self._handouts.hit("dead worker", self._story.names[pid], at)
            self._report.workers_killed += 1

    async def _hit_freeze(self) -> None:
        pid = await self._victim()
        if pid is None:
            return
        _signal(pid, signal.SIGSTOP)
        self._handouts.hit("frozen worker", self._story.names[pid], now())
        self._frozen[pid] = asyncio.get_running_loop().call_later(self.plan.lease * 1.7, self._thaw, pid)

    def _thaw(self, pid: int) -> None:
        self._frozen.pop(pid, None)
        _signal(pid, signal.SIGCONT)

    async def _hit_host(self) -> None:
        host = self._hosts.pop(self._chance.randrange(len(self._hosts)))
        self._story.read()
        session = host.process.pid
        at = now()
        workers = [pid for pid in self._story.workers() if _session_of(pid) == session]
        self._killed += [("host", pid, at) for pid in workers]
        for who in self._handouts.of_node(self._nodes[session]):
            self._handouts.hit("dead host", who, at)
        self._report.workers_killed += self.plan.workers
        os.killpg(session, signal.SIGKILL)
        for pid in list(self._frozen):
            if not alive(pid):
                self._frozen.pop(pid).cancel()
        self._ended_hosts.append(host)
        self._hosts.append(self._new_host())

    async def _hit_store(self) -> None:
        at = now()
        self._handouts.forget()
        self._store.kill()
        await asyncio.sleep(self._chance.uniform(0, 2) * self.plan.store_away)
        await asyncio.to_thread(self._store.start)
        self._store_times.append((at, now()))
        # Until the subscription is back what happens is not heard.
        self._deaf = asyncio.get_running_loop().call_later(DEAF, self._handouts.forget)

    # ---------------------------------------------------------------------------- looking back
    def _look_at_ends(self) -> None:
        """Stop the servers in order, then look at the leftovers."""
        report, wrong = self._report, self._report.wrong
        for pid, timer in list(self._frozen.items()):
            timer.cancel()
            self._thaw(pid)
        for host in self._hosts:
            code = host.stop()
            if code:
                wrong.append(f"a server ended with code {code}:\n{host.log[-2000:]}")
        for host in [*self._hosts, *self._ended_hosts]:
            report.refused += sum("refused" in line for line in host.lines)
            wrong += [f"log: {line}" for line in host.lines if "Traceback" in line or "has ended" in line]
        # A script that goes over a million keys takes its time.
        with redis.Redis.from_url(self._store.url, socket_timeout=300) as client:
            queues, strangers = dump_server(client, live=True)
            counted: Counter[str] = Counter()
            for key in client.scan_iter("pq:{*}:stats:*", count=1000):
                counted.update({k.decode(): int(v) for k, v in client.hgetall(key).items()})
        wrong += [f"store: {line}" for line in strangers]
        for name, queue in queues.items():
            wrong += [f"store: {name}: {line}" for line in broken_invariants(queue)]
            live = [id for id, record in queue.records.items() if record[:1] in b"qg"]
            if live:
                wrong.append(f"store: {name}: {len(live)} tasks were never ended, such as {live[0]}")
            if (
                queue.held
            ):  # the lease of a dead host may be left, for the next worker to sweep; with nothing in it
                wrong.append(f"store: {name}: tasks are held under {len(queue.held)} leases")
        ends = counted["succeeded"] + counted["failed"] + counted["revoked"]
        if self.plan.appendfsync == "always" and not report.wrong and ends != self._queued:
            wrong.append(f"the store counted {ends} ends of {self._queued} tasks")
        twice = [id for id, n in self._done_events.items() if n > 1]
        if twice:
            wrong.append(f"{len(twice)} tasks were announced as done twice, such as {twice[0]}")
        self._story.read()
        not_run = [n for n in range(self.plan.tasks) if n not in self._story.ended]
        if not_run and not self._unacknowledged and not report.lost:
            wrong.append(
                f"{len(not_run)} tasks have a result and never came to their end, such as {not_run[0]}"
            )
        report.starts = sum(map(len, self._story.begun.values()))
        self._recoveries()

    def _recoveries(self) -> None:
        again = self._report.begun_again
        for what, pid, at in self._killed:
            took = self._story.recovery(pid, at)
            if took is None:
                continue
            self._note(again, f"dead {what}", at, took)
            back = [end for begin, end in self._store_times if at <= begin and end <= at + took]
            if back:
                of_it = at + took - max(back)
                again.setdefault(f"dead {what}, from the store's last return on,", []).append(of_it)
        told: Counter[str] = Counter()
        cases = [(case.longest, case) for case in self._handouts.cases if case.longest is not None]
        for took, case in sorted(cases, key=lambda each: each[0], reverse=True):
            self._note(self._report.handed_on, case.what, case.at, took)
            told[case.what] += 1
            if told[case.what] <= SHOWN:
                self._report.longest.append(case.text())

    def _note(self, to: dict[str, list[float]], what: str, at: float, took: float) -> None:
        away = any(begin - self.plan.lease <= at + took and end + 1 >= at for begin, end in self._store_times)
        to.setdefault(f"{what} with the store away" if away else what, []).append(took)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def run(plan: Plan, directory: Path) -> Report:
    """One run; the report."""
    started = time.monotonic()
    report = asyncio.run(Chaos(plan, directory).run())
    report.seconds = time.monotonic() - started
    return report
