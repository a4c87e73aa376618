"""Renewing a lease from a thread, whatever the event loop of the worker does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from ..contract.values import Renewal


class RenewingBroker(Protocol):
    """What a renewer needs of a broker."""

    async def renew_and_tell(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]: ...

    async def close(self) -> None: ...


class RedisRenewer:
    """Renews over connections of its own, in a loop of its own: those of another broker on the same store.

    So it finds its server as the worker's broker does, wherever the store moves.
    """

    def __init__(self, broker: RenewingBroker) -> None:
        self._broker = broker
        self._loop = asyncio.new_event_loop()

    def renew(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """See `Renewer.renew`."""
        return self._loop.run_until_complete(self._broker.renew_and_tell(lease, queues, ttl))

    def close(self) -> None:
        """See `Renewer.close`."""
        try:
            self._loop.run_until_complete(self._broker.close())
            self._loop.run_until_complete(asyncio.sleep(0))  # transports close their sockets a turn later
        finally:
            self._loop.close()
