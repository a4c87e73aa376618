"""Requests of a job in a child to its worker: queue a task, await it; hold a lock; stream a part.

The worker does it with the backend of the attempt, as the job itself would in the loop. The future of a request is
kept while the attempt lasts and awaited when the job awaits it; the end of the attempt releases it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from ..errors import PqError
from ..model.backend import HeldLock
from ..model.outcome import error_text
from ..model.payloads import load_payload
from ..model.serializers import MSGPACK
from ..model.task import Task
from .attempt import Attempt
from .frames import ANSWER, LOCK, QUEUE, STREAM, UNLOCK, frame

_releasing: set[asyncio.Task[bool]] = set()
"""Releases of locks under way, after the attempts that held them."""


class ChildRequests:
    """The requests of one attempt in a child. `send` takes frames to it, `log` a line about it."""

    def __init__(
        self, attempt: Attempt, send: Callable[[bytes], object], log: Callable[[Task[Any], int, str], None]
    ) -> None:
        self._attempt = attempt
        self._send = send
        self._log = log
        self._futures: dict[int, Any] = {}
        self._locks: dict[int, HeldLock] = {}
        self._streamed = 0
        self._answering: set[asyncio.Task[None]] = set()
        self._ended = False

    def handle(self, word: int, fields: list[Any]) -> None:
        """Do what a frame asks for: STREAM, QUEUE, LOCK, UNLOCK or AWAIT."""
        if word == STREAM:
            self.stream(*fields)
        elif word == QUEUE:
            self.queue(*fields)
        elif word == LOCK:
            self.lock(*fields)
        elif word == UNLOCK:
            self.unlock(*fields)
        else:
            self.answer(*fields)

    def queue(self, number: int, name: str, arguments: bytes) -> None:
        """Queue a task. A refusal is logged, as the job may never await it, and is the answer if it does."""
        try:
            args, kwargs, *options = load_payload(MSGPACK, arguments)
            tasks = self._attempt.backend.tasks
            if options:
                future = tasks.queue_call(name, args, kwargs, **options[0])
            else:
                future = tasks.queue(name, *args, **kwargs)
            self._futures[number] = asyncio.ensure_future(future) if inspect.iscoroutine(future) else future
        except Exception as exc:
            self._futures[number] = exc
            self._log(self._attempt.task, logging.ERROR, f"{name} was not queued: {error_text(exc)}")

    def lock(self, number: int, name: str, ttl: float, wait: float | None) -> None:
        """Take a lock. It is held here and released with the attempt at the latest, however that ends."""
        try:
            lock = self._attempt.backend.lock(name, ttl=ttl, wait=wait)
            self._locks[number] = lock
            self._futures[number] = asyncio.ensure_future(lock.acquire())
        except Exception as exc:
            self._futures[number] = exc

    def unlock(self, number: int, of: int, release: int) -> None:
        """Release the lock number `of`, or only answer whether it is still held."""
        lock, taking = self._locks.get(of), self._futures.get(of)
        if release and isinstance(taking, asyncio.Future):
            taking.cancel()  # the job no longer waits for it
        self._futures[number] = asyncio.ensure_future(_look_at(lock, release=bool(release)))
        if release:
            self._locks.pop(of, None)

    def stream(self, number: int, part: bytes) -> None:
        """Stream a part. Only the outcome of the last one is kept: a job waits there, and errors stay there."""
        self._futures.pop(self._streamed, None)
        self._streamed = number
        try:
            self._futures[number] = self._attempt.backend.stream(self._attempt.task, part)
        except Exception as exc:
            self._futures[number] = exc

    def answer(self, number: int) -> None:
        """Answer when the request `number`, which the job awaits, has its outcome."""
        answering = asyncio.ensure_future(self._answer(number))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    def end(self) -> None:
        """End all requests: the attempt is over."""
        self._ended = True
        for number, lock in self._locks.items():
            taking = self._futures.get(number)
            if isinstance(taking, asyncio.Future) and not taking.done():
                taking.cancel()
            elif lock.fence:
                _releasing.add(releasing := asyncio.ensure_future(lock.release()))
                releasing.add_done_callback(_releasing.discard)
        self._locks.clear()
        self._futures.clear()
        for answering in self._answering:
            answering.cancel()

    async def _answer(self, number: int) -> None:
        future = self._futures.get(number)
        if future is None and number < self._streamed:
            future = self._futures.get(self._streamed)  # a later part has taken its place
        try:
            if isinstance(future, Exception):
                raise future
            if future is None:
                raise PqError(f"request {number} is unknown")
            done: Task[Any] | int | None = await future
            answer = frame(ANSWER, number, done.to_wire() if isinstance(done, Task) else done, None, None)
        except (Exception, asyncio.CancelledError) as exc:
            if self._ended:
                return
            text = exc.message if isinstance(exc, PqError) else error_text(exc)
            answer = frame(ANSWER, number, None, text, getattr(type(exc), "slug", None))
        self._send(answer)


async def _look_at(lock: HeldLock | None, *, release: bool) -> int:
    """Return 1 when that lock is held and not lost; with `release` it is released."""
    if lock is None:
        return 0
    if release:
        return int(await lock.release())
    return int(bool(lock.fence) and not lock.lost)
