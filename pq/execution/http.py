"""The HTTP clients of jobs (`self.http`): one of each kind in a process, made when first asked for.

A job in the event loop or in a greenlet gets an async client, one in a thread or in a child process a
blocking one; both have the same methods. They are shared by all tasks, so connections are kept and used
again; both kinds may be used by many at once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import ExtraNeeded

logger = logging.getLogger("pq.execution")

Factory = Callable[[bool], Any]
"""Makes a client: a blocking one for True, an async one for False."""


class HttpClients:
    """The clients of one program. `factory` answers with the user's own factory, or None."""

    def __init__(self, factory: Callable[[], Factory | None] = lambda: None) -> None:
        self._factory = factory
        self._mutex = threading.Lock()
        self._blocking: Any = None
        # An async client belongs to the loop in which it has opened its connections.
        self._async: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    def get(self, blocking: bool) -> Any:
        """Return the client of that kind. Raises `ExtraNeeded` without a library for it."""
        with self._mutex:
            if blocking:
                if self._blocking is None:
                    self._blocking = self._make(True)
                return self._blocking
            loop = asyncio.get_running_loop()
            client = self._async.get(loop)
            if client is None:
                client = self._async[loop] = self._make(False)
            return client

    def _make(self, blocking: bool) -> Any:
        factory = self._factory()
        if factory is not None:
            return factory(blocking)
        try:
            import httpx2
        except ImportError:
            raise ExtraNeeded(
                "self.http needs httpx2, which is not installed",
                hint="pip install 'pq-tasks[http]', or give another client: Manager.http()",
            ) from None
        return httpx2.Client() if blocking else httpx2.AsyncClient()

    async def close(self) -> None:
        """Close what was opened in this loop, and the blocking client. Twice is harmless."""
        client = self._async.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await _close(client)
        self.close_blocking()

    def close_blocking(self) -> None:
        """Close the blocking client."""
        with self._mutex:
            client, self._blocking = self._blocking, None
        if client is not None and hasattr(client, "close"):
            try:
                client.close()
            except Exception:
                logger.exception("closing the HTTP client of jobs failed")


async def _close(client: Any) -> None:
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    if close is None:
        return
    try:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
    except Exception:
        logger.exception("closing the HTTP client of jobs failed")
