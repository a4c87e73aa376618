"""The words of the protocol: which command becomes of a value, and which value of a reply."""

from __future__ import annotations

from typing import Any

import pytest

from pq.broker.contract.values import (
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
from pq.broker.redis import codec
from pq.broker.redis.scripts import script
from pq.model.operations import ACK, FAIL, RETRY

P = "pq:{q}:"


def words(command: tuple[Any, ...], name: str, keys: list[str]) -> list[Any]:
    """Return the arguments that follow the keys in a call of that script."""
    assert command[: 3 + len(keys)] == ("EVALSHA", script(name).digest, len(keys), *keys)
    return list(command[3 + len(keys) :])


# ---------------------------------------------------------------------------------------- commands
@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], [0]),
        ([Entry("a", b"A"), Entry("b", b"B")], [2, "a", b"A", "b", b"B"]),
        ([Entry("a", b"A", 5), Entry("b", b"B")], [1, "b", b"B", "a", b"A", 5, 0]),
        ([Entry("a", b"A", 0), Entry("b", b"B", None, 7)], [0, "a", b"A", 0, 0, "b", b"B", "", 7]),
        (
            [Entry("a", b"A"), Entry("b", b"B", unique=True), Entry("c", b"C")],
            [1, "a", b"A", "b", b"B", "", 0, "c", b"C", "", 0],
        ),
    ],
    ids=["none", "plain", "delayed go last", "no delay is not a delay of 0", "none overtakes a unique one"],
)
def test_entries_become_words(entries: list[Entry], expected: list[Any]) -> None:
    """The plain ones first, in the denser form, with their number before them."""
    command = codec.enqueue_command(P, entries, time="", channel="events", always="")
    assert words(command, "enqueue", [P]) == ["", "events", "", *expected]


def test_a_reservation_becomes_words() -> None:
    """None for `stable_for` is nothing, and 0 is 0."""
    call = ReserveCall("L", ["q", "r"], 3, 7, worker_name="w1 here")
    made = codec.reserve_command([P, "pq:{r}:"], call, time=5, channel="events", always="1")
    expected = [5, "L", 7, 3, "", "0", "events", "1", "w1 here", SOLO_AFTER]
    assert words(made, "reserve", [P, "pq:{r}:"]) == expected
    call = call._replace(idle=True, stable_for=0)
    made = codec.reserve_command([P], call, time="", channel="events", always="")
    assert words(made, "reserve", [P]) == ["", "L", 7, 3, 0, "1", "events", "", "w1 here", SOLO_AFTER]


def test_settlements_become_words() -> None:
    """Successes without limits first, in the denser form, with their number before them."""
    ended = [
        Settlement(FAIL, "a", 1, b"A", "reply"),
        Settlement(ACK, "b", 1, b"B", "reply"),
        Settlement(ACK, "c", 2, b"C", limited=True),
        Settlement(RETRY, "d", 2, b"D", "", 40),
        Settlement(ACK, "e", 3, b"E"),
    ]
    made = codec.settle_command(P, "L", ended, time="", ttl="60", dead_ttl="90", channel="events", always="")
    assert words(made, "settle", [P]) == [
        *("", "L", "60", "90", "events", "", 2),
        *("b:1", b"B", "reply", "e:3", b"E", ""),
        *(FAIL, "a:1", b"A", "reply", 0),
        *(ACK, "c:2", b"C", "", 0),
        *(RETRY, "d:2", b"D", "", 40),
    ]  # fmt: skip


def test_parts_become_words() -> None:
    streamed = Streamed("q", "a", 4, 10, 2, [b"x", b"y"])
    made = codec.stream_command(P, "L", streamed, 60, time=5, channel="streams", always="")
    assert words(made, "stream", [P]) == [5, "a", "L", 4, 60, "streams", "", 10, 2, b"x", b"y"]


# ----------------------------------------------------------------------------------------- replies
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([], Queued()),
        ([b"a", b"b"], Queued({"a", "b"})),
        (
            [b"a", b"b fc", b"d re"],
            Queued({"a"}, {"b": UniqueConflict("c", True), "d": UniqueConflict("e", False)}),
        ),
    ],
    ids=["all queued", "known", "a unique key is taken"],
)
def test_what_was_not_queued(reply: list[bytes], expected: Queued) -> None:
    assert codec.read_queued(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([0, -1, 0, 0, 0, []], Exchange(lost_lease=True)),
        ([1, -1, 0, 0, 0, []], Exchange()),
        ([1, 20, 2, 3, 0, []], Exchange(next_due=20, vanished=2, more_ready=True)),
        ([1, -1, 0, 1, 2, []], Exchange(blocked=True, more_ready=True)),
        (
            [1, -1, 0, 0, 1, [b"a", 2], b"a", b"A"],
            Exchange([Reserved("q", "a", 7, b"A", 2)], solo=True),
        ),
        (
            [1, -1, 0, 0, 0, [b"b", b"door", b"b", 1], b"a", b"A", b"b", b"B"],
            Exchange([Reserved("q", "a", 7, b"A", 0), Reserved("q", "b", 7, b"B", 1, "door")]),
        ),
    ],
    ids=["no lease", "nothing", "something later", "a suspect is next", "a suspect", "a limit refuses one"],
)
def test_what_was_reserved(reply: list[Any], expected: Exchange) -> None:
    answer = Exchange()
    codec.read_reserve(answer, "q", 7, reply)
    assert answer == expected


def test_answers_of_several_queues_are_one() -> None:
    """The earliest is the next that is due; a lease that is lost in one of them is lost."""
    answer = Exchange()
    codec.read_reserve(answer, "q", 1, [1, 50, 1, 0, 0, [], b"a", b"A"])
    codec.read_reserve(answer, "r", 1, [1, 20, 1, 4, 0, [], b"b", b"B"])
    codec.read_reserve(answer, "s", 1, [1, 90, 0, 0, 0, []])
    codec.read_reserve(answer, "t", 1, [0, -1, 0, 0, 0, []])
    codec.read_refused(answer, ["q", "r"], [[b"x"], [], [b"not a settlement's"]])
    assert answer == Exchange(
        [Reserved("q", "a", 1, b"A", 0), Reserved("r", "b", 1, b"B", 0)],
        [("q", "x")],
        lost_lease=True,
        next_due=20,
        more_ready=True,
        vanished=2,
    )


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([[1]], Renewal(True, frozenset())),
        ([[1, b"a"], [1, b"b"]], Renewal(True, frozenset({"a", "b"}))),
        ([[1, b"a"], [0]], Renewal(False, frozenset({"a"}))),
    ],
)
def test_a_renewal_is_valid_where_each_queue_says_so(replies: list[Any], expected: Renewal) -> None:
    assert codec.read_renewal(replies) == expected


def test_what_is_held() -> None:
    """An id may have colons."""
    assert codec.read_held("q", [b"a:1", b"cron.x:y:12"]) == [("q", "a", 1), ("q", "cron.x:y", 12)]


def test_parts_of_a_stream() -> None:
    entries = [(b"17-1", [b"L:3", b"x"]), (b"17-2", [b"L:3", b""])]
    assert codec.read_parts(entries) == [Part(17, 1, "L:3", b"x"), Part(17, 2, "L:3", b"")]


def test_schedules() -> None:
    """A change at run time counts more than the code; a name that neither has is being removed."""
    found = codec.read_schedules(
        [b"a", b"A", b"b", b"B"],
        [b"b", b"B2", b"c", b"C"],
        [b"a", b"1", b"b", b"2", b"c", b"3", b"d", b"4"],
        [b"c"],
    )
    assert found == {
        "a": StoredSchedule(b"A", True, False, 1, False),
        "b": StoredSchedule(b"B2", True, True, 2, False),
        "c": StoredSchedule(b"C", False, True, 3, True),
    }


@pytest.mark.parametrize(
    ("text", "version", "clustered"),
    [
        (b"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n", (6, 2), False),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nserver_mode:cluster\r\n", (7, 2), True),
        (b"redis_version:7.4.1\r\nredis_mode:cluster\r\n", (7, 4), True),
        (b"", (0,), False),
    ],
    ids=["redis", "valkey cluster", "redis cluster", "says nothing"],
)
def test_what_a_server_says_of_itself(text: bytes, version: tuple[int, ...], clustered: bool) -> None:
    info = codec.read_info(text)
    assert (codec.read_version(info), codec.is_clustered(info)) == (version, clustered)


def test_the_time_is_in_milliseconds() -> None:
    assert codec.read_time([b"1700000000", b"123999"]) == 1_700_000_000_123
