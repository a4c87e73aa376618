"""Large messages are compressed on their way to the store, and all processes read them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from pq import api as pq
from pq.model.keyring import new_key

LARGE = "all work and no play " * 5000


@pq.job()
async def doubles(self: pq.Job, text: Any) -> Any:
    return text * 2


@pq.job()
async def fails(self: pq.Job, text: str) -> None:
    raise ValueError(text[:3000])


def size_of(store: Any, id: str) -> int:
    size: int = store.client.strlen(f"pq:{{default}}:task:{id}")
    return size


@pytest.mark.parametrize(
    "keys",
    [{}, {"signing_keys": "k1:a secret of some length", "encryption_keys": f"e1:{new_key()}"}],
    ids=["plain", "sealed"],
)
async def test_arguments_and_results(keys: Any, make_app: Any, start_worker: Any, valkey: Any) -> None:
    """Both lie in the store in a fraction of their size; errors, lists, events and retries have them whole."""
    app = make_app(**keys, compress_above=1000)
    heard: list[Any] = []
    async with app.api() as api, asyncio.timeout(60):
        await api.on_events("task", "done", lambda _, event, task: heard.append(task.kwargs["text"]))
        queued = await api.tasks.queue("doubles", text=LARGE, delay=0.05, callback=False)
        assert size_of(valkey, queued.id) < len(LARGE) / 50
        await start_worker(app)
        done = await queued.done_callback
        assert done.get() == LARGE * 2
        assert size_of(valkey, done.id) < len(LARGE) / 50
        failed = await api.tasks.queue("fails", text=LARGE)
        assert failed.kwargs == {"text": LARGE}
        assert [task.kwargs["text"] for task in await api.tasks.search(status="failure")] == [LARGE]
        while heard != [LARGE, LARGE]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("who", ["worker", "producer"])
async def test_a_program_without_the_setting_reads_compressed_messages(
    who: str, make_app: Any, start_worker: Any, valkey: Any
) -> None:
    """A worker, or a producer, that compresses nothing itself; also in the other format."""
    with_it, without = make_app(compress_above=1000), make_app()
    await start_worker(without if who == "worker" else with_it)
    async with (with_it if who == "worker" else without).api() as api, asyncio.timeout(60):
        assert (await api.tasks.queue("doubles", text=LARGE)).get() == LARGE * 2
    async with make_app(compress_above=1000, message_serializer="json").api() as api, asyncio.timeout(60):
        assert (await api.tasks.queue("doubles", text=LARGE)).get() == LARGE * 2


async def test_what_is_small_or_does_not_shrink_is_left_alone(make_app: Any, valkey: Any) -> None:
    noise = os.urandom(20_000)
    async with make_app(compress_above=1000).api() as api:
        small = await api.tasks.queue("doubles", text="x" * 500, delay=60, callback=False)
        random = await api.tasks.queue("doubles", text=noise, delay=60, callback=False)
        for task in (small, random):
            assert valkey.client.get(f"pq:{{default}}:task:{task.id}")[:3] != b"q\n\xc1"
            await api.tasks.cancel(task.id)


async def test_the_limit_counts_what_it_is_before(make_app: Any, start_worker: Any) -> None:
    """Arguments and results that are too large are refused, however well they would shrink."""
    app = make_app(compress_above=1000, max_message_size=len(LARGE) + 1000)
    async with app.api() as api, asyncio.timeout(60):
        with pytest.raises(pq.PayloadTooLarge, match="are allowed"):
            api.tasks.queue("doubles", text=LARGE * 2)
        await start_worker(app)
        ended = await api.tasks.queue("doubles", text=LARGE)
        assert ended.status == pq.FAILURE
        assert ended.reason == "result-not-serializable"
