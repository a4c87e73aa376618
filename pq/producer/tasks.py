"""`api.tasks`: queue tasks, look at them, act on them.

Every call works in three settings: awaited in an event loop, `.wait()`ed for in a plain shell, and from
any thread. A mistake in a call is an error at once, before anything is stored. The verbs are thin: making, sending,
looking and acting are modules of their own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from ..broker.contract.values import QueueState
from ..clock import Clock
from ..errors import BadArguments, InvalidValue, PqError
from ..model.events import LogLine
from ..model.job import Job
from ..model.manager import Manager
from ..model.names import LIMITS, check_name
from ..model.options import TaskOptions, check_number, describe_options
from ..model.partitions import Partitions
from ..model.plan import ScheduleInfo
from ..model.registry import Registry
from ..model.task import Task
from . import listing
from .actions import Actions
from .connections import Connections
from .future import AsCompleted, LoopFuture, TaskFuture
from .inline import Inline
from .lookup import Lookup
from .making import Making
from .reasons import Reason
from .schedules import Schedules, checked
from .streams import TaskStream, stream_of
from .submitting import Submitting
from .typed import JobFunction, Options, make_options

P = ParamSpec("P")
C = ParamSpec("C")
R = TypeVar("R")
A = TypeVar("A")


class Tasks:
    """The tasks producer of an api."""

    def __init__(
        self,
        connections: Connections,
        making: Making,
        submitting: Submitting,
        inline: Inline,
        lookup: Lookup,
        actions: Actions,
        schedules: Schedules,
        *,
        registry: Callable[[], Registry],
        manager: Manager,
        node_name: str,
        partitions: Partitions,
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._making = making
        self._submitting = submitting
        self._inline = inline
        self._lookup = lookup
        self._actions = actions
        self._schedules = schedules
        self._registry = registry
        self._manager = manager
        self._node_name = node_name
        self._partitions = partitions
        self._clock = clock

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
        task = self._making.make(job, args, kwargs, delay, _name_of(queue), timeout, meta_params)
        return self._submitting.submit(task, wait_for_end=callback)

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
        task = self._making.make(job, args, kwargs, queue=_name_of(queue), **options)
        return self._submitting.submit(task, wait_for_end=callback)

    @overload
    def options(self, job: JobFunction[P, R, C, A], **options: Unpack[TaskOptions]) -> Options[P, R]: ...
    @overload
    def options(
        self, job: Callable[[], Callable[P, Awaitable[R]]], **options: Unpack[TaskOptions]
    ) -> Options[P, R]: ...
    @overload
    def options(self, job: Callable[[], Callable[P, R]], **options: Unpack[TaskOptions]) -> Options[P, R]: ...
    def options(self, job: Any, **options: Any) -> Any:
        """Return a job with options of its tasks, typed, to be queued to this api: a decorated function, or a `Job` class.

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
                made.append(self._making.make(job, args, dict(kwargs), **options))
            except PqError as exc:
                exc.add_note(f"this is item {index}, counted from 0; none of the items was queued")
                raise
        return [self._submitting.submit(task, wait_for_end=callback) for task in made]

    def map(self, job: Any, iterable: Iterable[Any], **options: Any) -> LoopFuture[list[Task[Any]]]:
        """Queue `job(item)` for each item; resolves to the finished tasks, in the order of the items.

        `options` are those of `queue_many`. A task that failed is in the list as any other. Raises what
        `queue_many` raises; what the store refuses (`QueueFull`) is the future's error, at once.
        """
        self.resolve(job)  # a misspelt name is a mistake for an empty iterable as well
        futures = self.queue_many([(job, (item,)) for item in _iterable("map", iterable)], **options)
        return self._connections.gather(futures)

    @staticmethod
    def as_completed(futures: Iterable[TaskFuture[Any]], timeout: float | None = None) -> AsCompleted[Any]:
        """Yield the tasks of these futures as they finish, each once: `async for` in a loop, `for` elsewhere.

        Raises `TimeoutError` when they are not all done within `timeout` seconds, and the error of a future
        that has one (`QueueFull`, `TaskLost`); a failed task is not an error.
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
            job.queue = None
            return self._inline.execute(job)
        for option in ("callback", "delay"):
            kwargs.pop(option, None)
        return self._execute(job, args, kwargs, timeout=timeout, meta_params=meta_params)

    def _execute(
        self, job: Any, args: Sequence[Any], kwargs: dict[str, Any], **options: Any
    ) -> TaskFuture[Any]:
        task = self._making.make(job, args, kwargs, **options)
        if task.name not in self._registry():
            raise self._registry().unknown(task.name)
        task.queue = None
        return self._inline.execute(task)

    # ------------------------------------------------------------------------ looking and acting
    def get(self, id: str) -> LoopFuture[Task[Any] | None]:
        """Look up a task as it stands in the store; resolves to None when it is not there."""
        check_name("task id", id)
        return self._connections.call(self._lookup.get(id))

    def cancel(self, id: str) -> LoopFuture[bool]:
        """Cancel a task, queued or running; resolves to False when it is finished or unknown.

        A queued task is REVOKED at once. A running one is asked to stop: an asyncio or green job gets
        a `CancelledError`, a process job is killed, a thread job is abandoned; then it is REVOKED.
        """
        check_name("task id", id)
        return self._connections.call(self._actions.cancel(id))

    def retry(self, id: str, /, **changes: Any) -> LoopFuture[bool]:
        """Run a finished task again, from its first attempt; resolves to False when it cannot be.

        `changes` are arguments that take the place of what it was queued with. They are checked as those
        of `queue` are: raises `BadArguments`, `NotSerializable`, and then nothing was queued.
        """
        check_name("task id", id)
        return self._connections.call(self._actions.retry(id, changes))

    def dead(self, queue: str | None = None, count: int = 100) -> LoopFuture[list[Task[Any]]]:
        """List the dead set: the last `count` tasks that failed for good, newest first; of all queues, if none is named."""
        if queue is not None:
            check_name("queue name", queue)
        check_number("count", count, 1, 1_000_000, whole=True)
        return self._connections.call(self._lookup.dead(queue, count))

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
        """Return tasks as they are now: running, waiting, recently ended, in that order.

        Args:
            status: `'QUEUED'`, `'STARTED'`, `'RETRY'`, `'SUCCESS'`, `'FAILURE'`, `'REVOKED'`, in any case; or
                `'dead'`, for the dead set.
            queue: of this queue alone; else of all that are known.
            job: of this job alone.
            text: that have this in their arguments, result or error.
            since: queued or ended in the last N seconds.
            count: the largest number of tasks.

        Of the ended tasks the last thousand of each queue are looked at. Raises `InvalidValue`.
        """
        if queue is not None:
            check_name("queue name", queue)
        check_number("count", count, 1, 1_000_000, whole=True)
        check_number("since", since, 0, LIMITS.delay)
        wanted = listing.Wanted(status, job, text, since, count)
        return self._connections.call(self._lookup.search(wanted, queue))

    def find(self, prefix: str) -> LoopFuture[Task[Any]]:
        """Find the one task whose id begins with `prefix`. Raises `InvalidValue` where there is none, or more than one."""
        check_name("task id", prefix)
        return self._connections.call(self._lookup.by_prefix(prefix))

    def stream(self, task: str | Task[Any] | TaskFuture[Any], *, gaps: bool = False) -> TaskStream:
        """Return the stream of a task (`self.stream(part)` in its job), part by part, until it has ended.

            async for part in api.tasks.stream(future):
                print(part, end="")

        In a shell and in threads a plain `for` does the same. What was streamed before is given first.

        Args:
            task: its future, the `Task`, or its id.
            gaps: continue where parts are missing (else `StreamBroken`), and where the task started again
                after something was read of it, which else raises `StreamRestarted`.

        While it is read it raises the error of a task that did not succeed (as `task.get()` does), `TaskLost`, and
        `InvalidValue` where there is no such task.
        """
        if not isinstance(task, (Task, TaskFuture)):
            check_name("task id", task)
        return stream_of(self._connections, self._lookup, task, gaps=gaps)

    def log(self, id: str) -> LoopFuture[list[LogLine]]:
        """Return the log of a task, with the output of a process job: its last thousand lines."""
        check_name("task id", id)
        return self._connections.call(self._lookup.log(id))

    def why(self, id: str) -> LoopFuture[Reason | None]:
        """Return why a task waits: no worker serves its queue, it is paused, a limit is reached, …; None if it does not wait."""
        check_name("task id", id)
        return self._connections.call(self._lookup.why(id))

    def queue_states(self) -> LoopFuture[dict[str, QueueState]]:
        """Return the lengths of each queue that was ever used."""
        return self._connections.call(self._lookup.queue_states())

    def latency(self, *queues: str) -> LoopFuture[dict[str, float]]:
        """Return the seconds for which the next task of each queue has been ready to start (of all, when none is named).

        Callers notice this time, so scale on it: it is 0 while workers keep up, however long the queue.
        """
        for queue in queues:
            check_name("queue name", queue)
        return self._connections.call(self._lookup.latency(queues))

    def store(self) -> LoopFuture[dict[str, Any]]:
        """Return facts of the store: kind, version, where, memory, round_trip (s), append_only, policy, now."""
        return self._connections.call(self._lookup.store())

    def workers(self) -> LoopFuture[list[dict[str, Any]]]:
        """Return the last heartbeat of each live worker: node, worker, pid, queues, running, processed, …"""
        return self._connections.call(self._lookup.workers())

    def forget(self, id: str) -> LoopFuture[bool]:
        """Remove a finished task and its result from the store; resolves to False for any other."""
        check_name("task id", id)
        return self._connections.call(self._actions.forget(id))

    def queues(self) -> list[str]:
        """Return the queues that a server of this application consumes, the node's own first; with their partitions."""
        names = self._manager.queues()
        return list(dict.fromkeys(part for name in names for part in self._partitions.all_of(name)))

    @property
    def node_name(self) -> str:
        """The name of this node, and of its local queue."""
        return self._node_name

    def job_list(self, jobnames: Sequence[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return `(name, description)` of all jobs, or of those named. Raises `TaskNotAvailable`."""
        registry = self._registry()
        jobs = list(registry) if jobnames is None else [registry[name] for name in jobnames]
        return [(job.name, describe(job)) for job in jobs]

    def next_scheduled(self, jobnames: Sequence[str] | None = None) -> tuple[str, float] | None:
        """Return the periodic job that comes next, and the seconds to it; None when the program has none.

        This is what the code states, by the clock of this machine: the store is not asked.
        What was stated at run time, and what is paused, is in `schedules()`. Raises `TaskNotAvailable`.
        """
        return self._schedules.next(jobnames, self._clock.time())

    def size(self, *queues: str) -> LoopFuture[dict[str, int]]:
        """Return how many tasks wait in these queues; without a name, in all known ones."""
        for queue in queues:
            check_name("queue name", queue)
        return self._connections.call(self._lookup.size(queues))

    def flush_queues(self, *queues: str) -> LoopFuture[int]:
        """Revoke all tasks that wait in these queues (of this application, when none is named).

        Resolves to their number. They end REVOKED, so their futures resolve.
        """
        for queue in queues:
            check_name("queue name", queue)
        return self._connections.call(self._actions.flush(queues or tuple(self.queues())))

    def pause(self, *queues: str) -> LoopFuture[None]:
        """Stop dispatching from these queues, until `resume`; lasts over restarts. Running tasks go on."""
        return self._connections.call(self._actions.pause(_named(queues), True))

    def resume(self, *queues: str) -> LoopFuture[None]:
        """Dispatch from these queues again."""
        return self._connections.call(self._actions.pause(_named(queues), False))

    def limit(self, queue: str, most: int | None) -> LoopFuture[None]:
        """Set how many tasks may wait in a queue; None for any number. Survives restarts.

        Beyond it queueing fails with `QueueFull`, and nothing is queued. Each partition of a queue gets its share.
        """
        check_name("queue name", queue)
        check_number("limit", most, 0, 1_000_000_000, whole=True)
        return self._connections.call(self._actions.limit(queue, most))

    # ------------------------------------------------------------------------------- schedules
    def schedules(self) -> LoopFuture[list[ScheduleInfo]]:
        """List all schedules of the store, by name: from the code and from run time."""
        return self._connections.call(self._schedules.infos())

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
        """Run a job by the clock from now on, or change when it runs; lasts over restarts.

        Args:
            job: the name of a job, a `Job` class, or a decorated function; it need not be periodic.
            run_every: seconds, a `timedelta`, or a cron line.
            kwargs: arguments of each task.
            timezone: of a cron line; UTC when None.
            name: of the schedule, where a job has several; the job's own name when None, which puts this
                in the place of what the code states.
            anchor, catch_up, catch_up_limit: as in `@api.job`.
            queue: another queue than the job's `default_queue`.

        Raises `InvalidValue`, `TaskNotAvailable`, `BadArguments`, `NotSerializable`: then nothing was changed.
        """
        plan = self._schedules.plan(
            job, run_every, kwargs, timezone, name, anchor, catch_up, catch_up_limit, queue
        )
        return self._connections.call(self._schedules.change(plan))

    def unschedule(self, name: str) -> LoopFuture[ScheduleInfo | None]:
        """Undo `schedule`; resolves to what the code states, which counts again, or to None."""
        return self._connections.call(self._schedules.remove(checked(name)))

    def pause_schedule(self, name: str) -> LoopFuture[ScheduleInfo]:
        """Queue no more tasks for this schedule, until it is resumed; lasts over restarts."""
        return self._connections.call(self._schedules.pause(checked(name), True))

    def resume_schedule(self, name: str) -> LoopFuture[ScheduleInfo]:
        """Resume a schedule. Runs that passed while it was paused were not missed, and are not caught up."""
        return self._connections.call(self._schedules.pause(checked(name), False))

    def run_schedule_now(self, name: str) -> LoopFuture[Task[Any]]:
        """Queue a task of this schedule now, beside its ticks; resolves to the queued task."""
        return self._connections.call(self._schedules.run_now(checked(name)))

    # --------------------------------------------------------------------------------- making
    def make(
        self,
        job: Any,
        kwargs: dict[str, Any],
        *,
        args: Sequence[Any] = (),
        queue: str | None = None,
        meta_params: dict[str, Any] | None = None,
    ) -> Task[Any]:
        """Return a task ready to be queued, all of it checked. Raises what `queue` raises before anything is stored."""
        return self._making.make(job, args, kwargs, queue=queue, meta_params=meta_params)

    def resolve(self, job: Any) -> tuple[str, type[Job] | None]:
        """Return the name of a job, and its class when it is known here. Raises `TaskNotAvailable`, `InvalidValue`."""
        return self._making.resolve(job)


def describe(job: type[Job]) -> dict[str, Any]:
    """Return the entry of a job in `job_list`."""
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


def _named(queues: Sequence[str]) -> Sequence[str]:
    """Return the queues when there is at least one and all have valid names."""
    if not queues:
        raise BadArguments("no queue is named", hint='name one or more: api.tasks.pause("default")')
    for queue in queues:
        check_name("queue name", queue)
    return queues


def _name_of(queue: str | bool | None) -> str | None:
    """Return the name of a queue; refuse True, which names none."""
    if queue is True or queue is False:
        raise InvalidValue(
            f"queue={queue} is not a queue", hint="give a name, or False to run without a queue"
        )
    return queue


def _item(item: Any) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """Return `(job, args, kwargs)` of one item of `queue_many`."""
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
    """Return `items` when a plain `for` can go over them."""
    if isinstance(items, Iterable):
        return items
    collect = "collect it first: [item async for item in …]" if isinstance(items, AsyncIterable) else None
    raise BadArguments(
        f"tasks.{call}() expects an iterable, got {items!r:.60} ({type(items).__name__})",
        hint=collect or "give a list, a range or a generator",
    )


def _options(options: dict[str, Any]) -> None:
    unknown = options.keys() - {"delay", "queue", "timeout", "meta_params"}
    if unknown:
        raise BadArguments(
            f"{sorted(unknown)[0]!r} is not an option",
            hint="options are callback, delay, queue, timeout, meta_params",
        )
