"""Locks: one holder at a time over all programs of a store, waiting without polling, fences, losing one."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Job, Producer

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}


async def locked_async(self: Job, key: str, seconds: float = 0.02) -> tuple[int, float, float, bool]:
    async with self.lock(key) as lock:
        began = time.time()
        await asyncio.sleep(seconds)
        return lock.fence, began, time.time(), lock.lost


def locked(self: Job, key: str, seconds: float = 0.02) -> tuple[int, float, float, bool]:
    with self.lock(key) as lock:
        began = time.time()
        if "wait" in self.__dict__:
            self.wait(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)
        return lock.fence, began, time.time(), lock.lost


def impatient(self: Job, key: str) -> str:
    try:
        with self.lock(key, wait=0.05):
            return "got it"
    except pq.LockTimeout as exc:
        return str(exc)


def dies_with_it(self: Job, key: str) -> None:
    with self.lock(key, ttl=60):
        os.kill(os.getpid(), signal.SIGKILL)


for _mode in MODES:
    for _function in (locked_async, locked, impatient, dies_with_it):
        if (_mode, _function) in (("asyncio", locked), ("asyncio", impatient)):
            continue
        _made = pq.job(name=f"{_mode}.{_function.__name__}", concurrency=MODES[_mode], timeout=20)(_function)
        globals()[f"job_{_mode}_{_function.__name__}"] = _made


def check_turns(held: list[tuple[int, float, float, bool]]) -> None:
    """No two held it at once, the fences grow in the order of holding, and no holder lost it."""
    held = sorted(held, key=lambda one: one[1])
    for before, after in itertools.pairwise(held):
        assert before[2] <= after[1]
        assert before[0] < after[0]
    assert not any(lost for *_, lost in held)


@pytest.mark.parametrize("job", ["asyncio.locked_async", "thread.locked", "thread.locked_async", "process.locked",
                                 "process.locked_async", "green.locked"])  # fmt: skip
async def test_one_at_a_time(serving: Producer, job: str) -> None:
    """In every mode, async jobs with `async with` and the others with `with`."""
    tasks = [await future for future in [serving.tasks.queue(job, "door") for _ in range(6)]]
    check_turns([tuple(task.get()) for task in tasks])


async def test_all_modes_share_one_lock(serving: Producer) -> None:
    """A lock is known by its name, to all programs with the same store."""
    jobs = ["asyncio.locked_async", "thread.locked", "process.locked", "green.locked"]
    tasks = [await future for future in [serving.tasks.queue(job, "door") for job in jobs * 2]]
    check_turns([tuple(task.get()) for task in tasks])


@pytest.mark.parametrize("store", ["valkey", "memory"])
async def test_twenty_contenders_over_three_programs(make_app: Any, store: str) -> None:
    """Each has it once; the wait for the next one is a message long, and no poll."""
    url = {} if store == "valkey" else {"data_store": f"memory://{os.urandom(4).hex()}"}
    apis = [make_app(**url).api() for _ in range(3)]
    held: list[tuple[int, float, float, bool]] = []

    async def contend(api: Producer) -> None:
        async with api.lock("door", wait=30) as lock:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            held.append((lock.fence, began, time.monotonic(), lock.lost))

    try:
        await asyncio.gather(*(contend(apis[n % 3]) for n in range(20)))
    finally:
        for api in apis:
            await api.close()
    assert len(held) == 20
    check_turns(held)


async def test_waiting_has_an_end(api: Producer) -> None:
    """`wait` seconds, and 0 only asks; a caller that gives up leaves nothing behind."""
    async with api.lock("door") as lock:
        assert lock.fence
        assert "held" in repr(lock)
        for wait in (0, 0.05):
            with pytest.raises(pq.LockTimeout, match=f"was not free within {wait:g} s") as caught:
                await api.lock("door", wait=wait).acquire()
            assert isinstance(caught.value, TimeoutError)
    assert "not held" in repr(lock)
    async with api.lock("door", wait=0):
        pass


async def test_a_cancelled_waiter_leaves_nothing_behind(api: Producer) -> None:
    """The cancelled caller leaves neither the lock behind, nor the next in the line waiting."""
    async with api.lock("door"):
        waiting = [asyncio.ensure_future(api.lock("door").acquire()) for _ in range(3)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.gather(*waiting[::2], return_exceptions=True)
    assert await asyncio.wait_for(waiting[1], 5) > 0


@pytest.mark.parametrize("mode", ["thread", "process", "green"])
async def test_a_job_that_does_not_get_it_goes_on(serving: Producer, mode: str) -> None:
    """The error is the same one in every mode."""
    async with serving.lock("door"):
        task = await serving.tasks.queue(f"{mode}.impatient", "door")
        assert "was not free within 0.05 s" in task.get()
    assert (await serving.tasks.queue(f"{mode}.impatient", "door")).get() == "got it"


@pq.job(name="own.name")
async def own_name(self: Job) -> str:
    async with self.lock() as lock:
        return lock.name


async def test_the_name_is_that_of_the_job(serving: Producer) -> None:
    """Where none is given: one task of this job at a time."""
    assert (await serving.tasks.queue("own.name")).get() == "own.name"


# ------------------------------------------------------------------------------------ losing it
HOLDER = """
import asyncio, sys
from pq.api import PulsarQueue

async def main():
    async with PulsarQueue(data_store=sys.argv[1]).api() as api:
        async with api.lock("door", ttl=0.5) as lock:
            print(lock.fence, flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_lock_of_a_killed_holder_is_free_after_its_ttl(api: Producer, valkey: Any) -> None:
    """The lock is not free before that: a dead holder looks like a slow one."""
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, valkey.url, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    fence = int(await holder.stdout.readline())
    await asyncio.sleep(0.7)  # longer than its ttl: it renews
    with pytest.raises(pq.LockTimeout):
        await api.lock("door", wait=0).acquire()
    holder.kill()
    await holder.wait()
    async with api.lock("door", wait=10) as lock:
        assert lock.fence > fence


async def test_the_lock_of_a_process_job_goes_with_its_process(serving: Producer) -> None:
    """The worker holds it for the child, and lets it go when the attempt is over, however it ends."""
    future = serving.tasks.queue("process.dies_with_it", "door")
    assert (await future).reason == "worker-lost"
    async with serving.lock("door", wait=5):
        pass


async def test_a_holder_notices_that_it_lost_its_lock(api: Producer, valkey: Any, caplog: Any) -> None:
    """When its loop stood still for longer than `ttl` and another one came; it releases nothing of theirs."""
    async with api.lock("door", ttl=0.3, wait=0) as first:
        assert not first.lost
        time.sleep(0.4)  # the whole loop stands still, renewal and all
        assert first.lost
        async with api.lock("door", wait=0) as second:
            assert second.fence > first.fence
            await asyncio.sleep(0.3)
            assert first.lost
            assert "was lost" in caplog.text
            assert not await first.release()
            assert not second.lost
            with pytest.raises(pq.LockTimeout):
                await api.lock("door", wait=0).acquire()


async def test_a_late_holder_keeps_its_lock_if_no_other_took_it(api: Producer) -> None:
    """The renewal that comes late is accepted: better than to run everything twice."""
    async with api.lock("door", ttl=0.3) as lock:
        time.sleep(0.4)
        assert lock.lost
        while lock.lost:
            await asyncio.sleep(0.01)
        assert await lock.release()


# ------------------------------------------------------------------------------------- settings
def test_in_a_plain_shell_and_its_threads(app: pq.PulsarQueue) -> None:
    """Without any loop: `with`, in as many threads as there are."""
    api = app.api()
    held: list[tuple[int, float, float, bool]] = []

    def contend() -> None:
        with api.lock("door", wait=20) as lock:
            began = time.monotonic()
            time.sleep(0.01)
            held.append((lock.fence, began, time.monotonic(), lock.lost))

    threads = [threading.Thread(target=contend) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    api.close()
    assert len(held) == 5
    check_turns(held)


async def test_mistakes(api: Producer) -> None:
    """Each error has a right value."""
    with pytest.raises(pq.WaitInLoop, match="inside a running event loop"), api.lock("door"):
        pass
    with pytest.raises(pq.InvalidValue, match="not a valid lock name"):
        api.lock("a door")
    with pytest.raises(pq.InvalidValue, match="ttl"):
        api.lock("door", ttl=0)
    lock = api.lock("door")
    async with lock:
        with pytest.raises(pq.PqError, match="held by this very object"):
            await lock.acquire()
    assert not await lock.release()


@pq.job(concurrency=CPUBOUND, timeout=20)
def waits_until_lost(self: Job) -> bool:
    with self.lock("door", ttl=0.3) as lock:
        assert not lost_soon(lock, 0.0)
        self.progress(1)
        return lost_soon(lock, 10.0)


@pq.job(concurrency=CPUBOUND, timeout=20)
async def gives_up_and_goes_on(self: Job) -> str:
    try:
        async with asyncio.timeout(0.1):
            await self.lock("door").acquire()
    except TimeoutError:
        pass
    async with self.lock("window"), self.lock("gate"):
        return "in"


def lost_soon(lock: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not lock.lost and time.monotonic() < end:
        time.sleep(0.01)
    return bool(lock.lost)


async def test_a_process_job_is_notified_too(serving: Producer, valkey: Any) -> None:
    """It asks its worker, which holds the lock for it."""
    held = asyncio.Event()
    await serving.on_events("task", "progress", lambda *_: held.set())
    future = serving.tasks.queue("waits.until.lost")
    await held.wait()
    assert valkey.client.delete("pq:lock:{door}")
    assert (await future).get() is True


async def test_a_process_job_that_gives_up_gets_it_no_more(serving: Producer) -> None:
    """A caller that stops waiting does not get the lock later; other callers can have it."""
    async with serving.lock("door"):
        assert (await serving.tasks.queue("gives.up.and.goes.on")).get() == "in"
    async with serving.lock("door", wait=5):
        pass


async def test_a_lost_connection_loses_no_lock(api: Producer) -> None:
    """The holder keeps it, and the waiter learns of its end over the next connection, or asks."""
    async with api.lock("door", ttl=1) as lock:
        waiting = asyncio.ensure_future(api.lock("door", wait=30).acquire())
        await asyncio.sleep(0.05)
        api_broker = await api.broker()
        subscription = next(iter(api_broker.channels.subscriptions))  # type: ignore[attr-defined]
        await subscription._wire.close()  # the connection that would bring word
        assert not waiting.done()
        assert not lock.lost
    assert await asyncio.wait_for(waiting, 20) > 0
