"""The broker on Redis or Valkey: its ports, and the connections that they share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...clock import SYSTEM, Clock
from ...config import redact
from ...errors import StoreRefused
from ..contract.broker import Renewer
from ..keys import Keys
from .acl import RIGHTS, check_rights
from .calls import Calls, Links
from .channels import RedisChannels
from .codec import is_clustered, read_info, read_version
from .looks import RedisLooks
from .renewer import RedisRenewer
from .scanning import Keyspace, ServerKeyspace
from .schedules import RedisSchedules
from .server import Access, Server, SingleServer
from .work import RedisWork

OLDEST = (6, 2)
"""The oldest Redis that has all commands of the scripts."""
RENEWER_PATIENCE = 1.0
"""Seconds for which a renewal is repeated: a lease that cannot be renewed should be noticed soon."""
RENEWER_TIMEOUT = 5.0
"""Seconds for which the answer to a renewal is waited for."""


class RedisBroker:
    """Keeps the contract on one server.

    `patience`: seconds for which a failing call is repeated, `timeout`: those for which one is waited for.
    `stated`: which setting has the URL, and where. `result_ttl` and `dead_ttl` are in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "pq",
        result_ttl: float = 3600.0,
        dead_ttl: float = 7 * 86_400.0,
        patience: float = 30.0,
        timeout: float = 10.0,
        name: str = "pq",
        clock: Clock = SYSTEM,
        on_unreachable: Callable[[], Awaitable[None]] | None = None,
        stated: str | None = None,
    ) -> None:
        self.where = redact(url)
        self.access = Access(url, self.where, stated, name, timeout, clock)
        self.keys = Keys(namespace)
        self.server = self.make_server(self.access)
        self.calls = Calls(
            self.make_links(),
            self.keys,
            where=self.where,
            stated=stated,
            patience=patience,
            clock=clock,
            always=self.server.always,
            on_unreachable=on_unreachable,
        )
        keyspace = self.make_keyspace()
        # A finished record stays a minute even where results are not kept: until then a repeated
        # enqueue or settle finds it, and is harmless.
        ttl = int(max(60.0, result_ttl) * 1000)
        self.work = self.make_work(ttl=ttl, dead_ttl=max(ttl, int(dead_ttl * 1000)))
        self.looks = RedisLooks(self.calls, self.server, keyspace)
        self.schedules = RedisSchedules(self.calls)
        self.channels = RedisChannels(self.calls, self.server, keyspace)

    # ------------------------------------------- what differs on a primary with Sentinels, or a cluster
    def make_server(self, access: Access) -> Server:
        """Make what connections lead to."""
        return SingleServer(access)

    def make_links(self) -> Links:
        """Make what calls go over."""
        return Links(*[self.server.link() for _ in Links._fields])

    def make_work(self, *, ttl: int, dead_ttl: int) -> RedisWork:
        """Make the port that moves tasks."""
        return RedisWork(self.calls, ttl=ttl, dead_ttl=dead_ttl)

    def make_keyspace(self) -> Keyspace:
        """Make what goes through all keys."""
        return ServerKeyspace(self.calls)

    # ------------------------------------------------------------------------------------- its life
    @property
    def connected_since(self) -> float | None:
        """See `Broker.connected_since`."""
        return self.calls.links.main.stands_since(self.work.serving)

    @property
    def time_override(self) -> Callable[[], int | str] | None:
        """Returns the time that scripts take for the store's; None for the store's own clock."""
        return self.calls.time_override

    @time_override.setter
    def time_override(self, override: Callable[[], int | str] | None) -> None:
        self.calls.time_override = override

    async def open(self) -> None:
        """See `Broker.open`."""
        calls = self.calls
        # The first call is repeated for another time than later ones: see `Server.patience_at_first`.
        patience, calls.patience = calls.patience, self.server.patience_at_first(calls.patience)
        try:
            (reply,) = await calls.repeat(calls.links.main, [("INFO", "server")])
        finally:
            calls.patience = patience
        info = read_info(reply)
        calls.version = read_version(info)
        if calls.version < OLDEST:
            raise StoreRefused(
                f"{self.where} is Redis {info.get('redis_version', '?')}, and 6.2 is the oldest that serves",
                hint="upgrade it to Redis 6.2 or Valkey 7.2 or later",
            )
        self.server.check_mode(is_clustered(info))
        await self.server.open()

    async def close(self) -> None:
        """See `Broker.close`."""
        await self.server.close()
        for subscription in list(self.channels.subscriptions):
            await subscription.close()
        await self.calls.close()

    async def check_rights(self) -> None:
        """See `Broker.check_rights`."""
        await check_rights(self.calls.run_all, self.keys, where=self.where, tag=RIGHTS)

    def renewer(self) -> Renewer:
        """See `Broker.renewer`."""
        access = self.access
        options: dict[str, Any] = {"name": access.name, "clock": access.clock, "stated": access.stated}
        other = type(self)(
            access.url,
            namespace=self.keys.namespace,
            patience=RENEWER_PATIENCE,
            timeout=RENEWER_TIMEOUT,
            **options,
        )
        other.time_override = self.calls.given_time
        return RedisRenewer(other.work, other.close)

    async def own_name(self, proposed: str) -> str:
        """See `Broker.own_name`."""
        key = self.keys.large
        _, name = await self.calls.run_all(("SET", key, proposed, "NX"), ("GET", key))
        return str(name, "ascii", "replace")

    async def sweep(self) -> int:
        """Nothing is offloaded here."""
        return 0
