"""The broker in one process: for tests, notebooks, and as the reference model of the protocol.

It keeps the whole contract (`pq.broker.contract`) with plain dicts and lists, so it can be read in one
sitting; the Lua scripts are held against it by property tests. What it does not have is other
processes, and data that outlive this one. It is safe within one event loop's thread; the lease thread
of a worker may renew, so each verb holds a lock.

`MemoryStore` is the data, `MemoryBroker` a connection to it: two brokers on one store see each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..contract.values import Renewal
from ..keys import Keys
from .channels import MemoryChannels
from .looks import MemoryLooks
from .schedules import MemorySchedules
from .store import MemoryStore
from .work import MemoryWork


class MemoryBroker:
    """Keeps the contract on a `MemoryStore`. `result_ttl` and `dead_ttl` are in seconds."""

    where = "memory://"
    connected_since: float | None = 0.0

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        namespace: str = "pq",
        result_ttl: float = 3600.0,
        dead_ttl: float = 7 * 86_400.0,
    ) -> None:
        self.store = store or MemoryStore()
        self.keys = Keys(namespace)
        self.work = MemoryWork(
            self.store,
            self.keys.task_channel,
            ttl=int(max(60.0, result_ttl) * 1000),
            dead_ttl=int(max(60.0, result_ttl, dead_ttl) * 1000),
        )
        self.looks = MemoryLooks(self.store, self.where)
        self.schedules = MemorySchedules(self.store)
        self.channels = MemoryChannels(self.store, self.keys)

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def check_rights(self) -> None:
        """Nothing is refused within one process."""

    def renewer(self) -> MemoryRenewer:
        """See `Broker.renewer`."""
        return MemoryRenewer(self.work)

    async def own_name(self, proposed: str) -> str:
        """A store of one process is not taken for another one."""
        return proposed

    async def sweep(self) -> int:
        """Nothing is offloaded from memory."""
        return 0


class MemoryRenewer:
    """Renews in the store itself, which locks."""

    def __init__(self, work: MemoryWork) -> None:
        self._work = work

    def renew(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """See `Renewer.renew`."""
        return self._work.renew_now(lease, queues, ttl)

    def close(self) -> None:
        """There is nothing to close."""
