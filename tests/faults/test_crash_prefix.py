"""The store dies in the middle of a write: whatever part of its file is left, nothing in it is broken or stuck.

A workload is written down in an append-only file. The file is cut at ends of commands and at bytes between them,
and a server is started on each prefix. What it then holds must keep every invariant, and a worker must be able
to drain it to the last task.

`PQ_CUTS=2000 pytest tests/faults/test_crash_prefix.py` makes N cuts.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from stores import Server, broken_invariants, dump_server

from pq.broker import records
from pq.broker.contract.values import Entry, ReserveCall, Reserved, Settlement, Tick
from pq.broker.embedded import find_binary
from pq.broker.redis.broker import RedisBroker
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY

COUNT = int(os.environ.get("PQ_CUTS", "60"))
SEED = int(os.environ.get("PQ_CUT_SEED", "1"))
QUEUES = ("one", "two")
DEMANDS = ("", "", "", "c2:a", "c1:b,r1000.1:r", "uf:k", "ul:k", "c1:b,x")


def live(id: str, limits_text: str, priority: int = 0, token: str = "") -> bytes:
    return records.live_header(priority, token, limits_text) + id.encode()


class Workload:
    """All verbs that move tasks, in a random order, by two workers of which one dies now and then."""

    def __init__(self, broker: RedisBroker, seed: int) -> None:
        self.broker = broker
        self.chance = random.Random(seed)
        self.limits_text: dict[str, str] = {}
        self.held: dict[str, list[Reserved]] = {}
        self.batch = 0
        self.leases = 0

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self.chance.choice(
                [self.enqueue, self.work, self.work, self.work, self.die, self.cancel, self.other]
            )()

    def new(self, queue: str) -> str:
        id = f"{queue}-{len(self.limits_text)}"
        self.limits_text[id] = self.chance.choice(DEMANDS)
        return id

    async def enqueue(self) -> None:
        queue = self.chance.choice(QUEUES)
        entries = []
        for _ in range(self.chance.randint(1, 8)):
            id, priority = self.new(queue), self.chance.choice([0, 0, 0, 5, -5])
            wants = self.limits_text[id]
            delay = self.chance.choice([None, None, None, 1, 20])
            entries.append(Entry(id, live(id, wants, priority), delay, priority, "u" in wants))
        await self.broker.work.enqueue(queue, entries)

    async def work(self) -> None:
        if not self.held or (len(self.held) < 2 and self.chance.random() < 0.3):
            self.leases += 1
            lease = f"L{self.leases}"
            await self.broker.work.open_lease(lease, QUEUES, 60_000)
            self.held[lease] = []
        lease = self.chance.choice(list(self.held))
        mine = self.held[lease]
        self.chance.shuffle(mine)
        ended, self.held[lease] = mine[: len(mine) * 2 // 3], mine[len(mine) * 2 // 3 :]
        settlements: dict[str, list[Settlement]] = {}
        for task in ended:
            settlements.setdefault(task.queue, []).append(self.end(lease, task))
        self.batch += 1
        answer = await self.broker.work.exchange(
            ReserveCall(lease, QUEUES, 6, self.batch, idle=True), settlements
        )
        self.held[lease] += answer.tasks

    def end(self, lease: str, task: Reserved) -> Settlement:
        op = self.chance.choice([ACK, ACK, ACK, FAIL, RETRY, RELEASE, CRASH])
        token, wants = f"{lease}:{task.batch}", self.limits_text[task.id]
        record = live(task.id, wants, 0, token) if op == RETRY else records.finished_header(1, token) + b"end"
        return Settlement(op, task.id, task.batch, record, "", 5 if op == RETRY else 0, wants != "")

    async def die(self) -> None:
        if self.held and self.chance.random() < 0.3:
            lease = self.chance.choice(list(self.held))
            del self.held[lease]
            await self.broker.work.hand_back(lease, QUEUES, crashed=True)

    async def cancel(self) -> None:
        id = self.chance.choice(list(self.limits_text) or ["one-0"])
        queue = id.partition("-")[0]
        await self.broker.work.cancel(queue, [(id, records.finished_header(3, "cancel:0") + b"end", "")])

    async def other(self) -> None:
        queue = self.chance.choice(QUEUES)
        ids = [id for id in self.limits_text if id.startswith(queue)]
        if ids:
            id = self.chance.choice(ids)
            await self.broker.work.retry_dead(queue, Entry(id, live(id, self.limits_text[id])))
        id = self.new(queue)
        await self.broker.work.tick(
            queue, [Tick("s", int(time.time() * 1000) - 5, id, live(id, self.limits_text[id]))]
        )


async def drain(broker: RedisBroker, lease: str) -> int:
    """Reclaim the tasks of others, and settle all; return their number."""
    total = 0
    later = int(time.time() * 1000)
    for batch in range(1, 1000):
        later += 3_600_000  # what is delayed is due, what is leased is over, what is limited in time may go
        broker.time_override = lambda at=later: at  # type: ignore[misc]
        await broker.work.open_lease(lease, QUEUES, 10 * 3_600_000)
        answer = await broker.work.exchange(
            ReserveCall(lease, QUEUES, 100, batch, idle=True, stable_for=0), {}
        )
        ended: dict[str, list[Settlement]] = {}
        for task in answer.tasks:
            header = records.finished_header(1, f"{lease}:{task.batch}")
            limited = task.record[:1] == b"g"
            ended.setdefault(task.queue, []).append(
                Settlement(ACK, task.id, task.batch, header + b"end", "", 0, limited)
            )
        total += len(answer.tasks)
        refused = (await broker.work.exchange(ReserveCall(lease, QUEUES, 0, 0), ended)).refused
        assert not refused
        states = [await broker.looks.state(queue) for queue in QUEUES]
        if not answer.tasks and all(state.waiting == 0 and state.held == 0 for state in states):
            return total
    raise AssertionError(f"it cannot be drained: {states}")


def boundaries(data: bytes) -> list[int]:
    """Where commands end in an append-only file (RESP, with lines of notes between)."""
    found, at = [], 0
    while at < len(data):
        line = data.index(b"\r\n", at)
        if data[at : at + 1] != b"*":
            at = line + 2
            continue
        count, at = int(data[at + 1 : line]), line + 2
        for _ in range(count):
            line = data.index(b"\r\n", at)
            at = line + 2 + int(data[at + 1 : line]) + 2
        found.append(at)
    return found


@pytest.mark.timeout(3600)
def test_every_prefix_of_the_file_is_whole_and_can_be_drained(tmp_path: Path) -> None:
    """Cut at ends of commands and between them: no invariant is broken, and nothing is stuck."""
    binary = find_binary()
    options = ("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
    server = Server(binary, *options)
    try:

        async def write() -> None:
            broker = RedisBroker(server.url, patience=5)
            await broker.open()
            await Workload(broker, SEED).run(250)
            await broker.close()

        asyncio.run(write())
        redis.Redis(unix_socket_path=str(server.socket)).execute_command("WAITAOF", 0, 0, 0)
    finally:
        server.kill()
    files = server.directory / "appendonlydir"
    log = max(files.glob("*.incr.aof"), key=lambda path: path.stat().st_size)
    data = log.read_bytes()
    ends = boundaries(data)
    assert len(ends) > 1000, "a story worth cutting"
    chance = random.Random(SEED)
    lengths = chance.sample(ends, min(COUNT // 2, len(ends))) + [
        chance.randrange(len(data)) for _ in range(COUNT - COUNT // 2)
    ]
    drained = 0
    for cut in lengths:
        drained += examine(binary, options, files, log.name, data[:cut], cut)
    shutil.rmtree(server.directory)
    print(
        f"{len(lengths)} cuts of {len(data):,} bytes and {len(ends):,} commands; {drained:,} tasks were drained"
    )
    assert drained > 0


def examine(binary: Path, options: tuple[str, ...], files: Path, name: str, left: bytes, cut: int) -> int:
    """Start a server on the rest of the file: the contents are whole, and can be drained."""
    server = Server(binary, *options, "--aof-load-truncated", "yes", start=False)
    try:
        shutil.copytree(files, server.directory / "appendonlydir")
        (server.directory / "appendonlydir" / name).write_bytes(left)
        server.start()
        client = redis.Redis(unix_socket_path=str(server.socket))
        while True:
            try:
                client.ping()
                break
            except redis.BusyLoadingError:
                time.sleep(0.005)
        queues, strangers = dump_server(client)
        found = [f"{q}: {text}" for q, dump in queues.items() for text in broken_invariants(dump)]
        assert not found + strangers, f"seed {SEED}, cut at {cut}: {found + strangers}"

        async def empty() -> int:
            broker = RedisBroker(server.url, patience=5)
            await broker.open()
            try:
                return await drain(broker, "drain")
            finally:
                await broker.close()

        count = asyncio.run(empty())
        queues, _ = dump_server(client)
        left_over: list[Any] = [
            (q, d.slots, d.parked, d.held) for q, d in queues.items() if d.slots or d.parked or d.held
        ]
        assert not left_over, f"seed {SEED}, cut at {cut}: {left_over}"
        client.close()
        return count
    finally:
        server.close()
