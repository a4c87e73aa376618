"""A broker between us and another one, which puts large messages aside: into a directory that all programs share.

The record keeps a small *claim* in their place, so the store, its events and its replies stay small. Who reads a
record here has the message in it; who reads it without this class meets the claim where reading a message fails
(`pq.model.envelopes`), and is told what to set. A file is sealed like the record would be (`pq.model.seal`), and
the claim passes through the seal of the store in its turn.

A file is on the disk before its record is in the store, so no claim is without its file. The other way round
it happens: who dies in between leaves a file that nobody claims, and so does a record whose time is over. `sweep`
finds these, and removes them when they are older than an hour: until then somebody may be about to claim them.

    <large_dir>/<store>/<2 digits>/<32 digits>     the digits are random, nothing of a user's is in a path
    ["<queue>","<id>"]\\n<message>

`<store>` is a name that the store itself keeps. So two stores with one directory do not sweep each other's files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from ...errors import BadSetting, QueueFull, UnreadableMessage
from ...model.envelopes import OFFLOADED, SEALED, read_offloaded, unpack_envelope
from ...model.seal import Seal
from .. import records
from ..contract.work import ACK, FAIL, RETRY, REVOKE, Broker, Exchange, Message, Settlement
from .layer import Layer, kind_of

logger = logging.getLogger("pq.broker")

GRACE = 3600.0
"""Seconds for which a file that nobody claims is left alone."""
REUSED = 600.0
"""Seconds for which a message that is sent again finds its file again; far less than `GRACE`."""
SWEPT_EVERY = 600.0
"""Seconds between two sweeps of one directory, whoever sweeps."""
SWEPT_AT_ONCE = 5000
"""Files looked at in one sweep, more or less."""
REMEMBERED = 10_000

_REF = re.compile(r"[0-9a-f]{32}/[0-9a-f]{2}/[0-9a-f]{32}")
_FIELDS = 9
"""Of an envelope, those that a claim shows too: up to whom to tell of its end."""


class _Aside(NamedTuple):
    """A file that was written of late: when, by a monotonic clock, and what it is called."""

    at: float
    ref: str


class ClaimsBroker(Layer):
    """What of the contract is not here has no large message, and is the other's own."""

    def __init__(self, inner: Broker, directory: str, namespace: str, *, above: int, seal: Seal) -> None:
        super().__init__(inner, namespace)
        self._directory = directory
        self._above = above
        self._seal = seal
        self._store = ""
        self._written: OrderedDict[bytes, _Aside] = OrderedDict()
        self._taken: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._warned = False

    async def open(self) -> None:
        await self._inner.open()
        try:
            await self._find_place()
        except BaseException:
            await self._inner.close()
            raise

    async def _find_place(self) -> None:
        """Learn what the store is called, and look whether its directory can be used."""
        inner: Any = self._inner
        store = await inner.own_name(self._store or os.urandom(16).hex())
        if re.fullmatch("[0-9a-f]{32}", store) is None:
            raise BadSetting(
                f"large_dir: {store!r:.40} is no name of a store", hint="delete the key <namespace>:large"
            )
        await asyncio.to_thread(_make_place, self._directory, store)
        self._store = store

    # ---------------------------------------------------------------------------- putting aside
    def _is_large(self, record: bytes) -> bool:
        return 0 < self._above < len(record)

    async def _down(self, record: bytes, queue: str, id: str) -> bytes:
        """A record, a large one with a claim in it. Raises `QueueFull` where that cannot be."""
        if not self._is_large(record):
            return record
        try:
            return await asyncio.to_thread(self._put_aside, record, queue, id)
        except OSError as exc:
            raise QueueFull(
                f"a large message cannot be put into large_dir ({self._directory}): {exc.strerror or exc}",
                hint="is the disk full? Every program that queues large tasks writes there",
            ) from None

    def _put_aside(self, record: bytes, queue: str, id: str) -> bytes:
        """The record with a claim in place of its message, which is in a file when this returns. Blocks."""
        cut = records.beginning(record)
        if not cut or record.startswith(OFFLOADED, cut):
            return record
        message = record[cut:]
        # A call whose answer was lost comes again: it shall not write another file each time.
        known = hashlib.sha256(b"%s %s\n%s" % (queue.encode(), id.encode(), record)).digest()
        aside = self._written.get(known)
        if aside is None or time.monotonic() - aside.at > REUSED or not self._exists(aside.ref):
            sealed = self._seal.close(message, kind_of(record), queue, id)
            name = os.urandom(16).hex()
            ref = f"{self._store}/{name[:2]}/{name}"
            _write(os.path.join(self._directory, ref), json.dumps([queue, id]).encode() + b"\n" + sealed)
            aside = self._written[known] = _Aside(time.monotonic(), ref)
            while len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
        return record[:cut] + OFFLOADED + bytes((len(aside.ref),)) + aside.ref.encode() + _stub(message)

    def _exists(self, ref: str) -> bool:
        return os.path.exists(os.path.join(self._directory, ref))

    async def _down_settlement(self, queue: str, ended: Settlement) -> Settlement:
        """Work that was done is not lost to a full disk: then the store has it, as if there were no setting."""
        if not self._is_large(ended.record):
            return ended
        try:
            record = await self._down(ended.record, queue, ended.id)
        except QueueFull as exc:
            if not self._warned:
                logger.error("%s; results go into the store until it can", exc)
            self._warned = True
            return ended
        self._warned = False
        return ended._replace(record=record)

    async def _up_exchange(self, settled: dict[str, list[Settlement]], answer: Exchange) -> None:
        if self._taken and settled and not answer.lost_lease:
            await self._let_go(settled, set(answer.refused))
        for at, task in enumerate(answer.tasks):
            ref = _ref(task.record)
            if ref is not None:
                self._taken[task.queue, task.id] = ref
                while len(self._taken) > REMEMBERED:
                    self._taken.popitem(last=False)
                answer.tasks[at] = task._replace(record=await self._open(task.record, task.queue, task.id))

    async def _let_go(self, settlements: dict[str, list[Settlement]], refused: set[tuple[str, str]]) -> None:
        """The files of tasks that have another record now, and nobody but us has run them: need no sweep."""
        old = []
        for queue, ended in settlements.items():
            for each in ended:
                if each.op in (ACK, FAIL, REVOKE, RETRY) and (queue, each.id) not in refused:
                    ref = self._taken.pop((queue, each.id), None)
                    if ref is not None and ref != _ref(each.record):
                        old.append(os.path.join(self._directory, ref))
        if old:
            await asyncio.to_thread(_remove, old)

    # --------------------------------------------------------------------------------- reading
    async def _open(self, record: bytes, queue: str | None, id: str) -> bytes:
        """The record with its message again. Where that is not to be had the claim stays, which says so."""
        ref = _ref(record)
        if ref is None:
            return record
        try:
            message = await asyncio.to_thread(self._read, ref, kind_of(record), queue, id)
        except (OSError, ValueError, UnreadableMessage) as exc:
            logger.warning("the large message of task %s cannot be read: %s", id[:9], exc)
            return record
        return record[: records.beginning(record)] + message

    def _read(self, ref: str, kind: bytes, queue: str | None, id: str) -> bytes:
        path = os.path.join(self._directory, ref)
        for pause in (0.05, 0.4):
            if os.path.exists(path):
                break
            time.sleep(pause)  # other machines may see a new file of a shared disk a moment later
        with open(path, "rb") as file:
            its_queue, its_id = json.loads(file.readline(4096))
            message = file.read()
        if its_id != id or queue not in (None, its_queue):
            raise UnreadableMessage(f"{path} belongs to another task")
        return self._seal.open(message, kind, its_queue, id)

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        found = await self._inner.records(queue, ids)
        for at, (id, record) in enumerate(zip(ids, found, strict=True)):
            if record is None or _ref(record) is None:
                continue
            opened = await self._open(record, queue, id)
            if opened is record:  # it may have ended meanwhile, and its file with it
                (newer,) = await self._inner.records(queue, [id])
                found[at] = newer if newer is None or newer == record else await self._open(newer, queue, id)
            else:
                found[at] = opened
        return found

    async def _up(self, message: Message) -> Message:
        """An event with the messages that were put aside; broadcasts without those that are gone."""
        channel, payload = message
        told = channel == self._events
        if OFFLOADED not in payload or not (told or channel.startswith(self._replies)):
            return message
        head, _, body = payload.partition(b"\n")
        opened = []
        for id, record in records.parcels(body):
            whole = await self._open(record, None, id)
            if not told or _ref(whole) is None:
                opened.append(records.parcel(id, whole))
        return Message(channel, head + b"\n" + b"".join(opened))

    # -------------------------------------------------------------------------------- sweeping
    async def sweep(self) -> int:
        """Remove files that no record claims, unless they are young; how many. Does nothing where one was just done."""
        await self._find_place()  # a store that has lost its name has it again
        place = os.path.join(self._directory, self._store)
        now = await asyncio.to_thread(_begin_sweep, place)
        if now is None:
            return 0
        removed = looked = 0
        shards = await asyncio.to_thread(os.listdir, place)
        random.shuffle(shards)
        for shard in shards:
            if looked >= SWEPT_AT_ONCE:
                break
            if re.fullmatch("[0-9a-f]{2}", shard) is None:
                continue
            old = await asyncio.to_thread(_old, os.path.join(place, shard), now - GRACE)
            looked += len(old)
            removed += await self._sweep_files(old)
        return removed

    async def _sweep_files(self, old: Sequence[tuple[str, str, str]]) -> int:
        orphans = [path for path, queue, _ in old if not queue]
        by_queue: dict[str, list[tuple[str, str]]] = {}
        for path, queue, id in old:
            if queue:
                by_queue.setdefault(queue, []).append((path, id))
        for queue, files in by_queue.items():
            for start in range(0, len(files), 500):
                some = files[start : start + 500]
                found = await self._inner.records(queue, [id for _, id in some])
                for (path, _), record in zip(some, found, strict=True):
                    if record is None or _claims_another(record, path):
                        orphans.append(path)
        return await asyncio.to_thread(_remove, orphans)


def _ref(record: bytes) -> str | None:
    """What a record claims, if its message was put aside. Never a path that leads out of the directory."""
    cut = records.beginning(record)
    if not cut or not record.startswith(OFFLOADED, cut) or type(record) is not bytes:
        return None
    ref, _ = read_offloaded(record[cut:])
    return ref if _REF.fullmatch(ref) else None


def _claims_another(record: bytes, path: str) -> bool:
    """True where a record surely has no need of this file. What is sealed for others may well have."""
    ref = _ref(record)
    if ref is not None:
        return os.path.basename(ref) != os.path.basename(path)
    cut = records.beginning(record)
    return type(record) is bytes and cut > 0 and not record.startswith(SEALED, cut)


def _stub(message: bytes) -> bytes:
    """The beginning of a message with arguments that cannot be read: what the task is, and whom to tell."""
    try:
        fmt, fields = unpack_envelope(message)
    except UnreadableMessage:
        return b""
    if len(fields) < _FIELDS:
        return b""
    fields = fields[:_FIELDS]
    fields[4] = b"\xc1" if fmt.name == "msgpack" else "?"  # which no format reads
    return fmt.pack(fields)


# ------------------------------------------------------------------------------------ the disk
def _make_place(directory: str, store: str) -> None:
    """The directory of a store in `large_dir`, which has to be there: it may be a disk that is not mounted."""
    place = os.path.join(directory, store)
    try:
        if not os.path.isdir(directory):
            raise BadSetting(
                f"large_dir: {directory} is not there", hint="make it, on a disk that all programs share"
            )
        os.makedirs(place, 0o700, exist_ok=True)
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as exc:
        raise BadSetting(
            f"large_dir: {place} cannot be used: {exc.strerror}",
            hint="every program of this application reads and writes there, as the same user",
        ) from None


def _write(path: str, data: bytes) -> None:
    """A file that is whole and on the disk, or not there."""
    shard = os.path.dirname(path)
    os.makedirs(shard, 0o700, exist_ok=True)
    part = path + ".part"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    entries = os.open(shard, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def _remove(paths: Sequence[str]) -> int:
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
            removed += 1
    return removed


def _begin_sweep(place: str) -> float | None:
    """The time by the clock of the disk; None when somebody has swept of late."""
    mark = os.path.join(place, "swept")
    before = os.stat(mark).st_mtime if os.path.exists(mark) else 0.0
    probe = f"{mark}.{os.urandom(8).hex()}"
    with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"):
        now = os.stat(probe).st_mtime
    if now - before < SWEPT_EVERY:
        os.unlink(probe)
        return None
    os.rename(probe, mark)
    return now


def _old(shard: str, before: float) -> list[tuple[str, str, str]]:
    """(path, queue, id) of files that are older; those that were never finished, or are not ours, without a queue."""
    old = []
    with os.scandir(shard) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # gone meanwhile
                if not entry.is_file(follow_symlinks=False):
                    continue
                if entry.stat(follow_symlinks=False).st_mtime >= before:
                    continue
                if re.fullmatch(r"[0-9a-f]{32}\.part", entry.name):
                    old.append((entry.path, "", ""))
                elif re.fullmatch("[0-9a-f]{32}", entry.name):
                    with open(entry.path, "rb") as file:
                        try:
                            queue, id = json.loads(file.readline(4096))
                        except ValueError:
                            continue  # nobody knows whose it is
                    old.append((entry.path, str(queue), str(id)))
    return old


def with_claims(broker: Broker, settings: Any, seal: Seal | None) -> Broker:
    """`broker` itself where no `large_dir` is set."""
    directory: str | None = getattr(settings, "large_dir", None)
    if not directory:
        return broker
    above: int = settings.large_above
    seal = seal or Seal(most=settings.most_readable)  # opens what others have compressed
    claims = ClaimsBroker(broker, directory, settings.namespace, above=above, seal=seal)
    return cast("Broker", claims)
