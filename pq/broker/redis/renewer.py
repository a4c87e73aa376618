"""Renewing a lease from a thread, whatever the event loop of the worker does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..contract.values import Renewal
from .work import RedisWork


class RedisRenewer:
    """Renews over connections of its own, in a loop of its own: those of another broker on the same store.

    So it finds its server as the worker's broker does, wherever the store moves.
    """

    def __init__(self, work: RedisWork, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._close = close
        self._loop = asyncio.new_event_loop()

    def renew(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """See `Renewer.renew`."""
        return self._loop.run_until_complete(self._work.renew_and_tell(lease, queues, ttl))

    def close(self) -> None:
        """See `Renewer.close`."""
        try:
            self._loop.run_until_complete(self._close())
            self._loop.run_until_complete(asyncio.sleep(0))  # transports close their sockets a turn later
        finally:
            self._loop.close()
