"""Large messages lie in a directory; messages in the store, and on its channels, stay small."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.broker import records
from pq.broker.contract.values import Entry, ReserveCall, Settlement
from pq.broker.layers import large_payloads, payload_files
from pq.config import Settings
from pq.errors import BadSetting, QueueFull
from pq.model.keyring import new_key
from pq.model.operations import ACK, FAIL

LARGE = "all work and no play " * 5000
SEALS = {"signing_keys": "k1:a secret of some length", "encryption_keys": f"e1:{new_key()}"}


@pq.job()
async def doubles(self: pq.Job, text: str) -> str:
    return text * 2


@pq.job(concurrency=pq.THREAD_IO)
def doubles_in_thread(self: pq.Job, text: str) -> str:
    return text * 2


@pq.job(concurrency=pq.CPUBOUND)
def doubles_in_process(self: pq.Job, text: str) -> str:
    return text * 2


@pq.job()
async def fails(self: pq.Job, text: str) -> None:
    raise ValueError("as requested")


def files(place: Path) -> list[Path]:
    """The large messages that lie there."""
    return [path for path in place.glob("*/*/*") if path.is_file()]


def age(place: Path, seconds: float = 2 * large_payloads.GRACE) -> None:
    """Make all that lies there look old, and let the next sweep begin."""
    before = time.time() - seconds
    for path in files(place):
        os.utime(path, (before, before))
    for mark in place.glob("*/swept"):
        mark.unlink()


def size_of(store: Any, id: str) -> int:
    size: int = store.client.strlen(f"pq:{{default}}:task:{id}")
    return size


async def sweep(app: Any) -> int:
    """Make the calls that a worker makes now and then."""
    broker: Any = await app.store.broker()
    await broker.open()
    try:
        removed: int = await broker.sweep()
    finally:
        await broker.close()
    return removed


@pytest.mark.parametrize("job", ["doubles", "doubles.in.thread", "doubles.in.process"])
@pytest.mark.parametrize("keys", [{}, SEALS], ids=["plain", "sealed"])
async def test_arguments_and_results_arrive_and_the_store_stays_small(
    job: str, keys: Any, make_app: Any, start_worker: Any, valkey: Any, place: Path
) -> None:
    """In each mode. With keys nothing in the directory is readable either; no other user may read the files."""
    app = make_app(**keys)
    with valkey.client.pubsub() as listener:
        listener.psubscribe("pq:*")
        async with app.api() as api, asyncio.timeout(60):
            queued = await api.tasks.queue(job, text=LARGE, delay=0.05, callback=False)
            assert size_of(valkey, queued.id) < 1000
            (path,) = files(place)
            assert path.stat().st_mode & 0o777 == 0o600
            await start_worker(app)
            done = await queued.done_callback
            assert done.get() == LARGE * 2
            assert done.kwargs == {"text": LARGE}
            assert size_of(valkey, done.id) < 1000
            (after,) = files(place)
            assert after != path, "the file of the arguments is gone with the record that had it"
            assert (LARGE[:30].encode() in after.read_bytes()) == (not keys)
            assert (await api.tasks.get(done.id)).get() == LARGE * 2
        heard = []
        while (message := listener.get_message(timeout=0.2)) is not None:
            if message["type"] == "pmessage":
                heard.append((message["channel"], len(message["data"])))
    assert any(b":reply:" in channel for channel, _ in heard)
    assert max(size for channel, size in heard if b"consumer" not in channel) < 2000


async def test_what_is_small_needs_no_file(make_app: Any, start_worker: Any, place: Path) -> None:
    app = make_app()
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(60):
        assert (await api.tasks.queue("doubles", text="x")).get() == "xx"
    assert files(place) == []


async def test_broadcasts_and_lists_have_them_whole(make_app: Any, start_worker: Any) -> None:
    heard: list[Any] = []
    app = make_app(message_serializer="json")
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(60):
        await api.on_events("task", "done", lambda _, event, task: heard.append(task.result))
        assert (await api.tasks.queue("doubles", text=LARGE)).get() == LARGE * 2
        assert [task.kwargs["text"] for task in await api.tasks.search(status="success")] == [LARGE]
        while heard != [LARGE * 2]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("keys", [{}, SEALS], ids=["plain", "sealed"])
async def test_a_worker_without_the_setting_sets_it_aside_with_the_reason(
    keys: Any, make_app: Any, start_worker: Any
) -> None:
    """The error of the future says what to look at."""
    await start_worker(make_app(aside=False, **keys))
    async with make_app(**keys).api() as api, asyncio.timeout(60):
        failed = await api.tasks.queue("doubles", text=LARGE)
        assert failed.status == pq.FAILURE
        assert failed.reason == "payload-missing"
        assert failed.name == "doubles"
        assert "was stored as" in failed.exception
        again = await api.tasks.queue("doubles", text="small things go on")
        assert again.get() == "small things go on" * 2


async def test_a_producer_without_the_setting_raises_with_the_setting_s_name(
    make_app: Any, start_worker: Any
) -> None:
    """The worker offloaded its result."""
    await start_worker(make_app())
    async with make_app(aside=False).api() as api, asyncio.timeout(60):
        with pytest.raises(pq.PayloadMissing, match="was stored as") as caught:
            await api.tasks.queue("doubles", text=LARGE)
        assert "large_dir" in (caught.value.hint or "")


async def test_a_program_with_the_directory_only_reads_large_payloads(
    make_app: Any, start_worker: Any, place: Path
) -> None:
    await start_worker(make_app())
    async with make_app(large_above=0).api() as api, asyncio.timeout(60):
        queued = await api.tasks.queue("doubles", text=LARGE, delay=0.01, callback=False)
        assert files(place) == []
        assert (await queued.done_callback).get() == LARGE * 2


async def test_a_file_that_is_gone_fails_its_task(make_app: Any, start_worker: Any, place: Path) -> None:
    app = make_app()
    async with app.api() as api, asyncio.timeout(60):
        queued = await api.tasks.queue("doubles", text=LARGE, delay=0.05, callback=False)
        for path in files(place):
            path.unlink()
        await start_worker(app)
        failed = await queued.done_callback
        assert failed.reason == "payload-missing"
        assert await api.tasks.retry(failed.id)
        while (again := await api.tasks.get(failed.id)) is None or not again.done():
            await asyncio.sleep(0.02)
        assert again.status == pq.FAILURE, "it is never run without its arguments"


async def test_a_file_of_another_task_is_not_taken(make_app: Any, start_worker: Any, place: Path) -> None:
    """A program that may write there replaces one by another: the error names the owner of the payload."""
    app = make_app()
    async with app.api() as api, asyncio.timeout(60):
        one = await api.tasks.queue("doubles", text=LARGE, delay=60, callback=False)
        (its,) = files(place)
        two = await api.tasks.queue("doubles", text="b" * len(LARGE), delay=60, callback=False)
        (other,) = set(files(place)) - {its}
        other.write_bytes(its.read_bytes())
        with pytest.raises(pq.PayloadMissing):
            await api.tasks.get(two.id)
        assert (await api.tasks.get(one.id)).kwargs == {"text": LARGE}


async def test_a_dead_task_is_retried_and_a_waiting_one_cancelled(
    make_app: Any, start_worker: Any, place: Path
) -> None:
    app = make_app()
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(60):
        dead = await api.tasks.queue("fails", text=LARGE)
        assert dead.status == pq.FAILURE
        await api.tasks.retry(dead.id)
        while (
            (again := await api.tasks.get(dead.id)) is None
            or not again.done()
            or again.time_ended == dead.time_ended
        ):
            await asyncio.sleep(0.02)
        assert again.exception == dead.exception
        assert again.kwargs == {"text": LARGE}
        waiting = await api.tasks.queue("doubles", text=LARGE, delay=60, callback=False)
        await api.tasks.cancel(waiting.id)
        cancelled = await waiting.done_callback
        assert cancelled.status == pq.REVOKED
        assert cancelled.kwargs == {"text": LARGE}
        before = len(files(place))
        age(place)
        await sweep(app)
        assert len(files(place)) == 2 < before, "one for each of the two records"
        assert (await api.tasks.get(dead.id)).kwargs == {"text": LARGE}


async def test_a_sweep_removes_unused_files_and_nothing_else(make_app: Any, place: Path) -> None:
    """The sweep spares young files, those of a record, those of another store, and foreign files."""
    app = make_app()
    async with app.api() as api, asyncio.timeout(60):
        kept = await api.tasks.queue("doubles", text=LARGE, delay=60, callback=False)
        (own,) = files(place)
        foreign = place / ("0" * 32) / own.parent.name / own.name
        foreign.parent.mkdir(parents=True)
        foreign.write_bytes(own.read_bytes())
        stranger = own.parent / "notes.txt"
        half = own.parent / ("1" * 32 + ".part")
        orphan = own.parent / ("2" * 32)
        for path in (stranger, half, orphan):
            path.write_bytes(b'["default","no such task"]\n')
        assert await sweep(app) == 0, "all are young"
        age(place)
        assert await sweep(app) == 2
        assert set(files(place)) == {own, foreign, stranger}
        orphan.write_bytes(b'["default","no such task"]\n')
        os.utime(orphan, (1, 1))
        assert await sweep(app) == 0, "another process has just swept"
        assert (await api.tasks.get(kept.id)).kwargs == {"text": LARGE}


async def test_the_file_of_a_dead_producer_is_swept(make_app: Any, place: Path, valkey: Any) -> None:
    """The same settlement, sent again, has the same file; the task that was never settled runs elsewhere."""
    app = make_app()
    broker: Any = await app.store.broker()
    await broker.open()
    try:
        record = records.live_header() + LARGE.encode()
        await broker.work.enqueue("default", [Entry("t1", record)])
        await broker.work.open_lease("w", ["default"], 60_000)
        (task,) = (await broker.work.exchange(ReserveCall("w", ["default"], 1, 1), {})).tasks
        assert task.record == record
        ended = records.finished_header(3, "w:1") + (LARGE * 2).encode()
        broker.payloads.offload(ended, "default", "t1")
        broker.payloads.offload(ended, "default", "t1")
        assert len(files(place)) == 2
        age(place)
        assert await broker.sweep() == 1
        await broker.work.hand_back("w", ["default"], crashed=True)
        await broker.work.open_lease("v", ["default"], 60_000)
        (task,) = (await broker.work.exchange(ReserveCall("v", ["default"], 1, 1), {})).tasks
        assert task.record == record
        settled = {
            "default": [Settlement(ACK, "t1", 1, records.finished_header(3, "v:1") + (LARGE * 2).encode())]
        }
        for _ in range(2):
            assert (await broker.work.exchange(ReserveCall("v", ["default"], 0, 1), settled)).refused == []
            assert (await broker.looks.records("default", ["t1"])) == [settled["default"][0].record]
            assert len(files(place)) == 1
        valkey.client.delete("pq:{default}:task:t1")
        age(place)
        assert await broker.sweep() == 1
        assert files(place) == []
        await broker.work.hand_back("v", ["default"], crashed=False)
    finally:
        await broker.close()


async def test_a_refused_settlement_keeps_the_file_of_the_present_holder(make_app: Any, place: Path) -> None:
    app = make_app()
    one: Any = await app.store.broker()
    two: Any = await app.store.broker()
    await one.open()
    await two.open()
    try:
        record = records.live_header() + LARGE.encode()
        await one.work.enqueue("default", [Entry("t1", record)])
        await one.work.open_lease("w", ["default"], 60_000)
        assert (await one.work.exchange(ReserveCall("w", ["default"], 1, 1), {})).tasks[0].record == record
        await one.work.hand_back("w", ["default"], crashed=False)
        await two.work.open_lease("v", ["default"], 60_000)
        assert (await two.work.exchange(ReserveCall("v", ["default"], 1, 1), {})).tasks[0].record == record
        late = {"default": [Settlement(FAIL, "t1", 1, records.finished_header(4, "w:1") + b"x")]}
        answer = await one.work.exchange(ReserveCall("w", ["default"], 0, 1), late)
        assert answer.lost_lease or answer.refused
        assert await two.looks.records("default", ["t1"]) == [record]
        await two.work.hand_back("v", ["default"], crashed=False)
    finally:
        await one.close()
        await two.close()


async def test_a_directory_that_cannot_be_written(
    make_app: Any, start_worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is queued, and that is said; a result that is there already goes into the store instead."""

    def full(path: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    app = make_app()
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(60):
        monkeypatch.setattr(payload_files, "write", full)
        with pytest.raises(QueueFull, match=r"large_dir .*No space left"):
            await api.tasks.queue("doubles", text=LARGE)
        small = LARGE[:6000]
        assert (await api.tasks.queue("doubles", text=small)).get() == small * 2
    assert "results go into the store" in caplog.text


async def test_larger_ones_are_allowed_where_they_are_put_aside(make_app: Any, start_worker: Any) -> None:
    """Up to 64 times max_message_size; compressed or not."""
    app = make_app(max_message_size=50_000, compress_above=1000)
    await start_worker(app)
    async with app.api() as api, asyncio.timeout(60):
        assert (await api.tasks.queue("doubles", text="x" * 1_500_000)).get() == "x" * 3_000_000
        with pytest.raises(pq.PayloadTooLarge, match="3,200,000 are allowed"):
            api.tasks.queue("doubles", text="x" * 3_300_000)
        ended = await api.tasks.queue("doubles", text="x" * 2_000_000)
        assert ended.reason == "result-not-serializable"
    async with make_app(aside=False).api() as api:
        with pytest.raises(pq.PayloadTooLarge) as caught:
            api.tasks.queue("doubles", text="x" * 2_000_000)
        assert "large_above" in (caught.value.hint or "")


def test_a_size_without_a_place_is_refused() -> None:
    with pytest.raises(BadSetting, match="large_dir is not set") as caught:
        Settings(large_above=5000)
    assert "large_dir" in (caught.value.hint or "")


async def test_a_place_that_is_not_there_is_said_at_the_start(make_app: Any, tmp_path: Path) -> None:
    """It may be a disk that is not mounted, so it is not made."""
    app = make_app(large_dir=str(tmp_path / "mnt"))
    with pytest.raises(BadSetting, match="is not there"):
        await app.worker("w1").start()
    assert not (tmp_path / "mnt").exists()
