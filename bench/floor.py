"""The floor: the cost of the store and the libraries without a task server.

    python floor.py tasks URL PREFIX N        queue N tasks, then drain them; rates as JSON
    python floor.py burn ROUNDS UNITS N       N bare processes share UNITS pieces of work; seconds as JSON

*tasks* is the bare protocol of a task server in one process with one connection: a task has a record and a
place in a list; it is taken under a lease, run as a coroutine, and ended by its holder, which stores
the result with a TTL and publishes it. A message is a plain map. There are no options, limits, retries, events,
time-outs or logs. Every task server does more and is slower; the ratio is the figure to watch.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
import uuid
from typing import Any

import msgpack
import redis.asyncio
from work import burn

from pq.loops import run

BATCH = 100

PUT = """
for at = 1, #ARGV, 2 do
  if redis.call('SET', KEYS[1] .. ARGV[at], ARGV[at + 1], 'NX') then
    redis.call('RPUSH', KEYS[2], ARGV[at])
  end
end
"""

# One script settles ended tasks and takes new ones, in this order.
END = """
local lost = 0
for at = 3, #ARGV, 2 do
  local id, record = ARGV[at], ARGV[at + 1]
  if redis.call('SREM', KEYS[2], id) == 1 then
    redis.call('SET', KEYS[1] .. id, record, 'PX', ARGV[1])
    redis.call('PUBLISH', ARGV[2], record)
  else
    lost = lost + 1
  end
end
return lost
"""
TAKE = """
local ids = redis.call('LPOP', KEYS[3], ARGV[1])
if not ids then return {} end
redis.call('SADD', KEYS[2], unpack(ids))
local names = {}
for at, id in ipairs(ids) do names[at] = KEYS[1] .. id end
return redis.call('MGET', unpack(names))
"""
KEPT = 3_600_000

pack = msgpack.Packer().pack


async def addition(a: int, b: int) -> int:
    return a + b


class Floor:
    """The bare protocol, on keys that begin with `prefix`."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        self.client = client
        self.records, self.held, self.ready = f"{prefix}task:", f"{prefix}held", f"{prefix}ready"
        self.channel = f"{prefix}reply"

    async def open(self) -> None:
        self.put, self.end, self.take = [await self.client.script_load(text) for text in (PUT, END, TAKE)]

    def new(self, number: int) -> tuple[str, bytes]:
        """Return the id and the record of a task."""
        id = uuid.uuid4().hex
        task = {
            "id": id,
            "name": "addition",
            "queue": "default",
            "kwargs": {"a": number, "b": 2},
            "status": 6,
            "retry": 1,
            "time_queued": time.time(),
            "reply": self.channel,
            "timeout": None,
            "delay": None,
        }
        return id, pack(task)

    async def queue(self, n: int, batch: int = BATCH) -> float:
        """Queue `n` tasks, `batch` in a call; return tasks a second."""
        started = time.perf_counter()
        for first in range(0, n, batch):
            arguments: list[Any] = []
            for number in range(first, min(n, first + batch)):
                arguments += self.new(number)
            await self.client.evalsha(self.put, 2, self.records, self.ready, *arguments)
        return n / (time.perf_counter() - started)

    async def drain(self, n: int) -> dict[str, float]:
        """Run `n` tasks; return the time."""
        ended: list[Any] = []
        running = finished = 0
        loop = asyncio.get_running_loop()

        async def attempt(record: bytes) -> None:
            nonlocal running
            task = msgpack.unpackb(record)
            task["status"], task["time_started"] = 5, time.time()
            task["result"] = await addition(**task["kwargs"])
            task["status"], task["time_ended"] = 1, time.time()
            ended.append(task["id"])
            ended.append(pack(task))
            running -= 1

        server = await server_cpu(self.client)
        own, started = time.process_time(), time.perf_counter()
        while finished < n:
            both = self.client.pipeline(transaction=False)
            if ended:
                finished += len(ended) // 2
                both.evalsha(self.end, 2, self.records, self.held, KEPT, self.channel, *ended)
                ended.clear()
            both.evalsha(self.take, 3, self.records, self.held, self.ready, BATCH - running)
            for record in (await both.execute())[-1]:
                running += 1
                loop.create_task(attempt(record))  # noqa: RUF006  it ends before anything is collected
            await asyncio.sleep(0)
        seconds = time.perf_counter() - started
        own = time.process_time() - own
        server = await server_cpu(self.client) - server
        return {"drain": n / seconds, "server_us": server / n * 1e6, "worker_us": own / n * 1e6}

    async def clean(self) -> None:
        await self.client.unlink(self.held, self.ready)
        async for names in chunks(self.client, self.records + "*"):
            await self.client.unlink(*names)


async def chunks(client: redis.asyncio.Redis, pattern: str) -> Any:
    """Yield the matching keys in batches."""
    cursor: Any = None
    while cursor != 0:
        cursor, names = await client.scan(cursor or 0, match=pattern, count=5000)
        if names:
            yield names


async def server_cpu(client: redis.asyncio.Redis) -> float:
    """Return the CPU time of the server in seconds."""
    told = await client.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


async def tasks(url: str, prefix: str, n: int) -> dict[str, float]:
    """Measure the bare protocol after a warm-up."""
    client = redis.asyncio.Redis.from_url(url)
    floor = Floor(client, prefix)
    await floor.open()
    try:
        warm = max(500, n // 10)
        await floor.queue(warm)
        await floor.drain(warm)
        single = max(200, n // 10)
        figures = {"queue_one": await floor.queue(single, batch=1)}
        await floor.drain(single)
        figures["queue"] = await floor.queue(n)
        return figures | await floor.drain(n)
    finally:
        await floor.clean()
        await client.aclose()


def share(barrier: Any, rounds: int, units: int) -> None:
    """Do the share of one bare process, after all have started."""
    for _ in range(4):
        burn(rounds)
    barrier.wait(30)
    for _ in range(units):
        burn(rounds)
    barrier.wait(60)


def burning(rounds: int, units: int, processes: int) -> dict[str, float]:
    """Do the work of the job `burning` without a queue."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes + 1)
    parts = [units // processes + (i < units % processes) for i in range(processes)]
    children = [context.Process(target=share, args=(barrier, rounds, part), daemon=True) for part in parts]
    for child in children:
        child.start()
    barrier.wait(30)
    started = time.perf_counter()
    barrier.wait(60)
    seconds = time.perf_counter() - started
    for child in children:
        child.join(10)
    return {"seconds": seconds}


def main() -> None:
    what, *words = sys.argv[1:]
    figures = run(tasks(words[0], words[1], int(words[2]))) if what == "tasks" else burning(*map(int, words))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
