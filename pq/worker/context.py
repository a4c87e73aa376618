"""The surroundings that the services of one worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..clock import SYSTEM, Clock
from ..config import Settings
from ..model.manager import Manager
from ..model.registry import Registry


@dataclass(slots=True)
class Counts:
    """Counts of a worker since its start."""

    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    revoked: int = 0
    retried: int = 0
    refused: int = 0
    vanished: int = 0


@dataclass(slots=True)
class Context:
    """Made once by `Worker`, read by its services."""

    name: str
    node: str
    cfg: Settings
    broker: Broker
    registry: Registry
    manager: Manager
    queues: list[str]
    lease: str = ""
    clock: Clock = SYSTEM
    counts: Counts = field(default_factory=Counts)
    sending: Callable[[], Awaitable[None] | None] = lambda: None
    """Return an awaitable that ends when all tasks queued by jobs are in the store; None when they are."""

    @property
    def keys(self) -> Keys:
        """The key names of the store."""
        return Keys(self.cfg.namespace)
