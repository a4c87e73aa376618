"""A layer that offloads large messages: into a directory that all programs share.

The record keeps a small *claim* in their place, so the store, its events and its replies stay small. A program that
reads a record through this layer has the message in it; one that reads it without the layer meets the claim where
reading a message fails (`pq.model.envelopes`), and the error says what to set. A file is sealed like the record
would be (`pq.model.seal`), and the claim passes through the seal of the store in its turn.

A file is on the disk before its record is in the store, so every claim has its file. The other way round
it happens: a program that dies in between leaves a file without a claim, and so does a record whose time is over.
`sweep` finds these, and removes them when they are older than an hour: until then a claim may be about to be stored.

    <large_dir>/<store>/<2 digits>/<32 digits>     the digits are random, nothing of a user's is in a path
    ["<queue>","<id>"]\\n<message>

`<store>` is a name that the store itself keeps. So two stores with one directory do not sweep each other's files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...config import Settings
from ...errors import BadSetting, QueueFull, UnreadableMessage
from ...model.envelopes import OFFLOADED, SEALED, read_offloaded, unpack_envelope
from ...model.operations import ACK, FAIL, RETRY, REVOKE
from ...model.seal import Seal
from .. import records
from ..contract.broker import Broker
from ..contract.channels import Channels, Subscription
from ..contract.looks import Looks
from ..contract.values import Exchange, Message, Settlement
from ..keys import Keys
from . import payload_files
from .layer import LayeredBroker, LayeredLooks, LayeredWork, ReadSubscription, kind_of

logger = logging.getLogger("pq.broker")

GRACE = 3600.0
"""Seconds for which a file without a claim is left alone."""
REUSED = 600.0
"""Seconds for which a message that is sent again finds its file again; far less than `GRACE`."""
SWEPT_AT_ONCE = 5000
"""Files looked at in one sweep, more or less."""
REMEMBERED = 10_000

_REF = re.compile(r"[0-9a-f]{32}/[0-9a-f]{2}/[0-9a-f]{32}")
_FIELDS = 9
"""Fields of an envelope that its stub keeps: up to the reply channel."""


class _Offloaded(NamedTuple):
    """A file that was written recently: when, by a monotonic clock, and its name in the directory."""

    at: float
    ref: str


class LargePayloads:
    """Puts large messages into files and back into their records. Keeps `RecordLayer`."""

    def __init__(self, looks: Looks, directory: str, namespace: str, *, above: int, seal: Seal) -> None:
        keys = Keys(namespace)
        self._events = keys.task_channel
        self._replies = keys.reply("")
        self._looks = looks
        self._directory = directory
        self._above = above
        self._seal = seal
        self._written: OrderedDict[bytes, _Offloaded] = OrderedDict()
        self._taken: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._warned = False
        self.store = ""
        """The name of the store: that of its directory in `large_dir`."""

    # -------------------------------------------------------------------------------- offloading
    def _is_large(self, record: bytes) -> bool:
        return 0 < self._above < len(record)

    async def down(self, record: bytes, queue: str, id: str) -> bytes:
        """Return the record, a large one with a claim in it. Raises `QueueFull` where its file cannot be written."""
        if not self._is_large(record):
            return record
        try:
            return await asyncio.to_thread(self.offload, record, queue, id)
        except OSError as exc:
            raise QueueFull(
                f"a large message cannot be put into large_dir ({self._directory}): {exc.strerror or exc}",
                hint="is the disk full? Every program that queues large tasks writes there",
            ) from None

    def offload(self, record: bytes, queue: str, id: str) -> bytes:
        """Return the record with a claim in place of its message, which is in a file then. Blocks."""
        cut = records.beginning(record)
        if not cut or record.startswith(OFFLOADED, cut):
            return record
        message = record[cut:]
        # A call whose answer was lost comes again: it must not write another file each time.
        known = hashlib.sha256(b"%s %s\n%s" % (queue.encode(), id.encode(), record)).digest()
        offloaded = self._written.get(known)
        if offloaded is None or time.monotonic() - offloaded.at > REUSED or not self._exists(offloaded.ref):
            sealed = self._seal.close(message, kind_of(record), queue, id)
            name = os.urandom(16).hex()
            ref = f"{self.store}/{name[:2]}/{name}"
            payload_files.write(
                os.path.join(self._directory, ref), json.dumps([queue, id]).encode() + b"\n" + sealed
            )
            offloaded = self._written[known] = _Offloaded(time.monotonic(), ref)
            while len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
        return (
            record[:cut] + OFFLOADED + bytes((len(offloaded.ref),)) + offloaded.ref.encode() + _stub(message)
        )

    def _exists(self, ref: str) -> bool:
        return os.path.exists(os.path.join(self._directory, ref))

    async def down_settlement(self, queue: str, ended: Settlement) -> Settlement:
        """Offload the record of an attempt. Where the disk is full the store has it: work that was done is not lost."""
        if not self._is_large(ended.record):
            return ended
        try:
            record = await self.down(ended.record, queue, ended.id)
        except QueueFull as exc:
            if not self._warned:
                logger.error("%s; results go into the store until it can", exc)
            self._warned = True
            return ended
        self._warned = False
        return ended._replace(record=record)

    async def up_exchange(self, settled: Mapping[str, Sequence[Settlement]], answer: Exchange) -> None:
        """Put the messages back into the records that were handed out; remove files that settling made useless."""
        if self._taken and settled and not answer.lost_lease:
            await self._remove_replaced(settled, set(answer.refused))
        for at, task in enumerate(answer.tasks):
            ref = _ref(task.record)
            if ref is not None:
                self._taken[task.queue, task.id] = ref
                while len(self._taken) > REMEMBERED:
                    self._taken.popitem(last=False)
                answer.tasks[at] = task._replace(record=await self._open(task.record, task.queue, task.id))

    async def _remove_replaced(
        self, settlements: Mapping[str, Sequence[Settlement]], refused: set[tuple[str, str]]
    ) -> None:
        """Remove the files of tasks that have another record now, and that no other worker has run."""
        old = []
        for queue, ended in settlements.items():
            for each in ended:
                if each.op in (ACK, FAIL, REVOKE, RETRY) and (queue, each.id) not in refused:
                    ref = self._taken.pop((queue, each.id), None)
                    if ref is not None and ref != _ref(each.record):
                        old.append(os.path.join(self._directory, ref))
        if old:
            await asyncio.to_thread(payload_files.remove, old)

    # --------------------------------------------------------------------------------- reading
    async def _open(self, record: bytes, queue: str | None, id: str) -> bytes:
        """Return the record with its message again. Where that is not to be had the claim stays, which says so."""
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

    async def up_records(
        self, queue: str, ids: Sequence[str], found: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Put the messages back into stored records."""
        whole = list(found)
        for at, (id, record) in enumerate(zip(ids, found, strict=True)):
            if record is None or _ref(record) is None:
                continue
            opened = await self._open(record, queue, id)
            if opened is record:  # it may have ended meanwhile, and its file with it
                (newer,) = await self._looks.records(queue, [id])
                whole[at] = newer if newer is None or newer == record else await self._open(newer, queue, id)
            else:
                whole[at] = opened
        return whole

    async def up_message(self, message: Message) -> Message:
        """Return an event with its messages again; a broadcast without those whose file is gone."""
        channel, payload = message
        broadcast = channel == self._events
        if OFFLOADED not in payload or not (broadcast or channel.startswith(self._replies)):
            return message
        head, _, body = payload.partition(b"\n")
        opened = []
        for id, record in records.parcels(body):
            whole = await self._open(record, None, id)
            if not broadcast or _ref(whole) is None:
                opened.append(records.parcel(id, whole))
        return Message(channel, head + b"\n" + b"".join(opened))


class LargePayloadChannels:
    """`Channels` of an inner broker. Only events carry records, and only coming up: the scripts send them."""

    def __init__(self, inner: Channels, payloads: LargePayloads) -> None:
        self._inner = inner
        self._payloads = payloads
        # These are small: what a program says in one message is bounded where it is said.
        self.publish = inner.publish
        self.beat = inner.beat
        self.consumers = inner.consumers
        self.keep_lines = inner.keep_lines
        self.lines = inner.lines
        self.keep_progress = inner.keep_progress
        self.progress = inner.progress
        self.keep_parts = inner.keep_parts
        self.parts = inner.parts
        self.lock = inner.lock
        self.unlock = inner.unlock

    async def subscription(self) -> Subscription:
        """Return a subscription whose records have their messages."""
        return ReadSubscription(await self._inner.subscription(), self._payloads.up_message)


class LargePayloadBroker(LayeredBroker):
    """A broker whose large messages are in files."""

    def __init__(self, inner: Broker, directory: str, payloads: LargePayloads) -> None:
        super().__init__(
            inner,
            work=LayeredWork(inner.work, payloads),
            looks=LayeredLooks(inner.looks, payloads),
            schedules=inner.schedules,
            channels=LargePayloadChannels(inner.channels, payloads),
        )
        self._directory = directory
        self.payloads = payloads

    async def open(self) -> None:
        """Open the inner broker and check the directory. Raises `BadSetting` too."""
        await self._inner.open()
        try:
            await self._find_place()
        except BaseException:
            await self._inner.close()
            raise

    async def _find_place(self) -> None:
        """Learn the name of the store, and check whether its directory can be used."""
        store = await self._inner.own_name(self.payloads.store or os.urandom(16).hex())
        if re.fullmatch("[0-9a-f]{32}", store) is None:
            raise BadSetting(
                f"large_dir: {store!r:.40} is not the name of a store",
                hint="delete the key <namespace>:large",
            )
        await asyncio.to_thread(payload_files.make_place, self._directory, store)
        self.payloads.store = store

    async def sweep(self) -> int:
        """Remove files that no record claims, unless they are young. Does nothing where that was just done."""
        await self._find_place()  # a store that has lost its name has it again
        place = os.path.join(self._directory, self.payloads.store)
        now = await asyncio.to_thread(payload_files.begin_sweep, place)
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
            old = await asyncio.to_thread(payload_files.old_files, os.path.join(place, shard), now - GRACE)
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
                found = await self._inner.looks.records(queue, [id for _, id in some])
                for (path, _), record in zip(some, found, strict=True):
                    if record is None or _claims_another(record, path):
                        orphans.append(path)
        return await asyncio.to_thread(payload_files.remove, orphans)


def _ref(record: bytes) -> str | None:
    """Return the file that a record claims, if its message is offloaded. Never a path out of the directory."""
    cut = records.beginning(record)
    if not cut or not record.startswith(OFFLOADED, cut) or type(record) is not bytes:
        return None
    ref, _ = read_offloaded(record[cut:])
    return ref if _REF.fullmatch(ref) else None


def _claims_another(record: bytes, path: str) -> bool:
    """Return True where a record surely does not need this file. One that is sealed for others may well do."""
    ref = _ref(record)
    if ref is not None:
        return os.path.basename(ref) != os.path.basename(path)
    cut = records.beginning(record)
    return type(record) is bytes and cut > 0 and not record.startswith(SEALED, cut)


def _stub(message: bytes) -> bytes:
    """Return the beginning of a message with unreadable arguments: what the task is, and its reply channel."""
    try:
        fmt, fields = unpack_envelope(message)
    except UnreadableMessage:
        return b""
    if len(fields) < _FIELDS:
        return b""
    fields = fields[:_FIELDS]
    fields[4] = b"\xc1" if fmt.name == "msgpack" else "?"  # no format reads it
    return fmt.pack(fields)


def with_large_payloads(broker: Broker, settings: Settings, seal: Seal | None) -> Broker:
    """Return `broker` with large messages offloaded; itself where no `large_dir` is set."""
    directory = settings.large_dir
    if not directory:
        return broker
    seal = seal or Seal(most=settings.most_readable)  # opens what others have compressed
    payloads = LargePayloads(
        broker.looks, directory, settings.namespace, above=settings.large_above, seal=seal
    )
    return LargePayloadBroker(broker, directory, payloads)
