"""Calls of users' callbacks, within one event loop.

A plain function holds up the loop while it runs, so the store holds what comes. A coroutine function does not: where it is slower
than the events come, its calls pile up. So there are never more than `MOST` of them under way for one callback. What
comes meanwhile passes it by, counted, and the log says so; records are the truth, and events may always be missed.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger("pq.producer")

MOST = 10_000
"""Calls of one callback that may be under way: more than come in one turn of the loop, and some ten megabytes."""


class Callbacks:
    """Calls callbacks; one that raises is logged, and stops nothing. `spawn` makes a task of a coroutine."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]]) -> None:
        self._spawn = spawn
        self._under_way: dict[int, int] = {}
        self._passed_by: dict[int, int] = {}

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        key = id(callback)
        if self._under_way.get(key, 0) >= MOST:
            if key not in self._passed_by:
                logger.warning(
                    "%d calls of the event callback %r are under way: what comes now passes it by",
                    MOST,
                    callback,
                )
            self._passed_by[key] = self._passed_by.get(key, 0) + 1
            return
        try:
            result = callback(*args)
        except Exception:
            logger.exception("an event callback raised: %r", callback)
            return
        if inspect.isawaitable(result):
            self._under_way[key] = self._under_way.get(key, 0) + 1
            self._spawn(_guarded(callback, result)).add_done_callback(
                functools.partial(self._ended, callback, key)
            )

    def _ended(self, callback: Callable[..., Any], key: int, _: object) -> None:
        left = self._under_way.pop(key) - 1
        if left:
            self._under_way[key] = left
        if key in self._passed_by and left <= MOST // 2:
            missed = self._passed_by.pop(key)
            logger.warning(
                "the event callback %r is called again: %d events have passed it by", callback, missed
            )


async def _guarded(callback: Callable[..., Any], result: Any) -> None:
    try:
        await result
    except Exception:
        logger.exception("an event callback raised: %r", callback)
