"""The tasks of `test_local` and `test_local_processes`: the contents of a user's own module."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class MyTask:
    """A task as the first text about such queues has it: an object with `run`."""

    def __init__(self, param: str) -> None:
        self.param = param

    def run(self) -> str:
        return self.param.upper()

    def __str__(self) -> str:
        return f"my task {self.param}"


class Nameless(MyTask):
    def __str__(self) -> str:
        raise RuntimeError("no name")


class Locked:
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = __import__("threading").Lock()

    def run(self) -> None:
        """Never gets there."""


class TwoWords(Exception):
    """Can be pickled, and not be made again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Unreadable:
    """Is pickled well, and refuses to be read."""

    def __reduce__(self) -> Any:
        return os.path.join, (None,)


def add(a: int, b: int = 1) -> int:
    return a + b


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def pid() -> int:
    return os.getpid()


def divide(a: int, b: int) -> float:
    return a / b


def fails(how: str) -> Any:
    if how == "chain":
        try:
            divide(1, 0)
        except ZeroDivisionError as exc:
            raise ValueError("could not be worked out") from exc
    if how == "two words":
        raise TwoWords("one", "two")
    if how == "exit":
        sys.exit("bye")
    raise StopIteration("the end")


def returns(what: str) -> Any:
    return Unreadable() if what == "unreadable" else (n for n in range(3))


def dies(how: str) -> None:
    if how == "segmentation fault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def talks(name: str) -> int:
    logger = logging.getLogger(name)
    logger.debug("too quiet for %s", name)
    logger.info("hello from %s", name, extra={"request": 7, "where": Path("/tmp")})
    try:
        divide(1, 0)
    except ZeroDivisionError:
        logger.exception("it failed")
    return os.getpid()


def prints() -> int:
    print("to standard output")
    print("to standard error", file=sys.stderr)
    return os.getpid()


def sleeps(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def waits_for(path: str, value: Any = None) -> Any:
    """Return when that file exists."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return value


def marks(folder: str) -> None:
    """Leave a file with the process id, and run forever."""
    mark = Path(folder, f"{os.getpid()}.new")
    mark.write_text(str(os.getpid()))
    mark.rename(Path(folder, f"{os.getpid()}.pid"))
    while True:
        time.sleep(60)
