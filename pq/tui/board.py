"""What is shown: the facts, and the rows that are made of them. No terminal and no store here.

Two sources write on it. Events are quick and may be missed; looks are right and a moment old. So an event
that came after a look was begun counts more than that look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..broker.contract.values import QueueState
from ..clock import SYSTEM, Clock
from ..commands.common import SHORT, ago, bar_length, call_text, progress_share, progress_text, span
from ..logs.formatters import escape
from ..model.states import FAILURE, STARTED
from ..model.task import Task

RATE_OVER = 5.0
"""Seconds over which the rate of finished tasks is taken."""
SILENT = 15.0
"""Seconds after which a worker that says nothing is taken off, as the store does."""
BEAT = 5.0
"""Seconds between two heartbeats."""
MOST_RUNNING = 50
MOST_FAILURES = 50
"""Tasks that are kept at most: `pq tasks` lists them all, and measuring hundreds of lines holds up the keys."""
BAR = 12

WorkerKey = tuple[str, str, str]


class Row(NamedTuple):
    """A line of a pane. `key` says what it is about, `tint` is a name of `common`'s colours."""

    key: str
    cells: tuple[str, ...]
    tint: str | None = None


class Pane(NamedTuple):
    """A table and its columns; those whose names are in `right` hold numbers."""

    name: str
    title: str
    heads: tuple[str, ...]
    right: frozenset[str] = frozenset()


PANES = (
    Pane(
        "queues", "Queues", ("QUEUE", "WAITING", "DELAYED", "AT LIMIT", "RUNNING", "DEAD", ""),
        frozenset(("WAITING", "DELAYED", "AT LIMIT", "RUNNING", "DEAD")),
    ),
    Pane(
        "workers", "Workers", ("NODE", "WORKER", "PID", "RUNNING", "DONE", "FAILED", "HEARD", ""),
        frozenset(("PID", "RUNNING", "DONE", "FAILED")),
    ),
    Pane("running", "Running", ("ID", "JOB", "QUEUE", "FOR", "")),
    Pane("failures", "Failures", ("ID", "JOB", "QUEUE", "ENDED", "ATTEMPT", "")),
)  # fmt: skip


@dataclass(slots=True)
class Running:
    """A task that runs. `since`: when it started, or, where that is not known, was first seen (s since the epoch)."""

    task: Task[Any]
    since: float
    known: bool
    told: float | None = None  # when an event spoke of it, by the monotonic clock


@dataclass(slots=True)
class Board:
    """All that the view knows."""

    clock: Clock = SYSTEM
    store: str = ""
    queues: dict[str, QueueState] = field(default_factory=dict)
    workers: dict[WorkerKey, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    failures: dict[str, Task[Any]] = field(default_factory=dict)
    """By their ends, the newest last."""
    filter: str = ""
    trouble: str | None = None
    """What keeps the store from being seen; None while it is."""
    hears: bool = True
    """False where no events are heard, so no rate is known."""
    _trouble_since: float = 0.0
    _heard: dict[WorkerKey, float] = field(default_factory=dict)
    _done: deque[list[float]] = field(default_factory=deque)  # [begin of a quarter second, tasks done in it]
    _began: float | None = None
    _left: dict[str, float] = field(default_factory=dict)  # when a task stopped running

    # ---------------------------------------------------------------------------------- looks
    def take_queues(self, states: Mapping[str, QueueState]) -> None:
        """The state of all queues."""
        self.queues = dict(sorted(states.items()))

    def take_workers(self, found: Iterable[Mapping[str, Any]]) -> None:
        """The last heartbeats of all workers that live."""
        self.workers.clear()
        self._heard.clear()
        for facts in found:
            self.beat(facts)
            told = facts.get("time")
            if isinstance(told, (int, float)):  # by that worker's clock, which may differ from ours
                self._heard[_who(facts)] -= min(max(0.0, self.clock.time() - told), BEAT)

    def take_running(self, queues: Iterable[str], found: Iterable[Task[Any]], asked: float) -> None:
        """What runs in these queues. `asked`: when that was asked, by the monotonic clock."""
        looked = set(queues)
        fresh = {id: one for id, one in self.running.items() if one.task.queue not in looked}
        fresh |= {id: one for id, one in self.running.items() if one.told is not None and one.told >= asked}
        for task in found:
            if task.id not in fresh and self._left.get(task.id, -1.0) < asked:
                fresh[task.id] = self._runs(task, None)
        self.running = dict(list(fresh.items())[:MOST_RUNNING])
        self._left = {id: at for id, at in self._left.items() if at >= asked}

    def take_failures(self, found: Iterable[Task[Any]]) -> None:
        """The dead set: all that failed for good."""
        by_end = sorted(found, key=lambda task: task.time_ended or 0.0)
        self.failures = {task.id: task for task in by_end[-MOST_FAILURES:]}

    # --------------------------------------------------------------------------------- events
    def heard(self, event: str, task: Task[Any]) -> None:
        """An event of a task: started, progress, retry or done."""
        now = self.clock.monotonic()
        if event in ("started", "progress"):
            if event == "progress" and task.id in self._left:
                return  # told late, by a task that has ended since
            self._left.pop(task.id, None)
            self.failures.pop(task.id, None)
            if task.id in self.running or len(self.running) < MOST_RUNNING:
                task.status = STARTED
                self.running[task.id] = self._runs(task, now)
            return
        self.running.pop(task.id, None)
        self._left[task.id] = now
        if len(self._left) > 20_000:  # looks fail for long, and nobody tidies up
            self._left.clear()
        if event == "done":
            self._count(now)
            if task.status == FAILURE:
                self.fail(task)

    def fail(self, task: Task[Any]) -> None:
        """A task failed for good."""
        self.failures.pop(task.id, None)
        self.failures[task.id] = task
        if len(self.failures) > MOST_FAILURES:
            del self.failures[next(iter(self.failures))]

    def beat(self, facts: Mapping[str, Any]) -> None:
        """A heartbeat of a worker."""
        key = _who(facts)
        if facts.get("leaving"):
            self.workers.pop(key, None)
            return
        if key not in self.workers:
            self.workers = dict(sorted([*self.workers.items(), (key, dict(facts))], key=lambda item: item[0]))
        self.workers[key] = dict(facts)
        self._heard[key] = self.clock.monotonic()

    def bury_the_silent(self) -> None:
        """Take off workers that were not heard of for long. Not while the store is away: then all are silent."""
        now = self.clock.monotonic()
        for key in [key for key in self.workers if now - self._heard.get(key, now) > SILENT]:
            del self.workers[key]

    def _runs(self, task: Task[Any], told: float | None) -> Running:
        before = self.running.get(task.id)
        if before is not None and before.task.retry == task.retry:
            task.time_started = task.time_started or before.task.time_started
            task.worker, task.node = task.worker or before.task.worker, task.node or before.task.node
            since = task.time_started or before.since
        else:
            since = task.time_started or self.clock.time()
        return Running(task, since, task.time_started is not None, told)

    def _count(self, now: float) -> None:
        if self._done and now - self._done[-1][0] < 0.25:
            self._done[-1][1] += 1
        else:
            self._done.append([now, 1])
        while self._done and self._done[0][0] < now - RATE_OVER:
            self._done.popleft()

    # ---------------------------------------------------------------------------------- store
    def lose(self, text: str) -> None:
        """The store cannot be seen."""
        if self.trouble is None:
            self._trouble_since = self.clock.monotonic()
        self.trouble = text

    def find(self) -> bool:
        """The store can be seen; True when it could not before."""
        was, self.trouble = self.trouble, None
        if was is not None:
            self._heard = dict.fromkeys(self._heard, self.clock.monotonic())
        return was is not None

    # ----------------------------------------------------------------------------------- text
    @property
    def rate(self) -> float | None:
        """Tasks done a second, over the last seconds; None where nothing is heard."""
        if not self.hears:
            return None
        now = self.clock.monotonic()
        if self._began is None:
            self._began = now
        over = min(RATE_OVER, max(1.0, now - self._began))
        return sum(count for at, count in self._done if at >= now - over) / over

    def served(self) -> set[str]:
        """Names of queues that some worker consumes."""
        return {str(name) for facts in self.workers.values() for name in facts.get("queues") or ()}

    def worker(self, key: str) -> dict[str, Any] | None:
        """The last heartbeat of the worker of that line; None when it lives no more."""
        return next((facts for who, facts in self.workers.items() if " ".join(who) == key), None)

    def complete(self, task: Task[Any]) -> None:
        """Write into a task that runs what events told of it: the record is not written when a task starts."""
        one = self.running.get(task.id)
        if one is not None and not task.done():
            task.time_started = task.time_started or one.task.time_started
            task.worker, task.node = task.worker or one.task.worker, task.node or one.task.node

    def counts(self) -> list[str]:
        """The numbers of the header."""
        rate, workers = self.rate, len(self.workers)
        waiting = sum(state.waiting for state in self.queues.values())
        running = sum(state.held for state in self.queues.values())
        told = [] if rate is None else [f"{rate:.0f} done/s" if rate >= 10 else f"{rate:.1f} done/s"]
        return [
            *told,
            f"{workers} worker{'' if workers == 1 else 's'}",
            f"{running:,} running",
            f"{waiting:,} waiting",
        ]

    def alarm(self) -> str | None:
        """What is said where the store cannot be seen."""
        if self.trouble is None:
            return None
        away = self.clock.monotonic() - self._trouble_since
        return escape(f"no sight of the store for {span(away)}: {self.trouble}")

    def title(self, pane: Pane, shown: int) -> str:
        """The title of a pane that shows so many lines: `Failures (50 of 1,204)`."""
        states = self.queues.values()
        totals = {"running": sum(s.held for s in states), "failures": sum(s.dead for s in states)}
        total = totals.get(pane.name, 0)
        full = shown >= MOST_RUNNING and total > shown
        return f"{pane.title} ({shown} of {total:,})" if full else f"{pane.title} ({shown})"

    def rows(self, pane: str) -> list[Row]:
        """The lines of a pane, those that the filter lets through."""
        made: Sequence[Row] = {
            "queues": self._queue_rows,
            "workers": self._worker_rows,
            "running": self._running_rows,
            "failures": self._failure_rows,
        }[pane]()
        wanted = self.filter.lower()
        return [row for row in made if not wanted or wanted in self._words(pane, row).lower()]

    def _words(self, pane: str, row: Row) -> str:
        """All of a line that the filter looks at; of tasks, their whole ids and arguments too."""
        text = " ".join((row.key, *row.cells))
        if pane == "running" and row.key in self.running:
            return f"{text} {call_text(self.running[row.key].task)}"
        if pane == "failures" and row.key in self.failures:
            task = self.failures[row.key]
            return f"{text} {call_text(task)} {task.exception or ''}"
        return text

    def _queue_rows(self) -> list[Row]:
        served = self.served()
        rows = []
        for name, state in self.queues.items():
            numbers = (state.ready + state.prio, state.delayed, state.parked, state.held, state.dead)
            note = "paused" if state.paused else "" if name in served else "no worker"
            warns = state.paused or (note and state.waiting)
            tint = "yellow" if warns else None if note == "" else "dim"
            rows.append(Row(name, (escape(name), *(f"{number:,}" for number in numbers), note), tint))
        return rows

    def _worker_rows(self) -> list[Row]:
        now = self.clock.monotonic()
        rows = []
        for key, facts in self.workers.items():
            node, worker, pid = key
            silent = now - self._heard.get(key, now)
            cells = (
                node, worker, pid, f"{facts.get('running')}/{facts.get('concurrency')}",
                f"{facts.get('processed', 0):,}", f"{facts.get('failed', 0):,}",
                ago(now - silent, now) if silent >= 1 else "now",
                ", ".join(str(name) for name in facts.get("queues") or ()),
            )  # fmt: skip
            tint = "yellow" if silent > 2 * SILENT / 3 else None
            rows.append(Row(" ".join(key), tuple(escape(cell) for cell in cells), tint))
        return rows

    def _running_rows(self) -> list[Row]:
        now = self.clock.time()
        oldest = sorted(self.running.values(), key=lambda one: (one.since, one.task.id))
        return [
            Row(
                one.task.id,
                (
                    escape(one.task.id[:SHORT]), _short(one.task.name, 22), _short(one.task.queue or "", 12),
                    f"{'' if one.known else '>'}{span(max(0.0, now - one.since))}", progress(one.task),
                ),
            )
            for one in oldest
        ]  # fmt: skip

    def _failure_rows(self) -> list[Row]:
        now = self.clock.time()
        return [
            Row(
                task.id,
                (
                    escape(task.id[:SHORT]), _short(task.name, 22), _short(task.queue or "", 12),
                    ago(task.time_ended, now), f"{task.retry}/{(task.max_retries or 0) + 1}",
                    escape((task.exception or "").split("\n", 1)[0][:300]),
                ),
                "red" if task.status == FAILURE else "yellow",
            )
            for task in reversed(self.failures.values())
        ]  # fmt: skip


def _who(facts: Mapping[str, Any]) -> WorkerKey:
    return str(facts.get("node")), str(facts.get("worker")), str(facts.get("pid"))


def progress(task: Task[Any]) -> str:
    """How far a running task is, as a bar where it said so; else its arguments."""
    text, share = escape(progress_text(task)), progress_share(task)
    if not text:
        return call_text(task)[:300]
    if share is None:
        return text
    full = bar_length(share, BAR)
    return f"{'━' * full}{'·' * (BAR - full)} {text}"


def _short(text: str, most: int) -> str:
    text = escape(text)
    return text if len(text) <= most else text[: most - 1] + "…"
