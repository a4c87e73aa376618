"""`api.tasks`: queue tasks, look at them, stop them.

Every call works in three settings: awaited in an event loop, `.wait()`ed for in a plain shell, and from
any thread. A mistake in a call is an error at once, before anything is stored.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import CANCELLED, CANCELLING, Entry, QueueState
from ..broker.records import gates, unique_key
from ..errors import (
    BadArguments,
    InvalidValue,
    NotSerializable,
    PayloadTooLarge,
    PqError,
    TaskNotAvailable,
    UnreadableMessage,
)
from ..model.arguments import about_arguments, check_arguments, plainly_fits, replace, with_secrets
from ..model.events import LogLine, log_line
from ..model.job import Job
from ..model.limits import NO_FLOW, Debounce, partition_key_of, partition_key_text
from ..model.names import LIMITS, check_name, new_id
from ..model.options import (
    FIELDS,
    NONE,
    TaskOptions,
    check_meta_params,
    check_number,
    check_task_fields,
    describe_options,
)
from ..model.payloads import dump_payload
from ..model.plan import ScheduleInfo
from ..model.states import QUEUED
from ..model.task import Task
from . import listing, reasons
from .future import AsCompleted, LoopFuture, TaskFuture
from .reasons import Reason
from .schedules import Schedules, checked
from .streams import TaskStream, stream_of
from .typed import JobFunction, Options, make_options
from .unique import revoked

if TYPE_CHECKING:
    from .producer import Producer

P = ParamSpec("P")
C = ParamSpec("C")
R = TypeVar("R")
A = TypeVar("A")


class Tasks:
    """The tasks producer of an api."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._schedules = Schedules(producer)
        self._turns = itertools.count(random.randrange(1 << 20))  # noqa: S311  no secret

    # ------------------------------------------------------------------------------- queueing
    def queue(
        self,
        job: Any,
        *args: Any,
        callback: bool = True,
        delay: float | None = None,
        queue: str | bool | None = None,
        timeout: float | None = None,
        meta_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TaskFuture[Any]:
        """Queue a task; all but the options below are arguments of the job.

        Args:
            job: the name of a job, a `Job` class, a decorated function, or any function of the modules in
                `task_paths` (by name: its dotted path).
            callback: True: the future resolves when the task is done; False: when it is queued, and
                the task then has `done_callback`, the future of its end.
            delay: seconds to wait before it runs.
            queue: another queue than the job's `default_queue`; False runs it here, without a queue.
            timeout: seconds one attempt may run, instead of the job's own.
            meta_params: overrides `max_retries`, `retry_delay`, `max_concurrency`, `priority`, `expires` and
                `durability` of the job for this task, and has its `partition_key`; anything else in it becomes
                `task.meta`.

        Returns a `TaskFuture`, which resolves to the `Task`.
        Raises `TaskNotAvailable`, `BadArguments`, `InvalidValue`, `NotSerializable`, `PayloadTooLarge`:
        then nothing was queued.
        """
        if queue is False:
            return self.execute(job, *args, timeout=timeout, meta_params=meta_params, **kwargs)
        if queue is True:
            raise InvalidValue("queue=True is no queue", hint="give a name, or False to run without a queue")
        task = self._make(job, args, kwargs, delay, queue, timeout, meta_params)
        return self._producer.submit(task, wait_for_end=callback)

    def queue_call(
        self,
        job: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        callback: bool = True,
        queue: str | bool | None = None,
        **options: Any,
    ) -> TaskFuture[Any]:
        """`queue`, with the options apart from the arguments, which may have any name then."""
        if queue is False:
            options.pop("delay", None)
            return self._execute(job, args, kwargs, **options)
        if queue is True:
            raise InvalidValue("queue=True is no queue", hint="give a name, or False to run without a queue")
        task = self._make(job, args, kwargs, queue=queue, **options)
        return self._producer.submit(task, wait_for_end=callback)

    @overload
    def options(self, job: JobFunction[P, R, C, A], **options: Unpack[TaskOptions]) -> Options[P, R]: ...
    @overload
    def options(
        self, job: Callable[[], Callable[P, Awaitable[R]]], **options: Unpack[TaskOptions]
    ) -> Options[P, R]: ...
    @overload
    def options(self, job: Callable[[], Callable[P, R]], **options: Unpack[TaskOptions]) -> Options[P, R]: ...
    def options(self, job: Any, **options: Any) -> Any:
        """A job with options of its tasks, typed, to be queued to this api: a decorated function, or a `Job` class.

            api.tasks.options(Addition, delay=2).queue(a=4, b=6)

        The options are those of `addition.options`. Raises `TaskNotAvailable`, `InvalidValue`, `BadArguments`.
        """
        self.resolve(job)
        return make_options(job, self, **options)

    def queue_local(self, job: Any, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Queue to the queue of this node, which the server on this host consumes."""
        kwargs["queue"] = self.node_name
        return self.queue(job, *args, **kwargs)

    def queue_many(self, items: Iterable[Any], **options: Any) -> list[TaskFuture[Any]]:
        """Queue many tasks in few round trips; returns their futures in the same order.

        Each item is a job, or a tuple `(job, kwargs)`, `(job, args)` or `(job, args, kwargs)`. `options`
        (`delay`, `queue`, `timeout`, `callback`, `meta_params`) are for all. The items are read to their
        end first. If one is wrong, its error is raised with a note of its place, and nothing is queued.
        """
        callback = options.pop("callback", True)
        _options(options)
        if isinstance(items, str):
            raise BadArguments(
                f"queue_many takes a list of items, and {items!r:.80} is a text",
                hint="for many tasks of one job: api.tasks.map(job, iterable)",
            )
        made = []
        for index, item in enumerate(_iterable("queue_many", items)):
            job, args, kwargs = _item(item)
            try:
                made.append(self._make(job, args, dict(kwargs), **options))
            except PqError as exc:
                exc.add_note(f"this is item {index}, counted from 0; none of the items was queued")
                raise
        return [self._producer.submit(task, wait_for_end=callback) for task in made]

    def map(self, job: Any, iterable: Iterable[Any], **options: Any) -> LoopFuture[list[Task[Any]]]:
        """Queue `job(item)` for each item; resolves to the finished tasks, in the order of the items.

        `options` are those of `queue_many`. A task that failed is in the list as any other. Raises what
        `queue_many` raises; what the store refuses (`QueueFull`) is the future's error, at once.
        """
        self.resolve(job)  # a misspelt name is a mistake for an empty iterable as well
        futures = self.queue_many([(job, (item,)) for item in _iterable("map", iterable)], **options)
        return self._producer.gather(futures)

    @staticmethod
    def as_completed(futures: Iterable[TaskFuture[Any]], timeout: float | None = None) -> AsCompleted[Any]:
        """The tasks of these futures as they finish, each once: `async for` in a loop, `for` elsewhere.

        Raises `TimeoutError` when they are not all done within `timeout` seconds, and the error of a future
        that has one (`QueueFull`, `TaskLost`); a task that failed is no error.
        """
        return AsCompleted(futures, timeout)

    def execute(
        self,
        job: Any,
        *args: Any,
        timeout: float | None = None,
        meta_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TaskFuture[Any]:
        """Run a task here and now, without a queue: for debugging and tests. `task.queue` is None.

        `job` is what `queue` takes, or a `Task` that was made: then there is nothing to say beside it.
        """
        if isinstance(job, Task):
            if args or kwargs or timeout is not None or meta_params:
                raise BadArguments(
                    f"{job.info()} has its arguments", hint="execute(task), or execute(job, …)"
                )
            return self._producer.execute(job)
        for option in ("callback", "delay"):
            kwargs.pop(option, None)
        return self._execute(job, args, kwargs, timeout=timeout, meta_params=meta_params)

    def _execute(
        self, job: Any, args: Sequence[Any], kwargs: dict[str, Any], **options: Any
    ) -> TaskFuture[Any]:
        task = self._make(job, args, kwargs, **options)
        if task.name not in self._producer.registry:
            raise self._producer.registry.unknown(task.name)
        task.queue = None
        return self._producer.execute_task(task)

    # ------------------------------------------------------------------------ looking and acting
    def get(self, id: str) -> LoopFuture[Task[Any] | None]:
        """The task of that id as it stands in the store; resolves to None when it is not there."""
        check_name("task id", id)
        return self._producer.call(self._get(id))

    def cancel(self, id: str) -> LoopFuture[bool]:
        """Cancel a task, queued or running; resolves to False when it is finished or unknown.

        A queued task is REVOKED at once. A running one is asked to stop: an asyncio or green job gets
        a `CancelledError`, a process job is killed, a thread job is given up; then it is REVOKED.
        """
        check_name("task id", id)
        return self._producer.call(self._cancel(id))

    def retry(self, id: str, /, **changes: Any) -> LoopFuture[bool]:
        """Run a finished task again, from its first attempt; resolves to False when it cannot be.

        `changes` are arguments that take the place of what it was queued with. They are checked as those
        of `queue` are: raises `BadArguments`, `NotSerializable`, and then nothing was queued.
        """
        check_name("task id", id)
        return self._producer.call(self._retry(id, changes))

    def dead(self, queue: str | None = None, count: int = 100) -> LoopFuture[list[Task[Any]]]:
        """The dead set: the last `count` tasks that failed for good, newest first; of all queues, if none is named."""
        if queue is not None:
            check_name("queue name", queue)
        check_number("count", count, 1, 1_000_000, whole=True)
        return self._producer.call(self._dead(queue, count))

    def search(
        self,
        status: str | None = None,
        *,
        queue: str | None = None,
        job: str | None = None,
        text: str | None = None,
        since: float | None = None,
        count: int = 50,
    ) -> LoopFuture[list[Task[Any]]]:
        """Tasks as they stand now: what runs, what waits, and what has ended of late, in that order.

        Args:
            status: `'QUEUED'`, `'STARTED'`, `'RETRY'`, `'SUCCESS'`, `'FAILURE'`, `'REVOKED'`, in any case; or
                `'dead'`, for the dead set.
            queue: of this one alone; else of all that are known.
            job: of this job alone.
            text: that have this in their arguments, result or error.
            since: queued or ended in the last so many seconds.
            count: at most so many.

        Of what has ended the last thousand of each queue are looked at.
        """
        if queue is not None:
            check_name("queue name", queue)
        check_number("count", count, 1, 1_000_000, whole=True)
        check_number("since", since, 0, LIMITS.delay)
        wanted = listing.Wanted(status, job, text, since, count)
        return self._producer.call(self._search(wanted, queue))

    async def _search(self, wanted: listing.Wanted, queue: str | None) -> list[Task[Any]]:
        broker = await self._producer.broker()
        queues = await (broker.looks.queue_names() if queue is None else self._all_of(broker, queue))
        found = await listing.tasks(broker, wanted, queues, self._producer.clock.time())
        return [self._producer.adopt(task) for task in found]

    def find(self, prefix: str) -> LoopFuture[Task[Any]]:
        """The one task whose id begins so. Raises `InvalidValue` where there is none, or more than one."""
        check_name("task id", prefix)
        return self._producer.call(self._find_one(prefix))

    async def _find_one(self, prefix: str) -> Task[Any]:
        broker = await self._producer.broker()
        found = await broker.looks.matching(prefix, 6)
        if len(found) > 1:
            ids = ", ".join(id[: len(prefix) + 4] for _, id in found[:5])
            raise InvalidValue(
                f"{len(found) if len(found) < 6 else 'many'} tasks begin with {prefix!r}: {ids}",
                hint="give more of the id",
            )
        task = await self._get(found[0][1]) if found else None
        if task is None:
            raise InvalidValue(
                f"no task begins with {prefix!r}",
                hint="results are kept for result_ttl; api.tasks.search() shows what there is",
            )
        return task

    def stream(self, task: str | Task[Any] | TaskFuture[Any], *, gaps: bool = False) -> TaskStream:
        """What a task streams (`self.stream(part)` in its job), part by part, until it has ended.

            async for part in api.tasks.stream(future):
                print(part, end="")

        In a shell and in threads a plain `for` does the same. What was streamed before is given first.

        Args:
            task: its future, the `Task`, or its id.
            gaps: go on where parts are missing, which else raises `StreamBroken`, and where the task began anew
                after something was read of it, which else raises `StreamRestarted`.

        While it is read it raises the error of a task that did not succeed (as `task.get()` does), `TaskLost`, and
        `InvalidValue` where there is no such task.
        """
        if not isinstance(task, (Task, TaskFuture)):
            check_name("task id", task)
        return stream_of(self._producer, task, gaps=gaps)

    async def place_of(self, broker: Broker, id: str) -> str | None:
        """The queue of a task; None where there is none of that id."""
        found = await self._find(broker, id)
        return None if found is None else found[0]

    def log(self, id: str) -> LoopFuture[list[LogLine]]:
        """What a task logged, and printed in a process of its own: its last thousand lines."""
        check_name("task id", id)
        return self._producer.call(self._log(id))

    async def _log(self, id: str) -> list[LogLine]:
        broker = await self._producer.broker()
        found = await self._find(broker, id)
        return [] if found is None else [log_line(line) for line in await broker.channels.lines(found[0], id)]

    def why(self, id: str) -> LoopFuture[Reason | None]:
        """Why a task waits: nobody serves its queue, it is paused, a limit is reached, …; None when it does not."""
        check_name("task id", id)
        return self._producer.call(self._why(id))

    async def _why(self, id: str) -> Reason | None:
        broker = await self._producer.broker()
        found = await self._find(broker, id)
        if found is None or not records.is_live(found[1]):
            return None
        task = Task.from_wire(records.message(found[1]))
        task.queue, task.demands = found[0], records.demands(found[1])
        return await reasons.why(broker, task)

    def queue_states(self) -> LoopFuture[dict[str, QueueState]]:
        """How much lies where in each queue that was ever used."""
        return self._producer.call(self._queue_states())

    async def _queue_states(self) -> dict[str, QueueState]:
        broker = await self._producer.broker()
        return {name: await broker.looks.state(name) for name in await broker.looks.queue_names()}

    def latency(self, *queues: str) -> LoopFuture[dict[str, float]]:
        """Seconds for which the next task of each queue has been ready to start (of all known ones, when none is named).

        That is what whoever queues notices, and so what to scale on: 0 while workers keep up, however much there is.
        """
        for queue in queues:
            check_name("queue name", queue)
        return self._producer.call(self._latency(queues))

    async def _latency(self, queues: Sequence[str]) -> dict[str, float]:
        broker = await self._producer.broker()
        return {
            name: max([await listing.latency(broker, part) for part in await self._all_of(broker, name)])
            for name in queues
        } or {name: await listing.latency(broker, name) for name in await broker.looks.queue_names()}

    def store(self) -> LoopFuture[dict[str, Any]]:
        """What the store says of itself: kind, version, where, memory, round_trip (s), append_only, policy, now."""
        return self._producer.call(self._store())

    async def _store(self) -> dict[str, Any]:
        return await (await self._producer.broker()).looks.facts()

    def workers(self) -> LoopFuture[list[dict[str, Any]]]:
        """The last heartbeat of each worker that lives: node, worker, pid, queues, running, processed, …"""
        return self._producer.call(self._workers())

    async def _workers(self) -> list[dict[str, Any]]:
        return await reasons.workers(await self._producer.broker())

    def forget(self, id: str) -> LoopFuture[bool]:
        """Remove a finished task and its result from the store; resolves to False for any other."""
        check_name("task id", id)
        return self._producer.call(self._forget(id))

    def queues(self) -> list[str]:
        """The queues that a server of this application consumes, the node's own first; with their partitions."""
        names = self._producer.manager.queues()
        partitions = self._producer.partitions
        return list(dict.fromkeys(part for name in names for part in partitions.all_of(name)))

    @property
    def node_name(self) -> str:
        """The name of this node, and of its local queue."""
        return self._producer.node_name

    def job_list(self, jobnames: Sequence[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
        """`(name, description)` of all jobs, or of those named. Raises `TaskNotAvailable`."""
        registry = self._producer.registry
        jobs = list(registry) if jobnames is None else [registry[name] for name in jobnames]
        return [(job.name, describe(job)) for job in jobs]

    def next_scheduled(self, jobnames: Sequence[str] | None = None) -> tuple[str, float] | None:
        """The periodic job that comes next, and the seconds to it; None when the program has none.

        This is what the code says, by this machine's clock, so it asks no store and waits for nothing.
        What was stated at run time, and what is paused, is in `schedules()`. Raises `TaskNotAvailable`.
        """
        return self._schedules.next(jobnames, self._producer.clock.time())

    def size(self, *queues: str) -> LoopFuture[dict[str, int]]:
        """How many tasks wait in these queues (in all known ones, when none is named)."""
        for queue in queues:
            check_name("queue name", queue)
        return self._producer.call(self._size(queues))

    def flush_queues(self, *queues: str) -> LoopFuture[int]:
        """Revoke all tasks that wait in these queues (of this application, when none is named).

        Resolves to how many there were. Whoever awaits them is told: they are REVOKED.
        """
        for queue in queues:
            check_name("queue name", queue)
        return self._producer.call(self._flush(queues or tuple(self.queues())))

    def pause(self, *queues: str) -> LoopFuture[None]:
        """Hand out no more tasks of these queues, until `resume`; lasts over restarts. Running tasks go on."""
        return self._producer.call(self._pause(self._named(queues), True))

    def resume(self, *queues: str) -> LoopFuture[None]:
        """Hand out tasks of these queues again."""
        return self._producer.call(self._pause(self._named(queues), False))

    def limit(self, queue: str, most: int | None) -> LoopFuture[None]:
        """How many tasks may wait in a queue; None for any number. Lasts over restarts.

        Beyond it queueing fails with `QueueFull`, and nothing is queued. Each partition of a queue gets its share.
        """
        check_name("queue name", queue)
        check_number("limit", most, 0, 1_000_000_000, whole=True)
        return self._producer.call(self._limit(queue, most))

    @staticmethod
    def _named(queues: Sequence[str]) -> Sequence[str]:
        if not queues:
            raise BadArguments("no queue is named", hint='name one or more: api.tasks.pause("default")')
        for queue in queues:
            check_name("queue name", queue)
        return queues

    # ------------------------------------------------------------------------------- schedules
    def schedules(self) -> LoopFuture[list[ScheduleInfo]]:
        """All schedules that the store has, by name: from the code and from run time."""
        return self._producer.call(self._schedules.infos())

    def schedule(
        self,
        job: Any,
        run_every: float | dt.timedelta | str,
        *,
        kwargs: dict[str, Any] | None = None,
        timezone: str | None = None,
        name: str | None = None,
        anchor: dt.datetime | None = None,
        catch_up: str | None = None,
        catch_up_limit: int | None = None,
        queue: str | None = None,
    ) -> LoopFuture[ScheduleInfo]:
        """Have a job run again and again from now on, or change when it does; lasts over restarts.

        Args:
            job: the name of a job, a `Job` class, or a decorated function; it need not be periodic.
            run_every: seconds, a `timedelta`, or a cron line.
            kwargs: arguments of each task.
            timezone: of a cron line; UTC when None.
            name: of the schedule, where a job has several; the job's own name when None, which puts this
                in the place of what the code says.
            anchor, catch_up, catch_up_limit: as in `@api.job`.
            queue: another queue than the job's `default_queue`.

        Raises `InvalidValue`, `TaskNotAvailable`, `BadArguments`, `NotSerializable`: then nothing was changed.
        """
        plan = self._schedules.plan(
            job, run_every, kwargs, timezone, name, anchor, catch_up, catch_up_limit, queue
        )
        return self._producer.call(self._schedules.change(plan))

    def unschedule(self, name: str) -> LoopFuture[ScheduleInfo | None]:
        """Undo `schedule`; resolves to what the code says of it, which counts again, or to None."""
        return self._producer.call(self._schedules.remove(checked(name)))

    def pause_schedule(self, name: str) -> LoopFuture[ScheduleInfo]:
        """Queue no more tasks for this schedule, until it is resumed; lasts over restarts."""
        return self._producer.call(self._schedules.pause(checked(name), True))

    def resume_schedule(self, name: str) -> LoopFuture[ScheduleInfo]:
        """Go on with a schedule. What passed while it was paused was not missed, and is not caught up."""
        return self._producer.call(self._schedules.pause(checked(name), False))

    def run_schedule_now(self, name: str) -> LoopFuture[Task[Any]]:
        """Queue a task of this schedule now, beside its ticks; resolves to the queued task."""
        return self._producer.call(self._schedules.run_now(checked(name)))

    # --------------------------------------------------------------------------------- making
    def make(
        self,
        job: Any,
        kwargs: dict[str, Any],
        *,
        args: Sequence[Any] = (),
        queue: str | None = None,
        meta_params: dict[str, Any] | None = None,
        whole: bool = False,
    ) -> Task[Any]:
        """A task ready to be queued, everything about it checked. `whole`: in no partition, where its queue is cut."""
        return self._make(job, args, kwargs, queue=queue, meta_params=meta_params, whole=whole)

    def _make(
        self,
        job: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        delay: float | None = None,
        queue: str | None = None,
        timeout: float | None = None,
        meta_params: dict[str, Any] | None = None,
        whole: bool = False,
    ) -> Task[Any]:
        """A task ready to be queued, everything about it checked."""
        producer = self._producer
        name, kind = self.resolve(job)
        if kind is not None and not plainly_fits(kind.argument_shape, args, kwargs):
            check_arguments(name, kind.signature, args, kwargs)
            if kind.secrets:
                args, kwargs = with_secrets(kind.signature, kind.secrets, args, kwargs)
        fmt = producer.serializer
        try:
            call = dump_payload(fmt, [list(args), kwargs], what="arguments", limit=producer.largest_message)
        except (NotSerializable, PayloadTooLarge) as exc:
            raise about_arguments(exc, name) from None
        if queue is None:
            queue = (kind.default_queue if kind is not None else None) or producer.default_queue
        elif queue not in producer.checked_queues:
            producer.checked_queues.add(check_name("queue name", queue))
        task: Task[Any] = Task(new_id(), name, queue, call, QUEUED, 1, producer.clock.time())
        task.format = fmt
        level = producer.durability
        if kind is not None:
            task.max_retries = kind.max_retries
            task.priority = kind.priority
            task.expires = kind.expires
            level = kind.durability or level
        if delay is not None:
            if (
                isinstance(delay, bool)
                or not isinstance(delay, (int, float))
                or not 0 <= delay <= LIMITS.delay
            ):
                check_number("delay", delay, 0, LIMITS.delay)
            task.delay = delay or None
        task.timeout = timeout
        if meta_params:
            self._apply_meta(task, meta_params)
            level = meta_params.get("durability") or level
        if level != NONE:
            task.durability = level
        if timeout is not None or meta_params:
            check_task_fields(task)
        most = meta_params.get("max_concurrency") if meta_params else None
        if most is not None or (kind is not None and kind.flow is not None):
            self._limit_flow(task, kind, args, kwargs, most)
        if producer.partitions and not whole:
            self._place(task, kind, args, kwargs, meta_params.get("partition_key") if meta_params else None)
        return task

    def place(self, task: Task[Any]) -> None:
        """Put a task that was made elsewhere into a partition, if its queue is cut."""
        kind = self._producer.registry.get(task.name)
        self._place(task, kind, task.args, task.kwargs, None)

    def _place(
        self,
        task: Task[Any],
        kind: type[Job] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        stated: Any,
    ) -> None:
        """Choose its partition: by its key; else by what it must not meet twice; else by turns."""
        partitions, queue = self._producer.partitions, task.queue or ""
        if queue not in partitions:
            whole = partitions.queue_of(queue)
            if whole is not None and queue not in partitions.of(whole):
                raise InvalidValue(
                    f"queue {whole!r} has {len(partitions.of(whole))} partitions, and {queue!r} is not one of them",
                    hint=f"queue to {whole!r}: the partition is chosen by key",
                )
            return
        key = partition_key_text(stated)
        if key is None and kind is not None and kind.partition_key is not None:
            key = partition_key_of(kind.partition_key, kind.name, kind.signature, args, kwargs)
        if key is None and task.demands:
            # A limit, and a unique key, is known to one queue alone: those who share it have to meet there.
            key = unique_key(task.demands)[1] or next((gate.name for gate in gates(task.demands)), None)
        if key is None:
            parts = partitions.of(queue)
            task.queue = parts[next(self._turns) % len(parts)]
        else:
            task.queue = partitions.of_key(queue, key)

    async def _all_of(self, broker: Broker, queue: str) -> list[str]:
        """A queue and its partitions, where it is cut."""
        partitions = self._producer.partitions
        return partitions.all_of(queue, await broker.looks.queue_names()) if queue in partitions else [queue]

    @staticmethod
    def _limit_flow(
        task: Task[Any], kind: type[Job] | None, args: Sequence[Any], kwargs: dict[str, Any], most: int | None
    ) -> None:
        """Write down which limits it has to keep."""
        flow = NO_FLOW if kind is None or kind.flow is None else kind.flow
        signature = None if kind is None else kind.signature
        task.demands = flow.demands(task.name, signature, args, kwargs, most)
        if isinstance(flow.unique, Debounce):
            task.max_wait = flow.unique.longest
            if task.delay is None:
                task.delay = flow.unique.seconds

    def _apply_meta(self, task: Task[Any], meta_params: dict[str, Any]) -> None:
        check_meta_params(meta_params)
        meta = dict(meta_params)
        for option in FIELDS:
            if option in meta:
                setattr(task, option, meta.pop(option))
        meta.pop("durability", None)
        meta.pop("partition_key", None)
        if meta:
            task.meta_bytes = dump_payload(
                task.format, meta, what="meta data", limit=self._producer.max_message_size
            )

    def resolve(self, job: Any) -> tuple[str, type[Job] | None]:
        """The name of what was given, and the job class when it is known here."""
        registry = self._producer.registry
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

    # -------------------------------------------------------------------------------- verbs' work
    async def _find(self, broker: Broker, id: str) -> tuple[str, bytes] | None:
        """The queue and the record of a task that may be in any queue."""
        for queue in [*self._producer.likely_queues(), *await broker.looks.queue_names()]:
            (record,) = await broker.looks.records(queue, [id])
            if record is not None:
                return queue, record
        return None

    async def _get(self, id: str) -> Task[Any] | None:
        found = await self._find(await self._producer.broker(), id)
        if found is None:
            return None
        queue, record = found
        task = Task.from_wire(records.message(record))
        if records.is_live(record):
            await listing.as_it_stands(await self._producer.broker(), queue, [task])
        return self._producer.adopt(task)

    async def _cancel(self, id: str) -> bool:
        broker = await self._producer.broker()
        found = await self._find(broker, id)
        if found is None:
            return False
        queue, record = found
        task = Task.from_wire(records.message(record))
        (answer,) = await broker.work.cancel(queue, [revoked(task, "cancelled", self._producer.clock)])
        if answer == CANCELLING:
            # The lease would bring it to the worker within seconds; this brings it at once.
            await broker.channels.publish(self._producer.keys.control_channel, f"cancel {id}".encode())
        return answer in (CANCELLED, CANCELLING)

    async def _dead(self, queue: str | None, count: int) -> list[Task[Any]]:
        broker = await self._producer.broker()
        found: list[tuple[float, Task[Any]]] = []
        for name in await (broker.looks.queue_names() if queue is None else self._all_of(broker, queue)):
            found += await self._dead_of(broker, name, count)
        # The store's time is the one that all queues share; within one of its milliseconds the worker's decides.
        found.sort(key=lambda pair: (pair[0], pair[1].time_ended or 0.0), reverse=True)
        return [task for _, task in found[:count]]

    async def _dead_of(self, broker: Broker, queue: str, count: int) -> list[tuple[float, Task[Any]]]:
        """The dead of one queue with their times. Those whose record is gone are taken off the list."""
        while True:
            entries = await broker.looks.dead(queue, count)
            stored = await broker.looks.records(queue, [id for id, _ in entries])
            gone = [id for (id, _), record in zip(entries, stored, strict=True) if record is None]
            if gone:
                await broker.work.forget(queue, gone)
                continue
            found = []
            for (id, at), record in zip(entries, stored, strict=True):
                if record is None or records.is_live(record):
                    continue  # somebody runs it again at this very moment
                try:
                    task = Task.from_wire(records.message(record))
                except UnreadableMessage:
                    task = Task(id, "unreadable", queue)
                found.append((at, self._producer.adopt(task)))
            return found

    async def _forget(self, id: str) -> bool:
        broker = await self._producer.broker()
        found = await self._find(broker, id)
        return found is not None and await broker.work.forget(found[0], [id]) > 0

    def _change(self, task: Task[Any], changes: dict[str, Any]) -> None:
        """Put other arguments into `task`, all of them checked."""
        kind = self._producer.registry.get(task.name)
        signature = None if kind is None else kind.signature
        args, kwargs = replace(signature, task.args, task.kwargs, changes)
        if kind is not None:
            check_arguments(kind.name, kind.signature, args, kwargs)
            args, kwargs = with_secrets(kind.signature, kind.secrets, args, kwargs)
        limit = self._producer.largest_message
        try:
            call = dump_payload(task.format, [args, kwargs], what="arguments", limit=limit)
        except (NotSerializable, PayloadTooLarge) as exc:
            raise about_arguments(exc, task.name) from None
        task.replace_call(call)

    async def _retry(self, id: str, changes: dict[str, Any]) -> bool:
        broker = await self._producer.broker()
        found = await self._find(broker, id)
        if found is None or records.is_live(found[1]):
            return False
        queue, record = found
        task = Task.from_wire(records.message(record))
        task.status, task.retry, task.time_queued, task.delay = QUEUED, 1, self._producer.clock.time(), None
        task.time_started = task.worker = task.node = None
        task.exception = task.stacktrace = task.reason = task.run_info_bytes = task.result_bytes = None
        if changes:
            self._change(task, changes)
        kind = self._producer.registry.get(task.name)
        if kind is not None:
            task.demands = kind.demands_of(task)
        header = records.live_header(task.priority, "", task.demands)
        return await broker.work.retry_dead(queue, Entry(id, header + task.to_wire()))

    async def _pause(self, queues: Sequence[str], paused: bool) -> None:
        broker = await self._producer.broker()
        for queue in queues:
            for part in await self._all_of(broker, queue):
                await broker.work.pause(part, paused)

    async def _limit(self, queue: str, most: int | None) -> None:
        broker = await self._producer.broker()
        share = max(1, len(self._producer.partitions.of(queue)))
        for part in await self._all_of(broker, queue):
            await broker.work.limit(part, None if most is None else -(-most // share))

    async def _size(self, queues: Sequence[str]) -> dict[str, int]:
        broker = await self._producer.broker()
        return {
            queue: sum(
                [(await broker.looks.state(part)).waiting for part in await self._all_of(broker, queue)]
            )
            for queue in queues
        } or {queue: (await broker.looks.state(queue)).waiting for queue in await broker.looks.queue_names()}

    async def _flush(self, queues: Sequence[str]) -> int:
        broker = await self._producer.broker()
        total = 0
        for queue in dict.fromkeys([part for name in queues for part in await self._all_of(broker, name)]):
            while ids := await broker.looks.peek(queue, 100):
                items = []
                for id, record in zip(ids, await broker.looks.records(queue, ids), strict=True):
                    try:
                        task = Task.from_wire(records.message(record or b""))
                    except UnreadableMessage:
                        task = Task(id, "unreadable", queue)
                    items.append(revoked(task, "flushed from its queue", self._producer.clock))
                answers = await broker.work.cancel(queue, items, at_front=True)
                total += answers.count(CANCELLED)
                if CANCELLED not in answers:
                    break
        return total


# ------------------------------------------------------------------------------------ small helpers
def describe(job: type[Job]) -> dict[str, Any]:
    """What `job_list` tells of a job."""
    doc = (job.__doc__ or "").strip()
    facts: dict[str, Any] = {
        "type": job.type,
        "concurrency": job.concurrency,
        "doc_syntax": job.doc_syntax,
        "doc": doc,
        "signature": str(job.signature),
        "defined_at": job.defined_at,
    }
    facts.update(describe_options(job))
    return facts


def _item(item: Any) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """`(job, args, kwargs)` of one item of `queue_many`."""
    if not isinstance(item, tuple):
        return item, (), {}
    if len(item) == 2 and isinstance(item[1], dict):
        return item[0], (), item[1]
    if len(item) == 2 and isinstance(item[1], (tuple, list)):
        return item[0], item[1], {}
    if len(item) == 3 and isinstance(item[1], (tuple, list)) and isinstance(item[2], dict):
        return item
    raise BadArguments(
        f"queue_many cannot read {item!r:.80}",
        hint="an item is a job, (job, kwargs), (job, args) or (job, args, kwargs)",
    )


def _iterable(call: str, items: Any) -> Iterable[Any]:
    """`items`, if a plain `for` can go over them."""
    if isinstance(items, Iterable):
        return items
    collect = "collect it first: [item async for item in …]" if isinstance(items, AsyncIterable) else None
    raise BadArguments(
        f"{call} takes an iterable, and {type(items).__name__} is none",
        hint=collect or "give a list, a range or a generator",
    )


def _options(options: dict[str, Any]) -> None:
    unknown = options.keys() - {"delay", "queue", "timeout", "meta_params"}
    if unknown:
        raise BadArguments(
            f"{sorted(unknown)[0]!r} is no option",
            hint="options are callback, delay, queue, timeout, meta_params",
        )
