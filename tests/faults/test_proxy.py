"""Every script, cut at every point of its call, and answered with every error of a store: nothing is done twice.

What a broken call leaves behind, after it was repeated by itself, is what an unbroken one leaves, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from proxy import AFTER, BEFORE, HOLE, INSIDE, Proxy, commands_in
from stores import Hand, dump_server

from pq.broker import records
from pq.broker.contract.values import CHANGE, Entry, Exchange, ReserveCall, Settlement, Streamed, Tick
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.scripts import NAMES
from pq.errors import QueueFull, StoreError, StoreRefused
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY

Q = "q"
NOW = 1_700_000_000_000


def live(id: str, limits_text: str = "", token: str = "", priority: int = 0) -> bytes:
    return records.live_header(priority, token, limits_text) + id.encode()


def finished(id: str, token: str = "cancel:0") -> bytes:
    return records.finished_header(1, token) + id.encode()


async def prepare(broker: RedisBroker) -> None:
    """Something of everything: ready, held, delayed, parked, dead, cancelled, locked, scheduled."""
    await broker.work.open_lease("L", [Q], 60_000)
    await broker.work.open_lease("old", [Q], 60_000)
    await broker.work.enqueue(Q, [Entry(f"h{n}", live(f"h{n}")) for n in range(5)])
    await broker.work.enqueue(Q, [Entry("s", live("s", "c1:g")), Entry("t", live("t", "c1:g"))])
    await broker.work.exchange(ReserveCall("L", [Q], 9, 1), {})
    await broker.work.enqueue(Q, [Entry("o", live("o"))])
    await broker.work.exchange(ReserveCall("old", [Q], 1, 1), {})
    await broker.work.enqueue(
        Q, [Entry("a", live("a")), Entry("b", live("b")), Entry("p", live("p", "", "", 3), None, 3)]
    )
    await broker.work.enqueue(Q, [Entry("d", live("d"), 5000), Entry("due", live("due"), 1)])
    await broker.work.enqueue(
        Q, [Entry("u", live("u", "ul:k"), None, 0, True), Entry("e", live("e", "ur:j"), 900, 0, True)]
    )
    await broker.work.exchange(ReserveCall("L"), {Q: [Settlement(FAIL, "h0", 1, finished("h0", "L:1"))]})
    await broker.channels.lock("mine", "me", 60_000)
    await broker.schedules.change(CHANGE, "s", b"60\nx")


class Call(NamedTuple):
    """One use of a verb, and the script that it is about."""

    script: str
    make: Callable[[RedisBroker], Awaitable[Any]]


def settlements() -> dict[str, list[Settlement]]:
    return {
        Q: [
            Settlement(ACK, "h1", 1, finished("h1", "L:1")),
            Settlement(RETRY, "h2", 1, live("h2", "", "L:1"), "", 70),
            Settlement(RELEASE, "h3", 1),
            Settlement(CRASH, "h4", 1),
            Settlement(ACK, "s", 1, finished("s", "L:1"), "", 0, True),
        ]
    }


CALLS = {
    "enqueue": Call(
        "enqueue",
        lambda b: b.work.enqueue(Q, [Entry("n", live("n")), Entry("m", live("m", "", "", 2), 9, 2)]),
    ),
    "enqueue a taken key": Call(
        "enqueue", lambda b: b.work.enqueue(Q, [Entry("v", live("v", "uf:k"), None, 0, True)])
    ),
    "open_lease": Call("open_lease", lambda b: b.work.open_lease("new", [Q], 60_000)),
    "reserve": Call("reserve", lambda b: b.work.exchange(ReserveCall("L", [Q], 3, 2), {})),
    "reserve and reclaim": Call(
        "reserve", lambda b: b.work.exchange(ReserveCall("L", [Q], 30, 2, stable_for=0, idle=True), {})
    ),
    "settle": Call("settle", lambda b: b.work.exchange(ReserveCall("L"), settlements())),
    "settle and reserve": Call(
        "settle", lambda b: b.work.exchange(ReserveCall("L", [Q], 4, 2), settlements())
    ),
    "renew": Call("renew", lambda b: b.work.renew("L", [Q], 90_000)),
    "hand_back": Call("hand_back", lambda b: b.work.hand_back("L", [Q], crashed=True)),
    "cancel": Call(
        "cancel", lambda b: b.work.cancel(Q, [(id, finished(id), "") for id in ("a", "h1", "t", "d", "x")])
    ),
    "retry_dead": Call("retry_dead", lambda b: b.work.retry_dead(Q, Entry("h0", live("h0")))),
    "replace": Call("replace", lambda b: b.work.replace(Q, "e", live("e", "ur:j") + b"!", 700)),
    "displace": Call(
        "displace",
        lambda b: b.work.displace(Q, ("u", finished("u"), ""), Entry("w", live("w", "ul:k"), None, 0, True)),
    ),
    "pause": Call("pause", lambda b: b.work.pause(Q, True)),
    "inspect": Call("inspect", lambda b: b.looks.state(Q)),
    "poke": Call("poke", lambda b: b.work.poke(Q)),
    "limit": Call("limit", lambda b: b.work.limit(Q, 5)),
    "lock": Call("lock", lambda b: b.channels.lock("other", "me", 60_000)),
    "lock of another holder": Call("lock", lambda b: b.channels.lock("mine", "you", 60_000)),
    "unlock": Call("unlock", lambda b: b.channels.unlock("mine", "me")),
    "forget": Call("forget", lambda b: b.work.forget(Q, ["h0", "a"])),
    "stream": Call(
        "stream", lambda b: b.channels.keep_parts("L", [Streamed(Q, "h1", 1, 1, 2, [b"one", b"two"])], 60_000)
    ),
    "tick": Call("tick", lambda b: b.work.tick(Q, [Tick("s", NOW - 5, "tick", live("tick"))])),
    "schedule": Call("schedule", lambda b: b.schedules.change("pause", "s")),
}
ANSWERS_DIFFER = {"enqueue", "hand_back", "retry_dead", "unlock", "forget", "tick", "schedule"}
"""A repeat reports that it was done already: a known id, nothing more to release, no lock any more."""

PASSING = (
    "-LOADING the server is loading its data",
    "-READONLY You can't write against a read only replica.",
    "-BUSY a script is running",
    "-MASTERDOWN Link with MASTER is down",
    "-TRYAGAIN Multiple keys request during rehashing of slot",
    "-CLUSTERDOWN The cluster is down",
    "-NOSCRIPT No matching script.",
    "-MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
    "-NOREPLICAS Not enough good replicas to write.",
)
REFUSING = {
    "-OOM command not allowed when used memory > 'maxmemory'.": QueueFull,
    "-NOPERM this user has no permissions": StoreRefused,
    "-WRONGTYPE Operation against a key holding the wrong kind of value": StoreError,
}


class Stage(NamedTuple):
    """A prepared store, a broker behind the proxy, and one that goes straight to it."""

    proxy: Proxy
    broker: RedisBroker
    direct: RedisBroker
    client: Any

    async def after(self, call: Call, fault: str | None, at: int = 0) -> tuple[Any, Any]:
        """The answer of the call, and its effect, with this fault in it."""
        self.client.flushall()
        hand = Hand(NOW)
        self.broker.time_override = self.direct.time_override = hand
        await prepare(self.direct)
        hand.advance(2)
        for link in self.broker.calls.links[:2]:
            await link.reset()
        if fault is not None:
            self.proxy.arm(fault, at)
        answer = await call.make(self.broker)
        queues, strangers = dump_server(self.client)
        assert not strangers
        return plain(answer), queues


def plain(answer: Any) -> Any:
    if isinstance(answer, Exchange):
        return (sorted(answer.tasks), answer.refused, answer.lost_lease, answer.vanished)
    return answer


@pytest.fixture
async def stage(valkey: Any, tmp_path: Path) -> AsyncIterator[Stage]:
    valkey.check = False  # some calls leave what another would take away
    proxy = Proxy(tmp_path / "p", Path(valkey.url.removeprefix("unix://")))
    await proxy.start()
    broker = RedisBroker(f"unix://{proxy.path}", patience=10)
    direct = RedisBroker(valkey.url)
    await broker.open()
    yield Stage(proxy, broker, direct, valkey.client)
    await broker.close()
    await direct.close()
    await proxy.stop()


def test_every_script_is_called() -> None:
    """None is left out."""
    assert {call.script for call in CALLS.values()} == set(NAMES)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_is_cut(stage: Stage, name: str) -> None:
    """Before it arrives, after it was applied, and inside of the reply: it is repeated, and done once."""
    call = CALLS[name]
    answer, left = await stage.after(call, None)
    for fault, at in ((BEFORE, 0), (AFTER, 0), (INSIDE, 1), (INSIDE, 3), (INSIDE, 7), (INSIDE, 10_000)):
        met = stage.proxy.met
        again, found = await stage.after(call, fault, at)
        assert stage.proxy.met == met + 1, "the fault was met"
        assert found == left, f"{fault} {at}"
        if name not in ANSWERS_DIFFER or fault == BEFORE:
            assert again == answer, f"{fault} {at}"


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_is_answered_with_not_now(stage: Stage, name: str) -> None:
    """The server loads, is read-only, is busy, knows no script: the call is made again, and done once."""
    call = CALLS[name]
    answer, left = await stage.after(call, None)
    for error in PASSING:
        met = stage.proxy.met
        again, found = await stage.after(call, error)
        assert stage.proxy.met == met + 1
        assert (again, found) == (answer, left), error


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_is_refused(stage: Stage, name: str) -> None:
    """No room, no right, a wrong type: an error of ours, at once, and the next call is served."""
    call = CALLS[name]
    _, left = await stage.after(call, None)
    for error, kind in REFUSING.items():
        with pytest.raises(kind):
            await stage.after(call, error)
        await call.make(stage.broker)
        assert dump_server(stage.client)[0] == left, error


async def test_a_server_that_does_not_answer_is_left(stage: Stage) -> None:
    """A black hole: the call's own time-out ends it, and another connection does it."""
    call = CALLS["cancel"]
    answer, left = await stage.after(call, None)
    stage.broker.calls.links.side._timeout = 0.2
    again, found = await stage.after(call, HOLE)
    assert (again, found) == (answer, left)


def test_commands_are_counted() -> None:
    """Two commands, one of them with a line end in it."""
    assert commands_in(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n") == 2
