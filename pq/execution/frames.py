"""Messages between a worker and its child process, and their frames.

A frame is its length in four bytes and a msgpack list: a word (below) and its fields. Tasks, arguments
and results travel in it as the bytes they already are. Nothing of a frame is pickled, so a child that
runs wild can at worst send nonsense, which ends that child. (`pickled.py` puts pickles into those bytes,
and reads them, for a program whose children run its own functions alone.)

    to the child    TASK    its number, the wire bytes of a task: run it
                    LEVELS  of loggers, by name: from here on, where log records are sent whole
                    ANSWER  number, wire bytes of a task or a number | None, error text, its slug
    to the worker   READY   its modules are imported
                    BROKEN  they cannot be: error text, traceback, slug
                    DONE    number of the TASK, kind, encoded result, error, traceback, reason, info, wait, final
                    LOG     level, text of the child's own
                    RECORD  a packed log record
                    PROGRESS  done, total, message
                    STREAM  number, a packed part; the answer, if it is awaited, comes when the worker takes more
                    QUEUE   number, name of a job, its packed arguments
                    AWAIT   number: the job awaits the outcome of that QUEUE, LOCK, UNLOCK or STREAM
                    LOCK    number, name, ttl, wait: take a lock; the answer is its fence
                    UNLOCK  number, number of a LOCK, 1 to release it: the answer is 1 when it is ours, not lost
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ..errors import UnreadableMessage
from ..model.payloads import load_payload
from ..model.serializers import MSGPACK

TASK, ANSWER, LEVELS = 1, 2, 3
READY, BROKEN, DONE, LOG, PROGRESS, QUEUE, AWAIT, LOCK, UNLOCK, RECORD, STREAM = (
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
)

SLACK = 1_048_576
"""Bytes that a frame may have beyond the largest message: error text, traceback, names."""

_HEAD = struct.Struct(">I")


def frame(*fields: Any) -> bytes:
    """One frame: a word and its fields, all of them plain numbers, texts and bytes."""
    body = MSGPACK.pack(list(fields))
    return _HEAD.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames. `limit` is the largest frame that is believed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """The frames that `data` completes. Raises `UnreadableMessage` on what is none."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _HEAD.size:
                (size,) = _HEAD.unpack_from(buffer, start)
                if size > self._limit:
                    raise UnreadableMessage(f"a frame of {size:,} bytes, and {self._limit:,} are allowed")
                end = start + _HEAD.size + size
                if len(buffer) < end:
                    break
                body = bytes(buffer[start + _HEAD.size : end])
                start = end
                fields = load_payload(MSGPACK, body)
                if type(fields) is not list or not fields:
                    raise UnreadableMessage("a frame is a list that begins with a word")
                yield fields
        finally:
            del buffer[:start]
