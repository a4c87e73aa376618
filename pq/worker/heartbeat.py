"""The heartbeat: announces every few seconds that this worker lives, and what it does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import msgpack

from ..errors import PqError
from .context import Context
from .service import Service

logger = logging.getLogger("pq.worker")

EVERY = 5.0
"""Seconds between two heartbeats on average; a worker that misses three of them is taken off the list."""
MOST_NAMES = 4000
"""Characters of the job names in a heartbeat; with more of them it lists no jobs."""


class Heartbeat(Service):
    """A service that publishes event `status` on channel `consumer`, and sets the key `consumer:<name>` with a TTL."""

    name = "heartbeat"

    def __init__(self, context: Context, running: Callable[[], int]) -> None:
        super().__init__()
        self._context = context
        self._running = running
        self._known = _known(context)

    async def run(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(EVERY * (0.75 + 0.5 * self._context.clock.random()))  # not all at once

    async def stop(self) -> None:
        await super().stop()
        await self._beat(leaving=True)

    async def _beat(self, *, leaving: bool = False) -> None:
        try:
            async with asyncio.timeout(EVERY):
                payload = msgpack.packb(self.facts(leaving=leaving))
                # The name of a worker that leaves stays for a moment only; listeners get the event.
                ttl = 0.001 if leaving else 3 * EVERY
                name = f"{self._context.node}.{self._context.name}.{os.getpid()}"
                await self._context.broker.channels.beat(name, payload, ttl)
        except (PqError, TimeoutError) as exc:
            logger.debug("heartbeat not sent: %s", exc)

    def facts(self, *, leaving: bool = False) -> dict[str, Any]:
        """Return the content of a heartbeat."""
        context = self._context
        counts = context.counts
        return {
            "worker": context.name,
            "node": context.node,
            "pid": os.getpid(),
            "queues": context.queues,
            "concurrency": context.cfg.concurrent_tasks,
            "running": self._running(),
            "processed": counts.processed,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "revoked": counts.revoked,
            "retried": counts.retried,
            "refused": counts.refused,
            "cores": os.cpu_count() or 1,
            "time": context.clock.time(),
            **self._known,
            "scheduling": bool(context.cfg.schedule_periodic),
            "leaving": leaving,
        }


def _known(context: Context) -> dict[str, list[str]]:
    """Return the jobs of this worker, and the modules whose plain functions are jobs too."""
    jobs, modules = [job.name for job in context.registry], context.registry.modules
    if sum(map(len, jobs)) + sum(map(len, modules)) > MOST_NAMES:
        return {}
    return {"jobs": jobs, "modules": modules}
