"""Pauses between attempts grow as long as none succeeds, wherever a connection is looked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import fake_server, ok

from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.sentinel import SentinelBroker
from pq.errors import StoreUnavailable


class Steps:
    """A clock on which each look takes 0.6 seconds, and chance without any."""

    def __init__(self) -> None:
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        self._now += 0.6
        return self._now

    def random(self) -> float:
        return 0.5


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """After how many failures a module of the broker pauses; its pauses take no time."""

    def count(module: str) -> list[int]:
        found: list[int] = []

        def pause(failures: int, chance: float) -> float:
            assert 0 <= chance < 1
            found.append(failures)
            return 0.0

        monkeypatch.setattr(f"pq.broker.redis.{module}.pause", pause)
        return found

    return count


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_call_goes_on_where_the_last_one_gave_up(tmp_path: Path, counted: Any) -> None:
    """The patience of a worker is a second: a new count for each call would never let it wait longer."""
    failures = counted("calls")
    broker = RedisBroker(f"unix://{tmp_path}/absent", patience=1.0, clock=Steps())
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await broker.looks.now()
    assert failures == [1, 3, 5]
    async with fake_server(tmp_path / "absent", lambda command: b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n" if command[0] == b"TIME" else ok()):  # fmt: skip
        assert await broker.looks.now() == 1000
    with pytest.raises(StoreUnavailable):
        await broker.looks.now()
    assert failures == [1, 3, 5, 1], "it was reached: the next outage is a new one"
    await broker.close()


async def test_calls_at_the_same_time_count_one_failure_each(tmp_path: Path, counted: Any) -> None:
    """A hundred that wait for one connection have not failed a hundred times when it breaks."""
    failures = counted("calls")
    broker = RedisBroker(f"unix://{tmp_path}/absent")
    calls = [asyncio.create_task(broker.looks.now()) for _ in range(100)]
    await until(lambda: len(failures) >= 300)
    assert max(failures[:100]) == 1
    assert max(failures[:200]) <= 3
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await broker.close()


@pytest.mark.parametrize("answer", [None, b"-LOADING Redis is loading the dataset in memory\r\n"])
async def test_a_server_that_accepts_and_drops_connections_is_a_failure(
    tmp_path: Path, counted: Any, answer: bytes | None
) -> None:
    """A proxy before the store takes the connection and drops it, or refuses for now: that is not a success."""
    failures = counted("subscription")
    serve = lambda command: answer if command[0] == b"SUBSCRIBE" else ok()  # noqa: E731
    async with fake_server(tmp_path / "door", serve) as door:
        broker = RedisBroker(f"unix://{tmp_path}/door")
        subscription = await broker.channels.subscription()

        async def listen() -> None:
            async for _ in subscription:
                pass

        listening = asyncio.create_task(listen())
        asking = asyncio.create_task(subscription.subscribe("one"))
        await until(lambda: len(failures) >= 8)
        assert failures[:8] == list(range(1, 9))
        assert door.connections >= 8
        asking.cancel()
        listening.cancel()
        await asyncio.gather(asking, listening, return_exceptions=True)
        await broker.close()


async def test_a_sentinel_that_is_away_is_looked_for_less_and_less(counted: Any) -> None:
    failures = counted("sentinel")
    broker = SentinelBroker("redis+sentinel://127.0.0.1:1/primary")
    broker.sentinels.listen()
    await until(lambda: len(failures) >= 6)
    assert failures[:6] == list(range(1, 7))
    await broker.close()


async def test_a_job_that_cancels_all_tasks_does_not_end_the_watch_of_sentinels(
    counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its Sentinels a worker would follow a failover only when its connections break."""
    monkeypatch.setattr("pq.loops.RESTART_AFTER", 0.0)
    failures = counted("sentinel")
    before = asyncio.all_tasks()
    broker = SentinelBroker("redis+sentinel://127.0.0.1:1/primary")
    broker.sentinels.listen()
    await until(lambda: failures)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    await asyncio.sleep(0)
    failures.clear()
    await until(lambda: failures)
    await broker.close()
