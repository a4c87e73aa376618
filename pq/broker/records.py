"""The record of a task in the store: a short text header, a line feed, and the message.

The scripts read the header alone and never look into the message, so they serve every wire format,
and an encrypted message as well as a plain one.

    live       q<priority> <lease>:<batch>\\n      priority empty for 0; the token only after a retry
    limited    g<priority> <lease>:<batch> <limits>\\n
    finished   d<status> <lease>:<batch>\\n        the token names the lease and the call that settled it

A limited task is a live one that has limits to pass before it starts (`pq.model.limits` writes them). Its
limits are separated by commas:

    c<most>:<limit>            at most `most` tasks of the queue at once
    r<µs>.<burst>:<limit>      one every `µs`, and up to `burst` at once after a pause
    u<f, l or r>:<key>         one task alone may have this key; of a second one: the first is kept,
                               the last is kept, or the new one's record replaces the old one's
    x                          a limit that is reached ends the task, instead of parking it

The token makes settling idempotent: a worker whose reply was lost sends the same again, and the record
shows that it was this very call that has settled it.

Events carry records in *parcels*, many in one message: `<id> <length>:<record>` one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import UnreadableMessage
from ..model.seal import Unopened

HEADER = 1024
"""Bytes of the longest header."""

_LIMIT = re.compile(r"([cr])(\d+)\.?(\d*):([^,]+)")
_KEY = re.compile(r"u([flr]):([^,]+)")

NO_KEY = ("", "")
"""The result of `unique_key` for a task without one."""


def live_header(priority: int | None = None, token: str = "", limits_text: str = "") -> bytes:
    """Return the header of a task that is to be run."""
    if limits_text:
        return f"g{priority or ''} {token} {limits_text}\n".encode("latin-1")
    if not priority and not token:
        return b"q\n"
    return f"q{priority or ''}{' ' + token if token else ''}\n".encode("ascii")


def finished_header(status: int, token: str) -> bytes:
    """Return the header of a finished task, settled under `token` (`<lease>:<batch>`)."""
    return f"d{status} {token}\n".encode("ascii")


def beginning(record: bytes) -> int:
    """Return where the message in a record begins; 0 where there is no header, so it is not one of our records."""
    return record.find(b"\n", 0, HEADER) + 1


def message(record: bytes) -> bytes:
    """Return the message in a record. Raises `UnreadableMessage` where there is no header."""
    if type(record) is Unopened:
        raise record.why
    cut = beginning(record)
    if not cut:
        raise UnreadableMessage(f"a record of {len(record)} bytes has no header")
    return record[cut:]


def is_live(record: bytes) -> bool:
    """Return True for a task that is still to be run or running.

    Bytes without a header of ours count as live: they are handed out, and the worker that cannot read
    them settles them as failed with the reason. Dropped on the way they would be lost silently.
    """
    return record[:1] != b"d"


def is_finished(record: bytes) -> bool:
    """Return True for a task that has ended."""
    return record[:1] == b"d"


def priority(record: bytes) -> int:
    """Return the priority in the header of a live record; 0 where none can be read."""
    header = record[1 : max(record.find(b"\n", 0, HEADER), 1)].split(b" ", 1)[0]
    try:
        return int(header) if header else 0
    except ValueError:
        return 0


def token(record: bytes) -> str:
    """Return the token in a header, of the call that settled it last; empty when it was never settled."""
    header = record[: max(record.find(b"\n", 0, HEADER), 0)]
    return (*header.split(b" ", 2), b"", b"")[1].decode("ascii", "replace")


def limits_text(record: bytes) -> str:
    """Return what a limited task has to pass before it starts; empty for any other record.

    Latin-1 has a character for every byte: a foreign header comes back as it was, and raises nothing when it is written.
    """
    if record[:1] != b"g":
        return ""
    header = record[: max(record.find(b"\n", 0, HEADER), 0)]
    return (*header.split(b" ", 2), b"", b"")[2].decode("latin-1")


class Limit(NamedTuple):
    """One limit that a task has to pass. `most` at once, or µs between two, with a `burst`."""

    kind: str
    name: str
    most: int
    burst: int


def read_limits(limits_text: str) -> Iterator[Limit]:
    """Yield the limits in a record's limits_text, in their order."""
    for kind, most, burst, name in _LIMIT.findall(limits_text):
        yield Limit(kind, name, int(most), int(burst or 0))


def unique_key(limits_text: str) -> tuple[str, str]:
    """Return the way (f, l or r) and the unique key; `NO_KEY` when there is none."""
    found = _KEY.search(limits_text)
    return (found[1], found[2]) if found else NO_KEY


def parcel(id: str, record: bytes) -> bytes:
    """Return one record as a part of an event."""
    return b"%s %d:%s" % (id.encode("ascii"), len(record), record)


def parcels(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the ids and records in an event. Stops quietly where the bytes end or make no sense."""
    at = 0
    end = len(data)
    while at < end:
        space = data.find(b" ", at, at + 130)
        colon = data.find(b":", space, space + 12)
        if space < 0 or colon < 0:
            return
        try:
            length = int(data[space + 1 : colon])
        except ValueError:
            return
        start = colon + 1
        if length < 0 or start + length > end:
            return
        yield data[at:space].decode("ascii", "replace"), data[start : start + length]
        at = start + length
