"""The contract of a broker: four ports, and its own life.

A broker keeps tasks and hands them out. `RedisBroker` (Redis, Valkey) and `MemoryBroker` (one process)
both keep this contract, and one suite of tests holds both to it (`tests/broker/conformance`):

* `work` moves tasks: queue, reserve, settle, cancel;
* `looks` only reads;
* `schedules` has the periodic schedules;
* `channels` has events, heartbeats, what tasks say, and locks.

Times are milliseconds of the *store's* clock; no verb trusts the clock of its caller. Every verb may be repeated
blindly with the same arguments (its reply may have been lost): the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .channels import Channels
from .looks import Looks
from .schedules import Schedules
from .values import Renewal
from .work import Work


class Renewer(Protocol):
    """Renews a lease from a thread, over connections of its own: a blocked event loop does not cost the lease."""

    def renew(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """Renew as `Work.renew` does; return that answer and the store's clock in ms. Blocks."""
        ...

    def close(self) -> None:
        """Close its connections, from the thread that renews."""


class Broker(Protocol):
    """A connection of one program to its store."""

    @property
    def work(self) -> Work:
        """Moves tasks."""
        ...

    @property
    def looks(self) -> Looks:
        """Reads, changes nothing."""
        ...

    @property
    def schedules(self) -> Schedules:
        """The periodic schedules."""
        ...

    @property
    def channels(self) -> Channels:
        """Events, heartbeats, what tasks say, and locks."""
        ...

    @property
    def where(self) -> str:
        """The URL of the store, without a password."""
        ...

    @property
    def connected_since(self) -> float | None:
        """Since when, by the loop's clock, the connection for reserving has stood unbroken; None while it does not."""
        ...

    async def open(self) -> None:
        """Connect and check the store. Raises `StoreUnavailable`, `StoreRefused`."""

    async def close(self) -> None:
        """Close all connections. Twice is harmless."""

    async def check_rights(self) -> None:
        """Raise `StoreRefused` where this user of the store may not do all that a worker has to."""

    def renewer(self) -> Renewer:
        """Make what renews leases on this store from a thread."""
        ...

    async def own_name(self, proposed: str) -> str:
        """Return what this store is called, so that no program takes another one for it: as was proposed first."""
        ...

    async def sweep(self) -> int:
        """Remove offloaded payloads that no record claims; return how many. 0 where nothing is offloaded."""
        ...
