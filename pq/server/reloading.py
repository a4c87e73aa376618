"""Reload a server: new settings and new code, worker by worker, without a moment without workers.

SIGHUP causes it; with the setting `reload` a change of a source file does too. Settings that cannot be read
change nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..config import Settings
from ..errors import PqError
from ..logs import files as logfiles
from ..loops import HeldTasks
from . import sources
from .application import Application
from .pool import WorkerPool

logger = logging.getLogger("pq.server")


class Reloader:
    """Reload the workers of `pool`; `apply` gives new settings to the rest of the server."""

    def __init__(
        self, app: Application, pool: WorkerPool, apply: Callable[[Settings], Awaitable[None]]
    ) -> None:
        self._app = app
        self._cfg = app.cfg
        self._pool = pool
        self._apply = apply
        self._tasks = HeldTasks("the reload", logger=logger)
        self._watching: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Reload; one after the other where requests come faster."""
        self._tasks.spawn(self._reload())

    def cancel(self) -> None:
        """Give up what is under way, and watch no more files."""
        self._tasks.cancel()

    async def _reload(self) -> None:
        pool = self._pool
        async with pool.replacing:
            try:
                cfg = self._app.reload()
                logfiles.set_up(cfg, "server", "supervisor", needed=True)
            except PqError as exc:
                logger.error("not reloaded: %s [%s]", exc, exc.slug, extra={"hint": exc.hint})
                return
            logger.info("reloading")
            self._cfg = cfg
            await self._apply(cfg)
            self.follow_sources()
            await pool.replace_all()
        pool.changed.set()

    def follow_sources(self) -> None:
        """Begin to watch the source files where `reload` is on. It ends by itself when a reload turns it off."""
        if self._cfg.reload and (self._watching is None or self._watching.done()):
            logger.info("workers are restarted when a source file changes (reload is for development)")
            self._watching = self._tasks.spawn(self._watch_sources())

    async def _watch_sources(self) -> None:
        watched = sources.Sources(self._app.config, lambda: self._cfg.task_paths)
        async for paths in watched.changes():
            if self._pool.stopping:
                return
            logger.info("changed: %s", sources.named(paths))
            await asyncio.to_thread(sources.forget, paths)
            await self._reload()
            if not self._cfg.reload:
                return
