"""Verbs about tasks: `tasks`, `status`, `retry`, `cancel`, `logs`."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from ..cli import Command, UsageError, VerbParser
from ..describe import SHORT, STATUS_TINTS, ago, call_text, facts_of, outcome_text, task_facts
from ..model.events import LogLine
from ..model.task import Task
from .calling import answer, connected, parse_duration
from .terminal import as_json, note, say, table, tint

FAILED = ("FAILURE", "REVOKED")


def tasks(command: Command) -> int:
    """`pq tasks --status failure --since 1h`."""
    parser = VerbParser(command, "list tasks: running, waiting, recently ended")
    parser.add_argument(
        "-s", "--status", metavar="STATUS", help="queued, started, retry, success, failure, revoked, dead"
    )
    parser.add_argument("--queue", metavar="NAME", help="only this queue")
    parser.add_argument("--job", metavar="NAME", help="only this job")
    parser.add_argument(
        "--text", metavar="TEXT", help="only tasks with this text in arguments, result or error"
    )
    parser.add_argument(
        "--since", metavar="TIME", help="only tasks queued or ended in the last 30s, 5m, 2h, 1d"
    )
    parser.add_argument(
        "-n", "--count", type=int, default=50, metavar="N", help="at most N tasks (default 50)"
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
    """Return the status for a word that users type, as in `failed`."""
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
    parser = VerbParser(
        command, "show a task: times, attempts, result, log; the first characters of its id are enough"
    )
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


def log_text(line: LogLine) -> str:
    """Return a log line of a task as it is shown."""
    text = f"{datetime.fromtimestamp(line.time):%H:%M:%S} {line.level:<8} {line.text}"
    return tint(text, {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(line.level))


def retry(command: Command) -> int:
    """`pq retry ID …`, `pq retry --dead`."""
    parser = VerbParser(command, "run finished tasks again")
    parser.add_argument("id", metavar="ID", nargs="*")
    parser.add_argument("--dead", action="store_true", help="all tasks of the dead set")
    parser.add_argument("--job", metavar="NAME", help="with --dead: only this job")
    wanted = parser.parse(command.argv)
    if bool(wanted.id) == wanted.dead:
        raise UsageError(
            "which tasks?", hint=f"{command.program} retry ID …, or {command.program} retry --dead"
        )
    return _each(command, wanted, "retry", "queued again", "runs or waits already")


def cancel(command: Command) -> int:
    """`pq cancel ID …`."""
    parser = VerbParser(command, "cancel tasks, queued or running")
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
    parser = VerbParser(command, "show the log of a task, or all new lines (-f)")
    parser.add_argument("id", metavar="ID", nargs="?")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="follow until Ctrl-C, or until the task is done"
    )
    wanted = parser.parse(command.argv)
    if wanted.follow:
        asyncio.run(_follow(command, wanted.id))
        return 0
    if wanted.id is None:
        raise UsageError(
            "whose log?", hint=f"{command.program} logs ID, or {command.program} logs -f for all new lines"
        )
    with connected(command) as api:
        task = answer(api.tasks.find(wanted.id))
        lines = answer(api.tasks.log(task.id))
    for line in lines:
        say(log_text(line))
    if not lines:
        note(f"{task.name} {task.id[:SHORT]} has logged nothing")
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
