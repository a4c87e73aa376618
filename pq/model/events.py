"""Events: what is broadcast about tasks and consumers, and who wants to hear which.

On the wire an event is `<word> <facts>\\n<parcels>`, where the facts are words and each parcel is a
task's record. Here it becomes calls `callback(channel, event, message)`, where `message` is a `Task` or,
on channel `consumer`, a dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..errors import InvalidValue
from .task import Task

Callback = Callable[[str, str, Any], Any]


class LogLine(NamedTuple):
    """What a task logged, or printed in a process of its own. `time` is seconds since the epoch."""

    time: float
    level: str
    text: str


class TaskEvent(NamedTuple):
    """What happened to a task: `queued`, `started`, `progress`, `log`, `retry` or `done`.

    `task` is as it stood then; `lines` are those of event `log`.
    """

    name: str
    task: Task[Any]
    lines: list[LogLine] = []  # noqa: RUF012  nobody adds to it


def log_lines(task: Task[Any]) -> list[LogLine]:
    """The new lines that came with event `log`."""
    lines = task.run_info.get("log")
    return [log_line(line) for line in lines if type(line) is bytes] if type(lines) is list else []


def log_line(data: bytes) -> LogLine:
    """A line as the worker wrote it: time, level, text."""
    time, _, rest = data.decode("utf-8", "replace").partition(" ")
    level, _, text = rest.partition(" ")
    try:
        return LogLine(float(time), level, text.replace("\\n", "\n"))
    except ValueError:
        return LogLine(0.0, "INFO", data.decode("utf-8", "replace"))


class Runner(Protocol):
    """Who calls the callbacks, in its own loop."""

    def run_callback(self, callback: Callable[..., Any], *args: Any) -> None: ...


class EventBus(Protocol):
    """Who takes raw events from an engine."""

    def deliver(self, engine: Any, channel: str, payload: bytes) -> None: ...


def event_pattern(text: str) -> re.Pattern[str]:
    """Compile what a user wants to hear: `'*'` is everything, else words with `*` and `|`.

    `.*` is taken as `*`, as in a regular expression. Nothing else is special: a user's text never
    becomes a regular expression, so none can be made to run for ever.
    """
    if not isinstance(text, str) or not text or len(text) > 200:
        raise InvalidValue(
            f"{str(text)[:40]!r} is no event pattern", hint="use '*', 'done' or 'started|done'"
        )
    choices = text.replace(".*", "*").strip("^$()").split("|")
    return re.compile("|".join(re.sub(r"(?:\\\*)+", "[^|]*", re.escape(choice)) for choice in choices))


class Listeners:
    """The callbacks of one producer, by channel and pattern."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[tuple[str, re.Pattern[str], Callback]]] = {}

    def add(self, channel: str, pattern: str, callback: Callback) -> None:
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
        """Take one registration away; harmless when there is none."""
        entries = self._callbacks.get(channel, [])
        for entry in entries:
            if entry[0] == pattern and entry[2] == callback:
                entries.remove(entry)
                return

    def wanted(self, channel: str, event: str) -> list[Callback]:
        return [call for _, pattern, call in self._callbacks.get(channel, ()) if pattern.fullmatch(event)]
