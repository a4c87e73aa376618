"""The connection beneath a link: taken over from redis-py, replies parsed as they arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import pytest
import redis.exceptions as redis_errors

from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.wire import Wire


def packed(*commands: tuple[Any, ...]) -> list[bytes]:
    return [hiredis.pack_command(command) for command in commands]


@pytest.fixture
async def wire(valkey: Any) -> Any:
    """A connection to the store."""
    wire = await Wire.open(RedisBroker(valkey.url).server.maker())
    yield wire
    await wire.close()


async def test_commands_go_out_together_and_replies_come_back_in_order(wire: Wire) -> None:
    """One write, one answer; an error of one command is a value among the others."""
    replies = await wire.call(packed(("SET", "wire", "1", "EX", 60), ("LPUSH", "wire", "x"), ("GET", "wire")))
    assert replies[0] == b"OK"
    assert isinstance(replies[1], redis_errors.ResponseError)
    assert replies[2] == b"1"


async def test_a_large_reply_comes_in_pieces(wire: Wire) -> None:
    """However the bytes arrive, the reply is whole."""
    text = b"x" * 3_000_000
    await wire.call(packed(("SET", "wire", text, "EX", 60)))
    assert await wire.call(packed(("GET", "wire"))) == [text]


async def test_a_connection_that_is_cut_fails_its_call_and_all_later_ones(wire: Wire, valkey: Any) -> None:
    """A waiting call gets the error, and no call waits on a dead connection."""
    (id,) = await wire.call(packed(("CLIENT", "ID")))
    waiting = wire.call(packed(("BLPOP", "nothing", 60)))
    await asyncio.to_thread(valkey.client.execute_command, "CLIENT", "KILL", "ID", id)
    with pytest.raises((redis_errors.ConnectionError, OSError)):
        await waiting
    assert wire.lost is not None
    with pytest.raises((redis_errors.ConnectionError, OSError)):
        await wire.call(packed(("PING",)))


async def test_what_the_server_sends_by_itself_is_passed_on(valkey: Any) -> None:
    """For a subscription: each message as it arrives."""
    heard: list[Any] = []
    wire = await Wire.open(RedisBroker(valkey.url).server.maker(), heard.append)
    wire.send("SUBSCRIBE", "c")
    async with asyncio.timeout(10):
        while not heard:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(valkey.client.publish, "c", b"hello")
        while len(heard) < 2:
            await asyncio.sleep(0.005)
    assert heard == [[b"subscribe", b"c", 1], [b"message", b"c", b"hello"]]
    await wire.close()


async def test_bytes_that_are_no_reply_end_the_connection(wire: Wire) -> None:
    """A stream out of step is never read on."""
    waiting = wire.call(packed(("BLPOP", "nothing", 60)))
    wire.data_received(b"!nonsense\r\n")
    with pytest.raises(redis_errors.InvalidResponse):
        await waiting
    assert wire.lost is not None
