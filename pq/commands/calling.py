"""Calls of the api by a verb: connect, wait for an answer, read a length of time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from ..cli import Command, UsageError
from ..producer.future import LoopFuture
from ..producer.producer import Producer

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that an answer of the store may take."""


@contextlib.contextmanager
def connected(command: Command) -> Iterator[Producer]:
    """Yield the api of the application; close it at the end."""
    api = command.application.api()
    try:
        yield api
    finally:
        api.close()


def answer(future: LoopFuture[T]) -> T:
    """Return what a call of the api resolves to. Raises `TimeoutError` after `PATIENCE`."""
    return future.wait(PATIENCE)


def parse_duration(text: str) -> float:
    """Return the seconds of `30`, `30s`, `5m`, `2h` or `1d`. Raises `UsageError`."""
    sizes = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, size = (text[:-1], sizes[text[-1]]) if text[-1:] in sizes else (text, 1.0)
    try:
        seconds = float(number) * size
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e12:
        raise UsageError(f"{text!r} is not a length of time", hint="write 30s, 5m, 2h or 1d")
    return seconds
