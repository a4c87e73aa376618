"""Streams: parts of a result, sent while the task runs, and read in order until it has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Job, Producer
from pq.errors import (
    InvalidValue,
    NotSerializable,
    PayloadTooLarge,
    QueueFull,
    StreamBroken,
    StreamRestarted,
    TaskError,
    TaskLost,
    WaitInLoop,
)
from pq.producer import streams as reading
from pq.producer.wakeups import StreamWaiters
from pq.worker import streams

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}
every_mode = pytest.mark.parametrize("mode", list(MODES))


def _in_mode(mode: str) -> None:
    async def counts(self: Job, upto: int) -> str:
        for number in range(upto):
            await self.stream({"number": number})
        return "done"

    def counts_plainly(self: Job, upto: int) -> str:
        for number in range(upto):
            self.stream({"number": number})
        return "done"

    for function in (counts, counts_plainly):
        made = pq.job(name=f"{mode}.{function.__name__.replace('_', '.')}", concurrency=MODES[mode])(function)
        made.job_class.__module__ = __name__
        globals()[f"job_{mode}_{function.__name__}"] = made


for _mode in MODES:
    _in_mode(_mode)


@pq.job(max_retries=1, retry_delay=0.01)
async def twice(self: Job, second: int = 1) -> str:
    """Its first attempt streams three parts and fails, its second streams `count` parts."""
    for number in range(3 if self.task.retry == 1 else second):
        await self.stream(f"{self.task.retry}.{number}")
    if self.task.retry == 1:
        while not self.task.kwargs.get("read") and not _read.is_set():
            await asyncio.sleep(0.001)
        raise RuntimeError("the first attempt fails")
    return "done"


@pytest.fixture(autouse=True)
def _events() -> None:
    """The events that jobs wait for, in this test's own loop."""
    global _read, _go_on
    _read, _go_on = asyncio.Event(), asyncio.Event()


_read = asyncio.Event()
_go_on = asyncio.Event()


@pq.job()
async def halfway(self: Job) -> int:
    await self.stream("before")
    await _go_on.wait()
    await self.stream("after")
    return 2


@pq.job()
async def fails(self: Job) -> None:
    await self.stream("all that there is")
    raise ValueError("it went wrong")


@pq.job()
def nothing() -> int:
    return 1


@pq.job()
async def errors(self: Job, kind: str) -> str:
    """A wrong part raises at once, and nothing of it is sent."""
    part: Any = {"object": object(), "large": b"x" * 2000}[kind]
    try:
        await self.stream(part)
    except pq.PqError as exc:
        await self.stream("a good one")
        return f"{type(exc).__name__}: {exc}"
    return "no error"


@pq.job()
def floods(self: Job, parts: int) -> str:
    """A plain function in the loop: nothing can be sent while it runs."""
    try:
        for number in range(parts):
            self.stream(number)
    except InvalidValue as exc:
        return str(exc.hint)
    return "no error"


@pq.job()
async def leaves_something_behind(self: Job) -> Any:
    self.stream("in time")
    _late.append(self)


_late: list[Job] = []


@pq.job()
async def reads_another(self: Job, other: str) -> list[Any]:
    tasks: Any = self.backend.tasks
    return [part async for part in tasks.stream(tasks.queue(other))]


async def parts_of(api: Producer, task: Any, **options: Any) -> list[Any]:
    async with asyncio.timeout(60):
        return [part async for part in api.tasks.stream(task, **options)]


@every_mode
@pytest.mark.parametrize("job", ["counts", "counts.plainly"])
async def test_all_parts_come_in_their_order(serving: Producer, mode: str, job: str) -> None:
    """In every mode, from an `async def` and a plain one; more than fit in what may wait to be sent, and in one call."""
    upto = 100 if (mode, job) == ("asyncio", "counts.plainly") else 2 * streams.UNSENT_PARTS
    future = serving.tasks.queue(f"{mode}.{job}", upto=upto)
    assert await parts_of(serving, future) == [{"number": number} for number in range(upto)]
    task = await future
    assert (task.get(), task.run_info["streamed"]) == ("done", upto)


async def test_they_come_while_the_task_runs(serving: Producer) -> None:
    """The first part is read before the task goes on; a second reader, by id, gets the earlier parts too."""
    future = serving.tasks.queue("halfway")
    stream = serving.tasks.stream(future)
    async with asyncio.timeout(20):
        assert await anext(stream) == "before"
    assert not future.done()
    late = serving.tasks.stream(future.id)
    async with asyncio.timeout(20):
        assert await anext(late) == "before"
    _go_on.set()
    async with asyncio.timeout(20):
        assert [part async for part in stream] == [part async for part in late] == ["after"]
    assert await parts_of(serving, await future) == ["before", "after"], "it is kept as the result is"
    assert (stream.number, stream.attempts) == (2, 1)


async def test_a_task_that_streams_nothing(serving: Producer) -> None:
    """Its stream is empty, and ends with it."""
    future = serving.tasks.queue("nothing")
    assert await parts_of(serving, future) == []
    assert "streamed" not in (await future).run_info
    assert await parts_of(serving, future.id) == []


async def test_the_error_of_the_task_comes_after_its_parts(serving: Producer) -> None:
    """No reader takes half of a result for the whole."""
    stream = serving.tasks.stream(serving.tasks.queue("fails"))
    async with asyncio.timeout(20):
        assert await anext(stream) == "all that there is"
        with pytest.raises(TaskError, match="it went wrong"):
            await anext(stream)


async def test_a_reader_is_notified_of_another_attempt(serving: Producer) -> None:
    """Parts of the first attempt do not count any more; a reader reads the second from its beginning."""
    stream = serving.tasks.stream(serving.tasks.queue("twice", second=2))
    async with asyncio.timeout(20):
        assert [await anext(stream) for _ in range(3)] == ["1.0", "1.1", "1.2"]
        _read.set()
        with pytest.raises(StreamRestarted, match="started again") as caught:
            await anext(stream)
        assert "read on" in (caught.value.hint or "")
        assert [part async for part in stream] == ["2.0", "2.1"]
    assert (stream.number, stream.attempts) == (2, 2)


async def test_with_gaps_another_attempt_raises_nothing(serving: Producer) -> None:
    """The parts of both are given."""
    stream = serving.tasks.stream(serving.tasks.queue("twice"), gaps=True)
    async with asyncio.timeout(20):
        first = await anext(stream)
        _read.set()
        rest = [part async for part in stream]
    assert [first, *rest][-1] == "2.0"
    assert first == "1.0"


async def test_a_late_reader_reads_the_last_attempt_only(serving: Producer) -> None:
    """The parts of the first attempt are gone."""
    _read.set()
    task = await serving.tasks.queue("twice")
    assert await parts_of(serving, task) == ["2.0"]


async def test_an_attempt_that_streams_nothing_after_one_that_did(serving: Producer) -> None:
    """The parts of the first lie there still, and are not those of the result."""
    _read.set()
    task = await serving.tasks.queue("twice", second=0)
    stream = serving.tasks.stream(task)
    async with asyncio.timeout(20):
        with pytest.raises(StreamRestarted, match="streamed nothing"):
            [part async for part in stream]
        assert [part async for part in stream] == [], "that is all there is"
    assert len(await parts_of(serving, task, gaps=True)) == 3


async def test_dropped_parts_are_reported(serving: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is bounded: its last parts are kept. A late reader gets an error, and may read the rest."""
    monkeypatch.setattr(streams, "MOST_PARTS", 50)
    monkeypatch.setattr(streams, "UNSENT_PARTS", 10)
    task = await serving.tasks.queue("asyncio.counts", upto=200)
    stream = serving.tasks.stream(task)
    async with asyncio.timeout(20):
        for _ in range(2):
            with pytest.raises(StreamBroken, match="151 parts before number 152"):
                await anext(stream)
    parts = await parts_of(serving, task, gaps=True)
    assert [part["number"] for part in parts] == list(range(151, 200)), "and the mark of the end"


async def test_parts_that_the_store_lost_are_reported(serving: Producer, valkey: Any) -> None:
    """The task says how many there were."""
    task = await serving.tasks.queue("asyncio.counts", upto=5)
    valkey.client.delete(f"pq:{{{task.queue}}}:stream:{task.id}")
    stream = serving.tasks.stream(task)
    for _ in range(2):
        with pytest.raises(StreamBroken, match="its last 5 parts"):
            await anext(stream)
    assert await parts_of(serving, task, gaps=True) == []


@pytest.mark.parametrize(
    ("kind", "error"), [("object", NotSerializable), ("large", PayloadTooLarge)], ids=["object", "large"]
)
async def test_a_part_that_cannot_be_sent(
    make_app: Any, start_worker: Any, kind: str, error: type[Exception]
) -> None:
    """An error in the job that names it; the next part is as good as any."""
    app = make_app(max_message_size=1500)
    await start_worker(app)
    async with app.api() as api:
        future = api.tasks.queue("errors", kind=kind)
        assert await parts_of(api, future) == ["a good one"]
        result = (await future).get()
    assert result.startswith(error.__name__)
    assert "part that 'errors' streams" in result


async def test_far_too_much_at_once(serving: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the loop a plain function cannot wait: beyond a bound the error says what to write."""
    monkeypatch.setattr(streams, "MOST_PARTS", 50)
    future = serving.tasks.queue("floods", parts=60)
    assert "await self.stream(part)" in (await future).get()
    # Read after its end: the end of an attempt takes the place of the oldest part, which a reader before it still gets.
    assert len(await parts_of(serving, future, gaps=True)) == 49


async def test_after_its_end_a_task_streams_nothing(serving: Producer) -> None:
    """Code that a job leaves behind cannot write to its stream."""
    _late.clear()
    future = serving.tasks.queue("leaves.something.behind")
    await future
    with pytest.raises(InvalidValue, match="does not run here any more"):
        _late[0].stream("late")
    assert await parts_of(serving, future) == ["in time"]


async def test_a_job_reads_the_stream_of_another(serving: Producer) -> None:
    """The call in a worker is the same."""
    _go_on.set()
    task = await serving.tasks.queue("reads.another", "halfway")
    assert task.get() == ["before", "after"]


async def test_a_full_store_is_the_error_of_the_job(
    serving: Producer, valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`QueueFull` where it awaits; readers miss the parts that were refused."""
    future = serving.tasks.queue("halfway")
    stream = serving.tasks.stream(future)
    async with asyncio.timeout(20):
        assert await anext(stream) == "before"
    valkey.client.config_set("maxmemory", "100kb")
    try:
        _go_on.set()
        task = await future
    finally:
        valkey.client.config_set("maxmemory", "0")
    assert task.run_info["streamed"] == 2
    assert "is incomplete in the store" in caplog.text
    with pytest.raises(StreamBroken, match="its last 1 part"):
        await parts_of(serving, task)
    assert issubclass(QueueFull, pq.PqError)


async def test_word_of_new_parts_is_not_needed(serving: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be lost: a look now and then finds them."""
    monkeypatch.setattr(reading, "LOOK_AFTER", 0.01)
    monkeypatch.setattr(StreamWaiters, "notify", lambda self, id: None)
    stream = serving.tasks.stream(serving.tasks.queue("halfway").id)
    async with asyncio.timeout(20):
        assert await anext(stream) == "before"
        _go_on.set()
        assert [part async for part in stream] == ["after"]


async def test_a_wrong_task(serving: Producer) -> None:
    """An unknown id, one that is none, a task without a queue, one that was lost."""
    with pytest.raises(InvalidValue, match="there is no task unserved"):
        await parts_of(serving, "unserved")
    with pytest.raises(InvalidValue, match="task id"):
        serving.tasks.stream("no id at all")
    with pytest.raises(InvalidValue, match="without a queue"):
        serving.tasks.stream(serving.tasks.execute("nothing"))
    with pytest.raises(InvalidValue, match="task id"):
        serving.tasks.stream(7)  # type: ignore[arg-type]


async def test_a_task_that_was_never_queued(api: Producer, valkey: Any) -> None:
    """The store refused it, or lost it: the same error as its future has."""
    valkey.client.config_set("maxmemory", "100kb")
    try:
        with pytest.raises(QueueFull):
            await parts_of(api, api.tasks.queue("nothing"))
    finally:
        valkey.client.config_set("maxmemory", "0")
    future = api.tasks.queue("nothing", callback=False)
    task = await future
    valkey.client.flushall()
    with pytest.raises(TaskLost):
        await parts_of(api, task)


async def test_in_a_thread_a_plain_for_reads_it(serving: Producer, make_app: Any) -> None:
    """The prompt works the same; in a running loop that would block it."""
    with pytest.raises(WaitInLoop, match="would block"):
        iter(serving.tasks.stream(serving.tasks.queue("nothing")))

    def shell() -> list[Any]:
        api = make_app().api()
        try:
            return list(api.tasks.stream(api.tasks.queue("asyncio.counts", upto=3)))
        finally:
            api.close()

    assert await asyncio.to_thread(shell) == [{"number": n} for n in range(3)]


async def test_without_a_queue_a_stream_has_no_reader(api: Producer) -> None:
    """A task that is executed here runs as it would in a worker."""
    task = await api.tasks.execute("asyncio.counts", upto=3)
    assert task.get() == "done"


async def test_in_memory(make_app: Any) -> None:
    """The broker of tests streams as a store does."""
    async with make_app(data_store="memory://").api() as api:
        assert await parts_of(api, api.tasks.queue("asyncio.counts", upto=30)) == [
            {"number": n} for n in range(30)
        ]
