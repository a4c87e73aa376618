"""No future hangs: the stored record is the truth, events only make it fast."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer
from pq.broker.redis.subscription import RedisSubscription


@pq.job()
async def addition(self: Job, a: float = 0) -> float:
    return a


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are looked up after two seconds; not to wait for that here."""
    monkeypatch.setattr("pq.producer.awaiting.LOOK_AFTER", 0.1)


async def test_all_events_are_lost(
    app: pq.PulsarQueue, start_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one message arrives, and every await returns nevertheless."""

    async with app.api() as api:
        await api.start()
        heard = RedisSubscription._heard

        def deaf(self: RedisSubscription, reply: Any) -> None:
            if type(reply) is not list or reply[0] != b"message":
                heard(self, reply)

        monkeypatch.setattr(RedisSubscription, "_heard", deaf)
        for subscription in (await api.broker()).channels.subscriptions:  # type: ignore[attr-defined]
            subscription._wire._on_push = subscription._heard
        await start_worker(app)
        tasks = await api.tasks.map("addition", range(1000))
        assert [task.get() for task in tasks] == list(range(1000))


async def test_a_task_that_is_gone_is_lost(api: Producer, valkey: Any) -> None:
    """A record deleted by hand resolves its future with `TaskLost`."""
    valkey.check = False
    future = api.tasks.queue("addition")
    await api.tasks.size("default")
    valkey.client.flushall()
    with pytest.raises(pq.TaskLost, match="not in the store any more"):
        await asyncio.wait_for(future, 5)


async def test_connections_are_cut(serving: Producer, valkey: Any) -> None:
    """All connections are cut again and again while tasks are queued and awaited; nothing is lost."""

    async def cut() -> None:
        while True:
            await asyncio.to_thread(
                valkey.client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
            )
            await asyncio.to_thread(valkey.client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.02)

    cutter = asyncio.create_task(cut())
    try:
        for _ in range(10):
            tasks = await asyncio.wait_for(serving.tasks.map("addition", range(100)), 30)
            assert [task.get() for task in tasks] == list(range(100))
    finally:
        cutter.cancel()
        await asyncio.gather(cutter, return_exceptions=True)


async def test_a_future_that_is_given_up_is_forgotten(api: Producer) -> None:
    """A caller that stops waiting leaves nothing behind; the task itself goes on."""
    future = api.tasks.queue("addition", queue="unserved")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(future, 0.05)
    assert not len(api.connections.engine().awaiting)
    assert await api.tasks.size("unserved") == {"unserved": 1}
    await api.tasks.flush_queues("unserved")


async def test_closing_cancels_what_waits(app: pq.PulsarQueue) -> None:
    """A closed api does not leave its futures pending forever."""
    api = app.api()
    future = api.tasks.queue("addition", queue="unserved")
    await api.tasks.size("unserved")
    await api.close()
    assert future.cancelled()


async def test_closing_ends_what_was_asked(app: pq.PulsarQueue, valkey_server: Any) -> None:
    """A store that does not answer delays no close, and a request without an answer is cancelled."""
    api = await app.api().start()
    os.kill(valkey_server.process.pid, signal.SIGSTOP)
    try:
        asked = api.tasks.size("default")
        await asyncio.sleep(0)
        await asyncio.wait_for(api.close(), 30)
        assert asked.cancelled()
    finally:
        os.kill(valkey_server.process.pid, signal.SIGCONT)
