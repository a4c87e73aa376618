"""Going through the keys of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from .calls import Calls


class Keyspace(Protocol):
    """All keys of a store, wherever they are."""

    def scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Yield the names of the keys that match, some at a time; `count` is the server's work for each call."""
        ...

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the strings at these keys."""
        ...


class ServerKeyspace:
    """The keys of one server."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """See `Keyspace.scan`."""
        cursor: Any = 0
        while True:
            cursor, names = await self._calls.run("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            yield names
            if int(cursor) == 0:
                return

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Keyspace.values`."""
        found: list[bytes | None] = await self._calls.run("MGET", *keys)
        return found
