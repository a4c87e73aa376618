"""The child's end of the connection to its worker.

Sending blocks until the worker has taken the bytes, which it always does; any thread may send. Only
the main thread reads: between tasks it waits for the next one, and while an async job awaits an
answer its loop reads instead. Nothing is read in between, since nothing is sent unasked.

The connection belongs to the child alone. A process that a job forks has none: frames of two processes would mix, and
the worker would take what a fork sends for the child's own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from typing import Any

from ..errors import PqError
from . import log_records
from .frames import ANSWER, AWAIT, LEVELS, TASK, FrameReader, frame

_CHUNK = 262_144


class Channel:
    """Frames to and from the worker. `limit` is the largest frame that is believed.

    Attributes:
        forked: this process is a fork of the child, and has no connection.
    """

    def __init__(self, connection: socket.socket, limit: int) -> None:
        connection.set_inheritable(False)
        # Where `socket.setdefaulttimeout` was called, both ends were made with that time-out.
        connection.settimeout(None)
        self._socket = connection
        self._frames = FrameReader(limit)
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[list[Any]]] = {}
        self.forked = False

    def disconnect_fork(self) -> None:
        """Close the copy of the connection that a fork of the child has."""
        self.forked = True
        self._socket.close()

    def send(self, *fields: Any) -> None:
        """Send one frame. Fields that cannot be packed raise, and nothing is sent.

        Raises `PqError` in a fork of the child.
        """
        if self.forked:
            raise PqError(
                "a process that a job forks has no connection to the worker",
                hint="call self.queue, self.lock and self.stream in the job's own process",
            )
        data = frame(*fields)
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            os._exit(1)  # the worker has closed the connection or ended: nothing is left to do

    def next_task(self) -> tuple[int, bytes] | None:
        """Wait for a task; return its number and its wire bytes, None at the end."""
        while data := self._socket.recv(_CHUNK):
            for fields in self._frames.feed(data):
                # Answers to a job that did not stay to hear them pass by.
                if fields[0] == TASK:
                    _, number, body = fields
                    return number, body
                if fields[0] == LEVELS:
                    log_records.set_levels(fields[1])
        return None

    def ask(self, word: int, *fields: Any) -> int:
        """Ask the worker for something (`QUEUE`, `LOCK`, …); the number is for `answer`."""
        number = next(self._numbers)
        self.send(word, number, *fields)
        return number

    def answer_now(self, number: int) -> list[Any]:
        """The same as `answer` for code that blocks. Answers that others await meanwhile reach them."""
        self._only_main()
        self.send(AWAIT, number)
        found: list[Any] | None = None
        while found is None:
            for fields in self._read():
                if fields[1] == number:
                    found = fields[2:]
                else:
                    self._deliver(fields)
        return found

    async def answer(self, number: int) -> list[Any]:
        """The fields of the answer to question `number`."""
        self._only_main()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        if not self._answers:
            loop.add_reader(self._socket, self._read_answers)
        self._answers[number] = answer
        self.send(AWAIT, number)
        try:
            return await answer
        finally:
            self._answers.pop(number, None)
            if not self._answers:
                loop.remove_reader(self._socket)

    def _read_answers(self) -> None:
        for fields in self._read():
            self._deliver(fields)

    def _read(self) -> list[list[Any]]:
        """The answers that have come; waits for some bytes at least."""
        data = self._socket.recv(_CHUNK)
        if not data:
            os._exit(1)
        return [fields for fields in self._frames.feed(data) if fields[0] == ANSWER]

    def _deliver(self, fields: list[Any]) -> None:
        answer = self._answers.get(fields[1])
        if answer is not None and not answer.done():
            answer.set_result(fields[2:])

    def _only_main(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise PqError("in a process job only the main thread can wait for what it asked the worker for")
