"""The duties of a worker beyond running jobs: leases, zombies, bad messages, unknown jobs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, Task
from pq.broker import records
from pq.broker.contract.values import Entry
from pq.worker.worker import Worker

runs: list[str] = []


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pq.job()
async def held_up(self: Job, key: str) -> str:
    runs.append(key)
    gate = events.get(key)
    if gate is not None:
        await gate.wait()
    return key


@pq.job()
def blocks(seconds: float) -> None:
    time.sleep(seconds)


events: dict[str, asyncio.Event] = {}


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_unreadable_messages_are_set_aside(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Bytes that are no message go to the dead set with their reason, and stop nothing."""
    broker = await api.broker()
    bad = [
        b"",
        b"no header",
        b"q\n",
        b"q\n\x93\x01",
        b"q\n[1]",
        b"q\n\xc1",
        b"q\n\x81\xa1a\x01",
        b"q\n" + bytes(9),
    ]
    await broker.work.enqueue("default", [Entry(f"bad{n}", record) for n, record in enumerate(bad)])
    other: Task[Any] = Task("someone-else", "addition", "default")
    await broker.work.enqueue("default", [Entry("not-me", records.live_header() + other.to_wire())])
    await start_worker(app)
    assert (await api.tasks.queue("addition", a=1, b=2)).get() == 3
    dead = {id for id, _ in await broker.looks.dead("default")}
    assert dead == {*(f"bad{n}" for n in range(len(bad))), "not-me"}
    task = await api.tasks.get("bad3")
    assert task is not None
    assert (task.status_string, task.reason) == ("FAILURE", "unreadable-message")
    assert task.run_info["raw"] == b"q\n\x93\x01"


async def test_bad_arguments_in_a_message_fail_that_task(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """A producer of another version may send arguments that do not fit: that task fails, with both sides named."""
    broker = await api.broker()
    task: Task[Any] = Task("i1", "addition", "default", app.api().serializer.dumps([[], {"nope": 1}]))
    garbled: Task[Any] = Task("i2", "addition", "default", b"\xc1")
    entries = [Entry(t.id, records.live_header() + t.to_wire()) for t in (task, garbled)]
    await broker.work.enqueue("default", entries)
    await start_worker(app)
    await until_done(api, "i1")
    await until_done(api, "i2")
    first, second = await api.tasks.get("i1"), await api.tasks.get("i2")
    assert first is not None
    assert second is not None
    assert "addition" in (first.exception or "")
    assert "nope" in (first.exception or "")
    assert second.reason == "unreadable-message"


async def until_done(api: Producer, id: str) -> None:
    async with asyncio.timeout(10):
        while (task := await api.tasks.get(id)) is None or not task.done():
            await asyncio.sleep(0.01)


async def test_an_unknown_job_goes_back_for_a_worker_that_knows_it(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy an old worker does not fail the new job's task."""
    old: Worker = await start_worker(make_app(task_paths=[]), name="old")
    async with make_app().api() as api:
        future = api.tasks.queue("addition", a=1, b=1)
        await until(lambda: "released for a worker that knows it" in caplog.text)
        await old.stop()
        await start_worker(make_app(), name="new")
        task = await asyncio.wait_for(future, 20)
        assert task.get() == 2
        assert task.retry == 1


async def test_an_old_worker_does_not_take_what_it_does_not_know_again_and_again(
    make_app: Any, start_worker: Any, valkey: Any
) -> None:
    """Both are idle, and the old one has waited for longer. A task that it releases goes to the other, the next time."""
    await start_worker(make_app(task_paths=[]), name="old")
    async with make_app().api() as api:
        await start_worker(make_app(), name="new")
        for n in range(2):
            await until(lambda: valkey.client.info("clients")["blocked_clients"] == 2)
            async with asyncio.timeout(60):
                task = await api.tasks.queue("addition", a=n, b=1)
            assert (task.get(), task.worker) == (n + 1, "new")
            assert task.run_info.get("unknown", 0) <= 2


async def test_a_zombie_changes_nothing(
    make_app: Any, app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """A worker whose tasks were taken over is refused, and takes a new lease."""
    runs.clear()
    events["z"] = asyncio.Event()
    # Its one slot is taken, so it asks for nothing and hears of nothing until it settles.
    worker: Worker = await start_worker(make_app(concurrent_tasks=1), name="zombie")
    assert worker.context is not None
    future = api.tasks.queue("held.up", "z")
    await until(lambda: runs == ["z"])
    first_lease = worker.context.lease
    broker = await api.broker()
    # Another worker, or the supervisor, does this to a worker that it considers dead.
    assert await broker.work.hand_back(first_lease, ["here", "default"], crashed=True) == 1
    await start_worker(app, name="heir")
    await until(lambda: runs == ["z", "z"])
    events["z"].set()
    task = await future
    assert (task.get(), task.worker) == ("z", "heir")
    assert task.run_info["crashes"] == 1
    await until(lambda: worker.context is not None and worker.context.lease != first_lease)
    assert (worker.counts.succeeded, worker.counts.refused) == (0, 1)


async def test_a_worker_that_loses_its_tasks_works_on(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """After its lease was lost a worker serves on under a new one."""
    worker: Worker = await start_worker(app)
    assert worker.context is not None
    await (await api.broker()).work.hand_back(worker.context.lease, ["here", "default"], crashed=False)
    assert (await asyncio.wait_for(api.tasks.queue("addition", a=2), 10)).get() == 2


async def test_a_job_that_blocks_the_loop_is_named(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog names the job, shows its stack, and the lease is renewed meanwhile: one run only."""
    monkeypatch.setattr("pq.worker.lease.LOOK", 0.05)
    monkeypatch.setattr("pq.worker.lease.STALL", 0.2)
    app = make_app(lease=0.5)
    worker: Worker = await start_worker(app)
    assert worker.context is not None
    lease = worker.context.lease
    with caplog.at_level(logging.WARNING, logger="pq.worker"):
        async with app.api() as api:
            task = await api.tasks.queue("blocks", 1.5)
            assert task.status_string == "SUCCESS"
            assert "crashes" not in task.run_info
    await until(lambda: "the event loop answers again" in caplog.text)
    assert "blocks i" in caplog.text
    assert "test_worker.py" in caplog.text
    assert "[loop-blocked]" in caplog.text
    assert worker.context.lease == lease


async def test_a_worker_ends_after_max_requests(make_app: Any, start_worker: Any) -> None:
    """With `max_requests` a worker takes that number of tasks, not one more, and asks to be replaced."""
    app = make_app(max_requests=5)
    worker: Worker = await start_worker(app)
    async with app.api() as api:
        futures = [api.tasks.queue("addition", a=n) for n in range(8)]
        await asyncio.wait_for(worker.finished.wait(), 10)
        assert worker.counts.succeeded == 5
        await worker.stop()
        assert sum(future.done() for future in futures) == 5
        await start_worker(make_app(), name="w2")
        assert [(await future).get() for future in futures] == list(range(8))


async def test_stopping_hands_back_what_runs(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """A task that does not end within the grace goes back unspent, and the next worker takes it at once."""
    runs.clear()
    events["s"] = asyncio.Event()
    worker: Worker = await start_worker(app)
    future = api.tasks.queue("held.up", "s")
    await until(lambda: runs == ["s"])
    await worker.stop(grace=0.0)
    assert (await api.tasks.size("default"))["default"] == 1
    events["s"].set()
    await start_worker(app, name="w2")
    task = await future
    assert (task.get(), task.retry, task.worker, task.run_info) == ("s", 1, "w2", {})


async def test_draining_lets_tasks_end(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """A worker that stops takes no more tasks, and waits for the running ones."""
    runs.clear()
    events["d"] = asyncio.Event()
    worker: Worker = await start_worker(app)
    future = api.tasks.queue("held.up", "d")
    await until(lambda: runs == ["d"])
    stopping = asyncio.create_task(worker.stop(grace=10.0))
    late = api.tasks.queue("addition", a=1)
    await api.tasks.size("default")
    events["d"].set()
    await stopping
    assert (await future).worker == "w1"
    assert not late.done()
    await start_worker(app, name="w2")
    assert (await late).worker == "w2"


@pq.job(concurrency=pq.CPUBOUND)
def cpu(path: str, until: str) -> int:
    """Say that it runs, then compute until a file is there."""
    Path(path).touch()
    while not Path(until).exists():
        time.sleep(0.001)
    return os.getpid()


@pq.job(concurrency=pq.CPUBOUND)
def trifle(n: int) -> int:
    return n


async def test_process_tasks_wait_in_the_queue_not_in_a_worker(
    make_app: Any, start_worker: Any, tmp_path: Path
) -> None:
    """A worker with one child takes one long process task, and another worker the next."""
    app = make_app(processes=1)
    await start_worker(app, name="w1")
    async with app.api() as api:
        gate = tmp_path / "gate"
        futures = [api.tasks.queue("cpu", str(tmp_path / str(n)), str(gate)) for n in range(4)]
        await until(lambda: (tmp_path / "0").exists())
        async with asyncio.timeout(10):
            while await api.tasks.size("default") != {"default": 3}:
                await asyncio.sleep(0.01)
        await start_worker(app, name="w2")
        await until(lambda: (tmp_path / "1").exists())
        assert not (tmp_path / "2").exists()
        assert await api.tasks.size("default") == {"default": 2}
        gate.touch()
        tasks = [await future for future in futures]
        assert {task.worker for task in tasks[:2]} == {"w1", "w2"}
        assert all(task.status_string == "SUCCESS" and task.retry == 1 for task in tasks)


async def test_a_busy_child_delays_no_other_task(make_app: Any, start_worker: Any, tmp_path: Path) -> None:
    """With its only child busy, a worker goes on with the tasks of the other modes."""
    await start_worker(make_app(processes=1))
    async with make_app().api() as api:
        gate = tmp_path / "gate"
        busy = api.tasks.queue("cpu", str(tmp_path / "runs"), str(gate))
        await until(lambda: (tmp_path / "runs").exists())
        for n in range(3):
            assert (await asyncio.wait_for(api.tasks.queue("addition", a=n), 10)).get() == n
        assert not busy.done()
        gate.touch()
        assert (await busy).status_string == "SUCCESS"


async def test_short_process_tasks_keep_the_children_busy(make_app: Any, start_worker: Any) -> None:
    """Once they are known to be short, a few are taken ahead; each is run once, all end."""
    app = make_app(processes=2)
    worker: Worker = await start_worker(app)
    async with app.api() as api:
        tasks = await api.tasks.map("trifle", range(500))
        assert [task.get() for task in tasks] == list(range(500))
        assert worker.counts.succeeded == 500


@pq.job()
def leaves_work_behind(self: Job, number: int) -> None:
    self.queue("addition", number, queue="unserved")  # and does not wait for it


async def test_tasks_queued_by_a_job_are_stored_before_its_end_is_settled(serving: Producer) -> None:
    """No caller waited for the other task, and yet it is in the store when this one is done, each time."""
    for number in range(50):
        await serving.tasks.queue("leaves.work.behind", number)
        assert await serving.tasks.size("unserved") == {"unserved": number + 1}


async def test_only_what_can_start_is_reserved(make_app: Any, start_worker: Any) -> None:
    """A full worker leaves the rest of the queue to others."""
    runs.clear()
    events.update({f"f{n}": asyncio.Event() for n in range(6)})
    app = make_app(concurrent_tasks=4)
    await start_worker(app)
    async with app.api() as api:
        futures = [api.tasks.queue("held.up", f"f{n}") for n in range(6)]
        await until(lambda: len(runs) == 4)
        assert await api.tasks.size("default") == {"default": 2}
        for gate in events.values():
            gate.set()
        assert [(await future).get() for future in futures] == [f"f{n}" for n in range(6)]
