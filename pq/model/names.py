"""The grammar of names and ids, and the limits on what a message may hold.

Names become parts of keys in the store, words in log lines and in web pages. One narrow alphabet for
all of them rules out injection everywhere at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..errors import InvalidValue

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""The grammar of the names of jobs, queues, schedules and locks, and of task ids."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard bounds of what one message may carry."""

    size: int = 1_048_576  # bytes of one message, arguments and all
    depth: int = 64  # containers within containers
    error_text: int = 8_192  # characters of an error's text
    traceback: int = 65_536  # characters of a stored traceback
    delay: float = 10 * 366 * 86_400.0  # seconds a task may wait
    retries: int = 1_000


LIMITS = Limits()


def check_name(kind: str, value: object) -> str:
    """Return `value` when it is a valid name. Raises `InvalidValue`, which says what a name looks like."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    raise InvalidValue(
        f"{shown} is not a valid {kind}",
        hint="use up to 128 letters, digits, '.', '_' and '-', the first one a letter or a digit",
    )


def slug(name: str) -> str:
    """Return the public name of a job from the name of its function: `process.html` from `process_html`."""
    return ".".join(part for part in name.split("_") if part)


def new_id() -> str:
    """Return a new task id: 128 random bits from the system, so any number of producers may make them."""
    return "i" + os.urandom(16).hex()


def new_lease() -> str:
    """Return a new lease: 96 random bits."""
    return os.urandom(12).hex()
