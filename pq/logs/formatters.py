"""What a server says while it runs: log lines, and the lines of single tasks.

The duties: `configure` sets up the standard library's logging for a server process, with lines for
people (three columns: time, who, text) or for machines (JSON); `TaskLog` prints one line for each task
while they come slowly, and counts them when they come fast.

Two rules hold for every line. It cannot be forged: whatever is in a name, an argument or an error, its
control characters are shown, never obeyed, so one record is one line and no text moves the cursor. And
it cannot hurt: a closed terminal, a full disk, a broken `repr` cost the line and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from reprlib import Repr
from typing import TextIO

WHO_WIDTH = 8
INDENT = " " * (len("10:04:01 ") + WHO_WIDTH + 1)

# The control characters of ASCII and Latin-1, line and paragraph separators, and the marks that turn
# the direction of text (CVE-2021-42574); lone surrogates, because no stream can encode them.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_DIM, _CYAN, _YELLOW, _RED, _PLAIN = "\x1b[2m", "\x1b[36m", "\x1b[33m", "\x1b[31m", "\x1b[0m"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "who", "taskName", "stack"}
"""What every record has; anything else was put there with `extra=`."""


def escape(text: str) -> str:
    """`text` on one line, with its control characters written out (`\\\\n`, `\\\\x1b`)."""
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
    """Send what is logged in this process to `stream` (standard error), under the name `who`, and to `also`.

    Calling it again replaces what it set up before. Handlers of the application's own are left alone.
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
    """Colours are for a terminal whose user did not refuse them (no-color.org)."""
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
    """A handler that never prints a traceback of its own. What `configure` sets up is of this kind."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line. Where it should have gone is gone, so there is nobody left to tell."""


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
    """`10:04:01 w1       ready · queues default`, and below it, indented, a traceback and a hint.

    A record has a hint by `extra={"hint": …}`, and a stack that is no traceback by `extra={"stack": …}`.

    `dated` puts the day before the time, for lines that are read on another day.
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
        # Levels are words as well as colours; the everyday ones go without saying.
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
    """One JSON object a line: time, level, who, logger, message, what `extra` had, traceback."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        seconds, millis = divmod(round(record.created * 1000), 1000)
        told: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03}Z",
            "level": record.levelname.lower(),
            "who": str(getattr(record, "who", self.who)),
            "logger": record.name,
            "message": _text(record),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if traceback := _traceback(record):
            told["traceback"] = traceback
        try:
            return json.dumps(extra | told, default=_shown, skipkeys=True)
        except (ValueError, RecursionError):  # an extra that contains itself
            return json.dumps({key: _shown(value) for key, value in extra.items()} | told)


def _text(record: logging.LogRecord) -> str:
    """The message of `record`, also where its arguments do not fit its format."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {_shown(record.args)}"


def _traceback(record: logging.LogRecord) -> str:
    """The traceback and the stack that belong to `record`; empty when there are none."""
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


# --- the lines of tasks --------------------------------------------------------------------------

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 4
_short.maxlevel = 3


def _short_id(id: str) -> str:
    """Enough of an id to tell tasks apart; one that is made of words (`cron.report.1795457366000`) is shown whole."""
    return id if "." in id else id[:8]


def _shown(value: object) -> str:
    """A short `repr` that cannot fail: the value is a user's, and so is its `__repr__`."""
    try:
        return _short.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def duration(seconds: float) -> str:
    """A time span for people: `3 ms`, `1.2 s`, `4 min`, `2.5 h`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class TaskLog:
    """A line when a task starts and one when it is done, unless there are too many to read.

    At 70,000 tasks a second, formatting two lines for each would cost more than the tasks. So the first
    `rate` of every second are printed and the rest only counted: above the gate a call is one addition
    and one comparison. `tick(now)`, called about once a second, reports what was counted. A second that
    was too full leaves the gate shut until one is not, since twenty lines out of thousands tell nobody
    anything.

    `write` gets (who, line). Time comes in through `tick` alone, so a test needs no clock.
    """

    def __init__(self, write: Callable[[str, str], None] | None = None, *, rate: int = 20) -> None:
        self._write = _log_task if write is None else write
        self._rate = rate
        self._limit = rate
        self._started = 0
        self._done = 0
        self._failed = 0
        self._since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the next `done` is printed: a caller can spare itself the `repr` of a result."""
        return self._done < self._limit

    def started(
        self,
        who: str,
        name: str,
        id: str,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        """A task starts."""
        self._started += 1
        if self._started > self._limit:
            return
        words = [_shown(value) for value in args[:8]]
        words += [f"{key}={_shown(value)}" for key, value in list((kwargs or {}).items())[:8]]
        self._write(who, f"→ {name} {_short_id(id)} {' '.join(words)}".rstrip())

    def done(
        self,
        who: str,
        name: str,
        id: str,
        status_string: str,
        result_repr: str = "",
        waited: float | None = None,
        ran: float | None = None,
        error: str | None = None,
    ) -> None:
        """An attempt of a task ended. `waited` and `ran` are seconds."""
        self._done += 1
        if self._done > self._limit:
            if error is not None:
                self._failed += 1
            return
        times = [
            f"{word} {duration(span)}"
            for word, span in (("waited", waited), ("ran", ran))
            if span is not None
        ]
        mark, said = ("✓", result_repr) if error is None else ("✗", f"{status_string} {error}")
        if len(said) > 200:
            said = said[:197] + "..."
        self._write(
            who, f"{mark} {name} {_short_id(id)} {said}" + (f"  ({', '.join(times)})" if times else "")
        )

    def tick(self, now: float, who: str = "pq") -> None:
        """Report what was counted, if a second has passed since the last report."""
        if self._since is None:
            self._since = now
        span = now - self._since
        if span < 1.0:
            return
        if (more := self._done - self._limit) > 0:
            tasks = "task" if more == 1 else "tasks"
            failed = f", {self._failed:,} failed" if self._failed else ""
            period = "second" if span < 1.5 else f"{span:.0f} s"
            self._write(who, f"… {more:,} more {tasks}{failed}, in the last {period}")
        self._limit = 0 if max(self._started, self._done) > self._rate else self._rate
        self._started = self._done = self._failed = 0
        self._since = now


def _log_task(who: str, line: str) -> None:
    """The usual way out: the log of this process."""
    logging.getLogger("pq.tasks").info("%s", line, extra={"who": who})
