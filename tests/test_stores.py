"""The check after each test itself: it finds every kind of leftover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stores import check_server

P = "pq:{q}:"

MESS: dict[str, tuple[Callable[[Any], object], str]] = {
    "finished without TTL": (lambda c: c.set(P + "task:a", b"d1 L:1\n"), "finished a has no TTL"),
    "live with TTL": (
        lambda c: (c.set(P + "task:a", b"q\n", ex=60), c.rpush(P + "ready", "a")),
        "live a has a TTL",
    ),
    "live nowhere": (lambda c: c.set(P + "task:a", b"q\n"), "live a is in 0 places"),
    "live twice": (
        lambda c: (c.set(P + "task:a", b"q\n"), c.rpush(P + "ready", "a"), c.zadd(P + "delayed", {"a": 1})),
        "live a is in 2 places",
    ),
    "an index entry without record": (
        lambda c: c.rpush(P + "ready", "a"),
        "a is somewhere, and has no record",
    ),
    "held without lease": (
        lambda c: (c.set(P + "task:a", b"q\n"), c.sadd(P + "held:L", "a:1")),
        "tasks are held under L, which is not a lease",
    ),
    "a batch without lease": (lambda c: c.hset(P + "batches", "L", "1"), "a batch is noted for L"),
    "a stop request without a task": (
        lambda c: c.sadd(P + "cancelling", "a"),
        "a is to be stopped, and is not live",
    ),
    "crashes without a task": (lambda c: c.hset(P + "crashes", "a", "1"), "crashes are counted for a"),
    "two tokens": (lambda c: c.lpush(P + "wake", "1", "1"), "2 wake tokens"),
    "a heartbeat forever": (lambda c: c.set("pq:consumer:x", b""), "pq:consumer:x has no TTL"),
    "counters forever": (lambda c: c.hset(P + "stats:1", "succeeded", "1"), "stats:1 has no TTL"),
    "a stranger": (lambda c: c.set("something", b""), "something has no TTL"),
    "a foreign record": (lambda c: c.set(P + "task:a", b"hello", ex=9), "neither live nor finished"),
}


@pytest.mark.parametrize("what", MESS)
def test_a_mess_is_found(valkey: Any, what: str) -> None:
    """Each kind by its own sentence."""
    make, says = MESS[what]
    valkey.check = False
    make(valkey.client)
    with pytest.raises(AssertionError, match=says):
        check_server(valkey.client)


def test_an_orderly_store_passes(valkey: Any) -> None:
    """Live tasks in their places, finished ones with a TTL, a cancelled one that lies in the list still."""
    client = valkey.client
    for id in "abcd":
        client.set(P + f"task:{id}", b"q\n")
    client.set(P + "task:f", b"d1 L:1\n", ex=60)
    client.set(P + "task:r", b"d3 c\n", ex=60)
    client.rpush(P + "ready", "a", "r", "expired")
    client.sadd(P + "revoked", "r", "expired")
    client.zadd(P + "prio", {"b": -1})
    client.zadd(P + "delayed", {"c": 5})
    client.sadd(P + "held:L", "d:1")
    client.zadd(P + "leases", {"L": 5})
    client.hset(P + "batches", "L", "1")
    client.lpush(P + "wake", "1")
    client.sadd("pq:queues", "q")
    client.set("pq:consumer:x", b"", ex=60)
