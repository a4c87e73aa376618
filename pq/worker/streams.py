"""The streams of running tasks: the parts of their results, on their way to the store.

Parts wait here until they are sent, those of all tasks in one call. While a call is under way the next parts gather;
so a single part leaves at once, and many go together. A job that streams faster than the store takes it waits:
`space` resolves when fewer parts are unsent.

A task's end must not overtake its stream. So the consumer calls `finish` before it settles: that sends the rest, and
a mark that the attempt ends here. An attempt that lost its lease sends nothing more: the script refuses it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..broker.contract.values import Streamed
from ..errors import InvalidValue, PqError, QueueFull
from ..loops import running_loop
from ..model.backend import NO_WAIT
from ..model.task import Task
from .context import Context
from .service import Service

logger = logging.getLogger("pq.worker")

MOST_PARTS = 10_000
MOST_BYTES = 16_000_000
"""Parts and bytes that are kept of one attempt's stream, its last ones; and that may wait to be sent."""
UNSENT_PARTS = 1_000
UNSENT_BYTES = 1_000_000
"""Parts and bytes that may wait to be sent before the job that streams has to wait."""
AT_ONCE_PARTS = 500
AT_ONCE_BYTES = 500_000
"""Parts and bytes of one task in one call."""
CALL_BYTES = 4_000_000
"""Bytes of all tasks in one call."""
AGAIN_AFTER = 0.5
"""Seconds until a call that the store did not answer is repeated."""


class Outlet:
    """The stream of one attempt."""

    __slots__ = ("_kept", "_sizes", "_waiters", "error", "number", "oldest", "size", "task", "unsent")

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.number = 0
        self.unsent: deque[bytes] = deque()
        self.size = 0
        self.oldest = 1
        self.error: PqError | None = None
        self._sizes: deque[int] = deque()
        self._kept = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def put(self, part: bytes) -> None:
        """Add a part; the oldest ones beyond what is kept are given up."""
        self.number += 1
        self.unsent.append(part)
        self.size += len(part)
        self._sizes.append(len(part))
        self._kept += len(part)
        while len(self._sizes) > MOST_PARTS or self._kept > MOST_BYTES:
            self._kept -= self._sizes.popleft()
            self.oldest += 1

    @property
    def has_space(self) -> bool:
        """Return True if another part may be added without a wait."""
        return len(self.unsent) < UNSENT_PARTS and self.size < UNSENT_BYTES

    def space(self, least: int = UNSENT_PARTS) -> asyncio.Future[None]:
        """Return a future that resolves when fewer than `least` parts are unsent and there is space, or has the error."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((least, waiter))
        return waiter

    def sent(self, count: int) -> None:
        """Note that the first `count` unsent parts are in the store."""
        for _ in range(count):
            self.size -= len(self.unsent.popleft())
        if self.has_space:
            for least, waiter in self._waiters:
                if len(self.unsent) < least and not waiter.done():
                    waiter.set_result(None)
            self._waiters = [(least, waiter) for least, waiter in self._waiters if not waiter.done()]

    def fail(self, error: PqError) -> None:
        """End the stream with an error: no more of it gets to the store."""
        self.error = self.error or error
        self.unsent.clear()
        self.size = 0
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # retrieved: a job that does not await it gets the error from its next part

    def next_call(self) -> list[bytes]:
        """Return the parts that go next."""
        parts: list[bytes] = []
        size = 0
        for part in self.unsent:
            if parts and (size + len(part) > AT_ONCE_BYTES or len(parts) >= AT_ONCE_PARTS):
                break
            parts.append(part)
            size += len(part)
        return parts


class Streams(Service):
    """A service that sends the streams of all tasks.

    `held_under` returns the (queue, batch) under which the attempt of a task is held here, None where none is.
    """

    name = "streams"

    def __init__(self, context: Context, held_under: Callable[[Task[Any]], tuple[str, int] | None]) -> None:
        super().__init__()
        self._context = context
        self._held_under = held_under
        self._ttl = int(context.cfg.kept * 1000)
        self.outlets: dict[str, Outlet] = {}
        """By id, the streams of the tasks that have one."""
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __contains__(self, id: object) -> bool:
        """Return whether a task that runs here has streamed something."""
        return id in self.outlets

    async def stop(self) -> None:
        await super().stop()
        self.drop_all()

    # -------------------------------------------------------------------------------- from jobs
    def stream(
        self, task: Task[Any], part: bytes, block: Callable[[Awaitable[Any]], Any] | None = None
    ) -> Awaitable[None]:
        """See `pq.model.backend.Backend.stream`."""
        if threading.get_ident() == self._thread:
            waiter = self._add(task, part)
            if waiter is not None and block is not None:
                block(waiter)
                return NO_WAIT
            return NO_WAIT if waiter is None else waiter
        giving = self._give(task, part)
        try:
            given = asyncio.run_coroutine_threadsafe(giving, self._loop)
        except RuntimeError:
            giving.close()
            raise _ended(task) from None
        if running_loop() is not None:
            return asyncio.wrap_future(given)
        given.result()
        return NO_WAIT

    async def _give(self, task: Task[Any], part: bytes) -> None:
        waiter = self._add(task, part)
        if waiter is not None:
            await waiter

    def _add(self, task: Task[Any], part: bytes) -> asyncio.Future[None] | None:
        """Take a part; return what to wait for where there is no space for more."""
        outlet = self.outlets.get(task.id)
        if outlet is None or outlet.task is not task:
            if self._held_under(task) is None:
                raise _ended(task)
            outlet = self.outlets[task.id] = Outlet(task)
        if outlet.error is not None:
            raise outlet.error
        if len(outlet.unsent) >= MOST_PARTS or outlet.size + len(part) > MOST_BYTES:
            raise InvalidValue(
                f"{len(outlet.unsent):,} parts ({outlet.size:,} bytes) that {task.info()} streams wait to be sent",
                hint="write `await self.stream(part)` in an `async def`; a plain `def` that streams much is for a thread",
            )
        outlet.put(part)
        self._news.set()
        return None if outlet.has_space else outlet.space()

    # ---------------------------------------------------------------------------- from the consumer
    async def finish(self, task: Task[Any]) -> None:
        """End the stream of an attempt: note the number of its parts, and wait until they are in the store."""
        outlet = self.outlets.get(task.id)
        if outlet is None or outlet.task is not task:
            return
        # Before anything can fail: so a reader knows how many parts are missing.
        task.note(streamed=outlet.number)
        try:
            if outlet.error is not None:
                raise outlet.error
            outlet.put(b"")  # the mark that tells a reader to look for the task's end
            self._news.set()
            await outlet.space(1)
        except PqError as exc:
            logger.warning("stream of %s is incomplete in the store: %s", task.info(), exc)
        finally:
            self.drop(task)

    def drop(self, task: Task[Any]) -> None:
        """Drop the stream of an attempt, with what is unsent of it."""
        outlet = self.outlets.get(task.id)
        if outlet is not None and outlet.task is task:
            del self.outlets[task.id]
            outlet.fail(_ended(task))

    def drop_all(self) -> None:
        """Drop all streams: the lease is lost, or the worker stops."""
        for outlet in list(self.outlets.values()):
            self.drop(outlet.task)

    # ------------------------------------------------------------------------------------- sending
    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while calls := self._next_call():
                await self._send(calls)

    def _next_call(self) -> list[tuple[Outlet, Streamed]]:
        calls: list[tuple[Outlet, Streamed]] = []
        size = 0
        for outlet in list(self.outlets.values()):
            if not outlet.unsent:
                continue
            held = self._held_under(outlet.task)
            if held is None:
                self.drop(outlet.task)
                continue
            parts = outlet.next_call()
            first = outlet.number - len(outlet.unsent) + 1
            calls.append((outlet, Streamed(held[0], outlet.task.id, held[1], first, outlet.oldest, parts)))
            size += sum(map(len, parts))
            if size >= CALL_BYTES:
                break
        # Streams that were sent go last, so that no stream keeps another one waiting.
        for outlet, _ in calls:
            self.outlets[outlet.task.id] = self.outlets.pop(outlet.task.id)
        return calls

    async def _send(self, calls: list[tuple[Outlet, Streamed]]) -> None:
        context = self._context
        try:
            taken = await context.broker.channels.keep_parts(
                context.lease, [call for _, call in calls], self._ttl
            )
        except QueueFull as exc:
            for outlet, _ in calls:
                outlet.fail(exc)
            return
        except PqError as exc:
            logger.debug("streams are sent later: %s", exc)
            await asyncio.sleep(AGAIN_AFTER)
            return
        for (outlet, call), kept in zip(calls, taken, strict=True):
            if outlet.error is not None:
                continue  # dropped meanwhile
            if kept:
                outlet.sent(len(call.parts))
            else:
                outlet.fail(PqError("this worker lost the task, and another worker has it"))


def _ended(task: Task[Any]) -> InvalidValue:
    return InvalidValue(
        f"{task.info()} does not run here any more, so it can stream nothing",
        hint="stream from the job itself, before it returns",
    )
