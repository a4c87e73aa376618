"""Has a server's workers follow the demand: looks once a second, and does what `autoscaler` decides.

Who is asked: the workers, through their mailboxes, for what they have to do; and the store, for how much
waits, only when that can matter: when workers are in use, or when there are more than the least. An idle
server asks it nothing. When the store does not answer nothing is decided, and nothing is logged: the workers
tell of an outage, and a server without a store has nothing to scale for.
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
from ..worker.load import Load
from .autoscaler import IN_USE, Autoscaler, Decision, Meter, Reading

logger = logging.getLogger("pq.server")

EVERY = 1.0
"""Seconds between two looks."""
PATIENCE = 0.2
"""Seconds that a worker gets to answer; one whose event loop is held for longer is busy."""


class Crew(Protocol):
    """The workers, as the supervisor keeps them."""

    @property
    def workers(self) -> int:
        """How many there are to be."""
        ...

    @property
    def leaving(self) -> int:
        """How many finish what they run, and end."""
        ...

    @property
    def settled(self) -> bool:
        """Whether their number may be changed now."""
        ...

    @property
    def queues(self) -> Sequence[str]:
        """What they consume; empty as long as none has said so."""
        ...

    async def loads(self, patience: float) -> dict[str, Load | None]:
        """What each that is ready has to do; None of one that does not answer in time."""
        ...

    def resize(self, workers: int) -> None:
        """Have so many."""


class Scaling:
    """Looks, decides and acts, from `start` to `stop`."""

    def __init__(
        self,
        crew: Crew,
        broker: Broker,
        *,
        channel: str,
        node: str,
        least: int,
        most: int,
        idle_timeout: float,
    ) -> None:
        self._crew = crew
        self._broker = broker
        self._channel = channel
        self._node = node
        self._autoscaler = Autoscaler(least, most, idle_timeout)
        self._meter = Meter()
        self._looked = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="scaling")

    async def stop(self) -> None:
        """Decide no more; twice is harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def shift(self, step: int) -> WorkerRange:
        """Move the lower end of the range, as far as that goes; the range that it is now."""
        scaler = self._autoscaler
        scaler.least = min(max(1, scaler.least + step), scaler.most)
        return WorkerRange(scaler.least, scaler.most)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look()
            except PqError as exc:
                self._autoscaler.hold(time.monotonic(), self._crew.workers)
                logger.debug("nothing can be decided about the workers: %s", exc)
            except Exception:
                logger.exception("the number of workers stays as it is")

    async def look(self) -> None:
        """One look, and what follows from it."""
        crew, scaler = self._crew, self._autoscaler
        loads = await crew.loads(PATIENCE)
        at = time.monotonic()
        measure = self._meter.look(loads, at - self._looked)
        self._looked = at
        waiting = 0
        if measure.in_use >= IN_USE or crew.workers > scaler.least:
            waiting = await self._waiting()
        if not crew.settled:
            scaler.hold(at, crew.workers)
            return
        decision = scaler.decide(Reading(at, crew.workers, crew.leaving, waiting, measure))
        if decision is not None:
            was, workers, why = decision
            logger.info("%d → %d workers: %s", was, workers, why)
            crew.resize(workers)
            await self._tell(decision, waiting, measure.in_use)

    async def _waiting(self) -> int:
        """Tasks that could be started now, in all queues."""
        return sum([(await self._broker.looks.state(queue)).startable for queue in self._crew.queues])

    async def _tell(self, decision: Decision, waiting: int, utilisation: float) -> None:
        """Event `scaled` on channel `consumer`."""
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
