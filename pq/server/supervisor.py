"""The supervisor: keeps a server's workers alive, and runs no task itself.

Its duties: it answers signals (`signals`), has the pool of worker processes follow them (`pool`), lets the
autoscaler decide where `workers` is a range (`autoscaling`), and reloads (`reloading`). When it is stopped, it
drains the workers: no new tasks; running ones get `graceful_timeout` and are then handed back unspent.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import signal
import time

from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..config import Settings
from ..loops import EternalTask
from . import reaping
from .application import Application
from .autoscaling import Scaling
from .pool import WorkerPool
from .reloading import Reloader
from .signals import INTENTIONS, Intention, Signals

logger = logging.getLogger("pq.server")


class Supervisor:
    """One running server, on an open broker. `pool` has its workers."""

    def __init__(self, app: Application, broker: Broker) -> None:
        self._app = app
        self._cfg = app.cfg
        self._broker = broker  # stays when the settings are reloaded: another store is another server
        self.pool = WorkerPool(app, broker)
        self._signals = Signals()
        self._scaling: Scaling | None = None
        self._reloader = Reloader(app, self.pool, self._apply)
        self._pinging = EternalTask("the ping of the workers", self.pool.ping, logger=logger)
        self._reaping: EternalTask | None = None

    async def run(self) -> int:
        """Run until a signal stops it; return the exit code."""
        loop, pool = asyncio.get_running_loop(), self.pool
        for number in INTENTIONS:
            loop.add_signal_handler(number, functools.partial(self._received, number))
        self._pinging.start()
        if reaping.is_wanted():
            self._reaping = EternalTask(
                "the reaping of orphans", functools.partial(reaping.reap, reaping.children()), logger=logger
            )
            self._reaping.start()
        self._follow_demand()
        self._reloader.follow_sources()
        try:
            while not pool.stopping:
                pool.changed.clear()
                await pool.fit()
                await pool.changed.wait()
        finally:
            await self._pinging.stop()
            if self._reaping is not None:
                await self._reaping.stop()
            if self._scaling is not None:
                await self._scaling.stop()
            await pool.end()
            self._reloader.cancel()
        return int(pool.hopeless)

    # --------------------------------------------------------------------------------- settings
    async def _apply(self, cfg: Settings) -> None:
        """Take settings that were read again."""
        self._cfg = cfg
        if self._scaling is not None:
            await self._scaling.stop()
            self._scaling = None
        self.pool.configure(cfg)
        self._follow_demand()

    def _follow_demand(self) -> None:
        """Begin to scale, where `workers` is a range."""
        cfg = self._cfg
        self.pool.scaled = cfg.min_workers < cfg.max_workers
        if self.pool.scaled:
            self._scaling = Scaling(
                self.pool,
                self._broker,
                channel=Keys(cfg.namespace).consumer_channel,
                node=self._app.node_name,
                least=cfg.min_workers,
                most=cfg.max_workers,
                idle_timeout=cfg.idle_timeout,
            )
            self._scaling.start()

    # ---------------------------------------------------------------------------------- signals
    def _received(self, number: signal.Signals) -> None:
        match self._signals.received(number, time.monotonic()):
            case Intention.DRAIN:
                self._drain(" (Ctrl-C again to stop at once)" if number == signal.SIGINT else "")
            case Intention.RELEASE:
                logger.warning("stopping now: running tasks are released to their queues")
                self.pool.release_all()
            case Intention.KILL:
                logger.warning("stopping at once: workers are killed")
                self.pool.kill_all()
            case Intention.RELOAD:
                self._reloader.request()
            case Intention.MORE:
                self._step(1, "one worker more")
            case Intention.FEWER:
                self._step(-1, "one worker less")

    def _drain(self, hint: str) -> None:
        if not self.pool.stopping:
            logger.info("stopping: running tasks get up to %g s%s", self._cfg.graceful_timeout, hint)
        self.pool.stopping = True
        self.pool.changed.set()

    def _step(self, step: int, text: str) -> None:
        """Have one worker more or less; the lower end of a range moves along, or the step would not last."""
        before, span = self.pool.workers, ""
        most: float = math.inf
        if self._scaling is not None:
            span = f" ({self._scaling.shift(step)} from now on)"
            most = self._cfg.max_workers
        wanted = int(min(max(1, before + step), most))
        if wanted != before or span:
            logger.info("%s: %d%s", text if wanted != before else "as many workers", wanted, span)
            self.pool.resize(wanted)
