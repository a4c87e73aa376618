"""Looking: lists of tasks, one by the beginning of its id, its log lines, its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pq import api as pq
from pq.api import Producer

gate: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh(caplog: pytest.LogCaptureFixture) -> None:
    gate.clear()
    caplog.set_level(logging.INFO)  # as in a worker's process


@pq.job()
async def held(self: pq.Job, value: Any = None) -> Any:
    self.logger.info("holding %r", value)
    self.progress(1, 4, "begun")
    await gate.setdefault("open", asyncio.Event()).wait()
    return value


@pq.job()
def wrong(value: Any) -> None:
    raise ValueError(f"no {value}")


@pq.job(max_concurrency=1)
async def one(self: pq.Job, value: Any = None) -> Any:
    await gate.setdefault("open", asyncio.Event()).wait()
    return value


@pq.job()
async def talks(self: pq.Job, times: int) -> int:
    for n in range(times):
        self.logger.warning("line %d\nof %d", n, times)
        await asyncio.sleep(0)
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("elsewhere").exception("it went wrong")
    return times


@pq.job(concurrency=pq.CPUBOUND)
def talks_in_a_process(self: pq.Job) -> None:
    self.logger.info("logged there")
    print("printed there")


@pq.job()
async def goes_over(self: pq.Job, count: int) -> list[int]:
    async def later() -> AsyncIterator[int]:
        for n in range(count):
            yield n

    seen = list(self.progress(range(count), message="sync"))
    return seen + [n async for n in self.progress(later(), total=count)]


@pq.job(concurrency=pq.THREAD_IO)
def goes_over_in_a_thread(self: pq.Job, count: int) -> int:
    return sum(self.progress(range(count)))


@pq.job(concurrency=pq.CPUBOUND)
def goes_over_in_a_process(self: pq.Job, count: int) -> int:
    return sum(self.progress(range(count)))


@pq.job()
async def progress_of_nothing(self: pq.Job) -> None:
    self.progress(None)  # type: ignore[call-overload]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------ lists
async def test_tasks_in_every_state(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Running, waiting and recently ended tasks are listed; by status, and all together."""
    await start_worker(app)
    failed = await api.tasks.queue("wrong", "luck")
    running = api.tasks.queue("held", "r")
    limited = [api.tasks.queue("one", n) for n in range(2)]
    delayed = api.tasks.queue("held", delay=60)

    async def both_run() -> bool:
        return len(await api.tasks.search("started")) == 2

    await until(both_run)
    waiting = api.tasks.queue("held", queue="unserved")
    await api.tasks.size()
    cancelled = api.tasks.queue("held", queue="unserved")
    await api.tasks.cancel(cancelled.task.id)

    async def ids(*args: Any, **options: Any) -> set[str]:
        return {task.id for task in await api.tasks.search(*args, **options)}

    assert await ids("STARTED") == {running.id, limited[0].id}
    assert await ids("queued") == {limited[1].id, delayed.id, waiting.id}
    assert await ids("failure") == await ids("dead") == {failed.id}
    assert await ids("revoked") == {cancelled.id}
    assert len(await ids()) == 7
    assert (await api.tasks.search())[0].status_string == "STARTED"
    gate["open"].set()
    await asyncio.gather(running, *limited)
    assert await ids("success") == {running.id, *(future.id for future in limited)}


async def test_lists_by_queue_job_text_and_age(serving: Producer) -> None:
    """Each narrows the list."""
    await asyncio.gather(*[serving.tasks.queue("wrong", word) for word in ("apple", "Pear", "plum")])
    await serving.tasks.queue("talks", 1)
    tasks = serving.tasks
    assert [task.name for task in await tasks.search(job="talks")] == ["talks"]
    assert [task.args for task in await tasks.search(text="pear")] == [["Pear"]]
    assert [task.args for task in await tasks.search(text="no plum")] == [["plum"]]
    assert await tasks.search(queue="other") == []
    assert len(await tasks.search(since=60)) == 4
    assert await tasks.search(since=0) == []
    assert len(await tasks.search(count=2)) == 2


@pytest.mark.parametrize("what", ["text", "job"])
async def test_a_value_that_is_not_text_raises(api: Producer, what: str) -> None:
    """A number that is looked for has to be written as a text."""
    with pytest.raises(pq.InvalidValue, match=f"{what} is 42, and must be a text") as caught:
        await api.tasks.search(**{what: 42})  # type: ignore[arg-type]
    assert caught.value.hint == f"{what}='42'"


async def test_a_wrong_status_raises(api: Producer) -> None:
    """The error has the nearest status."""
    with pytest.raises(pq.InvalidValue, match="'failled' is not a status") as caught:
        await api.tasks.search("failled")
    assert "failure" in (caught.value.hint or "")


# ------------------------------------------------------------------------------------------- one of them
async def test_the_beginning_of_an_id_is_enough(serving: Producer) -> None:
    """An ambiguous beginning is an error with the ids, as in git."""
    task = await serving.tasks.queue("talks", 0)
    assert (await serving.tasks.find(task.id[:8])).id == task.id
    await serving.tasks.queue("talks", 0)
    with pytest.raises(pq.InvalidValue, match="2 tasks begin with 'i'"):
        await serving.tasks.find("i")
    with pytest.raises(pq.InvalidValue, match="no task begins with 'x9'"):
        await serving.tasks.find("x9")
    with pytest.raises(pq.InvalidValue):
        serving.tasks.find("a*")


async def test_a_running_task_is_seen_as_that(serving: Producer) -> None:
    """`get` and `find` show that it runs, and its progress."""
    future = serving.tasks.queue("held")

    async def begun() -> bool:
        task = await serving.tasks.get(future.id)
        return task is not None and "progress" in task.run_info

    await until(begun)
    task = await serving.tasks.find(future.id)
    assert task.status_string == "STARTED"
    assert task.run_info["progress"] == {"done": 1, "total": 4, "message": "begun"}
    gate["open"].set()
    await future


# --------------------------------------------------------------------------------------------- log lines
async def test_the_log_lines_of_a_task(serving: Producer) -> None:
    """The log of a task has the lines of any logger while it runs, with time and level, and no lines of other tasks."""
    task, other = await asyncio.gather(serving.tasks.queue("talks", 2), serving.tasks.queue("talks", 1))

    async def all_there() -> bool:
        return len(await serving.tasks.log(task.id)) == 3 and len(await serving.tasks.log(other.id)) == 2

    await until(all_there)
    lines = await serving.tasks.log(task.id)
    assert [(line.level, line.text) for line in lines] == [
        ("WARNING", "line 0\nof 2"),
        ("WARNING", "line 1\nof 2"),
        ("ERROR", "it went wrong · KeyError: 'x'"),
    ]
    assert abs(lines[0].time - (task.time_started or 0)) < 60
    assert await serving.tasks.log("unserved") == []


async def test_a_task_that_logs_without_end_loses_its_oldest_lines(serving: Producer) -> None:
    """A thousand lines are kept."""
    task = await serving.tasks.queue("talks", 1200)

    async def last_is_there() -> bool:
        lines = await serving.tasks.log(task.id)
        return bool(lines) and lines[-1].level == "ERROR"

    await until(last_is_there)
    lines = await serving.tasks.log(task.id)
    assert len(lines) == 1000
    assert lines[-2].text.startswith("line 1199")


async def test_what_a_child_process_logs_and_prints_is_kept_too(serving: Producer) -> None:
    """It comes through the worker."""
    task = await serving.tasks.queue("talks.in.a.process")

    async def both() -> bool:
        texts = [line.text for line in await serving.tasks.log(task.id)]
        return "logged there" in texts and "printed there" in texts

    await until(both)


# ------------------------------------------------------------------------------------------------ events
async def test_the_events_of_one_task(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """The listener gets all from queued to done, with progress and log lines, and no events of others."""
    future = api.tasks.queue("held", 7)
    names = []
    async with asyncio.timeout(20):
        async for event in future:
            names.append(event.name)
            if event.name == "queued":
                await start_worker(app)
                await api.tasks.queue("talks", 0)
            if event.name == "progress":
                assert event.task.run_info["progress"]["done"] == 1
            if event.name == "log":
                assert [line.text for line in event.lines] == ["holding 7"]
            if {"progress", "log"} <= set(names):
                gate.setdefault("open", asyncio.Event()).set()
    assert (names[0], names[-1]) == ("queued", "done")
    assert sorted(names) == ["done", "log", "progress", "queued", "started"]
    assert event.task.get() == 7


async def test_the_events_of_a_task_that_is_done(serving: Producer) -> None:
    """Only its end is published."""
    task = await serving.tasks.queue("talks", 0)
    future = (await serving.tasks.get(task.id)).done_callback
    assert [event.name async for event in future] == ["done"]


async def test_listeners_of_everything_get_log_lines_with_their_task(serving: Producer) -> None:
    """The message is the task, as with any task event."""
    heard: list[Any] = []
    await serving.on_events("task", "*", lambda channel, event, task: heard.append((event, task)))
    task = await serving.tasks.queue("talks", 0)

    async def told() -> bool:
        return any(event == "log" for event, _ in heard)

    await until(told)
    assert {message.id for _, message in heard} == {task.id}
    assert "log" not in (await serving.tasks.get(task.id)).run_info


# ---------------------------------------------------------------------------------------------- progress
@pytest.mark.parametrize("job", ["goes.over.in.a.thread", "goes.over.in.a.process"])
async def test_progress_over_rows_in_every_mode(serving: Producer, job: str) -> None:
    """`for row in self.progress(rows)`: the last report is that of the last row."""
    task = await serving.tasks.queue(job, 50)
    assert task.get() == sum(range(50))
    assert task.run_info["progress"]["done"] == task.run_info["progress"]["total"] == 50


async def test_progress_over_rows_sync_and_async(serving: Producer) -> None:
    """In an async job both kinds of loop; of nothing, it says so."""
    task = await serving.tasks.queue("goes.over", 5)
    assert task.get() == [*range(5), *range(5)]
    assert task.run_info["progress"]["done"] == 5
    none = await serving.tasks.queue("goes.over", 0)
    assert none.run_info["progress"] == {"done": 0, "total": 0, "message": "sync"}


async def test_progress_of_what_is_neither(serving: Producer) -> None:
    """The mistake is the task's error."""
    task = await serving.tasks.queue("progress.of.nothing")
    assert "expects a number or an iterable, got " in (task.exception or "")


# --------------------------------------------------------------------------------------- why it waits
async def test_why_a_task_waits(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Reasons are ordered: those that can never pass by themselves come first."""

    async def slug(future: Any) -> str | None:
        await api.tasks.size()
        reason = await api.tasks.why(future.id)
        return None if reason is None else reason.slug

    first = api.tasks.queue("held", 1)
    assert await slug(first) == "no-worker"
    await start_worker(app)
    await api.on_events("consumer", "status", lambda *_: None)

    async def beats() -> bool:
        return bool(await api.tasks.workers())

    await until(beats)
    assert await slug(api.tasks.queue("held", queue="emials")) == "queue-unserved"
    assert await slug(api.tasks.queue("held", delay=60)) == "delayed"
    limited = [api.tasks.queue("one", n) for n in range(3)]

    async def limit_reached() -> bool:
        return await slug(limited[2]) == "at-limit"

    await until(limit_reached)
    reason = await api.tasks.why(limited[2].id)
    assert reason is not None
    assert (reason.text, reason.lasts) == ("a limit is reached (one); 1 wait before it", False)
    assert await slug(limited[0]) is None, "it runs"
    await api.tasks.pause("default")
    paused = [api.tasks.queue("held") for _ in range(2)]
    assert await slug(paused[1]) == "queue-paused"
    await api.tasks.resume("default")
    gate["open"].set()
    await asyncio.gather(first, *limited, *paused)
    assert await slug(first) is None
    assert await api.tasks.why("unserved") is None


async def test_a_long_wait_is_explained(
    api: Producer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter for a task of a queue that no worker serves gets one warning, with the command to type."""
    monkeypatch.setattr("pq.producer.awaiting.LOOK_AFTER", 0.05)
    monkeypatch.setattr("pq.producer.awaiting.WARN_AFTER", 0.1)
    futures = [api.tasks.queue("held", n) for n in range(2)]

    async def warned() -> bool:
        return "still waiting" in caplog.text

    await until(warned)
    assert "no worker is running [no-worker]" in caplog.text
    assert "hint: start one: python manage.py -w 2" in caplog.text
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.gather(*futures)
    assert caplog.text.count("still waiting") == 1
