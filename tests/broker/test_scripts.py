"""Each script by itself: what lay where before, the call, its reply, and what changed.

Keys are written without the prefix of their queue. A list is a LIST, a set a SET, a dictionary of numbers
a ZSET, one of strings a HASH, bytes a STRING, a tuple of (entry, field, value) a STREAM. `changes` names all that is different afterwards; None is gone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from pq.broker.redis.scripts import NAMES, assemble, script

P = "pq:{q}:"
NOW = 1_700_000_000_000
MINUTE = f"stats:{NOW // 60_000}"


class Row(NamedTuple):
    name: str
    script: str
    given: dict[str, Any]
    args: list[Any]
    reply: Any
    changes: dict[str, Any]


def enqueue(*plain: Any, rest: tuple[Any, ...] = ()) -> list[Any]:
    return [NOW, "pq:task", "", len(plain) // 2, *plain, *rest]


def reserve(
    want: int, *, batch: int = 1, stable_for: int | str = "", idle: int = 0, lease: str = "L"
) -> list[Any]:
    return [NOW, lease, batch, want, stable_for, idle, "pq:task", "", "", 2]


def settle(*acks: Any, rest: tuple[Any, ...] = (), lease: str = "L") -> list[Any]:
    return [NOW, lease, 60_000, 90_000, "pq:task", "", len(acks) // 3, *acks, *rest]


def tick(*ticks: Any) -> list[Any]:
    return [NOW, "pq:task", "", *ticks]


def schedule(verb: str, name: str = "s", text: Any = "", most: int = 10) -> list[Any]:
    return [NOW, verb, name, text, most]


def cancel(*items: Any, at_front: int = 0) -> list[Any]:
    return [NOW, "pq:task", "", 60_000, at_front, *items]


def stream(first: int, *parts: bytes, oldest: int = 1, batch: int = 1, lease: str = "L") -> list[Any]:
    return [NOW, "a", lease, batch, 60_000, "pq:streams", "", first, oldest, *parts]


def lock(token: str, *, keep: int = 0) -> list[Any]:
    return [NOW, token, 30_000, keep, 60_000]


def holds(token: str, fence: int, until: int = NOW + 30_000) -> dict[str, str]:
    return {"token": token, "fence": str(fence), "until": str(until)}


LIVE = b"q\nx"
TWO = b"g  c2:job\nx"
HELD = {"task:a": LIVE, "held:L": {"a:1"}, "leases": {"L": NOW + 9}, "batches": {"L": "1"}}
NOTHING = [1, -1, 0, 0, 0, []]


def renewed(seen: int, since: int) -> dict[str, str]:
    """The recorded renewals: the last one, and the time since which there was no gap."""
    return {"seen": str(seen), "since": str(since)}


ABANDONED = {
    "task:a": LIVE,
    "held:dead": {"a:1"},
    "leases": {"L": NOW + 9, "dead": NOW - 1},
    "batches": {"dead": "1"},
}
LEFT_ALONE = {"batches": {"dead": "1", "L": "1"}}

ROWS = [
    # ------------------------------------------------------------------------------------- enqueue
    Row("a new task", "enqueue", {}, enqueue("a", LIVE), [], {"task:a": LIVE, "ready": ["a"], "wake": ["1"]}),
    Row(
        "a known one",
        "enqueue",
        {"task:a": LIVE, "ready": ["a"]},
        enqueue("a", b"q\nother", "b", LIVE),
        [b"a"],
        {"task:b": LIVE, "ready": ["a", "b"], "wake": ["1"]},
    ),
    Row(
        "up to the limit, and what is known adds nothing",
        "enqueue",
        {"task:a": LIVE, "ready": ["a"], "meta": {"limit": "2"}},
        enqueue("a", LIVE, "b", LIVE),
        [b"a"],
        {"task:b": LIVE, "ready": ["a", "b"], "wake": ["1"]},
    ),
    Row(
        "a cancelled one that lies in the list takes no room",
        "enqueue",
        {"task:a": b"d3 x\n", "ready": ["a"], "revoked": {"a"}, "meta": {"limit": "1"}},
        enqueue("b", LIVE),
        [],
        {"task:b": LIVE, "ready": ["a", "b"], "wake": ["1"]},
    ),
    Row("only known ones wake no worker", "enqueue", {"task:a": b"d1 t\n"}, enqueue("a", LIVE), [b"a"], {}),
    Row(
        "the first delayed one wakes, so that its time is known",
        "enqueue",
        {"task:z": LIVE, "delayed": {"z": NOW + 500}},
        enqueue(rest=("a", LIVE, 100, 0)),
        [],
        {"task:a": LIVE, "delayed": {"z": NOW + 500, "a": NOW + 100}, "wake": ["1"]},
    ),
    Row(
        "a later one wakes no worker",
        "enqueue",
        {"task:z": LIVE, "delayed": {"z": NOW + 50}},
        enqueue(rest=("a", LIVE, 100, 0)),
        [],
        {"task:a": LIVE, "delayed": {"z": NOW + 50, "a": NOW + 100}},
    ),
    Row(
        "priorities are kept in turns",
        "enqueue",
        {},
        enqueue(rest=("a", b"q2\n", "", 2, "b", b"q2\n", "", 2, "c", b"q-1\n", "", -1)),
        [],
        {
            "task:a": b"q2\n",
            "task:b": b"q2\n",
            "task:c": b"q-1\n",
            "wake": ["1"],
            "meta": {"tail": "3"},
            "prio": {"a": 1 - 2 * 2**42, "b": 2 - 2 * 2**42, "c": 3 + 2**42},
        },
    ),
    # ------------------------------------------------------------------------------------- reserve
    Row(
        "no lease: the token that woke the caller is for another worker",
        "reserve",
        {"task:a": LIVE, "ready": ["a"]},
        reserve(5),
        [[0, -1, 0, 0, 0, []]],
        {"wake": ["1"]},
    ),
    Row(
        "a lease that is being taken over",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": 0}},
        reserve(5),
        [[0, -1, 0, 0, 0, []]],
        {"wake": ["1"]},
    ),
    Row(
        "foreign bytes are dispatched, for the worker to set aside",
        "reserve",
        {"task:a": b"junk", "ready": ["a"], "leases": {"L": NOW + 9}},
        reserve(5),
        [[*NOTHING, b"a", b"junk"]],
        {"ready": None, "held:L": {"a:1"}, "batches": {"L": "1"}},
    ),
    Row(
        "the last task takes the token",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": NOW + 9}, "wake": ["1"]},
        reserve(5),
        [[*NOTHING, b"a", LIVE]],
        {"ready": None, "wake": None, "held:L": {"a:1"}, "batches": {"L": "1"}},
    ),
    Row(
        "what is left leaves a token",
        "reserve",
        {"task:a": LIVE, "task:b": LIVE, "ready": ["a", "b"], "leases": {"L": NOW + 9}},
        reserve(1),
        [[1, -1, 0, 1, 0, [], b"a", LIVE]],
        {"ready": ["b"], "wake": ["1"], "held:L": {"a:1"}, "batches": {"L": "1"}},
    ),
    Row("the same call again", "reserve", HELD, reserve(5), [[*NOTHING, b"a", LIVE]], {}),
    Row(
        "due, revoked and vanished",
        "reserve",
        {
            "task:a": LIVE,
            "task:r": b"d3 c\n",
            "ready": ["r", "v", "a"],
            "revoked": {"r"},
            "leases": {"L": NOW + 9},
            "task:d": LIVE,
            "task:e": LIVE,
            "delayed": {"d": NOW, "e": NOW + 70},
        },
        reserve(9),
        [[1, 70, 1, 0, 0, [], b"a", LIVE, b"d", LIVE]],
        {
            "ready": None,
            "revoked": None,
            "delayed": {"e": NOW + 70},
            "held:L": {"a:1", "d:1"},
            "batches": {"L": "1"},
        },
    ),
    Row(
        "an expired lease is taken over, oldest batch first",
        "reserve",
        {
            "task:a": LIVE,
            "task:b": LIVE,
            "task:c": LIVE,
            "ready": ["c"],
            "held:dead": {"b:7", "a:10"},
            "leases": {"L": NOW + 9, "dead": NOW - 1},
            "batches": {"dead": "10"},
            "cancelling": {"b"},
        },
        reserve(2, stable_for=0),
        [[1, -1, 0, 1, 0, [b"b", 1, b"a", 1], b"b", LIVE, b"a", LIVE]],
        {
            "ready": ["c"],
            "held:dead": None,
            "held:L": {"a:1", "b:1"},
            "leases": {"L": NOW + 9},
            "batches": {"L": "1"},
            "crashes": {"a": "1", "b": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "a suspect waits for an idle worker",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": NOW + 9}, "crashes": {"a": "2"}},
        reserve(5),
        [[1, -1, 0, 1, 2, []]],
        {"wake": ["1"], "batches": {"L": "1"}},
    ),
    Row(
        "a suspect goes out alone",
        "reserve",
        {
            "task:a": LIVE,
            "task:b": LIVE,
            "ready": ["a", "b"],
            "leases": {"L": NOW + 9},
            "crashes": {"a": "2"},
        },
        reserve(5, idle=1),
        [[1, -1, 0, 1, 1, [b"a", 2], b"a", LIVE]],
        {"ready": ["b"], "wake": ["1"], "held:L": {"a:1"}, "batches": {"L": "1"}},
    ),
    Row(
        "paused",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": NOW + 9}, "meta": {"paused": "1"}, "wake": ["1"]},
        reserve(5),
        [[1, -1, 0, 1, 0, []]],
        {"wake": None, "batches": {"L": "1"}},
    ),
    Row(
        "a call that found nothing is noted",
        "reserve",
        {"leases": {"L": NOW + 9}, "batches": {"L": "9"}},
        reserve(5, batch=10),
        [NOTHING],
        {"batches": {"L": "10"}},
    ),
    Row(
        "its repeat finds nothing either",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": NOW + 9}, "batches": {"L": "10"}},
        reserve(5, batch=10),
        [[1, -1, 0, 1, 0, []]],
        {"wake": ["1"]},
    ),
    Row(
        "a call that its caller has given up takes nothing",
        "reserve",
        {"task:a": LIVE, "ready": ["a"], "leases": {"L": NOW + 9}, "batches": {"L": "10"}},
        reserve(5, batch=9),
        [[1, -1, 0, 1, 0, []]],
        {"wake": ["1"]},
    ),
    Row(
        "what expired is taken over after a time without a gap",
        "reserve",
        {**ABANDONED, "meta": renewed(NOW - 50, NOW - 100)},
        reserve(0, stable_for=100),
        [[1, -1, 0, 1, 0, []]],
        {
            "ready": ["a"],
            "held:dead": None,
            "leases": {"L": NOW + 9},
            "batches": {"L": "1"},
            "crashes": {"a": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "not before",
        "reserve",
        {**ABANDONED, "meta": renewed(NOW, NOW - 99)},
        reserve(0, stable_for=100),
        [NOTHING],
        LEFT_ALONE,
    ),
    Row(
        "not when no worker has renewed recently: the store may have stood still",
        "reserve",
        {**ABANDONED, "meta": renewed(NOW - 51, NOW - 999)},
        reserve(0, stable_for=100),
        [NOTHING],
        LEFT_ALONE,
    ),
    Row(
        "not when its clock was set back",
        "reserve",
        {**ABANDONED, "meta": renewed(NOW + 51, NOW - 999)},
        reserve(0, stable_for=100),
        [NOTHING],
        LEFT_ALONE,
    ),
    Row("not when nothing is known", "reserve", ABANDONED, reserve(0, stable_for=100), [NOTHING], LEFT_ALONE),
    # -------------------------------------------------------------------------------------- settle
    Row(
        "a success",
        "settle",
        {**HELD, "crashes": {"a": "1"}, "cancelling": {"a"}},
        settle("a:1", b"d1 L:1\nr", ""),
        [],
        {
            "task:a": b"d1 L:1\nr",
            "held:L": None,
            "crashes": None,
            "cancelling": None,
            "recent": ["a"],
            MINUTE: {"succeeded": "1"},
        },
    ),
    Row(
        "a success repeated",
        "settle",
        {"task:a": b"d1 L:1\nr", "leases": {"L": NOW}},
        settle("a:1", b"d1 L:1\nr", ""),
        [],
        {},
    ),
    Row(
        "a zombie",
        "settle",
        {"task:a": b"d1 M:4\nr", "task:b": LIVE, "held:M": {"b:5"}, "leases": {"M": NOW}},
        settle("a:1", b"d1 L:1\n", "", rest=("f", "b:2", b"d2 L:2\n", "", 0, "l", "b:2", b"", "", 0)),
        [b"a", b"b"],
        {},
    ),
    Row(
        "a failure",
        "settle",
        {**HELD, "dead": {"old": NOW - 90_000, "young": NOW - 89_999}},
        settle(rest=("f", "a:1", b"d2 L:1\n", "", 0)),
        [],
        {
            "task:a": b"d2 L:1\n",
            "held:L": None,
            "dead": {"a": NOW, "young": NOW - 89_999},
            "recent": ["a"],
            MINUTE: {"failed": "1"},
        },
    ),
    Row(
        "a retry",
        "settle",
        {**HELD, "crashes": {"a": "1"}},
        settle(rest=("t", "a:1", b"q L:1\n", "", 250)),
        [],
        {
            "task:a": b"q L:1\n",
            "held:L": None,
            "crashes": None,
            "delayed": {"a": NOW + 250},
            MINUTE: {"retried": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "a release",
        "settle",
        {**HELD, "task:b": LIVE, "ready": ["b"], "crashes": {"a": "1"}},
        settle(rest=("l", "a:1", b"", "", 0)),
        [],
        {"held:L": None, "ready": ["a", "b"], "wake": ["1"]},
    ),
    Row(
        "a crash",
        "settle",
        {**HELD, "crashes": {"a": "1"}},
        settle(rest=("c", "a:1", b"", "", 0)),
        [],
        {"held:L": None, "ready": ["a"], "crashes": {"a": "2"}, "wake": ["1"]},
    ),
    # -------------------------------------------------------------------------------------- leases
    Row(
        "a lease",
        "open_lease",
        {},
        [NOW, "L", 500],
        1,
        {"leases": {"L": NOW + 500}, "meta": renewed(NOW, NOW)},
    ),
    Row(
        "the same lease",
        "open_lease",
        {**HELD, "meta": renewed(NOW - 250, 7)},
        [NOW, "L", 500],
        1,
        {"leases": {"L": NOW + 500}, "meta": renewed(NOW, 7)},
    ),
    Row(
        "a renewal that is late",
        "renew",
        {"leases": {"L": NOW - 99_999, "M": 5}, "cancelling": {"x"}},
        [NOW, "L", 500],
        [[1, b"x"]],
        {"leases": {"L": NOW + 500, "M": 5}, "meta": renewed(NOW, NOW)},
    ),
    Row(
        "a renewal after a gap",
        "renew",
        {"leases": {"L": NOW + 9, "M": 5}, "meta": renewed(NOW - 251, 7)},
        [NOW, "L", 500],
        [[1]],
        {"leases": {"L": NOW + 500, "M": 5}, "meta": renewed(NOW, NOW)},
    ),
    Row(
        "a clock that went back a little has not been set back",
        "renew",
        {"leases": {"L": NOW + 9, "M": NOW + 70}, "meta": renewed(NOW + 1000, 7)},
        [NOW, "L", 500],
        [[1]],
        {"leases": {"L": NOW + 500, "M": NOW + 70}},
    ),
    Row(
        "a clock that was set back takes the deadlines along",
        "renew",
        {
            "leases": {"L": NOW + 99_999, "M": NOW + 5070, "old": 12, "taken over": 0},
            "meta": renewed(NOW + 5000, 7),
        },
        [NOW, "L", 500],
        [[1]],
        {"leases": {"L": NOW + 500, "M": NOW + 70, "old": 1, "taken over": 0}, "meta": renewed(NOW, NOW)},
    ),
    Row("a renewal that is too late", "renew", {"leases": {"M": 5}}, [NOW, "L", 500], [[0]], {}),
    Row(
        "a lease that is being taken over cannot be renewed",
        "renew",
        {"leases": {"L": 0}},
        [NOW, "L", 9],
        [[0]],
        {},
    ),
    Row(
        "with the last lease goes what is known of renewals",
        "hand_back",
        {"leases": {"L": NOW + 9}, "batches": {"L": "1"}, "meta": {**renewed(1, 1), "tail": "3"}},
        [NOW, "L", 0, 500],
        0,
        {"leases": None, "batches": None, "meta": {"tail": "3"}},
    ),
    Row(
        "not with another",
        "hand_back",
        {"leases": {"L": NOW + 9, "M": 5}, "meta": renewed(1, 1)},
        [NOW, "L", 0, 500],
        0,
        {"leases": {"M": 5}},
    ),
    Row(
        "handed back",
        "hand_back",
        {
            **HELD,
            "held:L": {"a:1", "b:1", "c:0"},
            "task:b": b"q1\n",
            "task:c": LIVE,
            "ready": ["z"],
            "task:z": LIVE,
        },
        [NOW, "L", 0, 500],
        3,
        {
            "held:L": None,
            "leases": None,
            "batches": None,
            "ready": ["c", "a", "z"],
            "wake": ["1"],
            "prio": {"b": -(2**42) - 1},
            "meta": {"head": "-1"},
        },
    ),
    Row(
        "handed back by who saw it die",
        "hand_back",
        HELD,
        [NOW, "L", 1, 500],
        1,
        {
            "held:L": None,
            "leases": None,
            "batches": None,
            "ready": ["a"],
            "crashes": {"a": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "a vanished task is not handed back",
        "hand_back",
        {"held:L": {"a:1"}, "leases": {"L": NOW}, "crashes": {"a": "1"}, "cancelling": {"a"}},
        [NOW, "L", 1, 500],
        1,
        {"held:L": None, "leases": None, "crashes": None, "cancelling": None, "wake": ["1"]},
    ),
    Row("nothing to hand back", "hand_back", {"leases": {"L": NOW}}, [NOW, "L", 1, 500], 0, {"leases": None}),
    # -------------------------------------------------------------------------------------- cancel
    Row(
        "in each place",
        "cancel",
        {
            **HELD,
            "task:r": LIVE,
            "ready": ["r"],
            "task:p": b"q1\n",
            "prio": {"p": -1},
            "task:d": LIVE,
            "delayed": {"d": NOW},
            "task:f": b"d1 L:0\n",
        },
        cancel(
            "a",
            b"d3 x\n",
            "",
            "r",
            b"d3 x\n",
            "",
            "p",
            b"d3 x\n",
            "",
            "d",
            b"d3 x\n",
            "",
            "f",
            b"d3 x\n",
            "",
            "u",
            b"d3 x\n",
            "",
        ),
        [b"cancelling", b"cancelled", b"cancelled", b"cancelled", b"finished", b"unknown"],
        {
            "cancelling": {"a"},
            "revoked": {"r"},
            "prio": None,
            "delayed": None,
            "task:r": b"d3 x\n",
            "task:p": b"d3 x\n",
            "task:d": b"d3 x\n",
            "recent": ["d", "p", "r"],
        },
    ),
    Row(
        "the first of the list",
        "cancel",
        {"task:r": LIVE, "ready": ["r", "s"], "task:s": LIVE, "crashes": {"r": "1"}},
        cancel("r", b"d3 x\n", "", at_front=1),
        [b"cancelled"],
        {"task:r": b"d3 x\n", "ready": ["s"], "crashes": None, "recent": ["r"]},
    ),
    Row(
        "the very same again",
        "cancel",
        {"task:r": b"d3 x\n", "ready": ["r"], "revoked": {"r"}},
        cancel("r", b"d3 x\n", ""),
        [b"cancelled"],
        {},
    ),
    # ------------------------------------------------------------------------------------- forget
    Row(
        "a dead one, one that is gone, a live one",
        "forget",
        {"task:a": b"d2 L:1\n", "dead": {"a": NOW, "b": NOW, "c": NOW}, "task:c": LIVE, "ready": ["c"]},
        ["a", "b", "c"],
        1,
        {"task:a": None, "dead": {"c": NOW}},
    ),
    Row("nothing", "forget", {}, ["a"], 0, {}),
    # -------------------------------------------------------------------------------- lock, unlock
    Row("a free one", "lock", {}, lock("A"), [NOW, 0], {"": holds("A", NOW)}),
    Row("again", "lock", {"": holds("A", 7, NOW + 1)}, lock("A"), [7, 0], {"": holds("A", 7)}),
    Row("held by another", "lock", {"": holds("B", 7, NOW + 40)}, lock("A"), [0, 40], {}),
    Row(
        "of a holder whose time is over",
        "lock",
        {"": holds("B", 7, NOW)},
        lock("A"),
        [NOW, 0],
        {"": holds("A", NOW)},
    ),
    Row(
        "the clock went back",
        "lock",
        {"": {"fence": str(NOW + 99)}},
        lock("A"),
        [NOW + 100, 0],
        {"": holds("A", NOW + 100)},
    ),
    Row("kept", "lock", {"": holds("A", 7, NOW - 9)}, lock("A", keep=1), [7, 0], {"": holds("A", 7)}),
    Row("nothing to keep", "lock", {}, lock("A", keep=1), [0, 0], {}),
    Row("lost, so not kept", "lock", {"": holds("B", 7, NOW - 9)}, lock("A", keep=1), [0, 0], {}),
    Row("released", "unlock", {"": holds("A", 7)}, ["A", "c", "door"], 1, {"": {"fence": "7"}}),
    Row("not ours", "unlock", {"": holds("B", 7)}, ["A", "c", "door"], 0, {}),
    Row("released twice", "unlock", {"": {"fence": "7"}}, ["A", "c", "door"], 0, {}),
    # ---------------------------------------------------------------------------------- retry_dead
    Row(
        "a dead one",
        "retry_dead",
        {"task:a": b"d2 L:1\n", "dead": {"a": NOW}},
        ["pq:task", "", "a", LIVE],
        1,
        {"task:a": LIVE, "dead": None, "ready": ["a"], "wake": ["1"]},
    ),
    Row(
        "a cancelled one that lies in the list",
        "retry_dead",
        {"task:a": b"d3 x\n", "ready": ["a", "b"], "task:b": LIVE, "revoked": {"a"}},
        ["pq:task", "", "a", LIVE],
        1,
        {"task:a": LIVE, "revoked": None, "wake": ["1"]},
    ),
    Row("a live one", "retry_dead", HELD, ["pq:task", "", "a", b"q\nnew"], 0, {}),
    Row("an unknown one", "retry_dead", {}, ["pq:task", "", "a", LIVE], 0, {}),
    # -------------------------------------------------------------------------------- pause, poke
    Row("limit", "limit", {"meta": {"tail": "4"}}, [7], 1, {"meta": {"tail": "4", "limit": "7"}}),
    Row("another limit", "limit", {"meta": {"limit": "7"}}, [9], 1, {"meta": {"limit": "9"}}),
    Row("no limit", "limit", {"meta": {"limit": "7"}}, [""], 1, {"meta": None}),
    Row("pause", "pause", {"meta": {"tail": "4"}}, [1], 1, {"meta": {"tail": "4", "paused": "1"}}),
    Row("resume", "pause", {"meta": {"paused": "1"}}, [0], 1, {"meta": None, "wake": ["1"]}),
    Row("resume what is not paused", "pause", {"wake": ["1"]}, [0], 1, {}),
    Row("poke", "poke", {}, [], 1, {"wake": ["1"]}),
    Row("poke twice", "poke", {"wake": ["1"]}, [], 1, {}),
    Row("ring", "poke", {"wake": ["1"]}, ["w.1", 60_000], 1, {"bell:w.1": ["1"]}),
    Row("ring twice", "poke", {"bell:w.1": ["1"]}, ["w.1", 60_000], 1, {}),
    # ------------------------------------------------------------------------------------- stream
    Row(
        "its first parts",
        "stream",
        HELD,
        stream(1, b"x", b""),
        1,
        {"stream:a": ((f"{NOW}-1", "L:1", b"x"), (f"{NOW}-2", "L:1", b""))},
    ),
    Row(
        "the next part, and one that is there",
        "stream",
        {**HELD, "stream:a": ((f"{NOW - 9}-1", "L:1", b"x"),)},
        stream(1, b"x", b"y"),
        1,
        {"stream:a": ((f"{NOW - 9}-1", "L:1", b"x"), (f"{NOW - 9}-2", "L:1", b"y"))},
    ),
    Row(
        "another holder",
        "stream",
        {**HELD, "stream:a": ((f"{NOW - 9}-5", "K:7", b"x"),)},
        stream(1, b"y"),
        1,
        {"stream:a": ((f"{NOW}-1", "L:1", b"y"),)},
    ),
    Row(
        "another holder, after the clock was set back",
        "stream",
        {**HELD, "stream:a": ((f"{NOW + 9}-5", "K:7", b"x"),)},
        stream(1, b"y"),
        1,
        {"stream:a": ((f"{NOW + 10}-1", "L:1", b"y"),)},
    ),
    Row(
        "what is too old",
        "stream",
        {**HELD, "stream:a": ((f"{NOW}-1", "L:1", b"x"), (f"{NOW}-2", "L:1", b"y"))},
        stream(3, b"z", oldest=2),
        1,
        {"stream:a": ((f"{NOW}-2", "L:1", b"y"), (f"{NOW}-3", "L:1", b"z"))},
    ),
    Row("not held", "stream", {"task:a": LIVE}, stream(1, b"x"), 0, {}),
    Row("held by another call", "stream", HELD, stream(1, b"x", batch=2), 0, {}),
    # ------------------------------------------------------------------------------ tick, schedule
    Row(
        "the first tick, the next one, and one that is early",
        "tick",
        {},
        tick("s", NOW - 5, "a", LIVE, "s", NOW, "b", b"q3\n", "s", NOW + 1, "c", LIVE),
        [1, 1, -1],
        {
            "task:a": LIVE,
            "task:b": b"q3\n",
            "ready": ["a"],
            "prio": {"b": 1 - 3 * 2**42},
            "meta": {"tail": "1"},
            "ticks": {"s": str(NOW)},
            "wake": ["1"],
        },
    ),
    Row(
        "ticks that were claimed, though nothing is left of their tasks",
        "tick",
        {"ticks": {"s": str(NOW)}},
        tick("s", NOW - 5, "a", LIVE, "s", NOW, "b", LIVE),
        [0, 0],
        {},
    ),
    Row(
        "a tick whose task is there is claimed, and the task left alone",
        "tick",
        {"task:a": b"d1 L:1\n", "ticks": {"s": "5", "t": "6"}},
        tick("s", NOW, "a", LIVE),
        [0],
        {"ticks": {"s": str(NOW), "t": "6"}},
    ),
    Row(
        "a schedule of the code",
        "schedule",
        {},
        schedule("code", text="60\nx"),
        1,
        {"code": {"s": "60\nx"}, "since": {"s": str(NOW)}, "meta": {"version": "1"}},
    ),
    Row(
        "the same once more",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}, "meta": {"version": "1"}},
        schedule("code", text="60\nx"),
        0,
        {},
    ),
    Row(
        "the code says it otherwise, and that does not count now",
        "schedule",
        {"code": {"s": "60\nx"}, "changed": {"s": "5\ny"}, "since": {"s": "7"}, "meta": {"version": "1"}},
        schedule("code", text="61\nx"),
        1,
        {"code": {"s": "61\nx"}, "meta": {"version": "2"}},
    ),
    Row(
        "the same rule with other arguments counts on",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}},
        schedule("changed", text="60\ny"),
        1,
        {"changed": {"s": "60\ny"}, "meta": {"version": "1"}},
    ),
    Row(
        "one too many",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}},
        schedule("changed", "t", "60\ny", most=1),
        -2,
        {},
    ),
    Row(
        "undone: the code counts again",
        "schedule",
        {"code": {"s": "60\nx"}, "changed": {"s": "5\ny"}, "since": {"s": "7"}},
        schedule("undo"),
        1,
        {"changed": None, "since": {"s": str(NOW)}, "meta": {"version": "1"}},
    ),
    Row(
        "forgotten by the code, and said at run time still",
        "schedule",
        {"code": {"s": "60\nx"}, "changed": {"s": "5\ny"}, "since": {"s": "7"}},
        schedule("forget"),
        1,
        {"code": None, "meta": {"version": "1"}},
    ),
    Row(
        "dropped",
        "schedule",
        {"code": {"s": "60\nx"}, "changed": {"s": "5\ny"}, "since": {"s": "7"}, "paused": {"s"}},
        schedule("drop"),
        1,
        {"code": None, "changed": None, "since": None, "paused": None, "meta": {"version": "1"}},
    ),
    Row("dropped before", "schedule", {}, schedule("drop"), 0, {}),
    Row(
        "paused",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}},
        schedule("pause"),
        1,
        {"paused": {"s"}, "meta": {"version": "1"}},
    ),
    Row(
        "paused before",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}, "paused": {"s"}},
        schedule("pause"),
        0,
        {},
    ),
    Row("pausing what is not there", "schedule", {}, schedule("pause"), -1, {}),
    Row(
        "resumed",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}, "paused": {"s"}},
        schedule("resume"),
        1,
        {"paused": None, "since": {"s": str(NOW)}, "meta": {"version": "1"}},
    ),
    Row(
        "resumed before",
        "schedule",
        {"code": {"s": "60\nx"}, "since": {"s": "7"}},
        schedule("resume"),
        0,
        {},
    ),
    # ------------------------------------------------------------------------------------- inspect
    Row("an empty queue", "inspect", {}, [NOW], [0, 0, 0, 0, 0, 0, 0, 0, 0], {}),
    Row(
        "counts",
        "inspect",
        {
            "ready": ["a", "b", "c"],
            "revoked": {"b"},
            "prio": {"p": -1},
            "delayed": {"d": NOW, "e": NOW + 1},
            "held:L": {"x:1", "y:1"},
            "leases": {"L": 1, "M": 1},
            "dead": {"z": 1},
            "meta": {"paused": "1"},
        },
        [NOW],
        [2, 1, 2, 2, 2, 1, 1, 0, 1],
        {},
    ),
    # --------------------------------------------------------------------------------------- gates
    Row(
        "two may at once, so the third waits, and what needs no gate passes by",
        "reserve",
        {
            "task:a": TWO,
            "task:b": TWO,
            "task:c": TWO,
            "task:d": LIVE,
            "ready": ["a", "b", "c", "d"],
            "leases": {"L": NOW + 9},
        },
        reserve(9),
        [[*NOTHING, b"a", TWO, b"b", TWO, b"d", LIVE]],
        {
            "ready": None,
            "held:L": {"a:1", "b:1", "d:1"},
            "batches": {"L": "1"},
            "slots:job": {"a", "b"},
            "holds": {"a": "c2:job", "b": "c2:job"},
            "parked": {"c": 1},
            "parked:job": {"c": 1},
            "meta": {"tail": "1"},
        },
    ),
    Row(
        "behind those that wait others are looked for, until enough have started",
        "reserve",
        {
            "task:a": TWO,
            "task:b": TWO,
            "task:d": LIVE,
            "ready": ["a", "b", "d"],
            "leases": {"L": NOW + 9},
            "slots:job": {"x", "y"},
        },
        reserve(1),
        [[*NOTHING, b"d", LIVE]],
        {
            "ready": None,
            "held:L": {"d:1"},
            "batches": {"L": "1"},
            "parked": {"a": 1, "b": 2},
            "parked:job": {"a": 1, "b": 2},
            "meta": {"tail": "2"},
        },
    ),
    Row(
        "no task overtakes those that wait",
        "reserve",
        {
            "task:a": b"g7  c9:job\n",
            "prio": {"a": -7},
            "leases": {"L": NOW + 9},
            "parked": {"z": 1},
            "parked:job": {"z": 1},
        },
        reserve(1),
        [NOTHING],
        {
            "prio": None,
            "parked": {"z": 1, "a": 1 - 7 * 2**42},
            "parked:job": {"z": 1, "a": 1 - 7 * 2**42},
            "meta": {"tail": "1"},
            "batches": {"L": "1"},
        },
    ),
    Row(
        "what was granted is kept by a task that comes back",
        "reserve",
        {
            "task:a": TWO,
            "ready": ["a"],
            "leases": {"L": NOW + 9},
            "slots:job": {"a", "b"},
            "holds": {"a": "c2:job"},
            "parked": {"z": 1},
            "parked:job": {"z": 1},
        },
        reserve(1),
        [[*NOTHING, b"a", TWO]],
        {"ready": None, "held:L": {"a:1"}, "batches": {"L": "1"}},
    ),
    Row(
        "a rate lets one through and says when the next may go",
        "reserve",
        {
            "task:a": b"g  r2000000.1:r\n",
            "task:b": b"g  r2000000.1:r\n",
            "ready": ["a", "b"],
            "leases": {"L": NOW + 9},
        },
        reserve(9),
        [[1, 2000, 0, 0, 0, [], b"a", b"g  r2000000.1:r\n"]],
        {
            "ready": None,
            "held:L": {"a:1"},
            "batches": {"L": "1"},
            "rate:r": b"%d" % ((NOW + 2000) * 1000),
            "holds": {"a": "r2000000.1:r"},
            "parked": {"b": 1},
            "parked:r": {"b": 1},
            "timers": {"r": NOW + 2000},
            "meta": {"tail": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "its time has come",
        "reserve",
        {
            "task:a": LIVE,
            "task:b": b"g  r2000000.1:r\n",
            "ready": ["a"],
            "leases": {"L": NOW + 9},
            "parked": {"b": 1},
            "parked:r": {"b": 1},
            "timers": {"r": NOW},
        },
        reserve(9),
        [[*NOTHING, b"b", b"g  r2000000.1:r\n", b"a", LIVE]],
        {
            "ready": None,
            "held:L": {"a:1", "b:1"},
            "batches": {"L": "1"},
            "rate:r": b"%d" % ((NOW + 2000) * 1000),
            "holds": {"b": "r2000000.1:r"},
            "parked": None,
            "parked:r": None,
            "timers": None,
        },
    ),
    Row(
        "one that does not want to wait is handed out to be ended",
        "reserve",
        {
            "task:a": b"g  c1:job,x\n",
            "ready": ["a"],
            "leases": {"L": NOW + 9},
            "slots:job": {"z"},
        },
        reserve(9),
        [[1, -1, 0, 0, 0, [b"a", b"job"], b"a", b"g  c1:job,x\n"]],
        {"ready": None, "held:L": {"a:1"}, "batches": {"L": "1"}, "holds": {"a": "!job,c1:job,x"}},
    ),
    Row(
        "who starts lets a key go that is for waiting",
        "reserve",
        {"task:a": b"g  ur:k\n", "ready": ["a"], "leases": {"L": NOW + 9}, "unique:k": b"ra"},
        reserve(9),
        [[*NOTHING, b"a", b"g  ur:k\n"]],
        {"ready": None, "held:L": {"a:1"}, "batches": {"L": "1"}, "holds": {"a": "ur:k"}, "unique:k": None},
    ),
    Row(
        "a slot goes to the first that waits, who goes to the front",
        "settle",
        {
            **HELD,
            "task:a": TWO,
            "task:b": TWO,
            "task:c": TWO,
            "ready": ["n"],
            "slots:job": {"a", "z"},
            "holds": {"a": "c2:job", "z": "c2:job"},
            "parked": {"b": 4, "c": 5},
            "parked:job": {"b": 4, "c": 5},
        },
        settle(rest=("a", "a:1", b"d1 L:1\nr", "", 0)),
        [],
        {
            "task:a": b"d1 L:1\nr",
            "held:L": None,
            "recent": ["a"],
            MINUTE: {"succeeded": "1"},
            "ready": ["b", "n"],
            "slots:job": {"b", "z"},
            "holds": {"b": "c2:job", "z": "c2:job"},
            "parked": {"c": 5},
            "parked:job": {"c": 5},
            "wake": ["1"],
        },
    ),
    Row(
        "who finds the next gate closed waits there, and the one behind goes",
        "settle",
        {
            **HELD,
            "task:a": TWO,
            "task:b": b"g  c2:job,c1:key\n",
            "task:c": TWO,
            "slots:job": {"a", "z"},
            "slots:key": {"z"},
            "holds": {"a": "c2:job", "z": "c2:job,c1:key"},
            "parked": {"b": 4, "c": 5},
            "parked:job": {"b": 4, "c": 5},
        },
        settle(rest=("f", "a:1", b"d2 L:1\nr", "", 0)),
        [],
        {
            "task:a": b"d2 L:1\nr",
            "held:L": None,
            "recent": ["a"],
            "dead": {"a": NOW},
            MINUTE: {"failed": "1"},
            "ready": ["c"],
            "slots:job": {"c", "z"},
            "holds": {"c": "c2:job", "z": "c2:job,c1:key"},
            "parked": {"b": 4},
            "parked:job": None,
            "parked:key": {"b": 4},
            "wake": ["1"],
        },
    ),
    Row(
        "an attempt that will be repeated keeps no slot, and the key",
        "settle",
        {
            **HELD,
            "task:a": b"g  c2:job,uf:k\n",
            "slots:job": {"a"},
            "holds": {"a": "c2:job,uf:k"},
            "unique:k": b"fa",
        },
        settle(rest=("t", "a:1", b"g L:1 c2:job,uf:k\n", "", 70)),
        [],
        {
            "task:a": b"g L:1 c2:job,uf:k\n",
            "held:L": None,
            "delayed": {"a": NOW + 70},
            "slots:job": None,
            "holds": None,
            MINUTE: {"retried": "1"},
            "wake": ["1"],
        },
    ),
    Row(
        "the end of a task frees its key",
        "settle",
        {**HELD, "task:a": b"g  uf:k\n", "holds": {"a": "uf:k"}, "unique:k": b"fa"},
        settle(rest=("a", "a:1", b"d1 L:1\nr", "", 0)),
        [],
        {
            "task:a": b"d1 L:1\nr",
            "held:L": None,
            "holds": None,
            "unique:k": None,
            "recent": ["a"],
            MINUTE: {"succeeded": "1"},
        },
    ),
    Row(
        "a vanished task lets its slot go",
        "hand_back",
        {
            "held:L": {"a:1"},
            "leases": {"L": NOW},
            "task:b": TWO,
            "slots:job": {"a", "z"},
            "holds": {"a": "c2:job"},
            "parked": {"b": 4},
            "parked:job": {"b": 4},
        },
        [NOW, "L", 1, 500],
        1,
        {
            "held:L": None,
            "leases": None,
            "ready": ["b"],
            "slots:job": {"b", "z"},
            "holds": {"b": "c2:job"},
            "parked": None,
            "parked:job": None,
            "wake": ["1"],
        },
    ),
    Row(
        "one that waits at a gate is cancelled there",
        "cancel",
        {
            "task:b": b"g  c2:job,uf:k\n",
            "task:c": TWO,
            "slots:job": {"y", "z"},
            "parked": {"b": 4, "c": 5},
            "parked:job": {"b": 4, "c": 5},
            "unique:k": b"fb",
        },
        cancel("b", b"d3 x\n", ""),
        [b"cancelled"],
        {
            "task:b": b"d3 x\n",
            "recent": ["b"],
            "parked": {"c": 5},
            "parked:job": {"c": 5},
            "unique:k": None,
        },
    ),
    Row(
        "one that was let through and cancelled lets the next go",
        "cancel",
        {
            "task:b": TWO,
            "task:c": TWO,
            "ready": ["b"],
            "slots:job": {"b", "z"},
            "holds": {"b": "c2:job"},
            "parked": {"c": 5},
            "parked:job": {"c": 5},
        },
        cancel("b", b"d3 x\n", ""),
        [b"cancelled"],
        {
            "task:b": b"d3 x\n",
            "recent": ["b"],
            "revoked": {"b"},
            "ready": ["c", "b"],
            "slots:job": {"c", "z"},
            "holds": {"c": "c2:job"},
            "parked": None,
            "parked:job": None,
            "wake": ["1"],
        },
    ),
    Row(
        "a key that is taken",
        "enqueue",
        {"task:a": b"g  uf:k\n", "ready": ["a"], "unique:k": b"fa"},
        enqueue(rest=("b", b"g  ul:k\n", "", 0)),
        [b"b fa"],
        {},
    ),
    Row(
        "a key whose task has ended is free",
        "enqueue",
        {"task:a": b"d1 t\n", "unique:k": b"fa"},
        enqueue(rest=("b", b"g  ul:k\n", "", 0)),
        [],
        {"task:b": b"g  ul:k\n", "ready": ["b"], "unique:k": b"lb", "wake": ["1"]},
    ),
    Row(
        "a tick whose job's key is taken is claimed, and queues nothing",
        "tick",
        {"task:a": b"g  uf:k\n", "ready": ["a"], "unique:k": b"fa"},
        tick("s", NOW, "b", b"g  uf:k\n"),
        [0],
        {"ticks": {"s": str(NOW)}},
    ),
    Row(
        "another record for one that waits; its time begins again",
        "replace",
        {"task:a": b"g  ur:k\nold", "delayed": {"a": NOW + 9}, "unique:k": b"la"},
        [NOW, "a", b"g  ur:k\nnew", 500],
        1,
        {"task:a": b"g  ur:k\nnew", "delayed": {"a": NOW + 500}, "unique:k": b"ra", "wake": ["1"]},
    ),
    Row(
        "the very same once more",
        "replace",
        {"task:a": b"g  ur:k\nnew", "held:L": {"a:1"}},
        [NOW, "a", b"g  ur:k\nnew", ""],
        1,
        {},
    ),
    Row(
        "it has started",
        "replace",
        {"task:a": b"g  ur:k\nold", "held:L": {"a:1"}},
        [NOW, "a", b"g  ur:k\nnew", ""],
        0,
        {},
    ),
    Row(
        "the last is kept",
        "displace",
        {"task:a": b"g  ul:k\n", "delayed": {"a": NOW + 9}, "unique:k": b"la"},
        [NOW, "pq:task", "", 60_000, "a", b"d3 x\n", "", "b", b"g  ul:k\n", "", 0],
        1,
        {
            "task:a": b"d3 x\n",
            "recent": ["a"],
            "task:b": b"g  ul:k\n",
            "delayed": None,
            "ready": ["b"],
            "unique:k": b"lb",
            "wake": ["1"],
        },
    ),
    Row(
        "the first is kept until its end",
        "displace",
        {"task:a": b"g  uf:k\n", "ready": ["a"], "unique:k": b"fa"},
        [NOW, "pq:task", "", 60_000, "a", b"d3 x\n", "", "b", b"g  ul:k\n", "", 0],
        0,
        {},
    ),
]


def store(client: Any, key: str, value: Any) -> None:
    if isinstance(value, bytes):
        # A finished record goes by itself, as all of them do.
        client.set(P + key, value, px=60_000 if value.startswith(b"d") else None)
    elif isinstance(value, list):
        client.rpush(P + key, *value)
    elif isinstance(value, set):
        client.sadd(P + key, *value)
    elif isinstance(value, tuple):
        for entry, field, part in value:
            client.xadd(P + key, {field: part}, id=entry)
    elif all(isinstance(item, str) for item in value.values()):
        client.hset(P + key, mapping=value)
    else:
        client.zadd(P + key, value)


def contents(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for raw in client.keys("*"):
        key = raw.decode()
        name = key.removeprefix(P)
        kind = client.type(key).decode()
        if kind == "string":
            found[name] = client.get(key)
            passing = found[name].startswith(b"d") or name.startswith("rate:")
            assert (client.pttl(key) > 0) == passing, f"the TTL of {name}"
        elif kind == "list":
            found[name] = [item.decode() for item in client.lrange(key, 0, -1)]
        elif kind == "set":
            found[name] = {item.decode() for item in client.smembers(key)}
        elif kind == "stream":
            found[name] = tuple(
                (entry.decode(), field.decode(), value)
                for entry, fields in client.xrange(key)
                for field, value in fields.items()
            )
        elif kind == "hash":
            found[name] = {k.decode(): v.decode() for k, v in client.hgetall(key).items()}
        else:
            found[name] = {
                member.decode(): int(score) for member, score in client.zrange(key, 0, -1, withscores=True)
            }
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.script}-{row.name}".replace(" ", "_"))
@pytest.mark.parametrize("kind", ["valkey", "redis62"])
def test_before_and_after(request: pytest.FixtureRequest, kind: str, row: Row) -> None:
    """The call of the row changes the given contents as stated, and nothing else."""
    fresh = request.getfixturevalue(kind)
    fresh.check = False  # rows show one corner of a store, not a whole one
    for key, value in row.given.items():
        store(fresh.client, key, value)
    reply = fresh.client.eval(script(row.script).source, 1, P, *row.args)
    expected = {key: value for key, value in {**row.given, **row.changes}.items() if value is not None}
    assert reply == row.reply
    assert contents(fresh.client) == expected


def test_every_script_has_rows() -> None:
    """No script goes unseen."""
    assert {row.script for row in ROWS} == set(NAMES)


def test_scripts_are_sent_without_comments_and_unused_parts() -> None:
    """The server stores the text that it runs, and 6.2 accepts it: no shebang."""
    for name in NAMES:
        source = script(name).source
        assert b"\n--" not in source
        assert not source.startswith(b"#!")
        assert len(script(name).digest) == 40
    assert b"function reclaim" not in script("enqueue").source
    assert b"local function reclaim" in script("hand_back").source


def test_a_part_that_does_not_exist_is_named() -> None:
    """A slip in `--@use` is found when the script is read."""
    with pytest.raises(LookupError, match="wonders"):
        assemble("x", "--@use now wonders\nreturn 1", "--@part now\nlocal n = 1\n")
