"""The words of the protocol: commands made of values, values made of replies. Pure; `lua/*.lua` has the other end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...model.operations import ACK
from ..contract.values import (
    SOLO_AFTER,
    Entry,
    Exchange,
    Part,
    Queued,
    Renewal,
    ReserveCall,
    Reserved,
    Settlement,
    StoredSchedule,
    Streamed,
    UniqueConflict,
)
from .link import Command
from .scripts import script

Time = int | str
"""The time that a script takes for the store's, in ms; '' is the store's own clock."""


def evalsha(name: str, keys: Sequence[str], *args: Any) -> Command:
    """Return the call of a script."""
    return ("EVALSHA", script(name).digest, len(keys), *keys, *args)


# ---------------------------------------------------------------------------------------- commands
def enqueue_command(
    prefix: str, entries: Sequence[Entry], *, time: Time, channel: str, always: str
) -> Command:
    """Return the call that queues tasks: first the plain ones, two words each, then the others, four words each.

    From one with a unique key on none is plain: plain ones would overtake it.
    """
    plain: list[Any] = []
    special: list[Any] = []
    in_turn = False
    for id, record, delay, priority, unique in entries:
        in_turn = in_turn or unique
        if delay is None and not priority and not in_turn:
            plain += (id, record)
        else:
            special += (id, record, delay if delay is not None else "", priority)
    return (
        "EVALSHA", script("enqueue").digest, 1, prefix,
        time, channel, always, len(plain) // 2, *plain, *special,
    )  # fmt: skip


def reserve_command(
    prefixes: Sequence[str], call: ReserveCall, *, time: Time, channel: str, always: str
) -> Command:
    """Return the call that reserves tasks from the queues with these prefixes."""
    return (
        "EVALSHA", script("reserve").digest, len(prefixes), *prefixes,
        time, call.lease, call.batch, call.want, "" if call.stable_for is None else call.stable_for,
        "1" if call.idle else "0", channel, always, call.worker_name, SOLO_AFTER,
    )  # fmt: skip


def settle_command(
    prefix: str,
    lease: str,
    ended: Sequence[Settlement],
    *,
    time: Time,
    ttl: str,
    dead_ttl: str,
    channel: str,
    always: str,
) -> Command:
    """Return the call that settles tasks of one queue: first the plain successes, three words each, then the rest."""
    acks: list[Any] = []
    rest: list[Any] = []
    for op, id, batch, record, reply, wait, limited in ended:
        if op == ACK and not limited:
            acks += (f"{id}:{batch}", record, reply)
        else:
            rest += (op, f"{id}:{batch}", record, reply, wait)
    return (
        "EVALSHA", script("settle").digest, 1, prefix,
        time, lease, ttl, dead_ttl, channel, always, len(acks) // 3, *acks, *rest,
    )  # fmt: skip


def stream_command(
    prefix: str, lease: str, streamed: Streamed, ttl: int, *, time: Time, channel: str, always: str
) -> Command:
    """Return the call that keeps parts of a stream."""
    _, id, batch, first, oldest, parts = streamed
    return evalsha("stream", [prefix], time, id, lease, batch, ttl, channel, always, first, oldest, *parts)


# ----------------------------------------------------------------------------------------- replies
def read_queued(reply: Sequence[bytes]) -> Queued:
    """Return what `enqueue` did not queue: `<id>`, or `<id> <way><id of the holder>` for a unique key that is taken."""
    queued = Queued()
    for item in reply:
        id, _, holder = item.decode().partition(" ")
        if holder:
            queued.conflicts[id] = UniqueConflict(holder[1:], holder[0] == "f")
        else:
            queued.known.add(id)
    return queued


def read_refused(answer: Exchange, queues: Sequence[str], replies: Sequence[Sequence[bytes]]) -> None:
    """Add what `settle` refused in each queue to the answer."""
    for queue, refused in zip(queues, replies, strict=False):
        answer.refused.extend((queue, id.decode()) for id in refused)


def read_reserve(answer: Exchange, queue: str, batch: int, reply: Sequence[Any]) -> None:
    """Add what `reserve` gave from one queue to the answer.

    After six words about the call come id and record of each task; the sixth word has crashes and limits by id.
    """
    alive, next_due, vanished, left, flags, noted = reply[:6]
    if not alive:
        answer.lost_lease = True
        return
    if next_due >= 0 and (answer.next_due is None or next_due < answer.next_due):
        answer.next_due = next_due
    answer.vanished += vanished
    answer.more_ready = answer.more_ready or left > 0
    answer.solo = answer.solo or bool(flags & 1)
    answer.blocked = answer.blocked or bool(flags & 2)
    crashes: dict[bytes, int] = {}
    limits: dict[bytes, str] = {}
    for i in range(0, len(noted), 2):
        if isinstance(noted[i + 1], int):
            crashes[noted[i]] = noted[i + 1]
        else:
            limits[noted[i]] = noted[i + 1].decode()
    tasks = answer.tasks
    for i in range(6, len(reply), 2):
        id = reply[i]
        tasks.append(
            Reserved(
                queue,
                id.decode("ascii", "replace"),
                batch,
                reply[i + 1],
                crashes.get(id, 0) if crashes else 0,
                limits.get(id, "") if limits else "",
            )
        )


def read_renewal(replies: Sequence[Sequence[Any]]) -> Renewal:
    """Return the answer of `renew` over all queues."""
    alive = all(reply[0] for reply in replies)
    return Renewal(alive, frozenset(id.decode() for reply in replies for id in reply[1:]))


def read_held(queue: str, members: Sequence[bytes]) -> list[tuple[str, str, int]]:
    """Return (queue, id, batch) of what a lease holds, which the store has as `<id>:<batch>`."""
    split = (member.decode().rpartition(":") for member in members)
    return [(queue, id, int(batch)) for id, _, batch in split]


def read_parts(entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Part]:
    """Return parts of a stream, whose entries are `<attempt>-<number>` with token and body."""
    found = []
    for name, fields in entries:
        attempt, _, number = name.partition(b"-")
        found.append(Part(int(attempt), int(number), fields[0].decode("ascii", "replace"), fields[1]))
    return found


def read_schedules(
    code: Sequence[bytes], changed: Sequence[bytes], since: Sequence[bytes], paused: Sequence[bytes]
) -> dict[str, StoredSchedule]:
    """Return the schedules in four replies: three hashes by name, and the set of those that are paused."""
    by_code, by_change = read_hash(code), read_hash(changed)
    return {
        name.decode(): StoredSchedule(
            by_change.get(name, by_code.get(name, b"")),
            name in by_code,
            name in by_change,
            int(at),
            name in paused,
        )
        for name, at in read_hash(since).items()
        if name in by_code or name in by_change
    }


def read_hash(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a hash, which RESP2 has as names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def read_info(reply: bytes) -> dict[str, str]:
    """Return the fields of INFO."""
    return dict(line.split(":", 1) for line in reply.decode().split("\r\n") if ":" in line)


def read_version(info: Mapping[str, str]) -> tuple[int, ...]:
    """Return the first two numbers of the version; (0,) where there is none."""
    return tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])


def is_clustered(info: Mapping[str, str]) -> bool:
    """Return whether the server is a node of a cluster; Valkey has another field for it."""
    return "cluster" in (info.get("redis_mode"), info.get("server_mode"))


def read_time(reply: Sequence[bytes]) -> int:
    """Return the reply to TIME, seconds and µs, in ms."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000
