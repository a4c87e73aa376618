"""What the verbs have in common: the api, tables, ages, short ids, a question.

Data go to standard output and all else to standard error, so that a verb can stand in a pipe. Colours are for
terminals, and `NO_COLOR` turns them off.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from ..cli import Command, UsageError
from ..errors import PqError
from ..logs.formatters import escape
from ..model.task import Task
from ..producer.future import LoopFuture
from ..producer.producer import Producer

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that an answer of the store may take."""
SHORT = 9
"""Characters of an id that are shown."""

_TINTS = {"dim": "\x1b[2m", "bold": "\x1b[1m", "red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}
STATUS_TINTS = {
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "yellow",
    "STARTED": "bold",
    "RETRY": "yellow",
}


@contextlib.contextmanager
def connected(command: Command) -> Iterator[Producer]:
    """The api of the application, closed at the end."""
    api = command.application.api()
    try:
        yield api
    finally:
        api.close()


def answer(future: LoopFuture[T]) -> T:
    """What a call of the api resolves to."""
    return future.wait(PATIENCE)


# ------------------------------------------------------------------------------------------ output
def say(text: str = "") -> None:
    """A line of data."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line for the person, beside the data."""
    sys.stderr.write(f"{text}\n")


def colours(stream: TextIO | None = None) -> bool:
    """Whether colours are wanted there."""
    where: TextIO = sys.stdout if stream is None else stream
    return where.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def tint(text: str, name: str | None) -> str:
    """`text` in a colour, where those are wanted."""
    return f"{_TINTS[name]}{text}\x1b[0m" if name and text and colours() else text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], tints: Sequence[str | None] = ()) -> None:
    """A table, its columns as wide as they must be; the last one may be cut at the edge of the terminal."""
    if not rows:
        return
    cells = [[escape(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(heads), *cells]) for n in range(len(heads))]
    say(
        tint("  ".join(f"{head:<{width}}" for head, width in zip(heads, widths, strict=True)).rstrip(), "dim")
    )
    room = terminal_width() - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for number, row in enumerate(cells):
        if room >= 10 and len(row[-1]) > room:
            row[-1] = row[-1][: room - 1] + "…"
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        say(tint(line, tints[number] if tints else None))


def terminal_width() -> int:
    """Columns of the terminal; a pipe has as many as anybody likes."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def as_json(value: Any) -> None:
    """`value` as JSON; what JSON has no form for becomes text."""
    say(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def task_facts(task: Task[Any]) -> dict[str, Any]:
    """A task for `--json`."""
    try:
        return task.tojson()
    except PqError:
        return {"id": task.id, "name": task.name, "queue": task.queue, "status_string": task.status_string}


# ------------------------------------------------------------------------------------------- words
def ago(seconds: float | None, now: float | None = None) -> str:
    """A moment (seconds since the epoch) as its age: `3 s ago`, `2 min ago`; `in 5 s` for one to come."""
    if seconds is None:
        return "-"
    age = (time.time() if now is None else now) - seconds
    text = span(abs(age))
    return f"in {text}" if age < -0.5 else f"{text} ago"


def span(seconds: float) -> str:
    """A length of time, coarse: `3 s`, `2 min`, `5 h`, `4 d`."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def parse_duration(text: str) -> float:
    """Return the seconds of `30`, `30s`, `5m`, `2h` or `1d`. Raises `UsageError`."""
    sizes = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, size = (text[:-1], sizes[text[-1]]) if text[-1:] in sizes else (text, 1.0)
    try:
        seconds = float(number) * size
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e12:
        raise UsageError(f"{text!r} is no length of time", hint="write 30s, 5m, 2h or 1d")
    return seconds


def call_text(task: Task[Any]) -> str:
    """The arguments as they would be typed: `4 b=6`."""
    try:
        words = [repr(value) for value in task.args] + [f"{k}={v!r}" for k, v in task.kwargs.items()]
    except PqError:
        return "(cannot be read)"
    return escape(" ".join(words))


def outcome_text(task: Task[Any]) -> str:
    """What came of a task, in a line: its result, its error, how far it is."""
    if task.status_string == "SUCCESS":
        try:
            return repr(task.result)
        except PqError:
            return "(cannot be read)"
    if task.exception:
        return task.exception.split("\n", 1)[0]
    return progress_text(task)


def progress_facts(task: Task[Any]) -> dict[str, Any] | None:
    """What a task said last of how far it is; None where it said nothing."""
    try:
        facts = task.run_info.get("progress")
    except PqError:
        return None
    return facts if isinstance(facts, dict) else None


def progress_share(task: Task[Any]) -> float | None:
    """The part of a task that is done, in numbers; None where that is not known."""
    facts = progress_facts(task) or {}
    done, total = facts.get("done"), facts.get("total")
    if not isinstance(done, (int, float)) or not isinstance(total, (int, float)) or not total:
        return None
    return done / total


def progress_text(task: Task[Any]) -> str:
    """How far a task is: `87 % message`."""
    facts, share = progress_facts(task), progress_share(task)
    if facts is None:
        return ""
    part = f"{facts.get('done')}" if share is None else f"{100 * share:.0f} %"
    return f"{part} {facts.get('message') or ''}".strip()


def bar_length(share: float, width: int) -> int:
    """How much of a bar is full, whatever a job said."""
    return int(min(max(share, 0.0), 1.0) * width)


def sure(question: str, *, yes: bool, act: Callable[[], int]) -> int:
    """Ask before something that cannot be undone. Without a terminal nobody can answer, so `--yes` is needed."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody can be asked here", hint="say --yes")
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was done")
            return 1
    return act()
