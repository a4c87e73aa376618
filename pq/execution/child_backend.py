"""What a job in a child process sees of the program around it.

The child has no connection to the store. What a job asks for goes to the worker as a frame, and the
worker does it with its own producer; so a job queues and reports here as it does in every other mode.

A job's `self.queue(…)` is sent at once and need not be awaited. An async job that awaits it gets what
an awaiting job in the worker's loop gets: the worker awaits its own future and sends the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from types import SimpleNamespace
from typing import Any

from ..errors import (
    BadArguments,
    InvalidValue,
    NotSerializable,
    PayloadTooLarge,
    PqError,
    QueueFull,
    StoreRefused,
    StoreUnavailable,
    TaskNotAvailable,
)
from ..model.registry import Registry, job_class
from ..model.serializers import MSGPACK, dump_payload
from ..model.task import Task
from .channel import Channel
from .frames import PROGRESS
from .output import shorten

# What queueing may raise in the worker, by its slug. A list of ours, so that no message names a class.
_ERRORS: dict[str | None, type[PqError]] = {
    kind.slug: kind
    for kind in (
        TaskNotAvailable, BadArguments, InvalidValue, NotSerializable, PayloadTooLarge,
        QueueFull, StoreUnavailable, StoreRefused,
    )
}  # fmt: skip


class ChildBackend:
    """The `Backend` of jobs in a child."""

    own_process_group = True
    """The child is killed with its whole group, so what a job starts must stay in it."""

    def __init__(
        self, channel: Channel, registry: Registry, *, settings: Mapping[str, Any], node_name: str, limit: int
    ) -> None:
        self._channel = channel
        self._cfg = SimpleNamespace(**settings)
        self._tasks = ChildTasks(channel, registry, node_name=node_name, limit=limit)

    @property
    def tasks(self) -> ChildTasks:
        return self._tasks

    @property
    def cfg(self) -> Any:
        return self._cfg

    def progress(self, task: Any, done: float, total: float | None, message: str | None) -> None:
        # The worker knows which task this child has; the one given here is the same.
        try:
            self._channel.send(
                PROGRESS,
                float(done),
                None if total is None else float(total),
                None if message is None else shorten(str(message)),
            )
        except (TypeError, ValueError, OverflowError):
            pass  # no numbers: progress is a courtesy, and never a reason to fail


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
        known = job_class(job)
        name = known.name if known is not None else job
        if name not in self._registry:
            raise self._registry.unknown(str(name))
        what = f"arguments of {name!r}"
        arguments = dump_payload(MSGPACK, [list(args), kwargs], what=what, limit=self._limit)
        return _Queued(self._channel, self._channel.ask(name, arguments))

    def queue_local(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Task[Any]]:
        """The same, to the queue of this node."""
        return self.queue(job, *args, **{**kwargs, "queue": self._node_name})


class _Queued:
    """What was asked for; the question was sent, the answer comes to who awaits it."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def __await__(self) -> Generator[Any, None, Task[Any]]:
        return self._answer().__await__()

    async def _answer(self) -> Task[Any]:
        wire, error, slug = await self._channel.answer(self._number)
        if error is not None:
            raise _ERRORS.get(slug, PqError)(error)
        return Task.from_wire(wire)
