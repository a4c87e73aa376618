"""The broker on a primary that Sentinels watch, and replace when it dies.

Every connection asks the Sentinels where the primary is, connects there by name or address as they say it,
and has the server itself confirm that it is one (ROLE). That is done again at each connect; nothing is
remembered. All Sentinels are asked at once, and among the answers of most of them the newest counts, by the
epoch of their agreement: one that was cut off from the others may still name a former primary.

When a connection finds the primary elsewhere than before, all others are dropped. The server they lead to
may live, and answer with old data. They are also dropped when a Sentinel announces another primary: the old one
may accept tasks for seconds more, until it is demoted, or be silent with its connections open.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import redis.exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from ...clock import SYSTEM, Clock
from ...config.hosts import parse_hosts
from ...errors import StoreError, StoreRefused, StoreUnavailable
from ...loops import EternalTask
from .backoff import LONGEST, pause
from .broker import RedisBroker
from .calls import Calls
from .failures import REFUSALS, translate
from .link import Caller, Link
from .server import Access, Server, connection_options
from .wire import Maker, Wire

logger = logging.getLogger("pq.broker")

ASK = 3.0
"""Seconds that one Sentinel gets to answer."""
CONNECT = 5.0
"""Seconds that the primary gets: one that was frozen accepts connections and says nothing on them."""

FAILOVER_PATIENCE = 15.0
"""Seconds for which the first connection is tried: a failover takes some seconds."""

Address = tuple[str, int]


class Word(NamedTuple):
    """The answer of one Sentinel: the primary, and the epoch in which they agreed on it."""

    epoch: int
    address: Address


class Sentinels:
    """Finds the primary of one service."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        where: str,
        stated: str | None,
        on_moved: Callable[[], None],
        clock: Clock = SYSTEM,
    ) -> None:
        hosts = parse_hosts(url)
        self._hosts = hosts.hosts
        self.service = hosts.service
        self._where = where
        self._stated = stated
        self._on_moved = on_moved
        self._clock = clock
        self._server = {**connection_options(hosts.server), "client_name": name}
        self._sentinel = {**connection_options(hosts.sentinel), "client_name": name}
        self._class = self._server.pop("connection_class")
        self._sentinel.pop("connection_class")
        self.address: Address | None = None
        """Where the primary was found last."""
        self._listening: list[EternalTask] = []

    async def connect(self) -> AbstractConnection:
        """Return a connection to the primary, which confirmed that it is one."""
        address = await self.primary()
        connection: AbstractConnection = self._class(
            **{**self._server, "host": address[0], "port": address[1]}
        )
        try:
            async with asyncio.timeout(CONNECT):
                await connection.connect()  # type: ignore[no-untyped-call]
                if not await _is_primary(connection):
                    raise redis_errors.ConnectionError(
                        f"{_spelt(address)} is not a primary yet, or no longer one"
                    )
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        before, self.address = self.address, address
        if before is not None and before != address:
            self._on_moved()
        return connection

    def listen(self) -> None:
        """Have each Sentinel say when there is another primary, in the running loop."""
        if not self._listening:
            self._listening = [
                EternalTask(
                    f"listening to the Sentinel at {_spelt(host)}",
                    functools.partial(self._listen_to, host),
                    logger=logger,
                )
                for host in self._hosts
            ]
            for each in self._listening:
                each.start()

    async def close(self) -> None:
        """Stop listening."""
        listening, self._listening = self._listening, []
        await asyncio.gather(*(each.stop() for each in listening))

    async def _listen_to(self, host: Address) -> None:
        failures = 0
        while True:
            news: asyncio.Queue[Any] = asyncio.Queue()
            wire: Wire | None = None
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(CONNECT):
                    wire = await Wire.open(lambda: self._to_sentinel(host), news.put_nowait)
                wire.send("SUBSCRIBE", "+switch-master")
                while not isinstance(said := await news.get(), BaseException):
                    if said[0] == b"message":
                        self._announced(said[2].decode("utf-8", "replace").split(" "))
            except (redis_errors.RedisError, OSError, TimeoutError):
                pass  # it is connected again; the others are listened to meanwhile
            finally:
                if wire is not None:
                    await wire.close()
            failures = 1 if self._clock.monotonic() - began >= CONNECT + LONGEST else failures + 1
            await asyncio.sleep(pause(failures, self._clock.random()))

    def _announced(self, words: list[str]) -> None:
        """`<service> <old host> <old port> <new host> <new port>`."""
        if len(words) == 5 and words[0] == self.service and words[4].isdigit():
            address = (words[3], int(words[4]))
            if self.address is not None and self.address != address:
                self._on_moved()

    def _to_sentinel(self, host: Address) -> AbstractConnection:
        made: AbstractConnection = self._class(**{**self._sentinel, "host": host[0], "port": host[1]})
        return made

    async def primary(self) -> Address:
        """Return where the primary is, as most of the Sentinels know it. Raises `StoreUnavailable`, `StoreRefused`."""
        asking = {asyncio.ensure_future(self._word(*host)) for host in self._hosts}
        pending: set[asyncio.Future[Word | StoreError]] = set(asking)
        words: list[Word] = []
        errors: list[StoreError] = []
        try:
            while pending and len(words) <= len(self._hosts) // 2:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for answer in done:
                    found = answer.result()
                    words.append(found) if isinstance(found, Word) else errors.append(found)
        finally:
            for ask in asking:
                ask.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if words:
            return max(words).address
        # A refusal says more than no answer, and does not pass.
        raise next((error for error in errors if isinstance(error, StoreRefused)), errors[0])

    async def _word(self, host: str, port: int) -> Word | StoreError:
        """Return the answer of one of them, or why there is none."""
        spelt = _spelt((host, port))
        connection = self._to_sentinel((host, port))
        try:
            async with asyncio.timeout(ASK):
                await connection.connect()  # type: ignore[no-untyped-call]
                address = await _ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                if address is None:
                    return StoreRefused(
                        f"the Sentinel at {spelt} watches no service {self.service!r}",
                        hint=f"name the service behind the hosts in {self._stated or 'data_store'}; "
                        f"`SENTINEL MASTERS` lists those that it watches",
                    )
                flat = await _ask(connection, "SENTINEL", "MASTER", self.service)
            facts = dict(zip(flat[::2], flat[1::2], strict=True))
            return Word(int(facts.get(b"config-epoch", 0)), (address[0].decode(), int(address[1])))
        except (redis_errors.RedisError, OSError, TimeoutError) as exc:
            error = translate(exc, f"the Sentinel {spelt}", self._stated)
            if isinstance(error, StoreRefused):
                if not any(word in error.message for word in REFUSALS):
                    return error  # TLS, whose hint says what to do
                return StoreRefused(
                    error.message,
                    hint="a Sentinel has a password of its own: ?sentinel_password=… "
                    f"(and sentinel_username) in {self._stated or 'data_store'}",
                )
            return StoreUnavailable(
                f"no Sentinel of {self._where} knows the primary: {error.message}",
                hint="start the Sentinels, or check their hosts and ports",
            )
        finally:
            await connection.disconnect(nowait=True)


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


async def _is_primary(connection: AbstractConnection) -> bool:
    try:
        role = await _ask(connection, "ROLE")
    except redis_errors.NoPermissionError:
        return True  # this user may not ask: a replica will refuse to write, and is left then
    return bool(role[0] == b"master")


def _spelt(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


class SentinelServer:
    """Whichever server is the primary, for `RedisBroker`. `on_moved` is called when it is another one."""

    always = ""

    def __init__(self, access: Access, on_moved: Callable[[], None]) -> None:
        self._access = access
        self.first_patience = FAILOVER_PATIENCE
        self.sentinels = Sentinels(
            access.url,
            name=access.name,
            where=access.where,
            stated=access.stated,
            on_moved=on_moved,
            clock=access.clock,
        )

    def link(self) -> Caller:
        """See `Server.link`."""
        access = self._access
        return Link(self.maker(), where=access.where, stated=access.stated, timeout=access.timeout)

    def maker(self) -> Maker:
        """See `Server.maker`."""
        return self.sentinels.connect

    def patience_at_first(self, patience: float) -> float:
        """Return at least the time of a failover: a program that starts in one should not fail for it."""
        return max(patience, self.first_patience)

    def check_mode(self, clustered: bool) -> None:
        """See `Server.check_mode`."""
        if clustered:
            raise StoreRefused(
                f"{self._access.where} is a node of a cluster", hint="name it as redis+cluster://host:port"
            )

    async def open(self) -> None:
        """Listen to the Sentinels."""
        self.sentinels.listen()

    async def close(self) -> None:
        """Stop listening."""
        await self.sentinels.close()

    async def add_facts(self, facts: dict[str, Any], calls: Calls) -> None:
        """Add which server is the primary, and a warning where it may stay one behind a cut."""
        if self.sentinels.address is not None:
            facts["where"] = f"{_spelt(self.sentinels.address)} ({self._access.where})"
        try:
            found = await calls.run("CONFIG", "GET", "min-replicas-to-write")
        except StoreRefused:
            return  # this user may not ask
        if found and int(found[1]) == 0:
            facts["warnings"] = [
                (
                    "lone-primary",
                    "a primary that was cut off goes on to accept tasks (min-replicas-to-write 0), "
                    "which are lost when it comes back",
                    "CONFIG SET min-replicas-to-write 1, on every server that may become the primary",
                )
            ]


class SentinelBroker(RedisBroker):
    """Keeps the contract on whichever server is the primary."""

    sentinels: Sentinels

    def make_server(self, access: Access) -> Server:
        """See `RedisBroker.make_server`."""
        made = SentinelServer(access, self._moved)
        self.sentinels = made.sentinels
        return made

    def _moved(self) -> None:
        """Leave the old primary with every connection; what is under way there is repeated at the new one."""
        self.calls.abandon("the primary has moved")
        for subscription in self.channels.subscriptions:
            subscription.abandon("the primary has moved")
