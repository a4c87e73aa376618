"""The backend of a job in a child process.

The child has no connection to the store. What a job asks for goes to the worker as a frame, and the
worker does it with its own producer; so a job queues and reports here as it does in every other mode.

A job's `self.queue(…)` is sent at once and need not be awaited. An async job that awaits it gets what
an awaiting job in the worker's loop gets: the worker awaits its own future and sends the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Generator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ..errors import (
    BadArguments,
    InvalidValue,
    LockTimeout,
    NotSerializable,
    PayloadTooLarge,
    PqError,
    QueueFull,
    StoreRefused,
    StoreUnavailable,
    TaskNotAvailable,
)
from ..loops import running_loop
from ..model.backend import NO_WAIT
from ..model.payloads import dump_payload
from ..model.registry import Registry
from ..model.serializers import MSGPACK
from ..model.task import Task
from .channel import Channel
from .child_output import shorten
from .command import run_command
from .frames import LOCK, PROGRESS, QUEUE, STREAM, UNLOCK

# Errors that a request may raise in the worker, by slug. The list is closed, so that no message names a class.
_ERRORS: dict[str | None, type[PqError]] = {
    kind.slug: kind
    for kind in (
        TaskNotAvailable, BadArguments, InvalidValue, NotSerializable, PayloadTooLarge,
        QueueFull, StoreUnavailable, StoreRefused, LockTimeout,
    )
}  # fmt: skip


PARTS = 64
"""Parts, and bytes of them, that a child streams before it waits for the worker."""
PART_BYTES = 262_144


class ChildBackend:
    """The `Backend` of jobs in a child."""

    closed = False

    def __init__(
        self, channel: Channel, registry: Registry, *, settings: Mapping[str, Any], node_name: str, limit: int
    ) -> None:
        self._channel = channel
        self._http: Any = None
        self._parts = self._part_bytes = 0
        self._cfg = SimpleNamespace(**settings)
        self._tasks = ChildTasks(channel, registry, node_name=node_name, limit=limit)

    @property
    def tasks(self) -> ChildTasks:
        return self._tasks

    @property
    def cfg(self) -> Any:
        return self._cfg

    @property
    def node_name(self) -> str:
        return self._tasks.node_name

    def lock(
        self, name: str, *, ttl: float = 30.0, wait: float | None = None, block: object = None
    ) -> ChildLock:
        """A lock on the store, held by the worker."""
        return ChildLock(self._channel, name, ttl, wait)

    def http(self, blocking: bool) -> Any:
        """The HTTP client of this process."""
        if self._http is None:
            from .http import HttpClients

            self._http = HttpClients()
        return self._http.get(blocking)

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any]
    ) -> Awaitable[str]:
        """Run a command for a job. The child is killed with its whole group, so the command must stay in it."""
        return run_command(command, timeout, options, own_group=False)

    def close(self) -> None:
        """The end of this process."""
        if self._http is not None:
            self._http.close_blocking()

    def progress(self, task: Any, done: float, total: float | None, message: str | None) -> None:
        # The worker knows which task this child has; the one given here is the same.
        if self._channel.forked:
            return  # progress is a courtesy: a fork has no connection, and goes on without
        try:
            self._channel.send(
                PROGRESS,
                float(done),
                None if total is None else float(total),
                None if message is None else shorten(str(message)),
            )
        except (TypeError, ValueError, OverflowError):
            pass  # no numbers: progress is a courtesy, and never a reason to fail

    def stream(self, task: Any, part: bytes, block: object = None) -> Awaitable[None]:
        """Send a part to the worker; wait for it after `PARTS` parts."""
        number = self._channel.ask(STREAM, part)
        self._parts += 1
        self._part_bytes += len(part)
        if self._parts < PARTS and self._part_bytes < PART_BYTES:
            return NO_WAIT
        if threading.current_thread() is not threading.main_thread():
            return NO_WAIT  # it cannot wait here: what is too much meets the worker's bound
        self._parts = self._part_bytes = 0
        if running_loop() is not None:
            return _Room(self._channel, number)
        _read(self._channel.answer_now(number))
        return NO_WAIT


class _Room:
    """Wait until the worker has taken part `number`."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        _read(await self._channel.answer(self._number))


class ChildTasks:
    """The part of `api.tasks` that jobs use."""

    def __init__(self, channel: Channel, registry: Registry, *, node_name: str, limit: int) -> None:
        self._channel = channel
        self._registry = registry
        self._node_name = node_name
        self._limit = limit

    @property
    def node_name(self) -> str:
        return self._node_name

    def queue(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Task[Any]]:
        """Queue a task through the worker.

        An unknown job and arguments that cannot be sent raise here, as everywhere; what the worker
        finds wrong raises where the result is awaited, and is logged.
        """
        return self._send(job, [list(args), kwargs])

    def queue_local(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Task[Any]]:
        """The same, to the queue of this node."""
        return self.queue(job, *args, **{**kwargs, "queue": self._node_name})

    def queue_call(
        self, job: Any, args: Sequence[Any], kwargs: dict[str, Any], **options: Any
    ) -> Awaitable[Task[Any]]:
        """The same, with the options apart from the arguments."""
        return self._send(job, [list(args), kwargs, options])

    def _send(self, job: Any, call: list[Any]) -> Awaitable[Task[Any]]:
        known = self._registry.job_of(job)
        name = known.name if known is not None else job
        if name not in self._registry:
            raise self._registry.unknown(str(name))
        arguments = dump_payload(MSGPACK, call, what=f"arguments of {name!r}", limit=self._limit)
        return _Queued(self._channel, self._channel.ask(QUEUE, name, arguments))


class _Queued:
    """A request that was sent; awaiting it returns the answer."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def __await__(self) -> Generator[Any, None, Task[Any]]:
        return self._answer().__await__()

    async def _answer(self) -> Task[Any]:
        return Task.from_wire(_read(await self._channel.answer(self._number)))


class ChildLock:
    """A lock that the worker holds for a job in a child; it releases it when the child dies."""

    def __init__(self, channel: Channel, name: str, ttl: float, wait: float | None) -> None:
        self.name = name
        self.fence = 0
        self._channel = channel
        self._options = (ttl, wait)
        self._number = 0

    @property
    def lost(self) -> bool:
        """True when another holder may have it, though it was not released. Asks the worker."""
        if not self.fence:
            return False
        return not _read(self._channel.answer_now(self._channel.ask(UNLOCK, self._number, 0)))

    def __repr__(self) -> str:
        return f"<lock {self.name!r} {f'held, fence {self.fence}' if self.fence else 'not held'}>"

    async def acquire(self) -> int:
        """Take it; its fence. Raises `LockTimeout` when it was not to be had within `wait` seconds."""
        self._ask()
        try:
            return self._taken(await self._channel.answer(self._number))
        except BaseException:
            self._channel.ask(UNLOCK, self._number, 1)  # it must not come to us after all
            raise

    async def release(self) -> bool:
        """Let it go; False when it was not ours any more."""
        number = self._let_go()
        return bool(number and _read(await self._channel.answer(number)))

    async def __aenter__(self) -> ChildLock:
        await self.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.release()

    def __enter__(self) -> ChildLock:
        self._ask()
        self._taken(self._channel.answer_now(self._number))
        return self

    def __exit__(self, *exc: object) -> None:
        number = self._let_go()
        if number:
            _read(self._channel.answer_now(number))

    def _ask(self) -> None:
        if self.fence:
            raise PqError(f"the lock {self.name!r} is held by this very object", hint="make another one")
        self._number = self._channel.ask(LOCK, self.name, *self._options)

    def _taken(self, answer: list[Any]) -> int:
        self.fence = int(_read(answer))
        return self.fence

    def _let_go(self) -> int:
        held, self.fence = self.fence, 0
        return self._channel.ask(UNLOCK, self._number, 1) if held else 0


def _read(answer: list[Any]) -> Any:
    """Return the outcome of a request. Raises what it raised in the worker."""
    value, error, slug = answer
    if error is not None:
        raise _ERRORS.get(slug, PqError)(error)
    return value
