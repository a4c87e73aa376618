"""The application, as the command line and a server see it; `pq.app.PulsarQueue` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # `--help` imports this module, and must not wait for these
    from ..broker.connect import Store
    from ..config import Settings
    from ..model.manager import Manager
    from ..model.registry import Registry
    from ..producer.producer import Producer
    from ..worker.worker import Worker


class Application(Protocol):
    """An application: makes its settings, jobs, store, producers, workers and servers."""

    manager: type[Manager]
    config: str | None
    """Path of its config file."""
    kwargs: dict[str, Any]
    """Settings that its program states."""

    @property
    def cfg(self) -> Settings:
        """The settings, from all their sources. Raises `ConfigError`."""
        ...

    @property
    def store(self) -> Store:
        """Where the tasks are."""
        ...

    @property
    def registry(self) -> Registry:
        """All jobs of the modules in `task_paths`. Raises `ConfigError`."""
        ...

    @property
    def node_name(self) -> str:
        """The name of this node, and of its local queue."""
        ...

    def configure(self, flags: Mapping[str, object]) -> None:
        """Take the settings of a command line; they count more than those of any other source."""

    def reload(self) -> Settings:
        """Read the settings again. Raises `ConfigError`, and then the old ones stay."""
        ...

    def api(self, *, background: bool = False) -> Producer:
        """Make a producer; with `background` it works in a loop of its own, in a thread."""
        ...

    def worker(self, name: str = "w1", **options: Any) -> Worker:
        """Make a worker, to be started in a loop of this process; `options` are those of `Worker`."""
        ...

    def serve(self) -> int:
        """Run a server until it is stopped; return its exit code."""
        ...
