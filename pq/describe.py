"""Words that describe tasks to people: ages, lengths of time, calls, outcomes, progress.

Pure functions, shared by the command line and `pq top`. Text from a job passes `escape` before it is shown.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from .errors import PqError
from .logs.formatters import escape
from .model.task import Task

SHORT = 9
"""Characters of an id that are shown."""


STATUS_TINTS = {
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "yellow",
    "STARTED": "bold",
    "RETRY": "yellow",
}


def task_facts(task: Task[Any]) -> dict[str, Any]:
    """Return the fields of a task for `--json`."""
    try:
        return task.tojson()
    except PqError:
        return {"id": task.id, "name": task.name, "queue": task.queue, "status_string": task.status_string}


def facts_of(task: Task[Any]) -> list[tuple[str, str]]:
    """Return the lines that describe a task: (word, text); an empty text is left out by the caller."""
    run: list[str] = []
    if task.time_started is not None and task.time_queued is not None:
        run.append(f"waited {span(max(0.0, task.time_started - task.time_queued - (task.delay or 0.0)))}")
    if task.time_started is not None and task.time_ended is not None:
        run.append(f"ran {span(max(0.0, task.time_ended - task.time_started))}")
    if task.worker:
        run.append(f"on {task.worker} of {task.node}")
    info = {k: v for k, v in task.run_info.items() if k not in ("progress", "raw")}
    return [
        ("queue", task.queue or "none"),
        ("arguments", call_text(task)),
        ("queued", _when(task.time_queued)),
        ("started", _when(task.time_started)),
        ("ended", _when(task.time_ended)),
        ("times", ", ".join(run)),
        ("attempt", f"{task.retry} of {(task.max_retries or 0) + 1}"),
        ("limits", task.limits_text),
        ("progress", progress_text(task)),
        ("result", outcome_text(task) if task.status_string == "SUCCESS" else ""),
        ("error", (task.exception or "").split("\n", 1)[0]),
        ("meta", ", ".join(f"{k}={v!r}" for k, v in task.meta.items())),
        ("run", ", ".join(f"{k}={v!r}" for k, v in info.items())),
    ]


def _when(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S} ({ago(seconds)})"


def ago(seconds: float | None, now: float | None = None) -> str:
    """Return a moment (seconds since the epoch) as its age: `3 s ago`, `2 min ago`; `in 5 s` in the future."""
    if seconds is None:
        return "-"
    age = (time.time() if now is None else now) - seconds
    text = span(abs(age))
    return f"in {text}" if age < -0.5 else f"{text} ago"


def span(seconds: float) -> str:
    """Return a length of time (seconds), rounded: `3 s`, `2 min`, `5 h`, `4 d`."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def call_text(task: Task[Any]) -> str:
    """Return the arguments as they would be typed: `4 b=6`."""
    try:
        words = [repr(value) for value in task.args] + [f"{k}={v!r}" for k, v in task.kwargs.items()]
    except PqError:
        return "(cannot be read)"
    return escape(" ".join(words))


def outcome_text(task: Task[Any]) -> str:
    """Return the outcome of a task in a line: its result, its error, or its progress."""
    if task.status_string == "SUCCESS":
        try:
            return repr(task.result)
        except PqError:
            return "(cannot be read)"
    if task.exception:
        return task.exception.split("\n", 1)[0]
    return progress_text(task)


def progress_facts(task: Task[Any]) -> dict[str, Any] | None:
    """Return the last progress report of a task; None without one."""
    try:
        facts = task.run_info.get("progress")
    except PqError:
        return None
    return facts if isinstance(facts, dict) else None


def progress_share(task: Task[Any]) -> float | None:
    """Return the share of a task that is done, 0.0 to 1.0; None where it is not known."""
    facts = progress_facts(task) or {}
    done, total = facts.get("done"), facts.get("total")
    if not isinstance(done, (int, float)) or not isinstance(total, (int, float)) or not total:
        return None
    return done / total


def progress_text(task: Task[Any]) -> str:
    """Return the progress of a task: `87 % message`."""
    facts, share = progress_facts(task), progress_share(task)
    if facts is None:
        return ""
    part = f"{facts.get('done')}" if share is None else f"{100 * share:.0f} %"
    return f"{part} {facts.get('message') or ''}".strip()


def bar_length(share: float, width: int) -> int:
    """Return how many characters of a bar are full; any share is accepted, as jobs report it."""
    return int(min(max(share, 0.0), 1.0) * width)
