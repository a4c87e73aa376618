"""A worker handle: one worker process, as its supervisor sees it.

It holds what the worker has reported (its leases, its queues, its load, why it ended) and sends it the two
messages that a supervisor has: `stop` and `ping`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..worker.load import Load
from .mailbox import Mailbox

ORPHANED = 255
"""The exit code that `multiprocessing` reports for a child whose fork server has died."""
POLL = 0.2
"""Seconds between two looks whether a worker without its fork server has ended."""


class WorkerHandle:
    """One worker process. Times are seconds of the monotonic clock.

    Attributes:
        leases: (lease, queues) of each right to hold tasks that it took, to hand back should it die.
        ready: it has started and takes tasks.
        leaving: it was stopped, or has said that it ends.
        reason: why it ended, as it says; None for a worker that died.
        answered: it has answered the last ping that asked for its load.
        failure: why it could not start, as it says.
        heard: when its last message came.
    """

    def __init__(self, name: str, process: BaseProcess, mailbox: Mailbox) -> None:
        self.name = name
        self.process = process
        self.mailbox = mailbox
        self.born = self.heard = time.monotonic()
        self.leases: list[tuple[str, list[str]]] = []
        self.queues: list[str] = []
        self.ready = False
        self.leaving = False
        self.reason: str | None = None
        self.load: Load | None = None
        self.answered = True
        self.failure: dict[str, Any] | None = None
        self.listening: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def to_finish(self) -> float:
        """Attempts that it ran when it last reported its load. One that does not answer counts as busy."""
        if not self.answered:
            return math.inf
        return self.load.slots.running if self.load is not None else 0

    def stop(self, grace: float) -> None:
        """Have it drain and end within `grace` seconds; a second call may shorten the time."""
        self.leaving = True
        self.mailbox.send("stop", grace=grace)

    def ping(self, number: int | None = None) -> None:
        """Ask whether it answers, and for its load."""
        self.mailbox.send("ping", number=number)

    def kill(self) -> None:
        """Kill its process; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(self.process.pid, signal.SIGKILL)  # type: ignore[arg-type]  # TypeError: it never had one

    async def listen(self, on_message: Callable[[WorkerHandle, dict[str, Any]], None]) -> None:
        """Note what the worker reports, and pass each message on, until its end of the mailbox is gone."""
        async for message in self.mailbox:
            self.heard = time.monotonic()
            self._note(message)
            on_message(self, message)
            self._news.set()

    def _note(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "lease":
                self.leases.append((message["lease"], message["queues"]))
            case "pong":
                if message.get("load"):
                    self.load, self.answered = Load.of(message["load"]), True
            case "ready":
                self.ready, self.queues = True, message["queues"]
            case "failed":
                self.failure = message
            case "exit":
                self.reason, self.leaving = message["reason"], True

    async def news(self) -> None:
        """Wait for its next message."""
        self._news.clear()
        await self._news.wait()

    async def gone(self) -> bool:
        """Wait until the process has really ended; return True if it outlived its fork server.

        `multiprocessing` reports exit code 255 for every child when the fork server dies. Such a worker goes on, and
        its tasks must not be handed back while it runs them. No parent waits for it, so its process id is polled.
        """
        if self.process.exitcode != ORPHANED or not is_alive(self.process.pid):
            return False
        while is_alive(self.process.pid):  # noqa: ASYNC110  its end sets nothing that could be awaited
            await asyncio.sleep(POLL)
        return True

    async def ended(self) -> int | None:
        """Wait for the last messages of a process that has ended, and join it; return its exit code.

        The wait is bounded: what the process has forked may hold its end of the mailbox open.
        """
        if self.listening is not None:
            await asyncio.wait({self.listening}, timeout=2.0)
        await asyncio.to_thread(self.process.join, 2.0)
        return self.process.exitcode


def is_alive(pid: int | None) -> bool:
    """Return True for a process that runs; a zombie does not."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True  # there is no /proc, or it ended just now: the next look says so


def exit_text(code: int | None) -> str:
    """Return an exit code in words: `SIGKILL`, `exit code 3`."""
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
