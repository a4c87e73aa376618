"""The verbs `queue` and `wait`: queue a task and watch it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..cli import Command, UsageError, VerbParser
from ..describe import SHORT, bar_length, progress_share, progress_text, task_facts
from ..errors import PqError, TaskError
from ..model.task import Task
from ..producer.producer import Producer
from .calling import parse_duration
from .terminal import as_json, colours, note, say

IMPATIENT = 1.0
"""Seconds after which a watched task that does not start is explained."""
BAR = 24
_CLEAR = "\r\x1b[K"


def queue(command: Command) -> int:
    """`pq queue JOB 4 b=6 --wait`."""
    parser = VerbParser(command, "queue a task: pq queue addition a=4 b=6 --wait")
    parser.add_argument("job", metavar="JOB")
    parser.add_argument(
        "arguments", nargs="*", metavar="ARG", help="a value, or name=value; JSON where it is that, else text"
    )
    parser.add_argument(
        "-w", "--wait", action="store_true", help="watch it until it is done, and print its result"
    )
    parser.add_argument(
        "--stream", action="store_true", help="the same, and print streamed parts as they come"
    )
    parser.add_argument("--delay", metavar="TIME", help="30s, 5m, 2h, 1d")
    parser.add_argument("--queue", metavar="NAME", help="queue to use in place of the job's")
    parser.add_argument("--timeout", metavar="TIME", help="longest run of one attempt: 30s, 5m, 2h")
    parser.add_argument("--json", action="store_true", help="print the task as JSON")
    wanted = parser.parse(command.argv)
    args, kwargs = _arguments(wanted.arguments)
    options: dict[str, Any] = {"queue": wanted.queue}
    for name in ("delay", "timeout"):
        text = getattr(wanted, name)
        options[name] = None if text is None else parse_duration(text)
    return asyncio.run(_queue(command, wanted, args, kwargs, options))


def wait(command: Command) -> int:
    """`pq wait ID`."""
    parser = VerbParser(command, "watch a task until it is done, and print its result")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--stream", action="store_true", help="print streamed parts as they come")
    parser.add_argument("--timeout", metavar="TIME", help="give up after 30s, 5m, 2h, 1d")
    parser.add_argument("--json", action="store_true", help="print the task as JSON")
    wanted = parser.parse(command.argv)
    return asyncio.run(_wait(command, wanted))


def _arguments(words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return `4 b=6` as `[4], {"b": 6}`. A word with `=` is a named argument if a name stands before it."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            if name in kwargs:
                raise UsageError(f"{name} was given twice")
            kwargs[name] = _value(value)
        else:
            args.append(_value(word))
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _queue(
    command: Command, wanted: Any, args: list[Any], kwargs: dict[str, Any], options: dict[str, Any]
) -> int:
    api = command.application.api()
    async with api:
        items = [(wanted.job, args, kwargs)]
        (future,) = api.tasks.queue_many(items, callback=False, **options)
        task = await future
        if not wanted.wait and not wanted.stream:
            if wanted.json:
                as_json(task_facts(task))
            else:
                say(task.id)
                note(
                    f"queued: {task.name} {task.id[:SHORT]} · {command.program} wait {task.id[:SHORT]} waits for it"
                )
            return 0
        return _ended(await _watched(api, task, stream=wanted.stream), wanted.json)


async def _wait(command: Command, wanted: Any) -> int:
    api = command.application.api()
    async with api:
        task = await api.tasks.find(wanted.id)
        try:
            async with asyncio.timeout(None if wanted.timeout is None else parse_duration(wanted.timeout)):
                return _ended(await _watched(api, task, stream=wanted.stream), wanted.json)
        except TimeoutError:
            note(f"{task.name} {task.id[:SHORT]} is not done after {wanted.timeout}; it goes on")
            return 1


async def _watched(api: Producer, task: Task[Any], *, stream: bool) -> Task[Any]:
    """Return the task when it is done; meanwhile show a progress bar on a terminal, or print its parts."""
    if stream:
        await _print_parts(api, task)
    if task.done():
        return task
    moves = sys.stderr.isatty()
    try:
        async with _explained(api, task.id) as it_moves:
            async for event in task.done_callback:
                if event.name in ("started", "progress", "done"):
                    it_moves()
                task = event.task
                if moves and event.name != "log":
                    sys.stderr.write(f"{_CLEAR}{task.name} {task.id[:SHORT]} {bar(task)}")
                    sys.stderr.flush()
                for line in event.lines:
                    sys.stderr.write(f"{_CLEAR if moves else ''}{line.text}\n")
    finally:
        if moves:
            sys.stderr.write(_CLEAR)
    return task


async def _print_parts(api: Producer, task: Task[Any]) -> None:
    """Print parts, a line each: text as it is, other values as JSON. A new attempt starts from part 1."""
    parts = api.tasks.stream(task, gaps=True)
    async with _explained(api, task.id) as it_moves:
        with contextlib.suppress(TaskError):  # reported when all parts are printed
            async for part in parts:
                it_moves()
                if parts.number == 1 and parts.attempts > 1:
                    note(f"{task.name} {task.id[:SHORT]} starts again")
                say(part if isinstance(part, str) else json.dumps(part, default=repr))
                sys.stdout.flush()


def bar(task: Task[Any]) -> str:
    """Return the progress of a task in a line."""
    share = progress_share(task)
    if task.done() or share is None:
        return f"{task.status_string} {progress_text(task)}".rstrip()
    full = bar_length(share, BAR)
    drawn = "━" * full + (
        f"\x1b[2m{'━' * (BAR - full)}\x1b[0m" if colours(sys.stderr) else "·" * (BAR - full)
    )
    return f"{drawn} {progress_text(task)}"


@contextlib.asynccontextmanager
async def _explained(api: Producer, id: str) -> AsyncIterator[Callable[[], object]]:
    """Explain why a task does not start, unless the yielded function is called before `IMPATIENT`."""
    explains = asyncio.get_running_loop().create_task(_explain(api, id))
    try:
        yield explains.cancel
    finally:
        explains.cancel()
        await asyncio.gather(explains, return_exceptions=True)


async def _explain(api: Producer, id: str) -> None:
    """Print why a task does not start."""
    await asyncio.sleep(IMPATIENT)
    reason = await api.tasks.why(id)
    if reason is not None:
        note(
            f"{id[:SHORT]} waits: {reason.text} [{reason.slug}]"
            + (f"\nhint: {reason.hint}" if reason.hint else "")
        )


def _error(task: Task[Any]) -> PqError:
    """Return the error that `task.get()` raises."""
    try:
        task.get()
    except PqError as exc:
        return exc
    raise AssertionError(f"{task.info()} did not fail")


def _ended(task: Task[Any], json_wanted: bool) -> int:
    """Print the outcome: the result to standard output, an error to standard error; return the exit code."""
    if json_wanted:
        as_json(task_facts(task))
    elif task.status_string == "SUCCESS":
        result = task.result
        say(result if isinstance(result, str) else repr(result))
    else:
        error = _error(task)
        first = (task.exception or "").split("\n", 1)[0]
        slug = "" if error.slug == TaskError.slug else f" [{error.slug}]"
        note(f"{task.status_string}: {task.name} {task.id[:SHORT]}: {first}{slug}")
        if task.stacktrace:
            note(task.stacktrace.rstrip())
        if error.hint:
            note(f"hint: {error.hint.replace(' ID', ' ' + task.id[:SHORT])}")
    return 0 if task.status_string == "SUCCESS" else 1
