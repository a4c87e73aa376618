"""The broker on a cluster: each call goes to the node that has its queue.

All keys of a queue are in one slot, so a script still sees all that it needs and is atomic. What is over
several queues is one call for each: settlements and renewals at once, in one write a node; reservations one
after the other in the worker's order of preference, as long as it has slots free. An idle worker of several
queues waits at each of them, over a connection of its own, and looks at all when a token comes from one.
A worker of one queue costs the cluster what it costs a single server, a round trip a turn.

Events are published without asking who listens: no node knows the listeners of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from ...config.hosts import parse_hosts
from ...errors import QueueFull, StoreError, StoreRefused, StoreUnavailable
from ..contract.values import Exchange, Renewal, ReserveCall, Settlement
from .backoff import pause
from .broker import RedisBroker
from .calls import connection_options
from .codec import read_renewal, read_reserve
from .link import Caller, Command, Link, checked
from .queue_wait import QueueWait
from .scripts import script
from .slots import Address, ClusterLink, Slots, slot_of
from .wire import Maker

logger = logging.getLogger("pq.broker")

TAGS = 100_000
"""So many names are tried to find one in a slot of each master. Who has a handful of all slots may be left out."""


class ClusterBroker(RedisBroker):
    """Keeps the contract on a cluster."""

    first_patience = 15.0  # a failover takes some seconds, and whoever begins in one should not fail for it
    always = "1"

    def _use(self, url: str) -> None:
        hosts = parse_hosts(url)
        options = connection_options(hosts.server)
        self._connection_class = options.pop("connection_class")
        self._options = {**options, "client_name": self._name}
        self.slots = Slots(hosts.hosts, self._connection_to, where=self.where, stated=self._stated)
        self._ears: dict[str, QueueWait] = {}
        self._serving: Sequence[str] = ()
        self._last_batch: tuple[str, int] | None = None

    def _connection_to(self, node: Address) -> AbstractConnection:
        made: AbstractConnection = self._connection_class(
            **{**self._options, "host": node[0], "port": node[1]}
        )
        return made

    def _link(self) -> Caller:
        return ClusterLink(self.slots, self._link_to, where=self.where)

    def _link_to(self, node: Address) -> Link:
        make = functools.partial(self._connection_to, node)
        return Link(make, where=f"{node[0]}:{node[1]}", stated=self._stated, timeout=self._timeout)

    def _maker(self) -> Maker:
        return self._listening_connection

    async def _listening_connection(self) -> AbstractConnection:
        """To any node: what is published at one of them is heard at all."""
        await self.slots.fresh()
        connection = self._connection_to(self.slots.any_master())
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self.slots.stale = True
            await connection.disconnect(nowait=True)
            raise
        return connection

    @property
    def connected_since(self) -> float | None:
        link = self._main
        assert isinstance(link, ClusterLink)
        nodes = {self.slots.node(slot_of(self.keys.prefix(queue))) for queue in self._serving}
        return link.stands_since(nodes)

    def _patience_at_first(self) -> float:
        return max(self.patience, self.first_patience)

    def _check_mode(self, clustered: bool) -> None:
        if not clustered:
            raise StoreRefused(f"{self.where} is no cluster", hint="name it as redis://host:port")

    async def close(self) -> None:
        await super().close()
        for ear in self._ears.values():
            await ear.close()

    # ------------------------------------------------------------------------------------ verbs
    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        digest = script("open_lease").digest
        opening = [
            ("EVALSHA", digest, 1, self.keys.prefix(queue), self.given_time(), lease, ttl) for queue in queues
        ]
        await self._repeat(self._main, opening)
        self._serving = tuple(queues)
        try:
            await self._repeat(self._main, [("SADD", self.keys.queues, *queues)])
        except QueueFull:
            pass  # a full store is drained under this lease; its queues are known already

    async def renew_and_tell(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        digest = script("renew").digest
        renewing = [
            ("EVALSHA", digest, 1, self.keys.prefix(queue), self.given_time(), lease, ttl) for queue in queues
        ]
        time, *replies = await self._repeat(self._side, [("TIME",), *renewing])
        return read_renewal([reply[0] for reply in replies]), int(time[0]) * 1000 + int(time[1]) // 1000

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        lease, queues, want, batch, idle, stable_for, worker_name, block = call
        if want <= 0 or len(queues) == 1:
            return await super().exchange(call, settlements)
        # A batch that was begun and not ended may have brought something from any queue: that comes first.
        again, self._last_batch = self._last_batch == (lease, batch), (lease, batch)
        look = functools.partial(self._reserve_command, lease, batch, note=worker_name, calm=stable_for)
        ended = {queue: some for queue, some in settlements.items() if some}
        if block <= 0:
            return await self._look_around(look, lease, ended, queues, want, batch, idle, again)
        try:
            await self.token(queues, block)
            return await self._look_around(look, lease, ended, queues, want, batch, idle, again, woken=True)
        except BaseException:
            await self.call_off()  # a token that a wait took now would be nobody's
            raise

    async def _look_around(
        self,
        look: Callable[..., Command],
        lease: str,
        ended: dict[str, Sequence[Settlement]],
        queues: Sequence[str],
        want: int,
        batch: int,
        idle: bool,
        again: bool,
        *,
        woken: bool = False,
    ) -> Exchange:
        """Settle, and look at one queue after the other. `woken`: tokens were taken, and waits may go on."""
        settling = [self._settle_command(lease, queue, some) for queue, some in ended.items()]
        answer = Exchange()
        if again:
            rings = [ring for queue in queues for ring in self._ring(queue, woken)]
            looks = [look([queue], 0, idle=idle) for queue in queues]
            replies = await self._repeat(self._main, [*settling, *rings, *looks])
            for queue, reply in zip(queues, replies[-len(looks) :], strict=True):
                read_reserve(answer, queue, batch, reply[0])
            self._read_refused(answer, ended, replies)
            if answer.tasks:
                answer.more_ready = True  # whoever looks again finds out
                return answer
            answer, settling, refused = Exchange(), [], answer.refused
            answer.refused = refused
        for queue in queues:
            free = 0 if answer.solo or answer.blocked else want - len(answer.tasks)
            # Where tokens were taken all queues are looked at: whoever finds tasks there leaves the token anew.
            if free <= 0 and not woken:
                answer.more_ready = True
                break
            reserving = look([queue], free, idle=idle and not answer.tasks)
            replies = await self._repeat(self._main, [*settling, *self._ring(queue, woken), reserving])
            if settling:
                self._read_refused(answer, ended, replies)
                settling = []
            read_reserve(answer, queue, batch, replies[-1][0])
        return answer

    @staticmethod
    def _read_refused(answer: Exchange, ended: Iterable[str], replies: Sequence[Any]) -> None:
        for queue, refused in zip(ended, replies, strict=False):
            answer.refused.extend((queue, id.decode()) for id in refused)

    async def token(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait for a token of one of the queues, which is taken; False when none came in time.

        The other waits go on, and may take tokens too: each is to be rung, and then its queue looked at.
        """
        for queue in queues:
            if queue not in self._ears:
                self._ears[queue] = QueueWait(
                    self._link(), self.keys, queue, where=self.where, stated=self._stated
                )
        waits = [self._ears[queue].listen(seconds) for queue in queues]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return any(wait.result() for wait in done)

    def _ring(self, queue: str, woken: bool) -> list[Command]:
        return self._ears[queue].ring() if woken else []

    async def call_off(self) -> None:
        """End all waits at once, with their connections."""
        await asyncio.gather(*(ear.stop() for ear in self._ears.values()))

    async def check_rights(self) -> None:
        """See `Broker.check_rights`: each master is asked, since each has users of its own."""
        async with self.apart() as masters:
            asking = [_check_master(master) for master in masters]
            found = await asyncio.gather(*asking, return_exceptions=True)
        for refusal in found:
            if isinstance(refusal, BaseException):
                raise refusal

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[list[RedisBroker]]:
        """Each master as a server by itself, for what belongs to no queue."""
        await self.slots.fresh()
        names: dict[Address, int] = {}
        for n in range(TAGS):
            if len(names) == len(self.slots.masters):
                break
            home = self.slots.node(slot_of(Master.tag.format(n)))
            if home is not None:
                names.setdefault(home, n)
        masters: list[RedisBroker] = [Master(self, node, n) for node, n in names.items()]
        try:
            yield masters
        finally:
            for master in masters:
                await master.close()

    # ------------------------------------------------------------------------------------ looks
    async def _scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        link = self._side
        assert isinstance(link, ClusterLink)
        started = self._clock.monotonic()
        failures = 0
        while True:
            found: list[bytes] = []
            try:
                await self.slots.fresh()
                for node in self.slots.masters:
                    cursor: Any = 0
                    while True:
                        reply = await link.at(node, ("SCAN", cursor, "MATCH", pattern, "COUNT", count))
                        cursor, names = checked(reply, self.where)
                        found += names
                        if int(cursor) == 0:
                            break
                break
            except StoreUnavailable:  # from the beginning: the keys of that node are at another now
                if self._clock.monotonic() - started >= self.patience:
                    raise
                failures += 1
                await asyncio.sleep(pause(failures, self._clock.random()))
        yield list(dict.fromkeys(found))  # a key on its way is seen at both its nodes

    async def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._repeat(self._side, [("GET", key.decode()) for key in keys])

    async def facts(self) -> dict[str, Any]:
        facts = await super().facts()
        facts["kind"] += f" cluster ({len(self.slots.masters)} masters)"
        return facts


class Master(RedisBroker):
    """One master of a cluster. The keys of `@rights`, which are of no queue, are where this one has them."""

    tag = "{{@rights{}}}"

    def __init__(self, cluster: ClusterBroker, node: Address, n: int) -> None:
        self._cluster = cluster
        self._node = node
        self._tag = self.tag.format(n)
        super().__init__(
            cluster.url,
            namespace=cluster.keys.namespace,
            patience=cluster.patience,
            timeout=cluster._timeout,
            name=cluster._name,
            clock=cluster._clock,
            stated=cluster._stated,
        )
        self.where = f"{node[0]}:{node[1]}"

    def _use(self, url: str) -> None:
        """The URL is the cluster's."""

    def _link(self) -> Caller:
        return self._cluster._link_to(self._node)

    async def _repeat(
        self, link: Caller, commands: Sequence[Command], *, timeout: float | None = None, once: int = 0
    ) -> list[Any]:
        ours = [tuple(self._ours(word) for word in command) for command in commands]
        return await super()._repeat(link, ours, timeout=timeout, once=once)

    def _ours(self, word: Any) -> Any:
        return word.replace("{@rights}", self._tag) if isinstance(word, str) else word


async def _check_master(master: RedisBroker) -> None:
    try:
        await master.check_rights()
    except StoreRefused as exc:
        raise StoreRefused(
            exc.message, hint=f"{exc.hint}; on that node, since each has users of its own"
        ) from None
    except StoreError as exc:  # it is away, or its slots have moved: that is not a refusal
        logger.debug("the rights at %s were not checked: %s", master.where, exc)
