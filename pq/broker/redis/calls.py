"""Calls to the store."""

from __future__ import annotations

from typing import Any

from redis.asyncio import connection as redis_connection

from ...config import redact
from ...errors import BadSetting

FIRST_PATIENCE = 2.0
"""Seconds for which the very first connection is tried."""
BLOCK_MARGIN = 5.0
"""Seconds by which the time-out of a connection exceeds the blocking read on it."""


def connection_options(url: str) -> dict[str, Any]:
    """What redis-py needs to connect to `url`: class and arguments, its own retries and time-outs off."""
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
