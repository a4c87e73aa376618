"""The application: `PulsarQueue`, the object a `manage.py` is about.

It holds nothing but how things are made: settings are loaded, jobs imported and the store attached when
they are first needed, so `app()` itself costs nothing and may be called as often as one likes.
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
                f"{manager!r} is no Manager", hint="pass a subclass of api.Manager, the class itself"
            )
        self.manager = manager
        self.config = config
        self.kwargs: dict[str, Any] = settings
        self._flags: Mapping[str, object] = {}
        self._cfg: Settings | None = None
        self._registry: Registry | None = None
        self._store: Store | None = None
        self.clock: Clock = SYSTEM
        """Where the time comes from; what tests move."""
        self.companion: Callable[[], Coroutine[Any, Any, Callable[[], Coroutine[Any, Any, None]]]] | None = (
            None
        )
        """Starts what does the work within a producer's own loop, and answers with the way to stop it."""

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
        """Where the tasks are."""
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
        """A producer: queue tasks, hear events. It starts by itself when it is first used.

        `background`: it works in a loop of its own, in a thread, also where it is used within a running loop.
        In a notebook it always does, since the loop there stands still while a cell is edited.
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
        """A worker of this application, to be started in a loop of this process; `options` are those of `Worker`."""
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
        """With `memory://` no other process can do the work: a worker in the producer's own loop does."""
        worker = self.worker()
        await worker.start()
        return worker.stop

    def configure(self, flags: Mapping[str, object]) -> None:
        """Take what the command line said."""
        self._flags = flags
        self._cfg = self._registry = self._store = None

    def reload(self) -> Settings:
        """The settings, read anew. Raises `ConfigError`, and then the old ones stay."""
        from .config import load

        self._cfg = load(self.kwargs, self.config, cli=self._flags, anew=True)
        return self._cfg

    def serve(self) -> int:
        """Run a server until it is told to stop; the exit code."""
        from .server import forkserver

        if not self.cfg.broker_url.startswith("memory://"):
            forkserver.prepare()  # it gets ready while we import the rest
        from .server.serve import serve

        return serve(self)

    def start(self, argv: list[str] | None = None) -> int:
        """The command line: `python manage.py [options] [command]`. Ends the program with its exit code."""
        from .cli import run

        code = run(self, argv)
        if argv is None:
            raise SystemExit(code)
        return code


def node_name() -> str:
    """The host's name as a valid queue name."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:100].lstrip("_.-")
    return name or "node"
