"""The lease of a worker: renewed by a thread, with a connection of its own.

A job that blocks the event loop must not cost the worker its tasks, so renewing does not depend on the loop. The
same thread watches the loop: when the loop does not answer for a second, it logs the job that blocks it, with its
stack. When that goes on for `stall_limit`, the worker ends itself, so that other workers get its tasks.

The *reclaim guard* depends on renewals too. After an outage, a restart of the store or a jump of its clock all leases
look expired at once, and the first worker to return would take the running tasks of all others. So the store notes
since when leases have been renewed without a gap, by any worker, and lets expired ones be taken over only when that
is a whole lease ago. The script that takes over decides it in the store: a worker may be stopped between asking and
acting, and a new worker need not learn what the others know.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ..broker.contract.broker import Renewer
from ..broker.contract.values import Renewal
from ..errors import PqError, StoreUnavailable
from ..model.names import new_lease
from .context import Context

logger = logging.getLogger("pq.worker")

LOOK = 0.5
"""Seconds between two looks at the event loop."""
STALL = 1.0
"""Seconds without an answer after which the loop counts as blocked."""


_NOT_THE_USERS = (os.path.dirname(os.path.dirname(__file__)) + os.sep, sysconfig.get_path("stdlib") + os.sep)
"""Directories of code that no user wrote: this library, and Python's own."""


class LeaseKeeper:
    """Takes the lease of a worker and renews it.

    Args:
        context: the surroundings of the worker; its `lease` is set here.
        on_lease: called with each lease before it is taken.
        on_lost: called in the loop when the lease is lost.
        on_cancel: called in the loop with the ids of tasks that are to be stopped.
        job_of: the name of the task whose attempt runs in an asyncio task.
    """

    name = "lease keeper"

    def __init__(
        self,
        context: Context,
        *,
        on_lease: Callable[[str], None],
        on_lost: Callable[[], None],
        on_cancel: Callable[[frozenset[str]], None],
        job_of: Callable[[asyncio.Task[Any] | None], str | None],
    ) -> None:
        self._context = context
        self._on_lease = on_lease
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._job_of = job_of
        self._ttl = int(context.cfg.lease * 1000)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._pings = 0
        self._pongs = 0
        self._look = min(LOOK, self._ttl / 10_000)
        self._next_renewal = 0.0
        self._clock_offset: float | None = None

    # ------------------------------------------------------------------------------------ life
    async def start(self) -> None:
        """Open the lease and begin to renew it."""
        if self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        await self.take_new_lease()
        self._begin()

    async def stop(self) -> None:
        """Stop renewing. The lease itself is handed back by the consumer."""
        await self._end()

    # The thread is begun and ended in these two alone, so that a simulation can replace it.
    def _begin(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name=f"pq-lease-{self._context.name}", daemon=True)
        self._thread.start()

    async def _end(self) -> None:
        thread, self._thread = self._thread, None
        self._ended.set()
        if thread is not None:
            await asyncio.to_thread(thread.join, 5.0)

    async def take_new_lease(self) -> str:
        """Take a new lease: at the start, and whenever the old one was lost."""
        context = self._context
        lease = new_lease()
        self._on_lease(lease)
        await context.broker.work.open_lease(lease, context.queues, self._ttl)
        context.lease = lease
        return lease

    # ---------------------------------------------------------------------------------- thread
    def _run(self) -> None:
        renewer = self._context.broker.renewer()
        clock = self._context.clock
        self._plan(clock.monotonic())
        blocked_since: float | None = None
        named = False
        try:
            while not self._ended.wait(self._until_next_look()):
                now = clock.monotonic()
                if self._is_due(now):
                    self._renew(renewer)
                if self._answers():
                    if named:
                        self._say_freed(now - (blocked_since or now))
                    blocked_since, named = None, False
                    self._ping()
                    continue
                blocked_since = blocked_since if blocked_since is not None else now - LOOK
                if now - blocked_since >= STALL and not named:
                    named = True
                    self._name_the_blocker(now - blocked_since)
                if now - blocked_since >= self._context.cfg.stall_limit:
                    logger.critical(
                        "the event loop is blocked for %.0f s: this worker ends", now - blocked_since
                    )
                    os._exit(70)
        finally:
            renewer.close()

    def _until_next_look(self) -> float:
        """Return a time of chance: workers that started together would renew together forever."""
        return self._look * (0.75 + 0.5 * self._context.clock.random())

    def _plan(self, now: float) -> None:
        """Plan the next renewal of a valid lease: when a third of it is over."""
        self._next_renewal = now + self._ttl / 3000

    def _is_due(self, now: float) -> bool:
        return now >= self._next_renewal

    def _renew(self, renewer: Renewer) -> bool:
        lease = self._context.lease
        answer: tuple[Renewal, int] | PqError
        try:
            answer = renewer.renew(lease, self._context.queues, self._ttl)
        except PqError as exc:
            answer = exc
        except Exception as exc:  # any: a worker whose thread has ended would lose each lease that it takes
            answer = PqError(f"{type(exc).__name__}: {exc}")
        return self._renewed(lease, answer)

    def _renewed(self, lease: str, answer: tuple[Renewal, int] | PqError) -> bool:
        """Take the store's answer to a renewal of that lease, or the reason why there is none; return whether there is."""
        now = self._context.clock.monotonic()
        if isinstance(answer, PqError):
            # Tried again soon, because a lease is three renewals long; and not by all workers at once.
            self._next_renewal = now + min(1.0, self._ttl / 10_000) * (0.5 + self._context.clock.random())
            if isinstance(answer, StoreUnavailable):
                logger.debug("lease not renewed: %s", answer)
            else:
                logger.warning("lease not renewed: %s", answer)
            return False
        self._plan(now)
        renewal, server_ms = answer
        self._watch_clock(server_ms)
        if lease == self._context.lease:  # else it was replaced meanwhile
            if not renewal.alive:
                self._call_loop(self._on_lost)
            elif renewal.cancelling:
                self._call_loop(self._on_cancel, renewal.cancelling)
        return True

    def _watch_clock(self, server_ms: int) -> None:
        """Warn where the store's clock and ours moved apart: the store's clock has jumped."""
        offset = server_ms / 1000 - self._context.clock.monotonic()
        if self._clock_offset is not None and abs(offset - self._clock_offset) > self._ttl / 4000:
            logger.warning(
                "the store's clock jumped by %.1f s; nothing is taken over for one lease",
                offset - self._clock_offset,
            )
        self._clock_offset = offset

    # ------------------------------------------------------------------------------ loop watch
    def _answers(self) -> bool:
        return self._pongs == self._pings

    def _ping(self) -> None:
        self._pings += 1
        self._call_loop(self._pong, self._pings)

    def _pong(self, number: int) -> None:
        self._pongs = number

    def _call_loop(self, function: Callable[..., None], *args: Any) -> None:
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: the worker is ending

    def _name_the_blocker(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = traceback.extract_stack(frame)[-6:] if frame is not None else []
        # The last line that is neither ours nor Python's: the user can change it.
        own = [line for line in stack if not line.filename.startswith(_NOT_THE_USERS)]
        place = f" at {os.path.relpath(own[-1].filename)}:{own[-1].lineno}" if own else ""
        try:
            job = self._job_of(asyncio.current_task(self._loop))
        except RuntimeError:
            job = None
        logger.warning(
            "%s holds the event loop for %.1f s%s; every other task of this worker waits [loop-blocked]",
            job or "something",
            seconds,
            place,
            extra={
                "stack": "".join(traceback.format_list(own or list(stack))).rstrip(),
                "hint": '@api.job(concurrency="thread"), or "process" for CPU work',
            },
        )

    def _say_freed(self, seconds: float) -> None:
        logger.warning("the event loop answers again after %.1f s", seconds)
