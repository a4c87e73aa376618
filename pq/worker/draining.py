"""Drain a worker: it takes no more tasks, and what runs ends in time or is handed back unspent."""

from __future__ import annotations

import asyncio
import contextlib
import math

from ..model.outcome import RELEASED
from .attempts import Attempts

LAST_TIME = 5.0
"""Seconds that stopped attempts get to end."""


class Draining:
    """The drain of one worker.

    Attributes:
        begun: no task is reserved any more.
    """

    __slots__ = ("_attempts", "_empty", "_limit", "begun")

    def __init__(self, attempts: Attempts) -> None:
        self.begun = False
        self._attempts = attempts
        self._empty: asyncio.Event | None = None
        self._limit: asyncio.Timeout | None = None

    async def drain(self, grace: float) -> None:
        """Wait at most `grace` seconds for the attempts to end; then stop those that still run.

        `grace` may be infinite: then it takes as long as the attempts do, unless `shorten` is called meanwhile.
        """
        self.begun = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if grace == math.inf else grace) as self._limit:
                await self._all_ended()
        self._limit = None
        for attempt in self._attempts.all():
            attempt.cancel(RELEASED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_TIME):
                await self._all_ended()

    def shorten(self, grace: float) -> None:
        """End a drain that is under way within `grace` seconds."""
        end = asyncio.get_running_loop().time() + grace
        limit = self._limit
        if limit is not None and not limit.expired() and (limit.when() or math.inf) > end:
            limit.reschedule(end)

    def attempt_ended(self) -> None:
        """An attempt has ended: where it was the last one, the drain is over."""
        if self._empty is not None and not self._attempts:
            self._empty.set()

    async def _all_ended(self) -> None:
        if self._attempts:
            self._empty = asyncio.Event()
            await self._empty.wait()
