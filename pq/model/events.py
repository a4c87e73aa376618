"""Events: what is broadcast about tasks and consumers, and which callback gets which.

On the wire an event is `<word> <facts>\\n<parcels>`, where the facts are words and each parcel is a
task's record. Here it becomes calls `callback(channel, event, message)`, where `message` is a `Task` or,
on channel `consumer`, a dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InvalidValue
from .task import Task

Callback = Callable[[str, str, Any], Any]


class LogLine(NamedTuple):
    """A line that a task logged, or printed in a process of its own. `time` is seconds since the epoch."""

    time: float
    level: str
    text: str


class TaskEvent(NamedTuple):
    """One event of a task: `queued`, `started`, `progress`, `log`, `retry` or `done`.

    `task` is as it stood then; `lines` are those of event `log`.
    """

    name: str
    task: Task[Any]
    lines: list[LogLine] = []  # noqa: RUF012  it is never changed


def log_lines(task: Task[Any]) -> list[LogLine]:
    """Return the new lines that came with event `log`."""
    lines = task.run_info.get("log")
    return [log_line(line) for line in lines if type(line) is bytes] if type(lines) is list else []


def log_line(data: bytes) -> LogLine:
    """Read a line as the worker wrote it: time, level, text."""
    time, _, rest = data.decode("utf-8", "replace").partition(" ")
    level, _, text = rest.partition(" ")
    try:
        return LogLine(float(time), level, text.replace("\\n", "\n"))
    except ValueError:
        return LogLine(0.0, "INFO", data.decode("utf-8", "replace"))


def event_pattern(text: str) -> re.Pattern[str]:
    """Compile the events that a user asks for: `'*'` is everything, else words with `*` and `|`.

    `.*` is taken as `*`, as in a regular expression. Nothing else is special: a user's text never
    becomes a regular expression, so no text can make the match run forever.
    """
    if not isinstance(text, str) or not text or len(text) > 200:
        raise InvalidValue(
            f"{str(text)[:40]!r} is not an event pattern", hint="use '*', 'done' or 'started|done'"
        )
    choices = text.replace(".*", "*").strip("^$()").split("|")
    return re.compile("|".join(re.sub(r"(?:\\\*)+", "[^|]*", re.escape(choice)) for choice in choices))


class Listeners:
    """The callbacks of one producer, by channel and pattern."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[tuple[str, re.Pattern[str], Callback]]] = {}

    def add(self, channel: str, pattern: str, callback: Callback) -> None:
        """Register a callback. Raises `InvalidValue` for a channel, a pattern or a callback that cannot be."""
        if channel not in ("task", "consumer"):
            raise InvalidValue(
                f"there are no {channel!r} events", hint="message_type is 'task' or 'consumer'"
            )
        if not callable(callback):
            raise InvalidValue(
                f"{callback!r} cannot be called", hint="pass a function (channel, event, message)"
            )
        self._callbacks.setdefault(channel, []).append((pattern, event_pattern(pattern), callback))

    def remove(self, channel: str, pattern: str, callback: Callback) -> None:
        """Remove one registration; harmless when there is none."""
        entries = self._callbacks.get(channel, [])
        for entry in entries:
            if entry[0] == pattern and entry[2] == callback:
                entries.remove(entry)
                return

    def wanted(self, channel: str, event: str) -> list[Callback]:
        """Return the callbacks of an event."""
        return [call for _, pattern, call in self._callbacks.get(channel, ()) if pattern.fullmatch(event)]
