"""Names, retries, outcomes, endings, events: the small rules."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.errors import InvalidValue, TaskTimeout
from pq.model import outcome as outcomes
from pq.model.ending import conclude, crashed_too_often
from pq.model.events import Listeners, event_pattern
from pq.model.job import Job
from pq.model.names import LIMITS, check_name, new_id, new_lease, slug
from pq.model.outcome import (
    CRASHED,
    FAILED,
    OK,
    RELEASED,
    RETRIED,
    REVOKED,
    SNOOZED,
    TIMED_OUT,
    Outcome,
    error_text,
    failed,
    stack_text,
)
from pq.model.retry import MAX_BACKOFF, Backoff, retry_wait, tries_again_after
from pq.model.serializers import MSGPACK
from pq.model.task import Task
from pq.model.verdict import SNOOZES, Cancel, Retry, Snooze

FEW = settings(max_examples=200, derandomize=True, deadline=None, database=None)


# -------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "x" * 128])
def test_names_that_are_names(name: str) -> None:
    """They come back as they are."""
    assert check_name("queue name", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".a",
        "-a",
        "_a",
        "a b",
        "a:b",
        "a{b}",
        "a\n",
        "a\x00",
        "ü",
        "а",
        "x" * 129,
        "x" * 10_000,
        None,
        5,
        b"a",
        ["a"],
    ],
)
def test_names_that_are_none(name: Any) -> None:
    """Refused with their kind, shortened, and with an example; a `ValueError` too."""
    with pytest.raises(InvalidValue, match="is not a valid queue name") as caught:
        check_name("queue name", name)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 100
    assert "letters" in str(caught.value.hint)


@FEW
@given(st.text(max_size=20))
def test_no_name_can_leave_its_key(text: str) -> None:
    """Whatever passes has no character that means something to keys, patterns, logs or pages."""
    try:
        check_name("id", text)
    except InvalidValue:
        return
    assert not set(text) & set("{}:*?[]\\ \t\r\n\x00<>&'\"/%")
    assert text.isascii()


def test_slugs() -> None:
    """The name of a function as the name of a job."""
    assert [slug(name) for name in ("addition", "process_html", "_a__b_")] == [
        "addition",
        "process.html",
        "a.b",
    ]


def test_new_ids_are_valid_and_new() -> None:
    """128 and 96 random bits."""
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for id in ids:
        assert len(check_name("id", id)) == 33
    assert re.fullmatch("[0-9a-f]{24}", new_lease())
    assert new_lease() != new_lease()


# ------------------------------------------------------------------------------------------ retries
@pytest.mark.parametrize(
    ("attempt", "delay", "chance", "wait"),
    [
        (1, None, 0.0, 0.5), (1, None, 1.0, 1.0), (2, None, 0.0, 1.0), (5, None, 1.0, 16.0), (50, None, 1.0, MAX_BACKOFF),
        (10_000, None, 0.0, MAX_BACKOFF / 2), (1, 10.0, 0.0, 10.0), (9, 10.0, 1.0, 11.0), (1, 0, 0.9, 0.0),
    ],
)  # fmt: skip
def test_waits_between_attempts(attempt: int, delay: float | None, chance: float, wait: float) -> None:
    """A delay that was named plus a tenth at most; else doubled each time, up to ten minutes."""
    assert retry_wait(attempt, delay, chance) == pytest.approx(wait)


def test_20000_that_fail_together_again_and_again_come_back_apart() -> None:
    """The fullest tenth of a second has no more than chance gives it, and half as many after each attempt."""
    many, slot = 20_000, 0.1
    chance = random.Random(85)
    due = [0.0] * many
    peaks = []
    for attempt in range(1, 7):
        waits = [retry_wait(attempt, None, chance.random()) for _ in range(many)]
        span = 2.0 ** (attempt - 1)
        assert all(span / 2 <= wait < span for wait in waits), (
            "never at once, and never later than it was said"
        )
        due = [at + wait for at, wait in zip(due, waits, strict=True)]
        peaks.append(max(Counter(int(at / slot) for at in due).values()))
        # Spread evenly over half of the span, each slot would have this number.
        assert peaks[-1] <= 1.2 * many * slot / (span / 2), peaks
    assert all(later < 0.65 * sooner for sooner, later in itertools.pairwise(peaks)), peaks


# ----------------------------------------------------------------------------------------- outcomes
class Hostile(Exception):
    def __init__(self, do: Any) -> None:
        self.do = do

    def __str__(self) -> str:
        return self.do()  # type: ignore[no-any-return]


def recursion() -> str:
    return recursion()


def raiser(exc: BaseException) -> Any:
    def do() -> str:
        raise exc

    return do


@pytest.mark.parametrize(
    ("do", "text"),
    [
        (raiser(ValueError("inner")), "Hostile: (its __str__ raised ValueError)"),
        (raiser(GeneratorExit()), "Hostile: (its __str__ raised GeneratorExit)"),
        (recursion, "Hostile: (its __str__ raised RecursionError)"),
        (lambda: 5, "Hostile: (its __str__ raised TypeError)"),
        (lambda: "", "Hostile"),
        (lambda: "a\ud800b", "Hostile: a\\ud800b"),
    ],
    ids=["raises", "exits", "recurses", "no-text", "empty", "surrogate"],
)
def test_hostile_exceptions_become_texts(do: Any, text: str) -> None:
    """No text of an exception breaks its reporter; the result is valid Unicode."""
    exc = Hostile(do)
    try:
        raise exc
    except Hostile:
        ended = failed(exc)
    assert (ended.kind, ended.error) == (FAILED, text)
    assert ended.stacktrace
    (ended.error + ended.stacktrace).encode("utf-8")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_swallowed(interrupt: type[BaseException]) -> None:
    """Ctrl-C while a text is made ends the program."""
    with pytest.raises(interrupt):
        error_text(Hostile(raiser(interrupt())))


def test_texts_are_bounded() -> None:
    """A megabyte of error does not become a megabyte of record."""
    try:
        raise ValueError("x" * 1_000_000)
    except ValueError as exc:
        ended = failed(exc)
    assert ended.error is not None
    assert ended.stacktrace is not None
    assert len(ended.error) == LIMITS.error_text
    assert ended.error.endswith("…")
    assert len(ended.stacktrace) <= LIMITS.traceback + 10


def test_a_traceback_tells_the_cause_too() -> None:
    """The first error comes first; a suppressed context is left out."""
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as exc:
        text = stack_text(exc)
    assert text.index("first") < text.index("the direct cause of") < text.index("ValueError: second")
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None
    except ValueError as exc:
        text = stack_text(exc)
    assert "hidden" not in text


def test_a_traceback_has_the_whole_chain() -> None:
    """Every cause and context, down to the first error."""
    error: BaseException | None = None
    for text in ("connection refused", "retries used up", "host not reachable", "order not sent"):
        try:
            raise ValueError(text) from error
        except ValueError as exc:
            error = exc
    assert error is not None
    text = stack_text(error)
    places = [text.index(f"ValueError: {part}") for part in ("connection", "retries", "host", "order")]
    assert places == sorted(places)


def test_a_traceback_has_the_members_of_a_group() -> None:
    """With their frames and their notes, nested groups included; the error's text names the first three."""
    inner = ExceptionGroup("inner", [member("two"), member("three")])
    ended = failed(ExceptionGroup("outer", [member("one"), inner, member("four")]))
    assert ended.stacktrace is not None
    assert [f"{word}.csv" in ended.stacktrace for word in ("one", "two", "three", "four")] == [True] * 4
    assert ended.stacktrace.count("in member") == ended.stacktrace.count("a note") == 4
    assert ended.error == (
        "ExceptionGroup: outer (3 sub-exceptions): "
        "FileNotFoundError: one.csv; FileNotFoundError: two.csv; FileNotFoundError: three.csv; …"
    )


def member(name: str) -> Exception:
    try:
        raise FileNotFoundError(f"{name}.csv")
    except FileNotFoundError as exc:
        exc.add_note("a note")
        return exc


def test_own_frames_are_left_out_of_every_error() -> None:
    """Of causes and members, too."""
    code = compile(
        "def call(f):\n    f()", str(outcomes.__file__).replace("model/outcome", "execution/x"), "exec"
    )
    ours: dict[str, Any] = {}
    exec(code, ours)

    def fail() -> None:
        raise OSError("inside")

    def wrap() -> None:
        try:
            ours["call"](fail)
        except OSError as exc:
            raise ExceptionGroup("group", [exc]) from exc

    try:
        ours["call"](wrap)
    except ExceptionGroup as exc:
        text = stack_text(exc)
    assert "in fail" in text
    assert "in wrap" in text
    assert "execution/x.py" not in text


def test_a_long_chain_is_bounded() -> None:
    """A thousand causes with long texts."""
    error: BaseException | None = None
    for n in range(1_000):
        try:
            raise ValueError(f"{n} " * 100) from error
        except ValueError as exc:
            error = exc
    assert error is not None
    assert len(stack_text(error)) <= LIMITS.traceback + 10


def test_a_circle_of_causes_ends() -> None:
    """Exceptions that caused each other."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert "one" in stack_text(one)


def test_an_endless_recursion_is_reported() -> None:
    """With a bounded text."""
    try:
        recursion()
    except RecursionError as exc:
        ended = failed(exc)
    assert str(ended.error).startswith("RecursionError")
    assert len(str(ended.stacktrace)) <= LIMITS.traceback + 10


def test_reasons_are_slugs() -> None:
    """One of ours says which; any other is `task-failed`, even with a slug of a wrong type."""

    class Odd(Exception):
        slug = 5

    assert failed(TaskTimeout("x")).reason == "timed-out"
    assert failed(ValueError()).reason == "task-failed"
    assert failed(Odd()).reason == "task-failed"
    assert failed(ValueError(), reason="bad-arguments").reason == "bad-arguments"
    assert outcomes.succeeded(3) == Outcome(OK, 3)


# ------------------------------------------------------------------------------------------ endings
def task(**facts: Any) -> Task[Any]:
    return Task("i1", "add", "q", **facts)


@pytest.mark.parametrize(
    ("outcome", "facts", "op", "status"),
    [
        (Outcome(OK, 3), {}, "a", "SUCCESS"),
        (Outcome(FAILED), {}, "f", "FAILURE"),
        (Outcome(FAILED), {"max_retries": 1}, "t", "RETRY"),
        (Outcome(FAILED), {"max_retries": 1, "retry": 2}, "f", "FAILURE"),
        (Outcome(FAILED, reason="bad-arguments"), {"max_retries": 9}, "f", "FAILURE"),
        (Outcome(FAILED, reason="unreadable-message"), {"max_retries": 9}, "f", "FAILURE"),
        (Outcome(TIMED_OUT), {}, "v", "REVOKED"),
        (Outcome(TIMED_OUT), {"max_retries": 1}, "t", "RETRY"),
        (Outcome(REVOKED), {"max_retries": 9}, "v", "REVOKED"),
        (Outcome(CRASHED), {}, "c", "QUEUED"),
        (Outcome(RELEASED), {}, "l", "QUEUED"),
        (Outcome(OK, object()), {"max_retries": 9}, "f", "FAILURE"),
        (Outcome(FAILED, final=True), {"max_retries": 9}, "f", "FAILURE"),
        (Outcome(TIMED_OUT, final=True), {"max_retries": 9}, "v", "REVOKED"),
        (Outcome(RETRIED), {"max_retries": 1}, "t", "RETRY"),
        (Outcome(RETRIED), {}, "f", "FAILURE"),
        (Outcome(OK, Retry()), {"max_retries": 1}, "t", "RETRY"),
        (Outcome(OK, Cancel()), {"max_retries": 9}, "v", "REVOKED"),
        (Outcome(OK, "x" * 2_000_000), {"max_retries": 9}, "f", "FAILURE"),
    ],
)
def test_what_follows_from_an_outcome(outcome: Outcome, facts: dict[str, Any], op: str, status: str) -> None:
    """The table of the module, row by row."""
    done = task(**facts)
    ending = conclude(done, outcome, now=5.0)
    assert (ending.op, done.status_string) == (op, status)
    assert (done.time_ended is None) == (op in "lc")
    assert done.retry == (2 if op == "t" else facts.get("retry", 1))


def test_a_success_after_failures_tells_no_old_error() -> None:
    """Results of earlier attempts are deleted."""
    done = task(exception="old", stacktrace="old", reason="task-failed")
    conclude(done, Outcome(OK, (1, 2), info={"pid": 3}), now=1.0)
    assert (done.exception, done.stacktrace, done.reason) == (None, None, None)
    assert done.result == (1, 2)
    assert done.run_info == {"pid": 3}
    done = task()
    conclude(done, Outcome(OK, encoded=MSGPACK.dumps([7])), now=1.0)
    assert done.result == [7]


def test_the_wait_is_the_tasks_own_before_the_jobs() -> None:
    """Without either, the backoff decides."""
    outcome = Outcome(FAILED)

    class Four(Job):
        retry_delay = 4.0

    assert conclude(task(max_retries=1, retry_delay=8.0), outcome, now=1, job=Four, chance=0).wait == 8.0
    assert conclude(task(max_retries=1), outcome, now=1, job=Four, chance=0).wait == 4.0
    assert conclude(task(max_retries=5, retry=3), outcome, now=1, chance=0).wait == 2.0


@pytest.mark.parametrize(
    ("said", "op", "wait", "error"),
    [
        (Retry(7.5), "t", 7.5, "Retry: the job asked for another attempt"),
        (Retry(reason="busy"), "t", 0.75, "Retry: busy"),
        (Snooze(3), "t", 3, None),
        (Cancel("enough"), "v", 0.0, "Cancel: enough"),
    ],
)
def test_what_a_job_says_itself(said: Any, op: str, wait: float, error: str | None) -> None:
    """Raised or returned, it becomes data, and the rules follow from that."""
    for outcome in (Outcome(OK, said), outcomes.verdict(said, raised=True)):
        done = task(max_retries=1)
        assert conclude(done, outcome, now=1) == (op, wait)
        assert done.exception == error
        assert done.retry == (2 if isinstance(said, Retry) else 1)


def test_snoozes_are_counted() -> None:
    """In `run_info`, apart from the attempts; a count that is not a number begins again at 0."""
    done = task(run_info=MSGPACK.dumps({"snoozes": "many"}))
    for n in range(1, SNOOZES + 1):
        assert conclude(done, Outcome(SNOOZED, wait=1.0), now=1) == ("t", 1.0)
        assert done.run_info["snoozes"] == n
    assert conclude(done, Outcome(SNOOZED, wait=1.0), now=1).op == "f"
    assert (done.reason, done.retry) == ("snoozed", 1)


@pytest.mark.parametrize(
    ("backoff", "attempt", "chance", "wait"),
    [
        (Backoff(), 3, 0.0, 2.0), (Backoff(jitter=False), 3, 0.9, 4.0), (Backoff(3, 10, jitter=False), 2, 0, 30.0),
        (Backoff(cap=5, jitter=False), 9, 0, 5.0), (Backoff(), 10**6, 1.0, MAX_BACKOFF), (Backoff(base=0), 10**6, 1.0, 0.0),
        (Backoff(factor=1, jitter=False), 10**6, 0, 1.0), (lambda attempt: attempt * 2, 4, 0.9, 8.0),
    ],
)  # fmt: skip
def test_backoff(backoff: Any, attempt: int, chance: float, wait: float) -> None:
    """A `Backoff` or a function; a delay that was named counts before both."""
    assert retry_wait(attempt, None, chance, backoff) == pytest.approx(wait)
    assert retry_wait(attempt, 9.0, 0.0, backoff) == 9.0


@pytest.mark.parametrize(
    ("kind", "only", "never", "again"),
    [
        (KeyError, None, None, True), (KeyError, (LookupError,), None, True), (ValueError, (LookupError,), None, False),
        (KeyError, None, (LookupError,), False), (ValueError, None, (LookupError,), True),
        (KeyError, (LookupError,), (KeyError,), False), (KeyError, (KeyError,), (LookupError,), True),
        (IndexError, (KeyError,), (LookupError,), False), (KeyError, (KeyError,), (KeyError,), False),
        (KeyError, (), None, False),
    ],
)  # fmt: skip
def test_which_errors_are_tried_again(kind: Any, only: Any, never: Any, again: bool) -> None:
    """The class that stands nearer in the exception's own line decides."""
    assert tries_again_after(kind, only, never) is again


def test_a_result_that_cannot_be_stored_says_why() -> None:
    """The work was done, and is not done again."""
    done = task()
    conclude(done, Outcome(OK, {"f": print}), now=1.0)
    assert done.reason == "result-not-serializable"
    assert "f in the result is a builtin_function_or_method" in str(done.exception)
    assert crashed_too_often(3).reason == "worker-lost"


# ------------------------------------------------------------------------------------------- events
@pytest.mark.parametrize(
    ("pattern", "heard"),
    [
        ("*", {"queued", "started", "done", "retry"}),
        (".*", {"queued", "started", "done", "retry"}),
        ("done", {"done"}),
        ("started|done", {"started", "done"}),
        ("^(started|done)$", {"started", "done"}),
        ("*ed", {"queued", "started"}),
        ("re*|qu.*d", {"retry", "queued"}),
        ("d", set()),
        ("don.", set()),
        ("[a-z]+", set()),
    ],
)
def test_patterns(pattern: str, heard: set[str]) -> None:
    """Words, `*` and `|`; a dot or a bracket is itself."""
    compiled = event_pattern(pattern)
    assert {event for event in ("queued", "started", "done", "retry") if compiled.fullmatch(event)} == heard


@pytest.mark.parametrize("pattern", ["", None, 5, "x" * 201])
def test_a_value_that_is_not_a_pattern(pattern: Any) -> None:
    """Refused with an example."""
    with pytest.raises(InvalidValue, match="is not an event pattern"):
        event_pattern(pattern)


@pytest.mark.parametrize("pattern", ["*" * 200, "a*" * 100, "(a|a)" * 40, "*a" * 99 + "b", "(" * 200])
def test_no_pattern_takes_long(pattern: str) -> None:
    """No pattern of a user takes long to compile or to match."""
    began = time.perf_counter()
    event_pattern(pattern).fullmatch("a" * 40)
    assert time.perf_counter() - began < 1.0


def test_listeners_are_called_by_channel_and_pattern() -> None:
    """Each registration by itself; removing one leaves the others."""
    listeners = Listeners()

    def one(*_: Any) -> None: ...
    def two(*_: Any) -> None: ...

    listeners.add("task", "done", one)
    listeners.add("task", "*", two)
    listeners.add("consumer", "status", one)
    assert listeners.wanted("task", "done") == [one, two]
    assert listeners.wanted("task", "queued") == [two]
    assert listeners.wanted("consumer", "status") == [one]
    listeners.remove("task", "*", one)  # was never added so
    listeners.remove("task", "*", two)
    listeners.remove("task", "*", two)
    assert listeners.wanted("task", "done") == [one]
    assert listeners.wanted("nothing", "done") == []


def test_listeners_that_cannot_be() -> None:
    """An unknown channel, something that cannot be called."""
    with pytest.raises(InvalidValue, match="no 'jobs' events"):
        Listeners().add("jobs", "*", print)
    with pytest.raises(InvalidValue, match="cannot be called"):
        Listeners().add("task", "*", 5)  # type: ignore[arg-type]
