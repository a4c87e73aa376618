"""Verbs about tasks: `tasks`, `status`, `retry`, `cancel`, `logs`."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from ..cli import Command, UsageError, VerbParser
from ..model.events import LogLine
from ..model.task import Task
from .common import (
    SHORT,
    STATUS_TINTS,
    ago,
    answer,
    as_json,
    call_text,
    connected,
    note,
    outcome_text,
    parse_duration,
    progress_text,
    say,
    span,
    table,
    task_facts,
    tint,
)

FAILED = ("FAILURE", "REVOKED")


def tasks(command: Command) -> int:
    """`pq tasks --status failure --since 1h`."""
    parser = VerbParser(command, "list tasks: what runs, what waits, what has ended of late")
    parser.add_argument(
        "-s", "--status", metavar="STATUS", help="queued, started, retry, success, failure, revoked, dead"
    )
    parser.add_argument("--queue", metavar="NAME", help="of this queue alone")
    parser.add_argument("--job", metavar="NAME", help="of this job alone")
    parser.add_argument("--text", metavar="TEXT", help="with this in their arguments, result or error")
    parser.add_argument("--since", metavar="TIME", help="queued or ended in the last 30s, 5m, 2h, 1d")
    parser.add_argument(
        "-n", "--count", type=int, default=50, metavar="N", help="at most so many (default 50)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    since = None if wanted.since is None else parse_duration(wanted.since)
    with connected(command) as api:
        found: list[Task[Any]] = answer(
            api.tasks.search(
                _status(wanted.status),
                queue=wanted.queue,
                job=wanted.job,
                text=wanted.text,
                since=since,
                count=wanted.count,
            )
        )
    if wanted.json:
        as_json([task_facts(task) for task in found])
        return 0
    now = time.time()
    rows = [
        (
            task.id[:SHORT], task.name, task.status_string, task.queue or "", ago(_moment(task), now),
            f"{task.retry}/{(task.max_retries or 0) + 1}", outcome_text(task) or call_text(task),
        )
        for task in found
    ]  # fmt: skip
    heads = ("ID", "JOB", "STATUS", "QUEUE", "SINCE", "ATTEMPT", "")
    table(heads, rows, [STATUS_TINTS.get(task.status_string) for task in found])
    if not found:
        note("no such tasks")
    elif len(found) == wanted.count:
        note(f"the first {wanted.count}; -n shows more")
    return 0


def _status(text: str | None) -> str | None:
    """What people say for a status, beside its name."""
    words = {
        "failed": "failure",
        "running": "started",
        "waiting": "queued",
        "done": "success",
        "cancelled": "revoked",
    }
    return None if text is None else words.get(text.lower(), text)


def _moment(task: Task[Any]) -> float | None:
    return task.time_ended or task.time_started or task.time_queued


def status(command: Command) -> int:
    """`pq status ID`."""
    parser = VerbParser(command, "show all that is known of a task; the beginning of its id is enough")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        task = answer(api.tasks.find(wanted.id))
        lines = answer(api.tasks.log(task.id))
        reason = answer(api.tasks.why(task.id))
    if wanted.json:
        facts = {**task_facts(task), "log": [line._asdict() for line in lines]}
        as_json({**facts, "waits": reason._asdict()} if reason else facts)
        return 0
    say(
        f"{tint(task.name, 'bold')} {task.id}  {tint(task.status_string, STATUS_TINTS.get(task.status_string))}"
    )
    for name, text in facts_of(task):
        if text:
            say(f"  {name:<10} {text}")
    if reason is not None:
        say(f"  {'waits':<10} {reason.text} [{reason.slug}]")
        if reason.hint:
            say(f"  {'':<10} hint: {reason.hint}")
    if task.stacktrace:
        say("\n" + task.stacktrace.rstrip())
    if lines:
        say("\nlog")
        for line in lines:
            say(log_text(line))
    return 0


def facts_of(task: Task[Any]) -> list[tuple[str, str]]:
    """What is told of a task, line by line."""
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
        ("limits", task.demands),
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


def log_text(line: LogLine) -> str:
    """A log line of a task, as it is shown."""
    text = f"{datetime.fromtimestamp(line.time):%H:%M:%S} {line.level:<8} {line.text}"
    return tint(text, {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(line.level))


def retry(command: Command) -> int:
    """`pq retry ID …`, `pq retry --dead`."""
    parser = VerbParser(command, "run finished tasks again")
    parser.add_argument("id", metavar="ID", nargs="*")
    parser.add_argument("--dead", action="store_true", help="all of the dead set")
    parser.add_argument("--job", metavar="NAME", help="with --dead: of this job alone")
    wanted = parser.parse(command.argv)
    if bool(wanted.id) == wanted.dead:
        raise UsageError(
            "which tasks?", hint=f"{command.program} retry ID …, or {command.program} retry --dead"
        )
    return _each(command, wanted, "retry", "queued again", "runs or waits already")


def cancel(command: Command) -> int:
    """`pq cancel ID …`."""
    parser = VerbParser(command, "stop tasks, queued or running")
    parser.add_argument("id", metavar="ID", nargs="+")
    wanted = parser.parse(command.argv)
    wanted.dead = False
    return _each(command, wanted, "cancel", "cancelled", "is finished already")


def _each(command: Command, wanted: Any, verb: str, done: str, not_done: str) -> int:
    code = 0
    with connected(command) as api:
        if wanted.dead:
            found = answer(api.tasks.search("dead", job=wanted.job, count=1_000_000))
        else:
            found = [answer(api.tasks.find(prefix)) for prefix in wanted.id]
        for task in found:
            ok = answer(getattr(api.tasks, verb)(task.id))
            text = f"{task.name} {task.id[:SHORT]}"
            say(f"{done}: {text}") if ok else note(f"{text} {not_done}")
            code = code if ok else 1
    if not found:
        note("no such tasks")
    return code


def logs(command: Command) -> int:
    """`pq logs ID -f`, `pq logs -f`."""
    parser = VerbParser(command, "show what tasks log: one task's lines, or all new ones (-f)")
    parser.add_argument("id", metavar="ID", nargs="?")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until Ctrl-C, or until the task is done"
    )
    wanted = parser.parse(command.argv)
    if wanted.follow:
        asyncio.run(_follow(command, wanted.id))
        return 0
    if wanted.id is None:
        raise UsageError(
            "whose log?", hint=f"{command.program} logs ID, or {command.program} logs -f for all that comes"
        )
    with connected(command) as api:
        for line in answer(api.tasks.log(answer(api.tasks.find(wanted.id)).id)):
            say(log_text(line))
    return 0


async def _follow(command: Command, prefix: str | None) -> None:
    api = command.application.api()
    async with api:
        if prefix is None:
            await api.on_events("task", "log", lambda channel, event, task: _tell(task))
            await asyncio.Event().wait()  # until Ctrl-C
            return
        task = await api.tasks.find(prefix)
        for line in await api.tasks.log(task.id):
            say(log_text(line))
        if not task.done():
            async for event in task.done_callback:
                for line in event.lines:
                    say(log_text(line))
                task = event.task
        say(f"{task.name} {task.id[:SHORT]} {task.status_string} {outcome_text(task)}")


def _tell(task: Task[Any]) -> None:
    from ..model.events import log_lines

    for line in log_lines(task):
        say(f"{task.name} {task.id[:SHORT]}  {log_text(line)}")
