"""Where the connections of a broker lead: one server here, others in `sentinel` and `cluster`.

redis-py takes the URL apart and makes the connection (TCP, TLS, Unix socket, login).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import redis.exceptions as redis_errors
from redis.asyncio import connection as redis_connection

from ...clock import Clock
from ...config import redact
from ...errors import BadSetting, StoreRefused
from .calls import Calls
from .link import Caller, Link
from .wire import Maker

FIRST_PATIENCE = 2.0
"""Seconds for which the very first connection to one server is tried."""


class Access(NamedTuple):
    """The address of a store, and how to reach it.

    `where`: the URL without its password. `stated`: which setting has the URL, and where. `name`: what the server
    calls our connections. `timeout`: seconds for which the answer to one call is waited for.
    """

    url: str
    where: str
    stated: str | None
    name: str
    timeout: float
    clock: Clock


class Server(Protocol):
    """Where connections lead, and what differs with that."""

    always: str
    """`1` where events are published without asking for listeners, as no server knows them all; else `''`."""

    first_patience: float
    """Seconds for which the very first connection is tried."""

    def link(self) -> Caller:
        """Make what calls go over. It connects on first use."""
        ...

    def maker(self) -> Maker:
        """Return what makes a connection for a subscription."""
        ...

    def patience_at_first(self, patience: float) -> float:
        """Return the seconds for which the first call is repeated, where later ones are for `patience`."""
        ...

    def check_mode(self, clustered: bool) -> None:
        """Raise `StoreRefused` where the URL is for another kind of server."""

    async def open(self) -> None:
        """Start what it does by itself, once the server has answered."""

    async def close(self) -> None:
        """Stop that."""

    async def add_facts(self, facts: dict[str, Any], calls: Calls) -> None:
        """Add to the facts of the store what only this kind of server has."""


class SingleServer:
    """One server, by its URL."""

    always = ""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.first_patience = FIRST_PATIENCE
        options = connection_options(access.url)
        self._connection_class = options.pop("connection_class")
        self._options = {**options, "client_name": access.name}

    def connection(self) -> redis_connection.AbstractConnection:
        """Make a new connection, not yet connected. Raises `BadSetting`."""
        try:
            made: redis_connection.AbstractConnection = self._connection_class(**self._options)
        except (
            TypeError,
            ValueError,
            redis_errors.RedisError,
        ) as exc:  # a parameter of the URL that it does not know
            unknown = str(exc).partition("unexpected keyword argument ")[2]
            raise BadSetting(
                f"data_store: {self._access.where}: "
                + (f"there is no parameter {unknown} for this scheme" if unknown else str(exc)),
                hint="docs/how-to/security.md has the parameters of the URL",
            ) from None
        return made

    def link(self) -> Caller:
        """See `Server.link`."""
        access = self._access
        return Link(self.connection, where=access.where, stated=access.stated, timeout=access.timeout)

    def maker(self) -> Maker:
        """See `Server.maker`."""
        return self.connection

    def patience_at_first(self, patience: float) -> float:
        """Return less than later: a program that starts should say soon that the store is not there."""
        return min(patience, self.first_patience)

    def check_mode(self, clustered: bool) -> None:
        """See `Server.check_mode`."""
        if clustered:
            raise StoreRefused(
                f"{self._access.where} is a node of a cluster", hint="name it as redis+cluster://host:port"
            )

    async def open(self) -> None:
        """It does nothing by itself."""

    async def close(self) -> None:
        """It does nothing by itself."""

    async def add_facts(self, facts: dict[str, Any], calls: Calls) -> None:
        """One server has no more facts."""


def connection_options(url: str) -> dict[str, Any]:
    """Return what redis-py needs to connect to `url`: class and arguments, its own retries and time-outs off.

    Raises `BadSetting`.
    """
    try:
        options: dict[str, Any] = dict(redis_connection.parse_url(url))
    except ValueError as exc:  # its text has the parameter, and nothing of the password
        raise BadSetting(
            f"data_store: {redact(url)}: {exc}", hint="docs/how-to/security.md has the parameters of the URL"
        ) from None
    options.setdefault("connection_class", redis_connection.Connection)
    options.update(
        protocol=2,  # RESP2: the same reply types from every server
        socket_timeout=None,  # time-outs are set per call (see Link)
        retry=None,
        retry_on_error=[],
        health_check_interval=0,
        driver_info=None,  # two commands less for each connection
    )
    if options["connection_class"] is not redis_connection.UnixDomainSocketConnection:
        options["socket_keepalive"] = True
    return options
