"""The reading port, on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..contract.values import AT_LIMIT, DEAD, DELAYED, ENDED, RUNNING, WAITING, QueueState
from .calls import Calls
from .codec import read_held, read_info
from .link import Command
from .scanning import Keyspace
from .server import Server

SCANNED = 2000
"""Keys that one step through the store looks at."""


class RedisLooks:
    """Keeps `Looks`."""

    def __init__(self, calls: Calls, server: Server, keyspace: Keyspace) -> None:
        self._calls = calls
        self._keys = calls.keys
        self._server = server
        self._keyspace = keyspace

    # ----------------------------------------------------------------------------------- tasks
    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """See `Looks.records`."""
        if not ids:
            return []
        stored: list[bytes | None] = await self._calls.run(
            "MGET", *[self._keys.record(queue, id) for id in ids]
        )
        return stored

    async def peek(self, queue: str, count: int) -> list[str]:
        """See `Looks.peek`."""
        keys = self._keys
        high, low, parked, delayed = await self._calls.run_all(
            ("ZRANGEBYSCORE", keys.prio(queue), "-inf", "(0", "LIMIT", 0, count),
            ("ZRANGEBYSCORE", keys.prio(queue), 0, "+inf", "LIMIT", 0, count),
            ("ZRANGE", keys.parked(queue), 0, count - 1),
            ("ZRANGE", keys.delayed(queue), 0, count - 1),
        )
        ready: list[bytes] = []
        start = 0
        while len(high) + len(ready) < count:  # cancelled ids stay in the list, and are skipped
            page = await self._calls.run("LRANGE", keys.ready(queue), start, start + count - 1)
            if not page:
                break
            cancelled = await self._calls.run("SMISMEMBER", keys.revoked(queue), *page)
            ready += [id for id, gone in zip(page, cancelled, strict=True) if not gone]
            start += count
        return [id.decode() for id in [*high, *ready, *low, *parked, *delayed][:count]]

    async def state(self, queue: str) -> QueueState:
        """See `Looks.state`."""
        ready, prio, delayed, held, leases, dead, paused, parked, due = await self._calls.run_script(
            "inspect", self._keys.prefix(queue), self._calls.given_time()
        )
        return QueueState(ready, prio, delayed, held, leases, dead, bool(paused), parked, due)

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        """See `Looks.ids`."""
        keys = self._keys
        if place == WAITING:
            state = await self.state(queue)
            return await self.peek(queue, min(count, state.ready + state.prio))
        if place == RUNNING:
            return await self._running(queue, count)
        command, key = {
            AT_LIMIT: ("ZRANGE", keys.parked(queue)),
            DELAYED: ("ZRANGE", keys.delayed(queue)),
            ENDED: ("LRANGE", keys.recent(queue)),
            DEAD: ("ZREVRANGE", keys.dead(queue)),
        }[place]
        found = await self._calls.run(command, key, 0, count - 1)
        return list(dict.fromkeys(id.decode() for id in found))

    async def _running(self, queue: str, count: int) -> list[str]:
        leases = await self._calls.run("ZRANGE", self._keys.leases(queue), 0, -1)
        asking: list[Command] = [
            ("SRANDMEMBER", self._keys.held(queue, lease.decode()), count) for lease in leases
        ]
        found = await self._calls.run_all(*asking) if asking else []
        return [id for members in found for _, id, _ in read_held(queue, members or ())][:count]

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        """See `Looks.held`. Over `main`, so that it comes after what was reserved and settled there."""
        calls = self._calls
        asking = [("SMEMBERS", self._keys.held(queue, lease)) for queue in queues]
        found = await calls.repeat(calls.links.main, asking)
        return [
            held for queue, members in zip(queues, found, strict=True) for held in read_held(queue, members)
        ]

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        """See `Looks.dead`."""
        found = await self._calls.run("ZREVRANGE", self._keys.dead(queue), 0, count - 1, "WITHSCORES")
        return [(id.decode(), float(at) / 1000) for id, at in zip(found[::2], found[1::2], strict=True)]

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        """See `Looks.matching`."""
        pattern = self._keys.record("*", prefix + "*").replace("{*}", "{[^@]*}")
        found: set[tuple[str, str]] = set()
        async for names in self._keyspace.scan(pattern, SCANNED):
            for raw in names:
                name = raw.decode()[len(self._keys.namespace) + 2 :]
                queue, _, rest = name.partition("}:task:")
                found.add((queue, rest))
            if len(found) >= most:
                break
        return sorted(found)[:most]

    async def next_due(self, queues: Sequence[str], after: int) -> int | None:
        """See `Looks.next_due`."""
        keys = [key for queue in queues for key in (self._keys.delayed(queue), self._keys.timers(queue))]
        found = await self._calls.run_all(
            *[("ZRANGEBYSCORE", key, f"({after}", "+inf", "WITHSCORES", "LIMIT", 0, 1) for key in keys]
        )
        return min((int(float(pair[1])) for pair in found if pair), default=None)

    # --------------------------------------------------------------------------------- the store
    async def queue_names(self) -> list[str]:
        """See `Looks.queue_names`."""
        names = await self._calls.run("SMEMBERS", self._keys.queues)
        return sorted(name.decode() for name in names)

    async def facts(self) -> dict[str, Any]:
        """See `Looks.facts`."""
        calls = self._calls
        info = read_info(await calls.run("INFO"))
        started = calls.clock.monotonic()
        await calls.run("PING")
        round_trip = calls.clock.monotonic() - started
        facts: dict[str, Any] = {
            "kind": info.get("server_name", "redis").capitalize(),
            "version": info.get("valkey_version") or info.get("redis_version", "?"),
            "where": calls.where,
            "memory": info.get("used_memory_human", "?"),
            "round_trip": round_trip,
            "append_only": info.get("aof_enabled") == "1",
            "policy": info.get("maxmemory_policy", "?"),
            "now": await self.now() / 1000,
        }
        await self._server.add_facts(facts, calls)
        return facts

    async def now(self) -> int:
        """See `Looks.now`."""
        return await self._calls.now()
