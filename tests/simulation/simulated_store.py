"""A real server behind a network that is none: the true scripts run, and everything between them and a program is
decided by chance.

A request travels to the server and its reply travels back. On a bad day either is late, gets lost with its
connection, or arrives when no caller waits for it any more. The server executes one command at a time. What it would
do between commands (block a client, push what is published) is done here, so that it happens in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis.exceptions as redis_errors
from history import History
from redis._parsers.base import BaseParser
from simulated_loop import Program, SimulatedLoop

from pq.broker import records
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.scripts import NAMES, script
from pq.broker.redis.server import Access, Server, SingleServer
from pq.model.task import Task

_NOTHING: Any = object()
_error = BaseParser.parse_error

WAKING = {
    "enqueue",
    "settle",
    "hand_back",
    "poke",
    "cancel",
    "reserve",
    "tick",
    "retry_dead",
    "displace",
    "replace",
}
TELLING = {"settle", "cancel", "displace", "unlock"}
"""Scripts that may publish though no process listens to the events of tasks."""
ERRORS = ("LOADING the server is loading its data", "BUSY a script is running", "READONLY a replica")


class Line:
    """A socket to the server, used by turns."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)
        self._reader = hiredis.Reader(
            protocolError=redis_errors.InvalidResponse, replyError=_error, notEnoughData=_NOTHING
        )

    def ask(self, *commands: Any) -> list[Any]:
        self._socket.sendall(b"".join(c if type(c) is bytes else hiredis.pack_command(c) for c in commands))
        return [self.next() for _ in commands]

    def next(self) -> Any:
        while (reply := self._reader.gets()) is _NOTHING:
            data = self._socket.recv(1 << 16)
            assert data, "the server is gone"
            self._reader.feed(data)
        return reply

    def close(self) -> None:
        self._socket.close()


class Days:
    """The faults, and how often they happen (0: never). All of it is turned off at the end."""

    def __init__(self, chance: random.Random) -> None:
        def sometimes(most: float) -> float:
            return chance.uniform(0.2, 1.0) * most if chance.random() < 0.5 else 0.0

        self.lost_request = sometimes(0.02)
        self.lost_reply = sometimes(0.03)
        self.late = sometimes(0.03)  # a request that takes seconds
        self.late_reply = sometimes(0.02)
        self.hole = sometimes(0.01)  # a connection that says nothing any more
        self.error = sometimes(0.01)
        self.lost_message = sometimes(0.3)
        self.longest = chance.choice((2.0, 8.0, 25.0))

    def end(self) -> None:
        for name in vars(self):
            setattr(self, name, 0.0)


class Connection:
    """One connection of a program, seen from both of its ends."""

    def __init__(self, store: SimulatedStore, program: Program, wire: SimulatedWire) -> None:
        self.store = store
        self.program = program
        self.wire: SimulatedWire | None = wire
        self.up: deque[tuple[bytes, int]] = deque()  # pending: a command, and how many are of its call
        self.up_until = 0.0
        self.down: deque[Any] = deque()
        self.down_until = 0.0
        self.inbox: deque[tuple[bytes, int]] = deque()
        self.replies: list[Any] = []
        self.blocked: list[bytes] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.channels: dict[str, None] = {}
        self.hole = False
        self.open = True  # at the server's end


class SimulatedWire:
    """In the place of `pq.broker.redis.wire.Wire`."""

    def __init__(self, on_push: Callable[[Any], None] | None) -> None:
        self.on_push = on_push
        self.lost: BaseException | None = None
        self._answer: asyncio.Future[list[Any]] | None = None
        self._connection: Connection | None = None

    @classmethod
    async def open(
        cls, make: Callable[[], Any], on_push: Callable[[Any], None] | None = None
    ) -> SimulatedWire:
        store, program = make()
        wire = cls(on_push)
        wire._connection = await store.connect(program, wire)
        return wire

    def call(self, packed: list[bytes]) -> asyncio.Future[list[Any]]:
        answer = self._answer = asyncio.get_running_loop().create_future()
        if self.lost is not None or self._connection is None:
            answer.set_exception(self.lost or redis_errors.ConnectionError("not connected"))
            return answer
        self._connection.store.send(self._connection, packed)
        return answer

    def send(self, *command: Any) -> None:
        if self._connection is not None and self.lost is None:
            self._connection.store.send(self._connection, [hiredis.pack_command(command)])

    async def close(self) -> None:
        if self.lost is None:
            self.lost = redis_errors.ConnectionError("closed")
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.store.client_closed(connection)

    # ------------------------------------------------------------------- called by the network
    def received(self, replies: Any) -> None:
        if self.on_push is not None:
            self.on_push(replies)
            return
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(replies)

    def lose(self, why: BaseException) -> None:
        if self.lost is None:
            self.lost = why
            if self.on_push is not None:
                self.on_push(why)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(why)


class SimulatedStore:
    """The server, its clock, and the way to it."""

    def __init__(self, path: str, loop: SimulatedLoop, chance: random.Random, history: History) -> None:
        self.loop = loop
        self.history = history
        self.days = Days(chance)
        self.calls = 0
        self.late_calls = 0
        self.on_call: Callable[[str], None] | None = None
        self._chance = chance
        self._line = Line(path)
        self._hub = Line(path)
        self._line.ask(
            ("FLUSHALL",), ("SCRIPT", "FLUSH"), *[("SCRIPT", "LOAD", script(n).source) for n in NAMES]
        )
        self._script = {script(name).digest: name for name in NAMES}
        self._clocked = {name for name in NAMES if b"clock(ARGV[1])" in script(name).source}
        self._connections: dict[Connection, None] = {}
        self._blocked: dict[Connection, None] = {}
        self._breaking: dict[Connection, None] = {}  # their program may not know it yet
        self._channels: dict[str, int] = {}
        self.up = True
        self.frozen = False
        self._cut: set[str] = set()
        self.ahead = 0.0
        self.ended: dict[str, bytes] = {}
        self.known: set[str] = set()

    def close(self) -> None:
        self._line.close()
        self._hub.close()

    def now(self) -> int:
        """The server's clock, ms."""
        return int((1_700_000_000.0 + self.loop.time() + self.ahead) * 1000)

    def look(self, *commands: Any) -> list[Any]:
        """Ask the server something beside all programs; at no time."""
        return self._line.ask(*commands)

    # --------------------------------------------------------------------------------- network
    def _latency(self, of_late: float) -> float:
        chance = self._chance
        if of_late and chance.random() < of_late:
            self.late_calls += 1
            return chance.uniform(0.05, self.days.longest)
        return chance.uniform(0.0001, 0.002)

    async def connect(self, program: Program, wire: SimulatedWire) -> Connection:
        at = self.loop.time() + self._latency(self.days.late)
        while self.loop.time() < at and (self.days.late or at < self.loop.time() + 0.5):
            await asyncio.sleep(min(0.5, at - self.loop.time()))
        while program.name in self._cut:
            await asyncio.sleep(0.5)  # until the caller has had enough
        if not self.up:
            raise redis_errors.ConnectionError("Connection refused")
        connection = Connection(self, program, wire)
        self._connections[connection] = None
        return connection

    def cut_off(self, name: str, off: bool) -> None:
        """A program cannot reach the server, nor the server the program; neither gets an error."""
        if off:
            self._cut.add(name)
        else:
            self._cut.discard(name)

    def send(self, connection: Connection, packed: list[bytes]) -> None:
        """A program writes commands."""
        days, chance = self.days, self._chance
        if days.hole and chance.random() < days.hole:
            connection.hole = True
        if days.lost_request and chance.random() < days.lost_request:
            self._break(connection, self._latency(days.late_reply))
            return
        for command in packed:
            connection.up.append((command, len(packed)))
        at = max(connection.up_until + 1e-7, self.loop.time() + self._latency(days.late))
        connection.up_until = at
        self._at(at, self._arrive, connection, len(packed))

    def _at(self, when: float, function: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        return self.loop.call_at(when, function, *args, context=self.loop.world.context)

    def _arrive(self, connection: Connection, count: int) -> None:
        if connection.program.name in self._cut:  # it is repeated by the network until it gets through
            self._at(self.loop.time() + 0.2, self._arrive, connection, count)
            return
        for _ in range(count):
            if connection.up:
                connection.inbox.append(connection.up.popleft())
        self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        if not connection.open or self.frozen or not self.up or connection.hole:
            return
        while connection.inbox and connection.blocked is None and connection.open:
            command, of = connection.inbox.popleft()
            reply = self._do(connection, command)
            if connection.blocked is not None:
                connection.inbox.appendleft((b"", of))  # its own place is kept for the reply
                return
            self._replied(connection, reply, of)

    def _replied(self, connection: Connection, reply: Any, of: int) -> None:
        if reply is _NOTHING:
            return
        if connection.wire is not None and connection.wire.on_push is not None:
            self._tell(connection, reply)
            return
        connection.replies.append(reply)
        if len(connection.replies) >= of:
            replies, connection.replies = connection.replies, []
            days = self.days
            if days.lost_reply and self._chance.random() < days.lost_reply:
                self._break(connection, self._latency(days.late_reply))
            else:
                self._tell(connection, replies)

    def _tell(self, connection: Connection, what: Any) -> None:
        connection.down.append(what)
        at = max(connection.down_until + 1e-7, self.loop.time() + self._latency(self.days.late_reply))
        connection.down_until = at
        self.loop.call_at(at, self._received, connection, context=connection.program.context)

    def _received(self, connection: Connection) -> None:
        """In the context of the program: a paused one gets it later, a dead one never."""
        if not connection.down:
            return
        what = connection.down.popleft()
        wire = connection.wire
        if wire is None or wire.lost is not None:
            return
        if connection.program.name in self._cut:
            connection.down.appendleft(what)
            self.loop.call_later(0.2, self._received, connection, context=connection.program.context)
            return
        if isinstance(what, _Lost):
            self._breaking.pop(connection, None)
            wire.lose(redis_errors.ConnectionError("the server closed the connection"))
        else:
            wire.received(what)

    def _break(self, connection: Connection, after: float = 0.0) -> None:
        """The connection ends, and the program hears of it."""
        self._close_server_end(connection)
        connection.down.append(_Lost())
        at = max(connection.down_until + 1e-7, self.loop.time() + after)
        connection.down_until = at
        self._breaking[connection] = None
        self.loop.call_at(at, self._received, connection, context=connection.program.context)

    def client_closed(self, connection: Connection) -> None:
        """The program closes its end; data that it has sent arrives nevertheless, and the news behind it."""
        connection.wire = None
        at = max(connection.up_until + 1e-7, self.loop.time() + self._latency(self.days.late))
        connection.up_until = at
        self._at(at, self._news_of_end, connection)

    def _news_of_end(self, connection: Connection) -> None:
        if self.frozen or connection.program.name in self._cut:
            self._at(self.loop.time() + 0.2, self._news_of_end, connection)
        else:
            self._close_server_end(connection)

    def _close_server_end(self, connection: Connection) -> None:
        connection.open = False
        self._connections.pop(connection, None)
        self._blocked.pop(connection, None)
        if connection.timer is not None:
            connection.timer.cancel()
        connection.inbox.clear()
        for channel in connection.channels:
            self._leave(channel)
        connection.channels.clear()

    def gone(self, program: Program) -> None:
        """A program was killed: its sockets close by themselves."""
        for connection in list(self._connections):
            if connection.program is program:
                self.client_closed(connection)

    def cut_all(self, program: Program | None = None) -> None:
        """Each connection ends at once."""
        for connection in list(self._connections):
            if program is None or connection.program is program:
                self._break(connection)

    def heal(self) -> None:
        """End all faults of open connections, and deliver all that is late on them."""
        self.days.end()
        self._cut.clear()
        soon = self.loop.time() + 3.0
        for connection in list(self._connections):
            if connection.hole or connection.up_until > soon or connection.down_until > soon:
                connection.down.clear()
                connection.down_until = 0.0
                self._break(connection)
        for connection in list(self._breaking):
            if connection.down_until > soon or connection.hole:
                connection.down_until = self.loop.time()
                connection.down.appendleft(_Lost())
                self._breaking.pop(connection)
                self.loop.call_soon(self._received, connection, context=connection.program.context)

    # ---------------------------------------------------------------------------------- server
    def stop(self) -> None:
        """Stop the server; it keeps all data that it acknowledged."""
        self.up = False
        self.cut_all()
        self._line.ask(("SCRIPT", "FLUSH"))

    def start(self) -> None:
        self.up = True

    def freeze(self) -> None:
        """It stands still: it lives, and does not answer."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        waiting = list(self._connections)
        self._chance.shuffle(waiting)
        for connection in waiting:
            self._serve(connection)

    def flush_scripts(self) -> None:
        self._line.ask(("SCRIPT", "FLUSH"))

    def _do(self, connection: Connection, packed: bytes) -> Any:
        """One command; `_NOTHING` where no reply follows."""
        command = _parse(packed)
        word = command[0].upper()
        self.calls += 1
        days = self.days
        if days.error and self._chance.random() < days.error:
            return _error(self._chance.choice(ERRORS))
        if word == b"EVALSHA":
            return self._script_call(command)
        if word == b"BLPOP":
            return self._block(connection, command)
        if word == b"SUBSCRIBE":
            return self._subscribe(connection, command)
        if word == b"PING" and connection.wire is not None and connection.wire.on_push is not None:
            return [b"pong", b"", b""]
        if word == b"PUBLISH":
            return self._publish(command[1].decode(), command[2])
        if word == b"TIME":
            now = self.now()
            return [b"%d" % (now // 1000), b"%d" % (now % 1000 * 1000)]
        if word == b"SET" and len(command) > 4 and int(command[4]) < 1000:
            command = [b"DEL", command[1]]  # it would be gone in no time, and that is not ours to say when
        (reply,) = self._line.ask(tuple(command))
        if word == b"SCAN" and not isinstance(reply, Exception):
            reply[1].sort()
        return reply

    def _script_call(self, command: list[bytes]) -> Any:
        name = self._script.get(command[1], "")
        keys = int(command[2])
        args = command[3 + keys :]
        if name in self._clocked and args and args[0] == b"":
            command[3 + keys] = b"%d" % self.now()
        (reply,) = self._line.ask(tuple(command))
        if isinstance(reply, Exception):
            return reply
        if name in ("enqueue", "reserve", "settle", "cancel", "displace", "tick", "retry_dead"):
            self._watch(name, [key.decode() for key in command[3 : 3 + keys]], args, reply)
        if name in TELLING or "pq:task" in self._channels:
            self._hear()
        if name in WAKING and self._blocked:
            self._wake()
        if self.on_call is not None:
            self.on_call(name)
        return reply

    # -------------------------------------------------------------------- blocking, publishing
    def _block(self, connection: Connection, command: list[bytes]) -> Any:
        keys, seconds = command[1:-1], float(command[-1])
        for key, there in zip(keys, self._line.ask(*[("LLEN", key) for key in keys]), strict=True):
            if there:
                return [key, self._line.ask(("LPOP", key))[0]]
        connection.blocked = keys
        self._blocked[connection] = None
        connection.timer = self._at(self.loop.time() + seconds, self._unblock, connection, None)
        return _NOTHING

    def _unblock(self, connection: Connection, reply: Any) -> None:
        if self.frozen and reply is None:
            connection.timer = self._at(self.loop.time() + 0.2, self._unblock, connection, None)
            return
        self._blocked.pop(connection, None)
        connection.blocked = None
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        if not connection.inbox:
            return  # it was cut since it got its token, which is lost then
        _, of = connection.inbox.popleft()
        self._replied(connection, reply, of)
        self._serve(connection)

    def _wake(self) -> None:
        keys = list(dict.fromkeys(key for connection in self._blocked for key in connection.blocked or ()))
        there = dict(zip(keys, self._line.ask(*[("LLEN", key) for key in keys]), strict=True))
        for key in keys:
            if there[key]:
                for connection in self._blocked:
                    if key in (connection.blocked or ()):
                        self._line.ask(("LPOP", key))
                        # Not before the current command has been answered.
                        self._blocked.pop(connection)
                        self._at(self.loop.time(), self._unblock, connection, [key, b"1"])
                        break

    def _subscribe(self, connection: Connection, command: list[bytes]) -> Any:
        for raw in command[1:]:
            channel = raw.decode()
            if channel not in connection.channels:
                connection.channels[channel] = None
                count = self._channels[channel] = self._channels.get(channel, 0) + 1
                if count == 1:
                    self._hub_asked(("SUBSCRIBE", channel), b"subscribe")
            self._tell(connection, [b"subscribe", raw, len(connection.channels)])
        return _NOTHING

    def _leave(self, channel: str) -> None:
        self._channels[channel] -= 1
        if not self._channels[channel]:
            del self._channels[channel]
            self._hub_asked(("UNSUBSCRIBE", channel), b"unsubscribe")

    def _hear(self) -> None:
        if not self._channels:
            return
        self._hub_asked(("PING",), b"pong")

    def _hub_asked(self, command: tuple[str, ...], answer: bytes) -> None:
        """Messages that were published before the answer come before it."""
        (reply,) = self._hub.ask(command)
        while reply[0] != answer:
            self._publish(reply[1].decode(), reply[2])
            reply = self._hub.next()

    def _publish(self, channel: str, payload: bytes) -> int:
        count = 0
        if channel in self._channels:
            for connection in list(self._connections):
                if channel in connection.channels and not connection.hole:
                    count += 1
                    if self.days.lost_message and self._chance.random() < self.days.lost_message:
                        continue
                    self._tell(connection, [b"message", channel.encode(), payload])
        return count

    # --------------------------------------------------------------------------- what is seen
    def _note(self, op: str, **facts: Any) -> None:
        self.history.note(self.loop.time(), "store", op, "info", **facts)

    def _watch(self, name: str, keys: list[str], args: list[bytes], reply: Any) -> None:
        """The effects of the server: by its answers, and by a look at the records themselves."""
        ids: list[bytes] = []
        if name == "reserve":
            lease, batch = args[1].decode(), int(args[2])
            for answer in reply:
                for at in range(6, len(answer), 2):
                    self._note("handout", id=answer[at].decode(), lease=lease, batch=batch)
            return
        prefix = keys[0]
        queue = prefix.partition("{")[2].partition("}")[0]
        if name == "enqueue":
            plain = int(args[3])
            known = {item.split(b" ")[0] for item in reply}
            items = [(args[4 + 2 * n], args[5 + 2 * n], args[5 + 2 * n][:1] != b"g", 0) for n in range(plain)]
            rest = args[4 + 2 * plain :]
            items += [
                (rest[n], rest[n + 1], not rest[n + 2] and rest[n + 1][:1] != b"g", int(rest[n + 3]))
                for n in range(0, len(rest), 4)
            ]
            for id, _, is_plain, priority in items:
                if id not in known:
                    self._stored(id.decode(), queue, priority, is_plain)
            ids = [item[0] for item in items]
        elif name == "tick":
            for n, answer in enumerate(reply):
                schedule, at, id, _ = args[3 + 4 * n : 7 + 4 * n]
                if answer == 1:
                    self._note("tick", schedule=schedule.decode(), at=int(at))
                    self._stored(id.decode(), queue, 0, False)
        elif name == "settle":
            acks = int(args[6])
            members = [args[7 + 3 * n] for n in range(acks)] + args[7 + 3 * acks + 1 :: 5]
            ids = [member.rpartition(b":")[0] for member in members]
        elif name == "cancel":
            ids = args[5::3]
        elif name == "displace":
            ids = [args[4], args[7]]
            if reply:
                self._stored(args[7].decode(), queue, int(args[10]), False)
        elif name == "retry_dead":
            ids = [args[2]]
        self._look_at(prefix, ids)

    def _stored(self, id: str, queue: str, priority: int, plain: bool) -> None:
        self.known.add(id)
        self._note("stored", id=id, queue=queue, priority=priority, plain=plain)

    def _look_at(self, prefix: str, ids: list[bytes]) -> None:
        if not ids:
            return
        (found,) = self._line.ask(("MGET", *[f"{prefix}task:{id.decode()}" for id in ids]))
        for raw, record in zip(ids, found, strict=True):
            id = raw.decode()
            before = self.ended.get(id)
            if record is None or record == before:
                continue
            if record[:1] == b"d":
                self.ended[id] = record
                header = record.partition(b"\n")[0].decode()
                task = Task.from_wire(records.message(record))
                value = task.result if task.status_string == "SUCCESS" else None
                self._note(
                    "end", id=id, status=task.status_string, token=header.partition(" ")[2], value=value
                )
            elif before is not None:
                self._note("revived", id=id)


class _Lost:
    """In the place of a reply: the connection is gone."""


def _parse(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    command: list[bytes] = reader.gets()
    return command


class SimulatedBroker(RedisBroker):
    """The real one, but for the place where it gets its connections from."""

    def __init__(self, store: SimulatedStore, program: Program, **options: Any) -> None:
        self._place = (store, program)
        super().__init__("redis://simulated", clock=program, **options)

    def make_server(self, access: Access) -> Server:
        return SimulatedServer(access, self._place)


class SimulatedServer(SingleServer):
    """One server whose connections lead into the simulation."""

    def __init__(self, access: Access, place: tuple[SimulatedStore, Program]) -> None:
        super().__init__(access)
        self._place = place

    def connection(self) -> Any:
        return self._place
