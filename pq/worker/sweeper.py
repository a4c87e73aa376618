"""The sweeper: removes large messages that no record refers to any more, where `large_dir` is set."""

from __future__ import annotations

import asyncio
import logging
import random

from ..broker.layers.payload_files import SWEPT_EVERY
from ..errors import PqError
from .context import Context
from .service import Service

logger = logging.getLogger("pq.worker")


class Sweeper(Service):
    """A service that sweeps now and then. A failure is logged, and the next sweep tries again."""

    name = "sweeper"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._broker = context.broker

    async def run(self) -> None:
        while True:
            # Workers that started together do not sweep together.
            await asyncio.sleep(SWEPT_EVERY * random.uniform(0.2, 1.2))  # noqa: S311
            try:
                removed = await self._broker.sweep()
            except (PqError, OSError) as exc:
                logger.warning("large_dir was not swept: %s", exc)
            else:
                if removed:
                    logger.info("large_dir swept: %d messages that no task needs removed", removed)
