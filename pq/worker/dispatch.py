"""Start the attempts of reserved tasks, and settle them when they end.

Each attempt has one way out, `_finished`, however it ended. What a task has streamed is in the store before its end
is: an attempt that has streamed something is settled a little later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..broker.contract.values import Reserved
from ..execution.attempt import Attempt
from ..execution.executor import Executor
from ..loops import HeldTasks
from ..model import outcome as outcomes
from ..model.backend import Backend
from ..model.ending import Ending, conclude
from ..model.observer import TaskObserver
from ..model.options import CPUBOUND
from ..model.outcome import Outcome
from ..model.task import Task
from .admission import NO_FREE_CHILD, UNKNOWN_JOB, Admission, Refused
from .attempts import Attempts
from .capacity import Children, wanted
from .context import Context
from .draining import Draining
from .load import Load, LoadMeter, Use
from .quarantine import Quarantine
from .settling import Settling
from .streams import Streams

logger = logging.getLogger("pq.worker")


class Dispatch:
    """The dispatch of one worker.

    Args:
        context, attempts, backend, executors, streams, beside, observers: those of the consumer.
        settling: takes the end of each task.
        quarantine, draining: notified of it.
        wake: called when it waits for a round trip.
        on_limit: called when `max_requests` tasks have run.
    """

    def __init__(
        self,
        context: Context,
        attempts: Attempts,
        settling: Settling,
        *,
        backend: Backend,
        executors: Mapping[str, Executor],
        streams: Streams,
        beside: HeldTasks,
        quarantine: Quarantine,
        draining: Draining,
        observers: Sequence[TaskObserver],
        wake: Callable[[], None],
        on_limit: Callable[[], None],
    ) -> None:
        cfg, clock = context.cfg, context.clock
        self._clock = clock
        self._attempts = attempts
        self._running = attempts.running
        self._settling = settling
        self._executors = executors
        self._streams = streams
        self._beside = beside
        self._observers = tuple(observers)
        self._quarantine = quarantine
        self._draining = draining
        self._wake = wake
        self._on_limit = on_limit
        self._slots = cfg.concurrent_tasks
        self._message_size = cfg.largest_message
        self._limit = cfg.max_requests
        self._taken = 0  # tasks, of that limit
        self._children = Children(cfg.cpu_processes, cfg.concurrent_tasks, executors[CPUBOUND].capacity)
        self._meter = LoadMeter(clock.time())
        self._admission = Admission(
            context.registry,
            cfg,
            worker=context.name,
            node=context.node,
            backend=backend,
            finished=self._finished,
            free_children=self._children.free,
            time=clock.time,
            chance=clock.random,
        )

    def wanted(self) -> int:
        """Return how many tasks may be reserved now."""
        before_limit = self._limit - self._taken if self._limit else None
        return wanted(
            self._slots, len(self._running), before_limit=before_limit, for_children=self._children.wanted()
        )

    def load(self) -> Load:
        """Return how much there is to do here."""
        children = Use(self._children.running, self._children.count, 0.0)
        now = self._clock.time()
        return self._meter.load(now, self._attempts.all(), slots=self._slots, children=children)

    def start(self, tasks: list[Reserved]) -> bool:
        """Start the attempts of reserved tasks; return whether the job of one is unknown here."""
        running, held, observers, admit = (
            self._running, self._attempts.held, self._observers, self._admission.admit,
        )  # fmt: skip
        before = self._settling.lengths()
        process_tasks = unknown = False
        for reserved in tasks:
            id = reserved.id
            self._taken += 1
            # Before the look: a store that lost a claim hands the task out again, under another batch, and it is
            # to be settled under that one.
            held[id] = (reserved.queue, reserved.batch)
            if id in running:
                continue  # handed out again because a reply, or the claim, was lost; it runs already
            attempt = admit(reserved)
            if isinstance(attempt, Refused):
                if attempt.why == NO_FREE_CHILD:
                    process_tasks = self._children.head_waits = True
                    self._taken -= 1
                elif attempt.why == UNKNOWN_JOB:
                    unknown = True
                self._end(attempt.task, attempt.ending)
                continue
            mode = attempt.job_class.concurrency
            if mode == CPUBOUND:
                process_tasks = True
                self._children.running += 1
            running[id] = attempt
            for observer in observers:
                observer.started(attempt.task)
            self._executors[mode].start_attempt(attempt)
        self._children.in_last_batch = process_tasks
        if process_tasks:
            self._settling.order_released(before)
        return unknown

    def _finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt ended: the one way out for all of them."""
        task = attempt.task
        if attempt.job_class.concurrency == CPUBOUND:
            took = self._clock.time() - (task.time_started or 0.0)
            self._children.ended(took)
            self._meter.child_seconds += took
        if self._running.get(task.id) is not attempt:
            return  # abandoned with its lease: another worker has the task now
        streams = self._streams
        if streams.outlets and task.id in streams:
            if outcome.kind != outcomes.RELEASED:
                self._beside.spawn(self._end_stream(attempt, outcome))
                return
            streams.drop(task)
        self._conclude(attempt, outcome)

    async def _end_stream(self, attempt: Attempt, outcome: Outcome) -> None:
        """Conclude an attempt that has streamed something when all of that is in the store."""
        try:
            await self._streams.finish(attempt.task)
        finally:  # also when a job cancels whatever runs in the loop
            if self._running.get(attempt.task.id) is attempt:
                self._conclude(attempt, outcome)

    def _conclude(self, attempt: Attempt, outcome: Outcome) -> None:
        """Decide what follows from the end of an attempt."""
        task, clock, meter = attempt.task, self._clock, self._meter
        now = clock.time()
        meter.done += 1
        meter.seconds += now - (task.time_started or now)
        chance = 0.5 if outcome.kind == outcomes.OK else clock.random()
        job, limit = attempt.job_class, self._message_size
        try:
            ending = conclude(task, outcome, now=now, job=job, chance=chance, limit=limit)
        except Exception as exc:  # a foreign message may state any option: its task fails, and frees its slot
            logger.exception("the end of task %s cannot be concluded", task.id)
            task.max_retries = None
            failed = Outcome(
                outcomes.FAILED, None, f"{type(exc).__name__}: {exc}", None, "not-admitted", final=True
            )
            ending = conclude(task, failed, now=now, job=job, limit=limit)
        self._end(task, ending)

    def _end(self, task: Task[Any], ending: Ending) -> None:
        """Put the end of a task into the next round trip."""
        if not self._settling.settle(task, ending):
            return
        self._wake()
        if self._quarantine.task == task.id:
            self._quarantine.end()
        if self._draining.begun:
            self._draining.attempt_ended()
        for observer in self._observers:
            observer.ended(task, ending)
        if self._limit:
            self.look_at_limit()

    def look_at_limit(self) -> None:
        """Have the worker replaced, where it has taken `max_requests` tasks and none of them runs."""
        if self._limit and self._taken >= self._limit and not self._running:
            self._on_limit()
