"""A service: one long-running duty of a worker, with the same verbs for all.

`start` returns when the duty has begun, `stop` when it has ended; both may be called twice. The duty runs in a
task that must not end (`pq.loops.EternalTask`): its end is an error, of which the worker is notified.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..loops import EternalTask

logger = logging.getLogger("pq.worker")


class Service:
    """Base of the services. Subclasses write `run`; those that need more extend `start` and `stop`."""

    name = "service"

    def __init__(self) -> None:
        self._duty = EternalTask(self.name, self.run, logger=logger, on_end=self._ended)
        self.on_failure: Callable[[Service, BaseException | None], None] | None = None

    async def start(self) -> None:
        """Begin the duty. Raises what makes it impossible."""
        self._duty.start()

    async def run(self) -> None:
        """Do the duty until it is cancelled."""

    async def stop(self) -> None:
        """End the duty, within a bounded time."""
        await self._duty.stop()

    def _ended(self, error: BaseException | None) -> None:
        if self.on_failure is not None:
            self.on_failure(self, error)
