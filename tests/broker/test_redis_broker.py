"""Failures that only a server causes: it is full, restarts, forgets scripts, refuses, hangs up, loses replies."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import bulk, fake_server, ok, proxy
from listening import listen
from redis import exceptions as redis_errors
from stores import Hand, Server, token_comes

from pq.broker import records
from pq.broker.contract.values import Entry, Message, ReserveCall, Settlement
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.failures import ScriptMissing, translate
from pq.broker.redis.link import Link
from pq.errors import QueueFull, StoreError, StoreRefused, StoreUnavailable
from pq.model.operations import ACK, FAIL, RELEASE, RETRY

Q = "q"


@pytest.fixture(params=["valkey", "redis62"])
def store(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def broker(store: Any) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(store.url, patience=10)
    broker.time_override = Hand()
    yield broker
    await broker.close()


def entries(*ids: str) -> list[Entry]:
    return [Entry(id, b"q\n" + id.encode()) for id in ids]


def ended(id: str, batch: int, op: str = ACK, lease: str = "L") -> Settlement:
    record = (
        records.finished_header(1, f"{lease}:{batch}")
        if op != RETRY
        else records.live_header(None, f"{lease}:{batch}")
    )
    return Settlement(op, id, batch, record)


async def until(come_true: Any) -> None:
    async with asyncio.timeout(10):
        while not come_true():
            await asyncio.sleep(0.002)


# ------------------------------------------------------------------------------------------ scripts
async def test_scripts_forgotten_between_all_calls(store: Any, broker: RedisBroker) -> None:
    """SCRIPT FLUSH, a restart or a failover costs a round trip, nothing else."""

    async def flushed(call: Any) -> Any:
        store.client.script_flush()
        return await call

    assert (await flushed(broker.work.enqueue(Q, entries("a", "b", "c")))).known == set()
    await flushed(broker.work.open_lease("L", [Q], 30_000))
    answer = await flushed(broker.work.exchange(ReserveCall("L", [Q], 3, 1), {}))
    assert [task.id for task in answer.tasks] == ["a", "b", "c"]
    both = {Q: [ended("a", 1), ended("b", 1, FAIL)]}
    assert (await flushed(broker.work.exchange(ReserveCall("L", [Q], 3, 2), both))).refused == []
    assert (await flushed(broker.work.renew("L", [Q], 30_000))).alive
    assert await flushed(broker.work.retry_dead(Q, entries("b")[0]))
    assert await flushed(broker.work.cancel(Q, [("b", b"d3 x\n", "")])) == ["cancelled"]
    await flushed(broker.work.pause(Q, True))
    assert (await flushed(broker.looks.state(Q))).paused
    assert await flushed(broker.work.hand_back("L", [Q], crashed=False)) == 1


class Steps:
    """A clock on which each look takes a tenth of a second, and chance that makes no pause long."""

    def __init__(self) -> None:
        self._looks = 0

    def time(self) -> float:
        return self._looks / 10

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks / 10

    def random(self) -> float:
        return 0.01


async def test_a_store_that_never_keeps_the_scripts(tmp_path: Path) -> None:
    """Several servers behind one address, or a store that is flushed again and again: patience ends, with the reason."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SCRIPT":
            return bulk(hashlib.sha1(command[2]).hexdigest().encode())
        return b"-NOSCRIPT No matching script. Please use EVAL.\r\n" if command[0] == b"EVALSHA" else ok()

    async with fake_server(tmp_path / "f", answer) as fake:
        broker = RedisBroker(f"unix://{tmp_path / 'f'}", patience=1.0, clock=Steps())
        with pytest.raises(StoreUnavailable, match="does not keep our scripts: it took them") as caught:
            async with asyncio.timeout(30):
                await broker.work.poke(Q)
        assert "SCRIPT FLUSH" in (caught.value.hint or "")
        asked = sum(command[0] == b"EVALSHA" for command in fake.heard)
        assert 5 < asked < 20, "it was tried again, and not forever"
        assert fake.connections > asked - 3, (
            "each time from the second on by a new connection, which may lead elsewhere"
        )
        await broker.close()


async def test_a_store_that_forgets_the_scripts_some_times(tmp_path: Path) -> None:
    """It knows them in the end: the call succeeds."""
    forgets = 4

    def answer(command: list[bytes]) -> bytes:
        nonlocal forgets
        if command[0] == b"SCRIPT":
            return bulk(hashlib.sha1(command[2]).hexdigest().encode())
        if command[0] != b"EVALSHA":
            return ok()
        forgets -= 1
        return b"-NOSCRIPT No matching script. Please use EVAL.\r\n" if forgets >= 0 else b":1\r\n"

    async with fake_server(tmp_path / "f", answer) as fake:
        broker = RedisBroker(f"unix://{tmp_path / 'f'}", patience=60.0)
        async with asyncio.timeout(60):
            await broker.work.poke(Q)
        assert sum(command[0] == b"EVALSHA" for command in fake.heard) == 5
        await broker.close()


async def test_a_user_without_the_right_to_load_scripts_is_refused(store: Any) -> None:
    """The error is raised; the call is not repeated forever."""
    store.client.script_flush()
    store.client.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-script")
    broker = RedisBroker(store.url.replace("unix://", "unix://poor:secret@"), patience=10)
    try:
        with pytest.raises(StoreRefused, match="NOPERM"):
            async with asyncio.timeout(5):
                await broker.work.enqueue(Q, entries("a"))
    finally:
        await broker.close()
        store.client.execute_command("ACL", "DELUSER", "poor")


# --------------------------------------------------------------------------------------- wake token
async def test_there_is_never_a_second_wake_token(store: Any, broker: RedisBroker) -> None:
    """Any number of tasks that are queued, released or resumed wakes one worker, which wakes the next."""
    for n in range(5):
        await broker.work.enqueue(Q, entries(f"a{n}", f"b{n}"))
        assert store.client.llen("pq:{q}:wake") == 1
    for _ in range(2):
        await broker.work.pause(Q, False)
    await broker.work.open_lease("L", [Q], 30_000)
    await broker.work.exchange(ReserveCall("L", [Q], 3, 1), {})
    await broker.work.hand_back("L", [Q], crashed=False)
    assert store.client.llen("pq:{q}:wake") == 1


async def test_no_token_is_left_where_nothing_is(store: Any, broker: RedisBroker) -> None:
    """The worker that takes the last task takes the token too, and no other worker wakes for nothing."""
    await broker.work.enqueue(Q, entries("a"))
    await broker.work.open_lease("L", [Q], 30_000)
    await broker.work.exchange(ReserveCall("L", [Q], 3, 1), {})
    assert store.client.llen("pq:{q}:wake") == 0


async def test_a_reservation_whose_connection_breaks_is_repeated_without_waiting(
    store: Any, broker: RedisBroker
) -> None:
    """The token may be gone with the connection: to wait again would be to sleep beside ready work."""
    await broker.work.open_lease("L", [Q], 30_000)
    waiting = asyncio.ensure_future(broker.work.exchange(ReserveCall("L", [Q], 5, 1, block=30), {}))
    await until(lambda: any(c["cmd"] == "blpop" for c in store.client.client_list()))
    for client in store.client.client_list():
        if client["cmd"] == "blpop":
            store.client.execute_command("CLIENT", "KILL", "ID", client["id"])
    async with asyncio.timeout(5):
        assert (await waiting).tasks == []


async def test_a_cancelled_wait_leaves_a_clean_connection(store: Any, broker: RedisBroker) -> None:
    """A worker that has something better to do stops waiting; its next wait is not answered by the old one."""
    for _ in range(3):
        waiting = asyncio.ensure_future(token_comes(broker, [Q], 30))
        await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not await token_comes(broker, [Q], 0.02)
    await broker.work.enqueue(Q, entries("a"))
    assert await token_comes(broker, [Q], 5)


# --------------------------------------------------------------------------------------------- full
async def test_a_full_store_takes_no_task_and_is_drained_all_the_same(
    store: Any, broker: RedisBroker
) -> None:
    """Queueing is refused whole; everything by which a store gets emptier goes on."""
    await broker.work.enqueue(Q, entries(*"abcdefg"))
    await broker.work.enqueue(Q, [Entry("later", b"q\n", 5000), Entry("high", b"q5\n", None, 5)])
    await broker.work.open_lease("old", [Q], 1000)
    await broker.work.exchange(ReserveCall("old", [Q], 2, 1), {})
    store.client.config_set("maxmemory", "100kb")
    try:
        with pytest.raises(QueueFull, match="full"):
            await broker.work.enqueue(Q, entries("x", "y"))
        with pytest.raises(QueueFull):
            await broker.work.enqueue("a.new.queue", entries("x"))
        assert await broker.looks.records(Q, ["x", "y"]) == [None, None]
        assert (await broker.looks.state(Q)).waiting == 7

        await broker.work.open_lease("L", [Q], 30_000)
        assert (await broker.work.renew("L", [Q], 30_000)).alive
        broker.time_override.advance(2000)  # type: ignore[union-attr]
        answer = await broker.work.exchange(ReserveCall("L", [Q], 5, 1, stable_for=0), {})
        assert [task.id for task in answer.tasks] == ["high", "a", "b", "c", "d"]
        assert (await broker.work.cancel(Q, [("later", b"d3 x\n", ""), ("d", b"d3 x\n", ""), ("e", b"d3 x\n", "")])) == [
            "cancelled", "cancelling", "cancelled",
        ]  # fmt: skip
        some = [ended("high", 1), ended("a", 1, FAIL), ended("b", 1, RETRY), ended("c", 1, RELEASE)]
        assert (await broker.work.exchange(ReserveCall("L", [Q], 1, 2), {Q: some})).refused == []
        assert await broker.work.retry_dead(Q, Entry("a", b"q\n"))
        await broker.work.pause(Q, True)
        await broker.work.pause(Q, False)
        await broker.work.poke(Q)
        await broker.work.poke("empty")
        await broker.calls.run_script("poke", broker.keys.prefix(Q), "wait.1", 60_000)
        assert await broker.work.hand_back("L", [Q], crashed=True) == 2
        assert (await broker.looks.state(Q)).waiting == 6
    finally:
        store.client.config_set("maxmemory", "0")
        store.client.delete("pq:{empty}:wake")
    assert (await broker.work.enqueue(Q, entries("x", "y"))).known == set()


# ------------------------------------------------------------------------------------- subscription
async def test_a_subscription_comes_back_and_says_that_it_was_away(store: Any, broker: RedisBroker) -> None:
    """After a break an empty message shows that events may have been missed; then the subscription goes on."""
    subscription, listening, heard = await listen(broker, "one", "two")
    for n in range(3):
        heard.clear()
        store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: heard)
        assert heard == [Message("", b"")]
        # The subscription was confirmed before the call returned: no message that is sent from here on is missed.
        store.client.publish("two", f"message {n}")
        await until(lambda: len(heard) == 2)
        assert heard[1] == Message("two", f"message {n}".encode())
    await subscription.close()
    async with asyncio.timeout(5):
        await listening


async def test_subscribing_while_the_connection_is_gone(
    store: Any, broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that is added during a break is heard once `subscribe` has returned."""
    monkeypatch.setattr("pq.broker.redis.backoff.LONGEST", 0.1)
    subscription, listening, heard = await listen(broker, "one")
    for n in range(10):
        store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        async with asyncio.timeout(10):
            await subscription.subscribe(f"channel{n}")
    await until(lambda: Message("", b"") in heard)
    store.client.publish("channel9", "hello")
    await until(lambda: Message("channel9", b"hello") in heard)
    await subscription.close()
    await listening


# --------------------------------------------------------------------------------------------- link
def link_to(broker: RedisBroker, timeout: float = 10.0) -> Link:
    return Link(broker.server.maker(), where="here", timeout=timeout)


async def test_a_cancelled_call_never_gives_its_reply_to_the_next(store: Any, broker: RedisBroker) -> None:
    """Calls are cancelled at random moments; every one that ends has its own reply."""
    chance = random.Random(7)
    link = link_to(broker)
    answered = 0

    async def ask(n: int) -> None:
        nonlocal answered
        replies = await link.call([("ECHO", f"{n}.0"), ("ECHO", f"{n}.1")])
        assert replies == [f"{n}.0".encode(), f"{n}.1".encode()]
        answered += 1

    for n in range(0, 300, 3):
        asking = [asyncio.ensure_future(ask(n + i)) for i in range(3)]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        chance.choice(asking).cancel()
        for end in await asyncio.gather(*asking, return_exceptions=True):
            assert end is None or isinstance(end, asyncio.CancelledError), end
    assert answered >= 200
    await link.close()
    await link.close()


async def test_a_call_that_takes_too_long_ends_and_drops_its_connection(
    store: Any, broker: RedisBroker
) -> None:
    """The late reply is never read."""
    link = link_to(broker, timeout=0.05)
    assert await link.call([("PING",)]) == [b"PONG"]
    since = link.connected_since
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await link.call([("BLPOP", "nothing", 5)])
    assert link.connected_since is None
    assert await link.call([("ECHO", "mine")]) == [b"mine"]
    assert since is not None
    assert link.connected_since is not None
    assert link.connected_since > since
    await link.close()


async def test_an_error_reply_is_a_value_and_keeps_the_connection(store: Any, broker: RedisBroker) -> None:
    """One command's error is its own; the others have their replies."""
    link = link_to(broker)
    first, error, last = await link.call([("ECHO", 1), ("LPUSH", "only.key"), ("ECHO", 2)])
    assert (first, last) == (b"1", b"2")
    assert isinstance(error, redis_errors.ResponseError)
    since = link.connected_since
    await link.call([("PING",)])
    assert link.connected_since == since
    await link.close()


async def test_closing_ends_a_call_under_way(store: Any, broker: RedisBroker) -> None:
    """No call hangs on a connection that was closed under it."""
    link = link_to(broker)
    calling = asyncio.ensure_future(link.call([("BLPOP", "nothing", 30)]))
    await until(lambda: any(c["cmd"] == "blpop" for c in store.client.client_list()))
    await link.close()
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(5):
            await calling


# ----------------------------------------------------------------------------------- lost replies
async def test_lost_replies_do_nothing_twice(store: Any, tmp_path: Path) -> None:
    """Every call is applied and its reply lost, again and again: each task is run and settled once."""
    path = tmp_path / "p"
    async with proxy(path, store.url.removeprefix("unix://")) as wire:
        broker = RedisBroker(f"unix://{path}", patience=10)
        await broker.open()
        await broker.work.open_lease("L", [Q], 30_000)
        await broker.work.enqueue(Q, entries("first"))

        async def lossy(call: Any) -> Any:
            wire.lose = 2
            answer = await call
            assert wire.lose == 0
            return answer

        await lossy(broker.work.enqueue(Q, entries("a", "b")))
        answer = await lossy(broker.work.exchange(ReserveCall("L", [Q], 10, 1), {}))
        assert sorted(task.id for task in answer.tasks) == ["a", "b", "first"]
        settled = {Q: [ended("a", 1), ended("b", 1, RETRY), ended("first", 1, FAIL)]}
        answer = await lossy(broker.work.exchange(ReserveCall("L", [Q], 10, 2), settled))
        assert (answer.refused, [task.id for task in answer.tasks]) == ([], ["b"])
        await lossy(broker.work.enqueue(Q, entries("c")))
        assert await lossy(broker.work.cancel(Q, [("c", b"d3 cancel:0\n", "")])) == ["cancelled"]
        await lossy(broker.work.hand_back("L", [Q], crashed=True))
        state = await broker.looks.state(Q)
        assert (state.ready, state.held, state.leases, state.dead) == (1, 0, 0, 1)
        assert store.client.hgetall("pq:{q}:crashes") == {b"b": b"1"}
        assert wire.lost >= 12
        await broker.close()


# -------------------------------------------------------------------------------------- who answers
async def test_no_server_there(tmp_path: Path) -> None:
    """`StoreUnavailable` once patience is over, with the place and a hint; before that it is tried again."""
    tries = 0

    async def unreachable() -> None:
        nonlocal tries
        tries += 1

    broker = RedisBroker(f"unix://{tmp_path}/none", patience=0.15, on_unreachable=unreachable)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no Redis or Valkey at") as caught:
        await broker.open()
    assert time.monotonic() - began >= 0.15
    assert tries >= 2
    assert caught.value.hint
    await broker.close()


@pytest.mark.parametrize("login", ["", ":wrong@", "stranger:wrong@"])
async def test_a_wrong_password_is_refused_at_once(store: Any, login: str) -> None:
    """It is not tried again, and the password is not in the message."""
    store.client.config_set("requirepass", "right")
    url = store.url.replace("unix://", f"unix://{login}")
    broker = RedisBroker(url, patience=30)
    try:
        with pytest.raises(StoreRefused, match="refused") as caught:
            async with asyncio.timeout(5):
                await broker.open()
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
    finally:
        await broker.close()
        store.client.execute_command("AUTH", "right")
        store.client.config_set("requirepass", "")


async def test_a_database_that_does_not_exist_is_refused(store: Any) -> None:
    """The number in the URL is too large."""
    broker = RedisBroker(store.url + "?db=9999", patience=30)
    with pytest.raises(StoreRefused, match="out of range"):
        async with asyncio.timeout(5):
            await broker.open()
    await broker.close()


async def test_a_restart_without_data_is_met_by_going_on(valkey_server: Server, valkey: Any) -> None:
    """The store comes back empty: scripts are loaded again, leases are gone, queueing works."""
    broker = RedisBroker(valkey.url, patience=20)
    await broker.work.enqueue(Q, entries("a"))
    await broker.work.open_lease("L", [Q], 30_000)
    valkey_server.kill()
    renewing = asyncio.ensure_future(broker.work.renew("L", [Q], 30_000))
    await asyncio.sleep(0.03)
    assert not renewing.done()
    valkey_server.start()
    assert not (await renewing).alive
    assert (await broker.work.exchange(ReserveCall("L", [Q], 1, 1), {})).lost_lease
    assert (await broker.work.enqueue(Q, entries("a"))).known == set()
    await broker.close()


@pytest.mark.parametrize(
    "error",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
async def test_not_now_is_tried_again_on_a_new_connection(tmp_path: Path, error: str) -> None:
    """After a failover the name may lead to another server: each connection resolves it again."""
    answers = [f"-{error}\r\n".encode()] * 2

    def answer(command: list[bytes]) -> bytes:
        if command[0] in (b"EVALSHA", b"PUBLISH"):
            return answers.pop() if answers else b":1\r\n"
        return b"+OK\r\n"

    async with fake_server(tmp_path / "s", answer) as fake:
        broker = RedisBroker(f"unix://{tmp_path}/s", patience=10)
        await broker.channels.publish("channel", b"x")
        assert fake.connections == 3
        await broker.close()


async def test_patience_ends_with_the_servers_own_words(tmp_path: Path) -> None:
    """The error names the failure of the server."""
    async with fake_server(tmp_path / "s", lambda _: b"-MISCONF disk is full\r\n"):
        broker = RedisBroker(f"unix://{tmp_path}/s", patience=0.05)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await broker.channels.publish("channel", b"x")
        await broker.close()


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (b"redis_version:6.0.16\r\nredis_mode:standalone\r\n", "6.2 is the oldest"),
        (b"redis_version:7.2.4\r\nredis_mode:cluster\r\n", "node of a cluster"),
    ],
)
async def test_a_server_that_does_not_suit_is_refused(tmp_path: Path, info: bytes, says: str) -> None:
    """A server that is too old, or a node of a cluster, is refused at the opening."""
    async with fake_server(tmp_path / "s", lambda c: bulk(info) if c[0] == b"INFO" else b"+OK\r\n"):
        broker = RedisBroker(f"unix://{tmp_path}/s")
        with pytest.raises(StoreRefused, match=says):
            await broker.open()
        await broker.close()


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (redis_errors.NoScriptError("No matching script.", status_code="NOSCRIPT"), ScriptMissing),
        (redis_errors.ResponseError("Error running script: -NOSCRIPT No matching"), ScriptMissing),
        (redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), QueueFull),
        (
            redis_errors.ResponseError(
                "Error running script (call to f_1): @user_script:1: -OOM command not allowed"
            ),
            QueueFull,
        ),
        (redis_errors.NoPermissionError("this user has no permissions", status_code="NOPERM"), StoreRefused),
        (redis_errors.AuthenticationError("Authentication required."), StoreRefused),
        (redis_errors.ReadOnlyError("You can't write", status_code="READONLY"), StoreUnavailable),
        (redis_errors.ClusterDownError("down", status_code="CLUSTERDOWN"), StoreUnavailable),
        (redis_errors.BusyLoadingError("loading"), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (redis_errors.ResponseError("max number of clients reached"), StoreError),
        (redis_errors.ResponseError("WRONGTYPE Operation against a key"), StoreError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_errors_of_all_kinds_become_ours(error: Exception, becomes: type[StoreError]) -> None:
    """The class or the text of an error decides."""
    assert type(translate(error, "here")) is becomes
