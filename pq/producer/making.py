"""A call becomes a task: the job is resolved, arguments and options are checked, a partition is chosen.

A mistake in a call is an error here, in the thread of the caller, before anything is stored.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..broker.records import read_limits, unique_key
from ..clock import Clock
from ..config import Settings
from ..errors import InvalidValue, NotSerializable, PayloadTooLarge, TaskNotAvailable
from ..model.arguments import about_arguments, check_arguments, plainly_fits, replace, with_secrets
from ..model.job import Job
from ..model.limits import NO_FLOW, Debounce, partition_key_of, partition_key_text
from ..model.names import LIMITS, check_name, new_id
from ..model.options import FIELDS, NONE, check_meta_params, check_number, check_task_fields
from ..model.partitions import Partitions
from ..model.payloads import dump_payload
from ..model.registry import Registry
from ..model.serializers import Serializer, serializer
from ..model.states import QUEUED
from ..model.task import Task


class Making:
    """Makes the tasks of one producer."""

    def __init__(self, settings: Settings, registry: Callable[[], Registry], clock: Clock) -> None:
        self.serializer: Serializer = serializer(settings.message_serializer)
        self._registry = registry
        self._clock = clock
        self._default_queue = settings.default_queue
        self._partitions = settings.queue_partitions
        self._durability = settings.durability
        self._max_message_size = settings.max_message_size
        self._largest_message = settings.largest_message
        self._checked_queues = {self._default_queue}
        self._rotation = itertools.count(random.randrange(1 << 20))  # noqa: S311  no secret

    def make(
        self,
        job: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        delay: float | None = None,
        queue: str | None = None,
        timeout: float | None = None,
        meta_params: dict[str, Any] | None = None,
        *,
        to_partition: bool = True,
    ) -> Task[Any]:
        """Return a task ready to be queued; `to_partition`: in one of the partitions of its queue, where it has any.

        Raises `TaskNotAvailable`, `BadArguments`, `InvalidValue`, `NotSerializable`, `PayloadTooLarge`.
        """
        name, kind = self.resolve(job)
        if kind is not None and not plainly_fits(kind.argument_shape, args, kwargs):
            check_arguments(name, kind.signature, args, kwargs)
            if kind.secrets:
                args, kwargs = with_secrets(kind.signature, kind.secrets, args, kwargs)
        fmt = self.serializer
        try:
            call = dump_payload(fmt, [list(args), kwargs], what="arguments", limit=self._largest_message)
        except (NotSerializable, PayloadTooLarge) as exc:
            raise about_arguments(exc, name) from None
        if queue is None:
            queue = (kind.default_queue if kind is not None else None) or self._default_queue
        elif queue not in self._checked_queues:
            self._checked_queues.add(check_name("queue name", queue))
        task: Task[Any] = Task(new_id(), name, queue, call, QUEUED, 1, self._clock.time())
        task.format = fmt
        level = self._durability
        if kind is not None:
            task.max_retries = kind.max_retries
            task.priority = kind.priority
            task.expires = kind.expires
            level = kind.durability or level
        if delay is not None:
            _check_delay(delay)
            task.delay = delay or None
        if timeout is not None or meta_params:
            task.timeout = timeout
            level = self._apply_meta(task, meta_params) or level if meta_params else level
            check_task_fields(task)
        if level != NONE:
            task.durability = level
        most = meta_params.get("max_concurrency") if meta_params else None
        if most is not None or (kind is not None and kind.flow is not None):
            _apply_limits(task, kind, args, kwargs, most)
        if self._partitions and to_partition:
            stated = meta_params.get("partition_key") if meta_params else None
            self._place(task, lambda: key_of(task, kind, args, kwargs, stated))
        return task

    def place(self, task: Task[Any]) -> None:
        """Put a task that was made elsewhere into a partition, where its queue has any."""
        if self._partitions:
            kind = self._registry().get(task.name)
            self._place(task, lambda: key_of(task, kind, task.args, task.kwargs, None))

    def change(self, task: Task[Any], changes: Mapping[str, Any]) -> None:
        """Put other arguments into a task, all of them checked. Raises what `make` raises about arguments."""
        kind = self._registry().get(task.name)
        signature = None if kind is None else kind.signature
        args, kwargs = replace(signature, task.args, task.kwargs, changes)
        if kind is not None:
            check_arguments(kind.name, kind.signature, args, kwargs)
            args, kwargs = with_secrets(kind.signature, kind.secrets, args, kwargs)
        try:
            call = dump_payload(task.format, [args, kwargs], what="arguments", limit=self._largest_message)
        except (NotSerializable, PayloadTooLarge) as exc:
            raise about_arguments(exc, task.name) from None
        task.replace_call(call)

    def resolve(self, job: Any) -> tuple[str, type[Job] | None]:
        """Return the name of a job, and its class when it is known here. Raises `TaskNotAvailable`, `InvalidValue`."""
        registry = self._registry()
        if type(job) is str:
            kind = registry.get(job)
            if kind is not None:
                return job, kind
            check_name("job name", job)
            if len(registry):
                raise registry.unknown(job)
            return job, None  # a producer by name alone, on another host than the jobs
        kind = registry.job_of(job)
        if kind is None:
            name = getattr(job, "__qualname__", None) or repr(job)
            raise TaskNotAvailable(
                f"{name} is not a job", hint="decorate it with @api.job(), or give the name of a job"
            )
        return kind.name, kind

    def _apply_meta(self, task: Task[Any], meta_params: Mapping[str, Any]) -> str | None:
        """Write `meta_params` into a task; return the durability that they state."""
        check_meta_params(meta_params)
        meta = dict(meta_params)
        for option in FIELDS:
            if option in meta:
                setattr(task, option, meta.pop(option))
        durability: str | None = meta.pop("durability", None)
        meta.pop("partition_key", None)
        if meta:
            task.meta_bytes = dump_payload(task.format, meta, what="meta data", limit=self._max_message_size)
        return durability

    def _place(self, task: Task[Any], key: Callable[[], str | None]) -> None:
        queue = task.queue or ""
        if queue in self._partitions:
            task.queue = partition_of(self._partitions, queue, key(), self._rotation)
        else:
            check_partition(self._partitions, queue)


def _check_delay(delay: Any) -> None:
    # Any number will do, those of other libraries too; `check_number` says what is wrong with the rest.
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= LIMITS.delay:
        check_number("delay", delay, 0, LIMITS.delay)


def _apply_limits(
    task: Task[Any], kind: type[Job] | None, args: Sequence[Any], kwargs: dict[str, Any], most: int | None
) -> None:
    """Write the limits that a task has to keep into it. Raises `BadArguments` where a key cannot be computed."""
    flow = NO_FLOW if kind is None or kind.flow is None else kind.flow
    signature = None if kind is None else kind.signature
    task.limits_text = flow.limits_text(task.name, signature, args, kwargs, most)
    if isinstance(flow.unique, Debounce):
        task.max_wait = flow.unique.longest
        if task.delay is None:
            task.delay = flow.unique.seconds


def key_of(
    task: Task[Any], kind: type[Job] | None, args: Sequence[Any], kwargs: Mapping[str, Any], stated: Any
) -> str | None:
    """Return the partition key of a task: the stated one, that of its job, or that of its limits; None without one."""
    key = partition_key_text(stated)
    if key is None and kind is not None and kind.partition_key is not None:
        key = partition_key_of(kind.partition_key, kind.name, kind.signature, args, kwargs)
    if key is None and task.limits_text:
        # One queue alone knows a limit, or a unique key: the tasks that share it have to meet there.
        key = unique_key(task.limits_text)[1] or next(
            (limit.name for limit in read_limits(task.limits_text)), None
        )
    return key


def partition_of(partitions: Partitions, queue: str, key: str | None, turns: itertools.count[int]) -> str:
    """Return the partition of a queue for a key; without a key each partition gets its turn."""
    if key is not None:
        return partitions.of_key(queue, key)
    names = partitions.of(queue)
    return names[next(turns) % len(names)]


def check_partition(partitions: Partitions, queue: str) -> None:
    """Refuse the name of a partition that does not exist: no worker would look at it. Raises `InvalidValue`."""
    owner = partitions.queue_of(queue)
    if owner is not None and queue not in partitions.of(owner):
        raise InvalidValue(
            f"queue {owner!r} has {len(partitions.of(owner))} partitions, and {queue!r} is not one of them",
            hint=f"queue to {owner!r}: the partition is chosen by key",
        )
