"""Turn log records into lines, and send them to the log of a process.

`configure` sets up the standard library's logging for a server process, with lines for people (three
columns: time, process, text) or for machines (JSON).

Two rules hold for every line. It cannot be forged: control characters in a name, an argument or an error
are written out, so one record is one line and no text moves the cursor. It cannot do harm: a closed
terminal, a full disk or a broken `repr` costs the line and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from reprlib import Repr
from typing import TextIO

WHO_WIDTH = 8
INDENT = " " * (len("10:04:01 ") + WHO_WIDTH + 1)

# The control characters of ASCII and Latin-1, line and paragraph separators, and the marks that turn
# the direction of text (CVE-2021-42574); lone surrogates, because no stream can encode them.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_DIM, _CYAN, _YELLOW, _RED, _PLAIN = "\x1b[2m", "\x1b[36m", "\x1b[33m", "\x1b[31m", "\x1b[0m"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "who", "taskName", "stack"}
"""Attributes of every log record; any other was added with `extra=`."""

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 4
_short.maxlevel = 3


def escape(text: str) -> str:
    """Return `text` on one line, with its control characters written out (`\\\\n`, `\\\\x1b`)."""
    if text.isprintable():
        return text  # nearly always, and faster than any search
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def configure(
    level: str = "info",
    fmt: str = "console",
    who: str = "pq",
    stream: TextIO | None = None,
    also: Sequence[HarmlessHandler] = (),
) -> None:
    """Send the log records of this process to `stream` (standard error) and to the handlers `also`.

    `who` is the process's name in each line. A second call replaces what the first one set up. Handlers of
    the application are left alone.
    """
    stream = stream or sys.stderr  # which is None in a process that has none
    handler = SafeHandler(stream)
    handler.setFormatter(
        JsonFormatter(who) if fmt == "json" else ConsoleFormatter(who, colours=_has_colours(stream))
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, HarmlessHandler)]:
        root.removeHandler(old)
        old.close()
    for new in (handler, *also):
        root.addHandler(new)
    root.setLevel(level.upper())


def _has_colours(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal whose user did not refuse colours (no-color.org)."""
    try:
        return (
            stream is not None
            and stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )
    except ValueError:  # closed
        return False


class HarmlessHandler(logging.Handler):
    """A handler that never prints a traceback of its own. All handlers of `configure` are of this kind."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: its destination is gone, so an error about it could not be shown either."""


class SafeHandler(HarmlessHandler, logging.StreamHandler[TextIO]):
    """A stream handler that never raises."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            try:
                self.stream.write(line)
            except UnicodeEncodeError:  # an arrow on a terminal that has only ASCII
                encoding = self.stream.encoding or "ascii"
                self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            self.stream.flush()
        except Exception:
            self.handleError(record)


class ConsoleFormatter(logging.Formatter):
    """Make lines for people: `10:04:01 w1       ready · queues default`.

    A traceback and a hint follow below it, indented. A record has a hint by `extra={"hint": …}`, and a stack
    that is not a traceback by `extra={"stack": …}`. `dated` puts the day before the time, for log files.
    """

    def __init__(self, who: str, *, colours: bool = False, dated: bool = False) -> None:
        super().__init__()
        self.who = who
        self.colours = colours
        self._time = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime(self._time, time.localtime(record.created))
        who = escape(str(getattr(record, "who", self.who)))
        text = escape(_text(record))
        # Levels are words as well as colours, because files have no colours; `info` needs no word.
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if not (record.name == "pq" or record.name.startswith("pq.")):
            text = f"{escape(record.name)}: {text}"
        if not self.colours:
            line = f"{clock} {who:<{WHO_WIDTH}} {text}"
        else:
            tint = (
                _RED
                if record.levelno >= logging.ERROR
                else _YELLOW
                if record.levelno >= logging.WARNING
                else ""
            )
            line = f"{_DIM}{clock}{_PLAIN} {_CYAN}{who:<{WHO_WIDTH}}{_PLAIN} {tint}{text}{_PLAIN if tint else ''}"
        # Indented, a line within an error's text cannot pass for a log line.
        more = _traceback(record).splitlines()
        if hint := getattr(record, "hint", None):
            more.append(f"hint: {hint}")
        return "\n".join([line, *(f"{INDENT}{escape(below)}" for below in more)])


class JsonFormatter(logging.Formatter):
    """Make one JSON object a line: time, level, who, logger, message, the record's `extra`, traceback."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        seconds, millis = divmod(round(record.created * 1000), 1000)
        fields: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03}Z",
            "level": record.levelname.lower(),
            "who": str(getattr(record, "who", self.who)),
            "logger": record.name,
            "message": _text(record),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if traceback := _traceback(record):
            fields["traceback"] = traceback
        try:
            return json.dumps(extra | fields, default=short_repr, skipkeys=True)
        except (ValueError, RecursionError):  # an extra that contains itself
            return json.dumps({key: short_repr(value) for key, value in extra.items()} | fields)


def _text(record: logging.LogRecord) -> str:
    """Return the message of `record`, also where its arguments do not fit its format."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {short_repr(record.args)}"


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback and the stack of `record`; empty when it has none."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        import traceback

        try:
            parts.append("".join(traceback.format_exception(*record.exc_info)))
        except Exception:
            parts.append(f"{record.exc_info[0].__name__}, whose traceback cannot be shown")
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    if stack := getattr(record, "stack", None):
        parts.append(str(stack))
    return "\n".join(parts)


def short_repr(value: object) -> str:
    """Return a short `repr` of any value. It cannot fail, although the value and its `__repr__` are a user's."""
    try:
        return _short.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
