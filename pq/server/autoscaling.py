"""Have the workers of a server follow the demand: look once a second, and do what `autoscaler` decides.

A look asks the workers for their load, through their mailboxes. It asks the store for the number of waiting
tasks only when that can matter: when workers are in use, or when there are more than the least. An idle server
asks the store nothing. While the store does not answer, nothing is decided and nothing is logged: the workers
log an outage, and a server without a store has nothing to scale for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import msgpack

from ..broker.contract.broker import Broker
from ..config import WorkerRange
from ..errors import PqError
from ..loops import EternalTask
from ..worker.load import Load
from .autoscaler import IN_USE, Autoscaler, Decision, Meter, Reading

logger = logging.getLogger("pq.server")

EVERY = 1.0
"""Seconds between two looks."""
PATIENCE = 0.2
"""Seconds that a worker gets to answer; a worker whose event loop is blocked for longer is busy."""


class Pool(Protocol):
    """The workers of a server, as the autoscaler needs them."""

    @property
    def workers(self) -> int:
        """Return the wanted number of workers."""
        ...

    @property
    def leaving(self) -> int:
        """Return the number of workers that drain."""
        ...

    @property
    def settled(self) -> bool:
        """Return True if their number may be changed now."""
        ...

    @property
    def queues(self) -> Sequence[str]:
        """The queues that they consume; empty while no worker is ready."""
        ...

    async def loads(self, patience: float) -> dict[str, Load | None]:
        """Return the load of each worker that is ready; None for one that does not answer in `patience` seconds."""
        ...

    def resize(self, workers: int) -> None:
        """Have that many workers."""


class Scaling:
    """Look, decide and act, from `start` to `stop`."""

    def __init__(
        self,
        pool: Pool,
        broker: Broker,
        *,
        channel: str,
        node: str,
        least: int,
        most: int,
        idle_timeout: float,
    ) -> None:
        self._pool = pool
        self._broker = broker
        self._channel = channel
        self._node = node
        self._autoscaler = Autoscaler(least, most, idle_timeout)
        self._meter = Meter()
        self._looked = time.monotonic()
        self._task = EternalTask("the autoscaler", self._run, logger=logger)

    def start(self) -> None:
        """Begin to look."""
        self._task.start()

    async def stop(self) -> None:
        """Decide no more; twice is harmless."""
        await self._task.stop()

    def shift(self, step: int) -> WorkerRange:
        """Move the lower end of the range, as far as that goes; return the range that it is now."""
        scaler = self._autoscaler
        scaler.least = min(max(1, scaler.least + step), scaler.most)
        return WorkerRange(scaler.least, scaler.most)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look()
            except PqError as exc:
                self._autoscaler.hold(time.monotonic(), self._pool.workers)
                logger.debug("nothing can be decided about the workers: %s", exc)
            except Exception:
                logger.exception("the number of workers stays as it is")

    async def look(self) -> None:
        """Look once, and do what follows from it."""
        pool, scaler = self._pool, self._autoscaler
        loads = await pool.loads(PATIENCE)
        at = time.monotonic()
        measure = self._meter.look(loads, at - self._looked)
        self._looked = at
        waiting = 0
        if measure.in_use >= IN_USE or pool.workers > scaler.least:
            waiting = await self._waiting()
        if not pool.settled:
            scaler.hold(at, pool.workers)
            return
        decision = scaler.decide(Reading(at, pool.workers, pool.leaving, waiting, measure))
        if decision is not None:
            was, workers, why = decision
            logger.info("%d → %d workers: %s", was, workers, why)
            pool.resize(workers)
            await self._publish(decision, waiting, measure.in_use)

    async def _waiting(self) -> int:
        """Return the number of tasks that could be started now, in all queues."""
        return sum([(await self._broker.looks.state(queue)).startable for queue in self._pool.queues])

    async def _publish(self, decision: Decision, waiting: int, utilisation: float) -> None:
        """Publish event `scaled` on channel `consumer`."""
        facts = {
            "event": "scaled",
            "node": self._node,
            "workers": decision.workers,
            "was": decision.was,
            "why": decision.why,
            "waiting": waiting,
            "utilisation": round(utilisation, 3),
            "least": self._autoscaler.least,
            "most": self._autoscaler.most,
            "time": time.time(),
        }
        await self._broker.channels.publish(self._channel, msgpack.packb(facts))
