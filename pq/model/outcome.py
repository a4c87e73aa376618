"""The end of an attempt, as a value.

Executors never raise to say that a task failed: they return an `Outcome`, and one place (the worker's
settling) turns it into a transition of the broker. So every ending, a return value, an exception, a
time-out, a cancel, a child that died, goes the same way.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import TaskRevoked
from .names import LIMITS
from .verdict import Cancel, Retry, Snooze, Verdict

OK = 0
"""The job returned; `value` is the result."""
FAILED = 1
"""It raised."""
REVOKED = 2
"""It was cancelled, or did not start in time."""
TIMED_OUT = 3
"""It ran longer than its time-out (status REVOKED; may be retried)."""
CRASHED = 4
"""The process that ran it died; only this task is charged."""
RELEASED = 5
"""It was not run, or not to its end, and is not to blame: released to the front of its queue."""
RETRIED = 6
"""The job itself asked for another attempt, `wait` seconds later (`Retry`)."""
SNOOZED = 7
"""The job snoozed: it runs again after `wait` seconds, and this was not an attempt (`Snooze`)."""


class Outcome(NamedTuple):
    """The end of one attempt. `encoded` is the packed result where another process packed it already.

    `wait` is what a RETRIED or SNOOZED one asks for. `final`: no other attempt is to follow this error; that is
    decided where the exception is still an object, since from here on it is text.
    """

    kind: int
    value: Any = None
    error: str | None = None
    stacktrace: str | None = None
    reason: str | None = None
    encoded: bytes | None = None
    info: dict[str, Any] | None = None
    wait: float | None = None
    final: bool = False


def succeeded(value: Any) -> Outcome:
    """Return the outcome of an attempt that returned `value`."""
    return Outcome(OK, value)


def failed(exc: BaseException, *, reason: str | None = None) -> Outcome:
    """Return the outcome of an attempt that raised: texts alone, built so that a hostile exception breaks nothing."""
    return Outcome(FAILED, None, error_text(exc), stack_text(exc), reason or _slug(exc))


def verdict(said: Verdict, *, raised: bool = False) -> Outcome:
    """Return the outcome of an attempt whose job raised or returned `Retry`, `Snooze` or `Cancel`."""
    stack = stack_text(said) if raised else None
    if isinstance(said, Snooze):
        return Outcome(SNOOZED, wait=said.delay)
    if isinstance(said, Cancel):
        return Outcome(REVOKED, None, error_text(said), stack, TaskRevoked.slug)
    wait = said.delay if isinstance(said, Retry) else None
    return Outcome(RETRIED, None, error_text(said), stack, "task-failed", wait=wait)


def error_text(exc: BaseException) -> str:
    """Return `ValueError: its text`, bounded, even when `__str__` itself raises or recurses.

    The text of a group names its first members, too.
    """
    text = _one_error_text(exc)
    if isinstance(exc, BaseExceptionGroup):
        members = list(itertools.islice(leaves(exc), _MEMBERS + 1))
        more = "; …" if len(members) > _MEMBERS else ""
        text += ": " + "; ".join(_one_error_text(each) for each in members[:_MEMBERS]) + more
    return text if len(text) <= LIMITS.error_text else text[: LIMITS.error_text - 1] + "…"


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the errors that a group, and the groups in it, consist of; another exception is its own leaf."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


_MEMBERS = 3
"""Members of a group that its text names."""


def _one_error_text(exc: BaseException) -> str:
    kind = type(exc).__name__
    try:
        text = str(exc)
    except BaseException as inner:
        if isinstance(inner, (KeyboardInterrupt, SystemExit)):
            raise
        text = f"(its __str__ raised {type(inner).__name__})"
    text = f"{kind}: {text}" if text else kind
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def stack_text(exc: BaseException) -> str:
    """Return the traceback as text, bounded: all causes, and all members of groups, in the manner of Python.

    The frames of this library are left out: the mistake is in the user's.
    """
    try:
        # A negative limit keeps the innermost frames.
        shown = traceback.TracebackException(type(exc), exc, exc.__traceback__, limit=-_FRAMES, compact=True)
        _leave_out_own_frames(shown)
        text = "".join(shown.format())
    except BaseException as inner:
        if isinstance(inner, (KeyboardInterrupt, SystemExit)):
            raise
        text = f"(no traceback: formatting it raised {type(inner).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= LIMITS.traceback:
        return text
    return text[: LIMITS.traceback // 2] + "\n…\n" + text[-LIMITS.traceback // 2 :]


def _leave_out_own_frames(shown: traceback.TracebackException) -> None:
    """Do it in all errors that `shown` leads to; an error that has no other frames keeps its own."""
    left = [shown]
    while left:
        error = left.pop()
        own = [frame for frame in error.stack if not _is_ours(frame.filename)]
        if own:
            error.stack[:] = own
        left += [each for each in (error.__cause__, error.__context__) if each is not None]
        left += error.exceptions or ()


_FRAMES = 200
"""Frames of one error in a traceback."""
_HERE = __file__.rsplit("/", 2)[0] + "/"


def _is_ours(filename: str) -> bool:
    return filename.startswith(_HERE) and "/execution/" in filename


def _slug(exc: BaseException) -> str:
    slug = getattr(type(exc), "slug", None)
    return slug if isinstance(slug, str) else "task-failed"
