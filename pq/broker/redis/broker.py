"""The broker on Redis or Valkey: each verb is one script call, on connections of its own.

Four connections per process, each with one duty, so that none waits for another: `main` (settle and
reserve; queueing), `side` (looks, cancels, heartbeats), `block` (the blocking read of an idle worker)
and one for a subscription. The lease is renewed over yet another, by a thread (`pq.worker.lease`).

A call that failed in a way that may pass is repeated here, with back-off and jitter, for `patience`
seconds; that is safe because every script is idempotent under blind repetition (see the contract).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import redis.exceptions as redis_errors
from redis.asyncio import connection as redis_connection

from ...clock import SYSTEM, Clock
from ...config import redact
from ...errors import BadSetting, NotDurable, QueueFull, StoreError, StoreRefused, StoreUnavailable
from ...model.operations import ACK
from ..contract.broker import Renewer
from ..contract.values import (
    AT_LIMIT,
    DEAD,
    DELAYED,
    ENDED,
    FENCE_KEPT,
    KEPT_LINES,
    RUNNING,
    SOLO_AFTER,
    WAITING,
    Entry,
    Exchange,
    Locked,
    Part,
    Queued,
    QueueState,
    Renewal,
    ReserveCall,
    Settlement,
    StoredSchedule,
    Streamed,
    Tick,
    UniqueConflict,
)
from ..keys import Keys
from .acl import check_rights
from .backoff import pause
from .calls import BLOCK_MARGIN, FIRST_PATIENCE, connection_options
from .codec import read_renewal, read_reserve, table
from .link import Caller, Command, Link, ScriptMissing, checked
from .renewer import RedisRenewer
from .scripts import NAMES, script
from .subscription import RedisSubscription
from .wire import Maker

T = TypeVar("T")

DURABLE_WITHIN = 5.0
"""Seconds that a replica, or the disk, gets to have a task."""


class RedisBroker:
    """Keeps the contract on one server.

    `patience`: seconds for which a failing call is repeated, `timeout`: those for which one is waited for.
    `stated`: which setting has the URL, and where.
    """

    first_patience = FIRST_PATIENCE
    always = ""
    """Whether events are to be published without asking who listens: `1` where no server knows that."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "pq",
        result_ttl: float = 3600.0,
        dead_ttl: float = 7 * 86_400.0,
        patience: float = 30.0,
        timeout: float = 10.0,
        name: str = "pq",
        clock: Clock = SYSTEM,
        on_unreachable: Callable[[], Awaitable[None]] | None = None,
        stated: str | None = None,
    ) -> None:
        self.url = url
        self._stated = stated
        self.where = redact(url)
        self.keys = Keys(namespace)
        self.patience = patience
        # A finished record stays a minute even where results are not kept: until then a repeated
        # enqueue or settle finds it, and is harmless.
        self._ttl = str(int(max(60.0, result_ttl) * 1000))
        self._dead_ttl = str(int(max(60.0, result_ttl, dead_ttl) * 1000))
        self._clock = clock
        self._timeout = timeout
        self._on_unreachable = on_unreachable
        self._name = name
        self._use(url)
        self._main = self._link()
        self._side = self._link()
        self._block = self._link()
        self._firm: Caller | None = None
        self._version: tuple[int, ...] = (0, 0)
        self._known_queues: set[str] = set()
        self.time_override: Callable[[], int | str] | None = None
        self._subscriptions: set[RedisSubscription] = set()
        self.work = self.looks = self.channels = self.schedules = self

    def twin(self, *, patience: float, timeout: float) -> RedisBroker:
        """Another broker on the same store, for another loop."""
        made = type(self)(
            self.url,
            namespace=self.keys.namespace,
            patience=patience,
            timeout=timeout,
            name=self._name,
            clock=self._clock,
            stated=self._stated,
        )
        made.time_override = self.given_time
        return made

    def renewer(self, *, patience: float = 1.0, timeout: float = 5.0) -> Renewer:
        """See `Broker.renewer`. Its calls are short: a lease that cannot be renewed is to be missed soon."""
        return RedisRenewer(self.twin(patience=patience, timeout=timeout))

    async def check_rights(self) -> None:
        """See `Broker.check_rights`."""
        await check_rights(self.run_all, self.keys.namespace, self.where)

    async def sweep(self) -> int:
        """Nothing is offloaded here."""
        return 0

    def given_time(self) -> int | str:
        """The time that scripts are to take for the store's; '' is its own. A test may set `time_override`."""
        return "" if self.time_override is None else self.time_override()

    # ------------------------------------------------------------------------------ connections
    def _use(self, url: str) -> None:
        """Take the URL apart."""
        options = connection_options(url)
        self._connection_class = options.pop("connection_class")
        self._options = {**options, "client_name": self._name}

    def connection(self) -> redis_connection.AbstractConnection:
        """A new connection, not yet connected."""
        try:
            made: redis_connection.AbstractConnection = self._connection_class(**self._options)
        except (
            TypeError,
            ValueError,
            redis_errors.RedisError,
        ) as exc:  # a parameter of the URL that it does not know
            unknown = str(exc).partition("unexpected keyword argument ")[2]
            raise BadSetting(
                f"data_store: {self.where}: "
                + (f"there is no parameter {unknown} for this scheme" if unknown else str(exc)),
                hint="docs/how-to/security.md has the parameters of the URL",
            ) from None
        return made

    def _maker(self) -> Maker:
        """What makes the connections of the links."""
        return self.connection

    def _link(self) -> Caller:
        return Link(self._maker(), where=self.where, stated=self._stated, timeout=self._timeout)

    @property
    def connected_since(self) -> float | None:
        """Since when (loop time) the connection for settling and reserving has stood unbroken."""
        return self._main.connected_since

    async def open(self) -> None:
        # Whoever begins wants to hear soon that nobody is there; patience is for what stood once.
        patience, self.patience = self.patience, self._patience_at_first()
        try:
            (reply,) = await self._repeat(self._main, [("INFO", "server")])
        finally:
            self.patience = patience
        info = dict(line.split(b":", 1) for line in reply.split(b"\r\n") if b":" in line)
        version = self._version = tuple(
            int(part) for part in info.get(b"redis_version", b"0").split(b".")[:2]
        )
        if version < (6, 2):
            raise StoreRefused(
                f"{self.where} is Redis {info.get(b'redis_version', b'?').decode()}, and 6.2 is the oldest that serves",
                hint="upgrade it to Redis 6.2 or Valkey 7.2 or later",
            )
        # Valkey has another word for it.
        self._check_mode(b"cluster" in (info.get(b"redis_mode"), info.get(b"server_mode")))

    def _patience_at_first(self) -> float:
        return min(self.patience, self.first_patience)

    def _check_mode(self, clustered: bool) -> None:
        if clustered:
            raise StoreRefused(
                f"{self.where} is a node of a cluster", hint="name it as redis+cluster://host:port"
            )

    def _links(self) -> list[Caller]:
        return [self._main, self._side, self._block, *([self._firm] if self._firm is not None else [])]

    async def close(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription.close()
        for link in self._links():
            await link.close()

    async def _repeat(
        self, link: Caller, commands: Sequence[Command], *, timeout: float | None = None, once: int = 0
    ) -> list[Any]:
        """Call until it succeeds or patience ends. Every command of the protocol may be repeated.

        But for the first `once` of them: these only wait, and whoever repeats has waited.
        """
        started = self._clock.monotonic()
        failures, forgotten = link.failures, 0
        while True:
            try:
                try:
                    replies = await link.call(commands, timeout=timeout)
                    found = [checked(reply, self.where, self._stated) for reply in replies]
                    link.failures = 0
                    return found
                except ScriptMissing:
                    loaded = await link.call([("SCRIPT", "LOAD", script(name).source) for name in NAMES])
                    for reply in loaded:
                        checked(reply, self.where)
                    forgotten += 1
                    if forgotten > 1:  # once is no trouble: it was started again
                        raise StoreUnavailable(
                            f"{self.where} does not keep our scripts: it took them {forgotten} times, and did not know "
                            "them a moment later",
                            hint="is it several servers behind one address? Name those, redis+sentinel:// or "
                            "redis+cluster://. Or somebody runs SCRIPT FLUSH again and again",
                        ) from None
                    commands, once = commands[once:], 0
                    continue
            except StoreUnavailable:
                commands, once = commands[once:], 0
                failures += 1
                if self._clock.monotonic() - started >= self.patience:
                    link.failures = max(link.failures, failures)
                    raise
                # Whoever answers "not now" may be the wrong server by now: look it up again. And it may not
                # know what the old one knew.
                await link.reset()
                self._known_queues.clear()
                if self._on_unreachable is not None:
                    await self._on_unreachable()
            await asyncio.sleep(pause(failures, self._clock.random()))

    async def _run(self, name: str, keys: Sequence[str], *args: Any, link: Caller | None = None) -> Any:
        command = ("EVALSHA", script(name).digest, len(keys), *keys, *args)
        return (await self._repeat(link or self._side, [command]))[0]

    async def run(self, *command: Any) -> Any:
        """Run a command that is none of the protocol's."""
        return (await self.run_all(command))[0]

    async def run_all(self, *commands: Command) -> list[Any]:
        """Run such commands in one round trip; the first that is refused raises."""
        return await self._repeat(self._side, commands)

    # ------------------------------------------------------------------------------------ verbs
    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        plain: list[Any] = []
        special: list[Any] = []
        in_turn = False  # the plain ones go first; from a unique one on they must not, or they pass it by
        for id, record, delay, priority, unique in entries:
            in_turn = in_turn or unique
            if delay is None and not priority and not in_turn:
                plain += (id, record)
            else:
                special += (id, record, delay if delay is not None else "", priority)
        command = (
            "EVALSHA", script("enqueue").digest, 1, self.keys.prefix(queue),
            self.given_time(), self.keys.task_channel, self.always, len(plain) // 2, *plain, *special,
        )  # fmt: skip
        await self._make_known(queue)
        try:
            left = (
                await self._send_durably(command, durability)
                if durability
                else (await self._repeat(self._main, [command]))[0]
            )
        except QueueFull as exc:
            raise QueueFull(f"queue {queue!r}: {exc.message}", hint=exc.hint) from None
        if queue not in self._known_queues:  # the store was away meanwhile, and may have come back without it
            with contextlib.suppress(QueueFull):  # the tasks are in it, so it is no refusal
                await self._make_known(queue)
        queued = Queued()
        for item in left:
            id, _, rival = item.decode().partition(" ")
            if rival:
                queued.conflicts[id] = UniqueConflict(rival[1:], rival[0] == "f")
            else:
                queued.known.add(id)
        return queued

    async def _send_durably(self, command: Command, durability: str) -> Any:
        """Queue, and wait on the same connection until a replica has it, or the disk. A repeat waits anew."""
        if durability == "fsync" and self._version < (7, 2):
            raise StoreRefused(
                f"{self.where} is Redis {'.'.join(map(str, self._version))}, which cannot tell when its disk has a task",
                hint='durability="replica", or Redis or Valkey 7.2 and later',
            )
        if self._firm is None:
            self._firm = (
                self._link()
            )  # of its own: whoever does not wait for a replica need not wait behind this
        ms = int(DURABLE_WITHIN * 1000)
        wait: Command = ("WAITAOF", 1, 0, ms) if durability == "fsync" else ("WAIT", 1, ms)
        try:
            left, found = await self._repeat(
                self._firm, [command, wait], timeout=DURABLE_WITHIN + BLOCK_MARGIN
            )
        except StoreError as exc:
            if "WAITAOF cannot be used" not in exc.message:
                raise
            left, found = None, None
        copies = 0 if found is None else int(found[0] if durability == "fsync" else found)
        if copies < 1:
            where, hint = (
                ("its disk", "CONFIG SET appendonly yes, and appendfsync always")
                if durability == "fsync"
                else ("a replica", "INFO replication says whether one is connected")
            )
            raise NotDurable(
                f"{self.where} did not say within {DURABLE_WITHIN:g} s that {where} has the task; "
                "it may be queued nevertheless",
                hint=f"{hint}; the same id may be queued again",
            )
        return left

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        args = (self.given_time(), id, record, "" if delay is None else delay)
        return bool(await self._run("replace", [self.keys.prefix(queue)], *args))

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        delay = "" if entry.delay is None else entry.delay
        args = (
            self.given_time(),
            self.keys.task_channel,
            self.always,
            self._ttl,
            *old,
            entry.id,
            entry.record,
            delay,
            entry.priority,
        )
        return bool(await self._run("displace", [self.keys.prefix(queue)], *args))

    async def _make_known(self, queue: str) -> None:
        """By itself and first: a store may take this and refuse what follows, which then was not queued."""
        if queue not in self._known_queues:
            await self._repeat(self._main, [("SADD", self.keys.queues, queue)])
            self._known_queues.add(queue)

    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        prefixes = [self.keys.prefix(queue) for queue in queues]
        await self._run("open_lease", prefixes, self.given_time(), lease, ttl, link=self._main)
        try:
            await self._repeat(self._main, [("SADD", self.keys.queues, *queues)])
        except QueueFull:
            pass  # a full store is drained under this lease; its queues are known already

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        lease, queues, want, batch, idle, stable_for, worker_name, block = call
        commands: list[Command] = []
        settled: list[str] = []
        for queue, ended in settlements.items():
            if ended:
                settled.append(queue)
                commands.append(self._settle_command(lease, queue, ended))
        link, timeout = self._main, None
        if block > 0:
            # The server holds this connection at BLPOP until there is a token, and then goes on with the
            # reserve behind it: a round trip less than to wait first and to ask then.
            link, timeout = self._block, block + BLOCK_MARGIN
            commands.append(("BLPOP", *[self.keys.wake(queue) for queue in queues], f"{block:.3f}"))
        if want > 0:
            commands.append(
                self._reserve_command(
                    lease, batch, queues, want, idle=idle, calm=stable_for, note=worker_name
                )
            )
        if not commands:
            return Exchange()
        replies = await self._repeat(link, commands, timeout=timeout, once=1 if block > 0 else 0)
        answer = Exchange()
        for queue, refused in zip(settled, replies, strict=False):
            answer.refused.extend((queue, id.decode()) for id in refused)
        if want > 0:
            for queue, reply in zip(queues, replies[-1], strict=True):
                read_reserve(answer, queue, batch, reply)
        return answer

    def _reserve_command(
        self,
        lease: str,
        batch: int,
        queues: Sequence[str],
        want: int,
        *,
        idle: bool,
        calm: int | None,
        note: str,
    ) -> Command:
        return (
            "EVALSHA", script("reserve").digest, len(queues), *[self.keys.prefix(queue) for queue in queues],
            self.given_time(), lease, batch, want, "" if calm is None else calm, "1" if idle else "0",
            self.keys.task_channel, self.always, note, SOLO_AFTER,
        )  # fmt: skip

    def _settle_command(self, lease: str, queue: str, ended: Sequence[Settlement]) -> Command:
        acks: list[Any] = []
        rest: list[Any] = []
        for op, id, batch, record, reply, wait, limited in ended:
            if op == ACK and not limited:
                acks += (f"{id}:{batch}", record, reply)
            else:
                rest += (op, f"{id}:{batch}", record, reply, wait)
        return (
            "EVALSHA", script("settle").digest, 1, self.keys.prefix(queue),
            self.given_time(), lease, self._ttl, self._dead_ttl, self.keys.task_channel, self.always, len(acks) // 3, *acks, *rest,
        )  # fmt: skip

    async def poke(self, queue: str) -> None:
        await self._run("poke", [self.keys.prefix(queue)])

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        return (await self.renew_and_tell(lease, queues, ttl))[0]

    async def renew_and_tell(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """`renew`, and the store's clock in ms, in one round trip."""
        prefixes = [self.keys.prefix(queue) for queue in queues]
        renew = (
            "EVALSHA", script("renew").digest, len(prefixes), *prefixes, self.given_time(), lease, ttl
        )  # fmt: skip
        time, replies = await self._repeat(self._side, [("TIME",), renew])
        return read_renewal(replies), int(time[0]) * 1000 + int(time[1]) // 1000

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        total = 0
        for queue in queues:
            while True:
                limit = 500
                prefix = self.keys.prefix(queue)
                n = await self._run("hand_back", [prefix], self.given_time(), lease, int(crashed), limit)
                total += n
                if n < limit:
                    break
        return total

    async def held(self, lease: str, queues: Sequence[str]) -> list[tuple[str, str, int]]:
        looks = [("SMEMBERS", self.keys.prefix(queue) + "held:" + lease) for queue in queues]
        found = await self._repeat(self._main, looks)
        parts = [
            (queue, *m.decode().rpartition(":"))
            for queue, members in zip(queues, found, strict=True)
            for m in members
        ]
        return [(queue, id, int(batch)) for queue, id, _, batch in parts]

    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        flat = [part for item in items for part in item]
        args = (self.given_time(), self.keys.task_channel, self.always, self._ttl, int(at_front), *flat)
        answers = await self._run("cancel", [self.keys.prefix(queue)], *args)
        return [answer.decode() for answer in answers]

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        done = await self._run(
            "retry_dead",
            [self.keys.prefix(queue)],
            self.keys.task_channel,
            self.always,
            entry.id,
            entry.record,
        )
        return bool(done)

    async def records(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        if not ids:
            return []
        (found,) = await self._repeat(self._side, [("MGET", *[self.keys.record(queue, id) for id in ids])])
        stored: list[bytes | None] = found
        return stored

    async def peek(self, queue: str, count: int) -> list[str]:
        p = self.keys.prefix(queue)
        high, low, parked, delayed = await self._repeat(
            self._side,
            [
                ("ZRANGEBYSCORE", p + "prio", "-inf", "(0", "LIMIT", 0, count),
                ("ZRANGEBYSCORE", p + "prio", 0, "+inf", "LIMIT", 0, count),
                ("ZRANGE", p + "parked", 0, count - 1),
                ("ZRANGE", p + "delayed", 0, count - 1),
            ],
        )
        ready: list[bytes] = []
        start = 0
        while len(high) + len(ready) < count:  # what was cancelled lies there still, and is passed over
            (page,) = await self._repeat(self._side, [("LRANGE", p + "ready", start, start + count - 1)])
            if not page:
                break
            (cancelled,) = await self._repeat(self._side, [("SMISMEMBER", p + "revoked", *page)])
            ready += [id for id, gone in zip(page, cancelled, strict=True) if not gone]
            start += count
        return [id.decode() for id in [*high, *ready, *low, *parked, *delayed][:count]]

    async def state(self, queue: str) -> QueueState:
        ready, prio, delayed, held, leases, dead, paused, parked, due = await self._run(
            "inspect", [self.keys.prefix(queue)], self.given_time()
        )
        return QueueState(ready, prio, delayed, held, leases, dead, bool(paused), parked, due)

    async def ids(self, queue: str, place: str, count: int) -> list[str]:
        p = self.keys.prefix(queue)
        if place == WAITING:
            state = await self.state(queue)
            return await self.peek(queue, min(count, state.ready + state.prio))
        if place == RUNNING:
            (leases,) = await self._repeat(self._side, [("ZRANGE", p + "leases", 0, -1)])
            looks: list[Command] = [("SRANDMEMBER", p + "held:" + lease.decode(), count) for lease in leases]
            held = await self._repeat(self._side, looks) if looks else []
            members = [member.decode() for some in held for member in some or ()]
            return [member.rpartition(":")[0] for member in members][:count]
        key, command = {
            AT_LIMIT: ("parked", "ZRANGE"),
            DELAYED: ("delayed", "ZRANGE"),
            ENDED: ("recent", "LRANGE"),
            DEAD: ("dead", "ZREVRANGE"),
        }[place]
        (found,) = await self._repeat(self._side, [(command, p + key, 0, count - 1)])
        return list(dict.fromkeys(id.decode() for id in found))

    async def matching(self, prefix: str, most: int) -> list[tuple[str, str]]:
        pattern = self.keys.record("*", prefix + "*").replace("{*}", "{[^@]*}")
        found: set[tuple[str, str]] = set()
        async for names in self._scan(pattern, 2000):
            for raw in names:
                name = raw.decode()[len(self.keys.namespace) + 2 :]
                queue, _, rest = name.partition("}:task:")
                found.add((queue, rest))
            if len(found) >= most:
                break
        return sorted(found)[:most]

    async def _scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """The names of the keys that fit, some at a time."""
        cursor: Any = 0
        while True:
            (reply,) = await self._repeat(self._side, [("SCAN", cursor, "MATCH", pattern, "COUNT", count)])
            cursor, names = reply
            yield names
            if int(cursor) == 0:
                return

    async def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        (found,) = await self._repeat(self._side, [("MGET", *keys)])
        values: list[bytes | None] = found
        return values

    async def keep_lines(self, queue: str, id: str, lines: Sequence[bytes], ttl: int) -> None:
        key = self.keys.log(queue, id)
        commands: list[Command] = [
            ("RPUSH", key, *lines), ("LTRIM", key, -KEPT_LINES, -1), ("PEXPIRE", key, ttl)
        ]  # fmt: skip
        await self._repeat(self._side, commands)

    async def lines(self, queue: str, id: str) -> list[bytes]:
        (found,) = await self._repeat(self._side, [("LRANGE", self.keys.log(queue, id), 0, -1)])
        lines: list[bytes] = found
        return lines

    async def keep_progress(self, queue: str, facts: Mapping[str, bytes], ttl: int) -> None:
        keys = self.keys
        await self._repeat(
            self._side, [("SET", keys.progress(queue, id), text, "PX", ttl) for id, text in facts.items()]
        )

    async def progress(self, queue: str, ids: Sequence[str]) -> list[bytes | None]:
        if not ids:
            return []
        (found,) = await self._repeat(self._side, [("MGET", *[self.keys.progress(queue, id) for id in ids])])
        facts: list[bytes | None] = found
        return facts

    async def keep_parts(self, lease: str, streamed: Sequence[Streamed], ttl: int) -> list[bool]:
        commands: list[Command] = [
            (
                "EVALSHA", script("stream").digest, 1, self.keys.prefix(queue), self.given_time(), id, lease, batch, ttl,
                self.keys.stream_channel, self.always, first, oldest, *parts,
            )
            for queue, id, batch, first, oldest, parts in streamed
        ]  # fmt: skip
        return [bool(taken) for taken in await self._repeat(self._side, commands)]

    async def parts(self, queue: str, id: str, after: tuple[int, int] | None, count: int) -> list[Part]:
        start = "-" if after is None else f"({after[0]}-{after[1]}"
        (found,) = await self._repeat(
            self._side, [("XRANGE", self.keys.stream(queue, id), start, "+", "COUNT", count)]
        )
        made = []
        for name, fields in found:
            attempt, _, number = name.partition(b"-")
            made.append(Part(int(attempt), int(number), fields[0].decode("ascii", "replace"), fields[1]))
        return made

    async def next_due(self, queues: Sequence[str], after: int) -> int | None:
        """When, after that moment, the next delayed task or limit in time is due, ms. For tests that move the clock."""
        commands: list[Command] = [
            ("ZRANGEBYSCORE", self.keys.prefix(queue) + key, f"({after}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
            for queue in queues
            for key in ("delayed", "timers")
        ]
        found = await self._repeat(self._side, commands)
        return min((int(float(pair[1])) for pair in found if pair), default=None)

    async def dead(self, queue: str, count: int = 100) -> list[tuple[str, float]]:
        key = self.keys.prefix(queue) + "dead"
        (found,) = await self._repeat(self._side, [("ZREVRANGE", key, 0, count - 1, "WITHSCORES")])
        return [(id.decode(), float(at) / 1000) for id, at in zip(found[::2], found[1::2], strict=True)]

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        removed: int = await self._run("forget", [self.keys.prefix(queue)], *ids) if ids else 0
        return removed

    async def lock(self, name: str, token: str, ttl: int, *, keep: bool = False) -> Locked:
        key = self.keys.lock(name)
        return Locked(*await self._run("lock", [key], self.given_time(), token, ttl, int(keep), FENCE_KEPT))

    async def unlock(self, name: str, token: str) -> bool:
        return bool(await self._run("unlock", [self.keys.lock(name)], token, self.keys.lock_channel, name))

    async def pause(self, queue: str, paused: bool) -> None:
        await self._run("pause", [self.keys.prefix(queue)], int(paused))

    async def limit(self, queue: str, most: int | None) -> None:
        await self._run("limit", [self.keys.prefix(queue)], "" if most is None else most)

    async def queue_names(self) -> list[str]:
        (names,) = await self._repeat(self._side, [("SMEMBERS", self.keys.queues)])
        return sorted(name.decode() for name in names)

    async def own_name(self, proposed: str) -> str:
        """What this store is called, so that nobody takes another one for it: as was proposed first."""
        key = self.keys.large
        _, name = await self._repeat(self._side, [("SET", key, proposed, "NX"), ("GET", key)])
        return str(name, "ascii", "replace")

    async def publish(self, channel: str, payload: bytes) -> None:
        await self._repeat(self._side, [("PUBLISH", channel, payload)])

    async def beat(self, consumer: str, payload: bytes, ttl: float) -> None:
        commands: list[Command] = [
            ("SET", self.keys.consumer(consumer), payload, "PX", int(ttl * 1000)),
            ("PUBLISH", self.keys.consumer_channel, payload),
        ]
        await self._repeat(self._side, commands)

    async def consumers(self) -> list[bytes]:
        found: list[bytes] = []
        async for names in self._scan(self.keys.consumer("*"), 1000):
            if names:
                found += [beat for beat in await self._values(names) if beat is not None]
        return found

    async def subscription(self) -> RedisSubscription:
        made = RedisSubscription(
            self._maker(),
            where=self.where,
            # Whoever begins in a failover should not fail for it here either.
            patience=max(self.patience, self._patience_at_first()),
            clock=self._clock,
            on_closed=self._subscriptions.discard,
        )
        self._subscriptions.add(made)
        return made

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        await self._make_known(queue)
        flat = [part for tick in ticks for part in tick]
        answers: list[int] = await self._run(
            "tick",
            [self.keys.prefix(queue)],
            self.given_time(),
            self.keys.task_channel,
            self.always,
            *flat,
            link=self._main,
        )
        return answers

    async def last_ticks(self, queue: str, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        (found,) = await self._repeat(self._side, [("HMGET", self.keys.prefix(queue) + "ticks", *names)])
        return [int(at or 0) for at in found]

    async def change(self, verb: str, name: str, text: bytes = b"", *, most: int = 10_000) -> int:
        answer: int = await self._run(
            "schedule", [self.keys.schedules], self.given_time(), verb, name, text, most
        )
        return answer

    async def stored(self) -> tuple[int, dict[str, StoredSchedule]]:
        p = self.keys.schedules
        # The version first: a change that comes in between is then seen as one that is still to come.
        version, code, changed, since, paused = await self._repeat(
            self._side,
            [
                ("HGET", p + "meta", "version"),
                ("HGETALL", p + "code"),
                ("HGETALL", p + "changed"),
                ("HGETALL", p + "since"),
                ("SMEMBERS", p + "paused"),
            ],
        )
        by_code, by_change, from_when = table(code), table(changed), table(since)
        found = {
            name.decode(): StoredSchedule(
                by_change.get(name, by_code.get(name, b"")),
                name in by_code,
                name in by_change,
                int(at),
                name in paused,
            )
            for name, at in from_when.items()
            if name in by_code or name in by_change
        }
        return int(version or 0), found

    async def version(self) -> tuple[int, int]:
        key = self.keys.schedules + "meta"
        version, time = await self._repeat(self._side, [("HGET", key, "version"), ("TIME",)])
        return int(version or 0), self._ms(time)

    async def facts(self) -> dict[str, Any]:
        (reply,) = await self._repeat(self._side, [("INFO",)])
        info = dict(line.split(":", 1) for line in reply.decode().split("\r\n") if ":" in line)
        started = self._clock.monotonic()
        await self._repeat(self._side, [("PING",)])
        round_trip = self._clock.monotonic() - started
        return {
            "kind": info.get("server_name", "redis").capitalize(),
            "version": info.get("valkey_version") or info.get("redis_version", "?"),
            "where": self.where,
            "memory": info.get("used_memory_human", "?"),
            "round_trip": round_trip,
            "append_only": info.get("aof_enabled") == "1",
            "policy": info.get("maxmemory_policy", "?"),
            "now": await self.now() / 1000,
        }

    async def now(self) -> int:
        (time,) = await self._repeat(self._side, [("TIME",)])
        return self._ms(time)

    def _ms(self, time: Sequence[bytes]) -> int:
        return int(self.given_time() or int(time[0]) * 1000 + int(time[1]) // 1000)
