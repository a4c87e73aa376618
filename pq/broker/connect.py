"""From settings to a broker: which store, which class, and the embedded server where no store is set."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import SYSTEM, Clock
from ..config import Settings, redact
from ..config.hosts import CLUSTER, SENTINEL, kind_of
from ..config.parsers import ALIASES
from ..errors import BadSetting
from ..model.envelopes import allow_size
from ..model.seal import ceiling, seal_of
from ..model.task import Task
from .contract.broker import Broker
from .layers.large_payloads import with_large_payloads
from .layers.sealing import sealed

if TYPE_CHECKING:  # each store's own module is imported where that store is used
    from .embedded import EmbeddedServer
    from .memory.store import MemoryStore
    from .redis.broker import RedisBroker

_memory_stores: dict[str, MemoryStore] = {}


class Store:
    """Where an application keeps its tasks. Resolved once in a process; makes brokers.

    `url` is what another process of this application needs to find the same store.
    """

    def __init__(
        self,
        settings: Settings,
        config_file: str | None = None,
        *,
        url: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._seal = seal_of(settings)
        allow_size(ceiling(settings.max_message_size))
        self._url = url or settings.broker_url or "embedded://"
        self._directory = _directory(self._url, config_file) if self._url.startswith("embedded://") else None
        self._server: EmbeddedServer | None = None
        self._memory: MemoryStore | None = None
        self._users: set[object] = set()
        self.workers = 0
        """Workers of this process on this store."""
        self.on_submit: Callable[[Task[Any], asyncio.Future[Task[Any]]], None] | None = None
        """Called for each task that a producer of this program queues, with its future; for tests."""
        if self._url.startswith("memory://"):
            from .memory.store import MemoryStore

            self._memory = _memory_stores.setdefault(self._url, MemoryStore(clock))

    @property
    def url(self) -> str:
        """The URL, with the directory of an embedded server spelt out."""
        return f"embedded://{self._directory}" if self._directory else self._url

    @property
    def is_memory(self) -> bool:
        """True when the tasks live in this process alone."""
        return self._memory is not None

    @property
    def server(self) -> EmbeddedServer | None:
        """The embedded server, once attached."""
        return self._server

    def attach(self) -> None:
        """Find or start the embedded server, if that is the store. Blocks for some tens of ms."""
        if self._directory is not None and self._server is None:
            from .embedded import EmbeddedServer

            server = EmbeddedServer(self._directory)
            server.attach()
            self._server = server

    def join(self, user: object) -> None:
        """Count `user` among those that need the embedded server."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Count `user` no longer; the last one of this process detaches."""
        self._users.discard(user)
        if not self._users:
            self.detach()

    def detach(self) -> None:
        """Leave the embedded server; the last process stops it."""
        server, self._server = self._server, None
        if server is not None:
            server.detach()

    async def broker(self, *, name: str = "pq", patience: float = 30.0) -> Broker:
        """Return a broker on this store, not opened yet."""
        settings = self._settings
        ttl: dict[str, Any] = {"result_ttl": settings.result_ttl, "dead_ttl": settings.dead_ttl}
        if self._memory is not None:
            from .memory.broker import MemoryBroker

            # Nothing of it leaves this process, so nothing is sealed.
            return MemoryBroker(self._memory, namespace=settings.namespace, **ttl)
        url = self._url
        ensure: Callable[[], Coroutine[Any, Any, None]] | None = None
        if self._directory is not None:
            await asyncio.to_thread(self.attach)
            server = self._server
            assert server is not None
            url = server.url

            ensure = functools.partial(asyncio.to_thread, server.ensure)

        broker = make_broker(
            url,
            namespace=settings.namespace,
            name=name,
            patience=patience,
            on_unreachable=ensure,
            stated=self._stated(),
            **ttl,
        )
        if self._clock is not SYSTEM:
            broker.time_override = lambda: int(self._clock.time() * 1000)
        return with_large_payloads(sealed(broker, self._seal, settings.namespace), settings, self._seal)

    def _stated(self) -> str | None:
        """Return the setting that has the URL, and where it was set: `data_store (config.py, line 3)`."""
        sources = self._settings.sources
        for name in ("message_broker", "data_store"):  # the first counts
            if name in sources:
                return f"{name} ({sources[name]})"
        return None


def make_broker(url: str, **options: Any) -> RedisBroker:
    """Return the broker for the URL of one server, of Sentinels or of a cluster; `options` are those of `RedisBroker`."""
    # Here and not above: redis-py takes a tenth of a second to import.
    url = _canonical(url)
    kind = kind_of(url)
    if kind == SENTINEL:
        from .redis.sentinel import SentinelBroker

        return SentinelBroker(url, **options)
    if kind == CLUSTER:
        from .redis.cluster import ClusterBroker

        return ClusterBroker(url, **options)
    from .redis.broker import RedisBroker

    return RedisBroker(url, **options)


def plain_url(url: str) -> str:
    """Return `url` as redis-py takes it. Raises `BadSetting` where it is more than one server."""
    url = _canonical(url)
    if kind_of(url) is not None:
        raise BadSetting(
            f"data_store: {redact(url)} is more than one server",
            hint="here it has to be one: redis://, rediss:// or unix://",
        )
    return url


def _canonical(url: str) -> str:
    """Return the URL with redis for valkey, which is another word for it."""
    scheme, separator, rest = url.partition("://")
    return f"{ALIASES.get(scheme, scheme)}{separator}{rest}"


def _directory(url: str, config_file: str | None) -> Path:
    from .embedded import default_directory

    path = url.removeprefix("embedded://")
    return Path(path).expanduser() if path else default_directory(config_file)
