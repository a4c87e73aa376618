"""The application: `PulsarQueue`, the object a `manage.py` is about.

Settings are loaded, jobs imported and the store attached when they are first needed: `app()` itself costs nothing and
may be called often.
"""

from __future__ import annotations

import inspect
import re
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM, Clock
from .errors import BadSetting
from .model.manager import Manager

if TYPE_CHECKING:
    from .broker.connect import Store
    from .config import Settings
    from .model.registry import Registry
    from .producer.producer import Producer
    from .worker.worker import Worker


class PulsarQueue:
    """A task application.

        def app():
            return PulsarQueue(config=__file__)

    Args:
        manager: a subclass of `api.Manager` with the application's own hooks.
        config: path of the file whose top-level names are settings; `__file__` is the program's own.
        settings: any setting by its name; the config file, variables and flags count more.
    """

    def __init__(
        self, manager: type[Manager] = Manager, *, config: str | None = None, **settings: Any
    ) -> None:
        if not (inspect.isclass(manager) and issubclass(manager, Manager)):
            raise BadSetting(
                f"{manager!r} is not a Manager", hint="pass a subclass of api.Manager, the class itself"
            )
        self.manager = manager
        self.config = config
        self.kwargs: dict[str, Any] = settings
        self._flags: Mapping[str, object] = {}
        self._cfg: Settings | None = None
        self._registry: Registry | None = None
        self._store: Store | None = None
        self.clock: Clock = SYSTEM
        """The source of time; tests move it."""
        self.companion: Callable[[], Coroutine[Any, Any, Callable[[], Coroutine[Any, Any, None]]]] | None = (
            None
        )
        """Starts a worker in a producer's own loop; returns how to stop it."""

    # -------------------------------------------------------------------------- made when needed
    @property
    def cfg(self) -> Settings:
        """The settings, from all their sources. Raises `ConfigError`."""
        if self._cfg is None:
            from .config import load

            self._cfg = load(self.kwargs, self.config, cli=self._flags)
        return self._cfg

    @property
    def registry(self) -> Registry:
        """All jobs of the modules in `task_paths`, imported now. Raises `ConfigError`."""
        if self._registry is None:
            from .model.registry import Registry

            self._registry = Registry.from_paths(self.cfg.task_paths)
        return self._registry

    @property
    def store(self) -> Store:
        """The store of the tasks."""
        if self._store is None:
            from .broker.connect import Store

            self._store = Store(self.cfg, self.config, clock=self.clock)
        return self._store

    @property
    def node_name(self) -> str:
        """The name of this node: the setting, or the host's name."""
        return self.cfg.node_name or node_name()

    # ------------------------------------------------------------------------------------ verbs
    def api(self, *, background: bool = False) -> Producer:
        """Return a producer, which queues tasks and listens to events. It starts when it is first used.

        `background`: it works in a loop of its own, in a thread, also inside a running loop. In a notebook it always
        does, since the loop of a notebook stands still while a cell is edited.
        """
        from .producer import current
        from .producer.producer import Producer

        api = Producer(
            self.cfg,
            self.store,
            lambda: self.registry,
            self.node_name,
            self.manager,
            self.clock,
            companion=self.companion or (self._start_companion if self.store.is_memory else None),
            background=background,
        )
        current.register(api)
        return api

    def worker(self, name: str = "w1", **options: Any) -> Worker:
        """Return a worker of this application, to be started in a loop of this process; `options` are those of `Worker`."""
        from .worker.worker import Worker

        return Worker(
            self.cfg,
            self.store,
            self.registry,
            name=name,
            node=self.node_name,
            manager=self.manager,
            clock=self.clock,
            **options,
        )

    async def _start_companion(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Start a worker in the producer's own loop: with `memory://` no other process can run tasks."""
        worker = self.worker()
        await worker.start()
        return worker.stop

    def configure(self, flags: Mapping[str, object]) -> None:
        """Take the flags of the command line; settings, jobs and store are made again."""
        self._flags = flags
        self._cfg = self._registry = self._store = None

    def reload(self) -> Settings:
        """Read the settings again and return them. Raises `ConfigError`; the old ones stay in force then."""
        from .config import load

        self._cfg = load(self.kwargs, self.config, cli=self._flags, again=True)
        return self._cfg

    def serve(self) -> int:
        """Run a server until it stops; return the exit code."""
        from .server import forkserver

        if not self.cfg.broker_url.startswith("memory://"):
            forkserver.prepare()  # it starts while the rest is imported
        from .server.serve import serve

        return serve(self)

    def start(self, argv: list[str] | None = None) -> int:
        """Run the command line `python manage.py [options] [command]`; exit with its code."""
        from .cli import run

        code = run(self, argv)
        if argv is None:
            raise SystemExit(code)
        return code


def node_name() -> str:
    """Return the host's name as a valid queue name."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:100].lstrip("_.-")
    return name or "node"
