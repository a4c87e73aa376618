"""The sweeper: has large messages removed that no record claims any more; where `large_dir` is set."""

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
    """Sweeps now and then. What goes wrong is told, and tried again the next time."""

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
                    logger.info("%d large messages that no task needs any more were removed", removed)
