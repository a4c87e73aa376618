"""The broker on a cluster: each call goes to the node that has its queue (`pq.broker.redis.slots`).

All keys of a queue are in one slot, so a script still sees all that it needs and is atomic. How a worker reserves
from several queues is in `pq.broker.redis.cluster_work`.

Events are published without asking for listeners: no node knows the subscriptions at another.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from ...config.hosts import parse_hosts
from ...errors import StoreError, StoreRefused, StoreUnavailable
from .acl import RIGHTS, check_rights
from .backoff import pause
from .broker import RedisBroker
from .calls import Calls, Links
from .cluster_work import ClusterWork
from .failures import checked
from .link import Link
from .queue_wait import QueueWaits
from .scanning import Keyspace
from .server import Access, Server, connection_options
from .slots import Address, ClusterLink, Slots, slot_of
from .wire import Maker

logger = logging.getLogger("pq.broker")

FAILOVER_PATIENCE = 15.0
"""Seconds for which the first connection is tried: a failover takes some seconds."""
TAGS = 100_000
"""Names that are tried at most to find one in a slot of each master. One with a handful of all slots may be left out."""


class ClusterServer:
    """The nodes of a cluster, for `RedisBroker`."""

    always = "1"

    def __init__(self, access: Access) -> None:
        self._access = access
        self.first_patience = FAILOVER_PATIENCE
        hosts = parse_hosts(access.url)
        options = connection_options(hosts.server)
        self._connection_class = options.pop("connection_class")
        self._options = {**options, "client_name": access.name}
        self.slots = Slots(hosts.hosts, self._connection_to, where=access.where, stated=access.stated)

    def _connection_to(self, node: Address) -> AbstractConnection:
        made: AbstractConnection = self._connection_class(
            **{**self._options, "host": node[0], "port": node[1]}
        )
        return made

    def link(self) -> ClusterLink:
        """See `Server.link`."""
        return ClusterLink(self.slots, self.link_to, where=self._access.where)

    def link_to(self, node: Address) -> Link:
        """Make a connection for calls to one node."""
        make = functools.partial(self._connection_to, node)
        access = self._access
        return Link(make, where=f"{node[0]}:{node[1]}", stated=access.stated, timeout=access.timeout)

    def maker(self) -> Maker:
        """See `Server.maker`."""
        return self._listening_connection

    async def _listening_connection(self) -> AbstractConnection:
        """Connect to any node: what is published at one of them reaches all."""
        await self.slots.fresh()
        connection = self._connection_to(self.slots.any_master())
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self.slots.stale = True
            await connection.disconnect(nowait=True)
            raise
        return connection

    def patience_at_first(self, patience: float) -> float:
        """Return at least the time of a failover: a program that starts in one should not fail for it."""
        return max(patience, self.first_patience)

    def check_mode(self, clustered: bool) -> None:
        """See `Server.check_mode`."""
        if not clustered:
            raise StoreRefused(f"{self._access.where} is not a cluster", hint="name it as redis://host:port")

    async def open(self) -> None:
        """It does nothing by itself."""

    async def close(self) -> None:
        """It does nothing by itself."""

    async def add_facts(self, facts: dict[str, Any], calls: Calls) -> None:
        """Add how many masters there are."""
        facts["kind"] += f" cluster ({len(self.slots.masters)} masters)"


class ClusterKeyspace:
    """The keys of all nodes."""

    def __init__(self, calls: Calls, slots: Slots, link: ClusterLink) -> None:
        self._calls = calls
        self._slots = slots
        self._link = link

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Yield all at once. A failure starts it again: the keys of that node are at another one then."""
        calls = self._calls
        started = calls.clock.monotonic()
        failures = 0
        while True:
            try:
                await self._slots.fresh()
                found = [
                    name for node in self._slots.masters for name in await self._names(node, pattern, count)
                ]
                break
            except StoreUnavailable:
                if calls.clock.monotonic() - started >= calls.patience:
                    raise
                failures += 1
                await asyncio.sleep(pause(failures, calls.clock.random()))
        yield list(dict.fromkeys(found))  # a key on its way is seen at both its nodes

    async def _names(self, node: Address, pattern: str, count: int) -> list[bytes]:
        found: list[bytes] = []
        cursor: Any = 0
        while True:
            reply = await self._link.at(node, ("SCAN", cursor, "MATCH", pattern, "COUNT", count))
            cursor, names = checked(reply, self._calls.where)
            found += names
            if int(cursor) == 0:
                return found

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Keyspace.values`. One call for each: they are in many slots."""
        return await self._calls.run_all(*[("GET", key.decode()) for key in keys])


class ClusterBroker(RedisBroker):
    """Keeps the contract on a cluster."""

    nodes: ClusterServer
    waits: QueueWaits
    _side: ClusterLink

    def make_server(self, access: Access) -> Server:
        """See `RedisBroker.make_server`."""
        self.nodes = ClusterServer(access)
        return self.nodes

    def make_links(self) -> Links:
        """See `RedisBroker.make_links`."""
        self._side = self.nodes.link()
        return super().make_links()._replace(side=self._side)

    def make_keyspace(self) -> Keyspace:
        """See `RedisBroker.make_keyspace`. Over `side`: going through all keys needs no connections of its own."""
        return ClusterKeyspace(self.calls, self.nodes.slots, self._side)

    def make_work(self, *, ttl: int, dead_ttl: int) -> ClusterWork:
        """See `RedisBroker.make_work`."""
        self.waits = QueueWaits(self.calls, self.nodes.link)
        return ClusterWork(self.calls, self.waits, ttl=ttl, dead_ttl=dead_ttl)

    async def close(self) -> None:
        """See `Broker.close`."""
        await super().close()
        await self.waits.close()

    async def check_rights(self) -> None:
        """See `Broker.check_rights`: each master is asked, since each has users of its own."""
        await self.nodes.slots.fresh()
        asking = [self._check_master(node, tag) for node, tag in self._tags().items()]
        found = await asyncio.gather(*asking, return_exceptions=True)
        for refusal in found:
            if isinstance(refusal, BaseException):
                raise refusal

    def _tags(self) -> dict[Address, str]:
        """Return for each master a tag whose slot it has."""
        tags: dict[Address, str] = {}
        for n in range(TAGS):
            if len(tags) == len(self.nodes.slots.masters):
                break
            tag = f"{RIGHTS}{n}"
            node = self.nodes.slots.node(slot_of(self.keys.prefix(tag)))
            if node is not None:
                tags.setdefault(node, tag)
        return tags

    async def _check_master(self, node: Address, tag: str) -> None:
        access = self.access
        where = f"{node[0]}:{node[1]}"
        calls = Calls(
            Links(*[self.nodes.link_to(node) for _ in Links._fields]),
            self.keys,
            where=where,
            stated=access.stated,
            patience=self.calls.patience,
            clock=access.clock,
        )
        try:
            await check_rights(calls.run_all, self.keys, where=where, tag=tag)
        except StoreRefused as exc:
            raise StoreRefused(
                exc.message, hint=f"{exc.hint}; on that node, since each has users of its own"
            ) from None
        except StoreError as exc:  # it is away, or its slots have moved: that is not a refusal
            logger.debug("the rights at %s were not checked: %s", where, exc)
        finally:
            await calls.close()
