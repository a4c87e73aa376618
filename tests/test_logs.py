"""Log lines: readable, unforgeable, harmless; and the lines of tasks, as many as can be read."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq.logs import formatters as logs
from pq.logs.formatters import ConsoleFormatter, JsonFormatter, escape
from pq.logs.tasks import TaskLog, TaskLogger, format_duration
from pq.model.ending import Ending
from pq.model.operations import ACK, CRASH, FAIL, RELEASE
from pq.model.operations import RETRY as AGAIN
from pq.model.states import FAILURE, QUEUED, RETRY, SUCCESS
from pq.model.task import Task


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Hostile:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def record(
    message: str, *args: object, name: str = "pq.server", level: int = logging.INFO, **extra: object
) -> logging.LogRecord:
    """A log record as a logger makes it."""
    return logging.getLogger(name).makeRecord(name, level, __file__, 1, message, args, None, extra=extra)


# --- lines for people ---


def test_a_line_is_time_source_text() -> None:
    """Three columns, the second eight wide."""
    line = ConsoleFormatter("w1").format(record("ready · queues %s · %d jobs", "default", 9))
    assert line[2] == line[5] == ":"
    assert line[8:] == " w1       ready · queues default · 9 jobs"


def test_a_record_may_name_its_source() -> None:
    """A parent logs for its workers."""
    assert " w2       gone" in ConsoleFormatter("server").format(record("gone", who="w2"))


def test_levels_that_matter_are_words() -> None:
    """Not every user sees colours, and files have none."""
    formatter = ConsoleFormatter("w1")
    assert formatter.format(record("full", level=logging.WARNING)).endswith(" warning: full")
    assert formatter.format(record("gone", level=logging.ERROR)).endswith(" error: gone")


def test_other_peoples_loggers_are_named() -> None:
    """A line of a library or a job says whose it is."""
    assert ConsoleFormatter("w1").format(record("hello", name="shop.mail")).endswith(" shop.mail: hello")


@given(st.text())
def test_a_record_is_one_printable_line_whatever_it_says(text: str) -> None:
    """No log injection: neither a new line, nor a colour, nor a turn of direction, in any column."""
    line = ConsoleFormatter("w1").format(record("%s", text, who=text, name="n" + text))
    assert line.splitlines() == [line]
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in line)
    line.encode()


def test_escaped_characters_can_still_be_read() -> None:
    """Shown, not dropped; and ordinary text of any language is left alone."""
    assert escape("a\r\nb\x1b[31m\x00\u202e\ud800") == "a\\r\\nb\\x1b[31m\\x00\\u202e\\ud800"
    assert escape("größer → 数 👩‍🚀") == "größer → 数 👩‍🚀"


def test_a_traceback_is_indented_below_its_line() -> None:
    """Text of an error cannot pass for a log line, since it never begins at the margin."""
    try:
        raise ValueError("bad\n10:04:01 pq       all is well\x1b[0m")
    except ValueError:
        made = record("job failed")
        made.exc_info = sys.exc_info()
    first, *below = ConsoleFormatter("w1").format(made).split("\n")
    assert first.endswith("job failed")
    assert "ValueError: bad" in below[-2]
    assert all(line.startswith(logs.INDENT) for line in below)
    assert "\x1b" not in "".join(below)


def test_a_message_that_does_not_fit_its_arguments_is_shown_all_the_same() -> None:
    """The mistake is in the log call; its line is in the text."""
    assert ConsoleFormatter("w1").format(record("%d tasks", "many")).endswith("%d tasks ('many',)")
    assert "%s" in ConsoleFormatter("w1").format(record("%s", Hostile()))


# --- lines for machines ---


def test_json_has_one_object_a_line() -> None:
    """Time in UTC, level, process, logger, message, and the fields of `extra`."""
    made = record("a\nb", task="7f3a", ran=0.5)
    made.created = 1_700_000_000.25
    line = JsonFormatter("w1").format(made)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "who": "w1",
        "logger": "pq.server",
        "message": "a\nb",
        "task": "7f3a",
        "ran": 0.5,
    }


def test_json_has_the_traceback() -> None:
    """The traceback is one string."""
    try:
        raise ValueError("bad")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    assert json.loads(JsonFormatter("w1").format(made))["traceback"].endswith("ValueError: bad\n")


def test_json_takes_any_extra() -> None:
    """A value that cannot be JSON is shown, and an extra cannot pass for a field of ours."""
    loop: list[object] = []
    loop.append(loop)
    told = json.loads(
        JsonFormatter("w1").format(record("m", hostile=Hostile(), loop=loop, level_=1, time="never"))
    )
    assert told["message"] == "m"
    assert told["time"] != "never"
    assert "Hostile" in told["hostile"]
    assert told["loop"].startswith("[[")


# --- configure ---


def test_configure_sends_everything_at_its_level_to_the_stream() -> None:
    """Root logger included, so jobs' and libraries' lines arrive too."""
    stream = io.StringIO()
    logs.configure("info", "console", "w1", stream)
    logging.getLogger("pq.worker").info("one")
    logging.getLogger("shop").debug("two")
    logging.getLogger("shop").info("three")
    assert [line.split(maxsplit=2)[2] for line in stream.getvalue().splitlines()] == ["one", "shop: three"]


def test_configure_again_replaces_what_it_set_up(root_logger: logging.Logger) -> None:
    """A line is never printed twice; handlers of the application's own stay."""
    own = logging.NullHandler()
    root_logger.addHandler(own)
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(fmt="json", stream=second)
    logging.getLogger("pq").info("hello")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "hello"
    assert own in root_logger.handlers


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [(Terminal, "", True), (Terminal, "1", False), (io.StringIO, "", False)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], no_color: str, coloured: bool
) -> None:
    """Files have none, and NO_COLOR turns them off."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    out = stream()
    logs.configure(stream=out)
    logging.getLogger("pq").error("hello")
    assert ("\x1b[" in out.getvalue()) == coloured


def test_a_stream_without_our_letters_gets_the_line_all_the_same() -> None:
    """An arrow on an ASCII terminal is written out."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    logs.configure(stream=out)
    logging.getLogger("pq").info("→ addition")
    assert raw.getvalue().endswith(b"\\u2192 addition\n")


def test_a_stream_that_is_gone_costs_the_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """No exception for the caller, no traceback on the screen."""
    out = io.StringIO()
    logs.configure(stream=out)
    out.close()
    logging.getLogger("pq").info("hello")
    assert capsys.readouterr().err == ""


# --- the lines of tasks ---


class Lines(list[str]):
    """The output of a `TaskLog`."""

    def __call__(self, who: str, line: str) -> None:
        self.append(line)


@pytest.fixture
def lines() -> Lines:
    """An empty page."""
    return Lines()


def run(log: TaskLog, count: int, failed: int = 0) -> None:
    """`count` tasks, the last `failed` of which fail."""
    for number in range(count):
        error = "ValueError: bad" if number >= count - failed else None
        log.started("w1", "work", f"t{number}")
        log.done("w1", "work", f"t{number}", "FAILURE" if error else "SUCCESS", "None", 0, 0, error)


def test_a_task_has_a_line_when_it_starts_and_when_it_is_done(lines: Lines) -> None:
    """Arguments first, then the result and the times."""
    log = TaskLog(lines)
    log.started("w1", "addition", "7f3a", (), {"a": 4, "b": 6})
    log.done("w1", "addition", "7f3a", "SUCCESS", "10", 0.0012, 0.0001)
    assert lines == ["→ addition 7f3a a=4 b=6", "✓ addition 7f3a 10  (waited 1 ms, ran 0 ms)"]


def test_a_task_that_did_not_succeed_has_its_status_and_error(lines: Lines) -> None:
    """The mark is not the only sign."""
    TaskLog(lines).done("w1", "crawl", "5d21", "RETRY", "", 1.25, 400.0, "TimeoutError: no answer")
    assert lines == ["✗ crawl 5d21 RETRY TimeoutError: no answer  (waited 1.2 s, ran 7 min)"]


def test_an_id_of_words_is_shown_whole(lines: Lines) -> None:
    """The ticks of all periodic jobs would look alike in eight characters."""
    TaskLog(lines).started("w1", "report", "cron.report.1795457366000")
    assert lines == ["→ report cron.report.1795457366000"]


def test_ids_and_values_are_shown_short(lines: Lines) -> None:
    """A line is a line, whatever the arguments are, and a repr that fails breaks nothing."""
    log = TaskLog(lines)
    log.started(
        "w1", "work", "i26ad5c14c5bb422e87b0f7ccbce5ba06", ("x" * 10_000, list(range(9999)), Hostile())
    )
    log.done("w1", "work", "i26ad5c14c5bb422e87b0f7ccbce5ba06", "SUCCESS", "y" * 10_000)
    assert lines[0].startswith("→ work i26ad5c1 'xxx")
    assert "[0, 1, 2, 3, ...] <Hostile instance at" in lines[0]
    assert all(len(line) < 250 for line in lines)


def test_above_the_rate_tasks_are_counted_and_reported_by_the_second(lines: Lines) -> None:
    """Twenty lines, then one that says how many more there were."""
    log = TaskLog(lines)
    log.tick(100.0)
    run(log, 70_143, failed=3)
    assert len(lines) == 40
    assert not log.is_open
    log.tick(100.9)
    assert len(lines) == 40
    log.tick(101.0)
    assert lines[40:] == ["… 70,123 more tasks, 3 failed, in the last second"]


def test_after_a_full_second_nothing_is_shown_until_a_quiet_one(lines: Lines) -> None:
    """Under steady load there is one line a second, and no task goes unmentioned."""
    log = TaskLog(lines)
    log.tick(0.0)
    run(log, 100)
    log.tick(1.0)
    del lines[:]
    run(log, 50)
    log.tick(2.0)
    run(log, 1)
    log.tick(4.0)
    run(log, 1)
    log.tick(5.0)
    assert lines == [
        "… 50 more tasks, in the last second",
        "… 1 more task, in the last 2 s",
        "→ work t0",
        "✓ work t0 None  (waited 0 ms, ran 0 ms)",
    ]


def test_above_the_rate_nothing_is_formatted(lines: Lines) -> None:
    """A value whose repr would be noticed is not looked at."""
    log = TaskLog(lines, rate=0)
    log.started("w1", "work", "t", (Hostile(),))
    log.done("w1", "work", "t", "SUCCESS")
    assert lines == []


def test_the_lines_go_to_the_log_of_the_process() -> None:
    """Each line has the worker's name in its column, and is escaped as all lines there."""
    out = io.StringIO()
    logs.configure(who="server", stream=out)
    TaskLog().started("w1", "work\x1b", "7f3a")
    assert out.getvalue()[8:] == " w1       → work\\x1b 7f3a\n"


@pytest.mark.parametrize(
    ("ending", "attempt", "line"),
    [
        pytest.param(Ending(ACK), {"result": 10}, "✓ work t1 10  (waited 1.0 s, ran 250 ms)", id="success"),
        pytest.param(
            Ending(FAIL),
            {"status": FAILURE, "exception": "ValueError: bad\nmore"},
            "✗ work t1 FAILURE ValueError: bad  (waited 1.0 s, ran 250 ms)",
            id="failure",
        ),
        pytest.param(
            Ending(AGAIN, 1.0),
            {"status": RETRY, "exception": "ValueError: bad", "retry": 2},
            "✗ work t1 RETRY ValueError: bad · attempt 2 in 1.0 s  (waited 1.0 s, ran 250 ms)",
            id="another attempt",
        ),
        pytest.param(
            Ending(AGAIN, 1.0),
            {"status": RETRY, "reason": "snoozed"},
            "✗ work t1 RETRY snoozed · retrying in 1.0 s  (waited 1.0 s, ran 250 ms)",
            id="snoozed",
        ),
        pytest.param(
            Ending(RELEASE),
            {"status": QUEUED, "time_ended": None},
            "✗ work t1 QUEUED released to its queue  (waited 1.0 s)",
            id="released",
        ),
        pytest.param(
            Ending(CRASH),
            {"status": QUEUED, "time_ended": None},
            "✗ work t1 QUEUED its process died  (waited 1.0 s)",
            id="crashed",
        ),
    ],
)
def test_a_line_says_how_an_attempt_ended(
    lines: Lines, ending: Ending, attempt: dict[str, Any], line: str
) -> None:
    """The line also says when the next attempt starts, or that the task is in its queue again."""
    task: Task[Any] = Task("t1", "work", "default")
    times = {"time_queued": 1.0, "time_started": 2.0, "time_ended": 2.25}
    for name, value in ({"status": SUCCESS} | times | attempt).items():
        setattr(task, name, value)
    TaskLogger("w1", TaskLog(lines)).ended(task, ending)
    assert lines == [line]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.0412, "41 ms"),
        (0.9999, "1.0 s"),
        (2, "2.0 s"),
        (300, "5 min"),
        (9000, "2.5 h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    """One unit, the one that says most."""
    assert format_duration(seconds) == text
