"""Locks on the store: one holder at a time, over all programs that share it.

A lock is held for `ttl` seconds and renewed every third of that, so a live holder never loses it and it is free again
soon after a holder died. Each holder has a random token: only the holder can renew or release the lock. Each holding
gets a `fence`, a number larger than that of any holding before. No lock can stop a process that slept through its own
time-out from waking up and going on; but a resource that stores the fence with what it is given can refuse the smaller
one.

*Waiting.* Of all that wait for one lock in one loop only the first asks the store. It asks again when the lock is
released, which the store publishes, or when the time of its holder is over, whichever comes first. So nothing polls,
and a lost notification costs at most the rest of a `ttl`.

A lock is `async with` in a loop. In a thread `with` works too; the work is done in the loop of the engine.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..broker.contract.broker import Broker
from ..errors import LockTimeout, PqError, WaitInLoop
from ..loops import running_loop
from ..model.names import LIMITS, check_name
from ..model.options import check_number
from .engine import Engine

logger = logging.getLogger("pq.producer")
T = TypeVar("T")

SHORTEST_TTL = 0.1


class Lock:
    """One lock, to be held once at a time. Made by `api.lock(name)` and `self.lock()`.

    Attributes:
        name: what it is called.
        fence: the number of this holding, larger than any before; 0 while it is not held.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        block: Callable[[Awaitable[Any]], Any] | None = None,
    ) -> None:
        self.name = check_name("lock name", name)
        check_number("ttl", ttl, SHORTEST_TTL, LIMITS.delay)
        check_number("wait", wait, 0, LIMITS.delay)
        self.fence = 0
        self._engine = engine
        self._ttl = ttl
        self._wait = wait
        self._block = block
        self._token = ""
        self._refused = False
        self._good_until = 0.0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        """True when another holder may have it by now, though it was not released: stop what it protects."""
        return bool(self.fence) and (self._refused or time.monotonic() >= self._good_until)

    def __repr__(self) -> str:
        state = "lost" if self.lost else f"held, fence {self.fence}" if self.fence else "not held"
        return f"<lock {self.name!r} {state}>"

    # ------------------------------------------------------------------------------ everywhere
    async def acquire(self) -> int:
        """Take the lock and return its fence. Raises `LockTimeout` when it was not free within `wait` seconds."""
        return await self._there(self._acquire())

    async def release(self) -> bool:
        """Release the lock; return False when another holder had it already. Harmless when it is not held."""
        return await self._there(self._release())

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.release()

    def __enter__(self) -> Lock:
        self._wait_for(self._acquire())
        return self

    def __exit__(self, *exc: object) -> None:
        self._wait_for(self._release())

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in the loop of the engine, whichever loop this is."""
        if asyncio.get_running_loop() is self._engine.loop:
            return await work
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._engine.loop))
        except asyncio.CancelledError:
            self._engine.loop.call_soon_threadsafe(self._abandon)
            raise

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in the loop of the engine and wait here: in a thread, or by `block` in the greenlet of a job."""
        if self._block is not None:
            result: T = self._block(work)
            return result
        if running_loop() is not None:
            work.close()
            raise WaitInLoop(
                f"`with` on the lock {self.name!r} inside a running event loop would block it",
                hint="write `async with`",
            )
        future = asyncio.run_coroutine_threadsafe(work, self._engine.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise PqError(f"the lock {self.name!r} cannot be taken: this program is closing") from None
        except BaseException:
            future.cancel()
            self._engine.loop.call_soon_threadsafe(self._abandon)
            raise

    # ---------------------------------------------------------------------- in the engine's loop
    def _abandon(self) -> None:
        """The caller in another thread was interrupted: the lock may have been granted at that very moment."""
        if self.fence:
            self._engine.tasks.spawn(self._release())

    async def _acquire(self) -> int:
        if self.fence:
            raise PqError(f"the lock {self.name!r} is held by this very object", hint="make another one")
        broker = await self._engine.open()
        token = os.urandom(12).hex()
        self._refused = False
        fence = 0
        try:
            async with asyncio.timeout(self._wait or None):
                fence = await self._take(broker, token)
        except TimeoutError:
            pass
        finally:
            if not fence:
                # It may have been granted by a call whose answer was lost.
                self._engine.tasks.spawn(_unlock(broker, self.name, token))
        if not fence:
            raise LockTimeout(
                f"the lock {self.name!r} was not free within {self._wait:g} s",
                hint="wait longer: wait=…; None waits without end",
            )
        self._token, self.fence = token, fence
        self._renewing = self._engine.tasks.spawn(self._renew(broker))
        return fence

    async def _take(self, broker: Broker, token: str) -> int:
        async def attempt() -> tuple[int, float]:
            asked = time.monotonic()
            fence, wait = await broker.channels.lock(self.name, token, round(self._ttl * 1000))
            # Counted from before the question: the count of the store began later.
            self._good_until = asked + self._ttl
            return fence, wait / 1000

        if self._wait == 0:
            return (await attempt())[0]
        return await self._engine.locks.take(self.name, attempt, self._engine.listen_to_locks)

    async def _renew(self, broker: Broker) -> None:
        while not self._refused:
            await asyncio.sleep(self._ttl / 3)
            asked = time.monotonic()
            try:
                kept = await broker.channels.lock(self.name, self._token, round(self._ttl * 1000), keep=True)
            except PqError as exc:
                logger.warning("the lock %r could not be renewed this time: %s", self.name, exc)
                continue
            if kept.fence == self.fence:
                self._good_until = asked + self._ttl
            else:
                self._refused = True
                logger.warning("the lock %r was lost: it was not renewed in time", self.name)

    async def _release(self) -> bool:
        renewing, self._renewing = self._renewing, None
        token, self._token = self._token, ""
        if not self.fence:
            return False
        self.fence = 0
        if renewing is not None:
            renewing.cancel()
        # By a task of the engine's: a caller that is cancelled here releases all the same.
        releasing = self._engine.tasks.spawn(_unlock(await self._engine.open(), self.name, token))
        released: bool = await asyncio.shield(releasing)
        return released


async def _unlock(broker: Broker, name: str, token: str) -> bool:
    try:
        return await broker.channels.unlock(name, token)
    except PqError as exc:
        logger.warning("the lock %r was not released, and is free when its time is over: %s", name, exc)
        return False
