"""Events, heartbeats, what tasks say, and locks, on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..contract.values import FENCE_KEPT, KEPT_LINES, Locked, Part, Streamed
from .calls import Calls
from .codec import read_parts, stream_command
from .scanning import Keyspace
from .server import Server
from .subscription import RedisSubscription

SCANNED = 1000
"""Keys that one step through the store looks at."""


class RedisChannels:
    """Keeps `Channels`."""

    def __init__(self, calls: Calls, server: Server, keyspace: Keyspace) -> None:
        self._calls = calls
        self._keys = calls.keys
        self._server = server
        self._keyspace = keyspace
        self.subscriptions: set[RedisSubscription] = set()
        """Those that are open."""

    # ---------------------------------------------------------------------------------- events
    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Channels.publish`."""
        await self._calls.run("PUBLISH", channel, payload)

    async def subscription(self) -> RedisSubscription:
        """See `Channels.subscription`."""
        calls = self._calls
        made = RedisSubscription(
            self._server.maker(),
            where=calls.where,
            # A program that starts in a failover should not fail for it here either.
            patience=max(calls.patience, self._server.patience_at_first(calls.patience)),
            clock=calls.clock,
            on_closed=self.subscriptions.discard,
        )
        self.subscriptions.add(made)
        return made

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        """See `Channels.beat`."""
        await self._calls.run_all(
            ("SET", self._keys.consumer(consumer), payload, "PX", int(ttl * 1000)),
            ("PUBLISH", self._keys.consumer_channel, payload),
        )

    async def consumers(self) -> list[bytes]:
        """See `Channels.consumers`."""
        found: list[bytes] = []
        async for names in self._keyspace.scan(self._keys.consumer("*"), SCANNED):
            if names:
                found += [beat for beat in await self._keyspace.values(names) if beat is not None]
        return found

    # --------------------------------------------------------------------------- what tasks say
    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        """See `Channels.keep_lines`."""
        key = self._keys.log(queue, id)
        await self._calls.run_all(
            ("RPUSH", key, *lines), ("LTRIM", key, -KEPT_LINES, -1), ("PEXPIRE", key, ttl)
        )

    async def lines(self, queue: str, id: str) -> list[bytes]:
        """See `Channels.lines`."""
        lines: list[bytes] = await self._calls.run("LRANGE", self._keys.log(queue, id), 0, -1)
        return lines

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        """See `Channels.keep_progress`."""
        keys = self._keys
        await self._calls.run_all(
            *[("SET", keys.progress(queue, id), text, "PX", ttl) for id, text in facts.items()]
        )

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        """See `Channels.progress`."""
        if not ids:
            return []
        facts: list[bytes | None] = await self._calls.run(
            "MGET", *[self._keys.progress(queue, id) for id in ids]
        )
        return facts

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        """See `Channels.keep_parts`."""
        calls = self._calls
        commands = [
            stream_command(
                self._keys.prefix(each.queue),
                lease,
                each,
                ttl,
                time=calls.given_time(),
                channel=self._keys.stream_channel,
                always=calls.always,
            )
            for each in streamed
        ]
        return [bool(taken) for taken in await calls.run_all(*commands)]

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        """See `Channels.parts`."""
        start = "-" if after is None else f"({after[0]}-{after[1]}"
        key = self._keys.stream(queue, id)
        return read_parts(await self._calls.run("XRANGE", key, start, "+", "COUNT", count))

    # ----------------------------------------------------------------------------------- locks
    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        """See `Channels.lock`."""
        args = (self._calls.given_time(), token, ttl, int(keep), FENCE_KEPT)
        return Locked(*await self._calls.run_script("lock", self._keys.lock(name), *args))

    async def unlock(self, name: str, token: str) -> bool:
        """See `Channels.unlock`."""
        args = (token, self._keys.lock_channel, name)
        return bool(await self._calls.run_script("unlock", self._keys.lock(name), *args))
