"""The README of the ancestor, `pulsar-queue`, worked through from its API to its last hook.

Its first four steps, which need a server, are in `tests/lifecycle/test_ancestor_steps.py`. Where the two
differ, `docs/how-to/from-pulsar-queue.md` says how and why.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, PusarQueue, Task


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# ----------------------------------------------------------------------------------------- its jobs
@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pq.job()
async def scrape(self: Job, url: str | None = None) -> str:
    assert url, "url is required"
    request = await self.http.get(url)
    html = request.text
    task = self.queue("process.html", html=html, callback=False)
    return task.id


@pq.job()
def process_html(self: Job, html: str) -> dict[str, Any]:
    return {"links": html.count("<a "), "from": self.task.meta["from_task"]}


@pq.job(concurrency=pq.THREAD_IO)
def extract_text(self: Job, input: str | None = None, output: str | None = None) -> dict[str, int]:
    """Extract text from a document."""
    assert input, "input and output must be given"
    assert output, "input and output must be given"
    text = "\n\n".join(Path(input).read_text().splitlines())
    with open(output, "w") as fp:
        fp.write(text)
    return {"thread": threading.get_ident(), "text": len(text)}


@pq.job(concurrency=pq.CPUBOUND)
def cpubound(self: Job, error: bool = False) -> list[Any]:
    self.logger.warning("Testing CpuBound concurrency")
    if error:
        raise ValueError("just a test")
    return ["OK", os.getpid()]


@pq.job(concurrency=pq.GREEN_IO)
def greenlet(self: Job) -> list[Any]:
    task = self.wait(self.queue("addition", a=1, b=2))
    return [task.result, self.wait(asyncio.sleep(0, "slept"))]


@pq.job(concurrency=pq.CPUBOUND)
def cpuboundbiglog(self: Job) -> None:
    for _ in range(1024):
        self.logger.info("*" * 1024)


@pq.job(max_concurrency=3, on_limit="revoke")
async def maxconcurrency(self: Job, lag: float = 1) -> float:
    await asyncio.sleep(lag)
    return lag


@pq.job()
async def notoverlap(self: Job, lag: float = 0.01) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    async with self.lock():
        start = loop.time()
        await asyncio.sleep(lag)
        return {"start": start, "end": loop.time()}


@pq.job("testperiodic", run_every=dt.timedelta(seconds=1))
def periodic(self: Job) -> float:
    assert self.cfg == self.backend.cfg
    return self.task.time_started or 0.0


class EveryHour(pq.PeriodicJob):
    abstract = True
    run_every = dt.timedelta(hours=1)


class AnchoredEveryHour(EveryHour):
    anchor = pq.anchorDate(minute=25)

    def __call__(self) -> None:
        """Comes at 25 past."""


@pq.job(max_retries=2, retry_delay=1, default_queue="default", timeout=60)
async def attributes(self: Job) -> dict[str, Any]:
    """Look at all that the README names."""
    facts = {name: getattr(self, name) for name in ("default_queue", "max_retries", "retry_delay", "name")}
    facts |= {"logger": self.logger.name, "task": self.task.id, "node": self.backend.node_name}
    facts |= {"queues": self.backend.tasks.queues(), "http": type(self.http).__name__}
    return facts | {"shell": await self.shell("echo $((6 * 7))")}


@pytest.fixture
def app(make_app: Any) -> PusarQueue:
    """Its jobs, and those that come with it."""
    app: PusarQueue = make_app(task_paths=[__name__, "pq.jobs"])
    return app


# ------------------------------------------------------------------------------------ "API methods"
async def test_start_and_events(app: PusarQueue, start_worker: Any) -> None:
    """`api = await api.start()`, and a callback for each of the three events, with a task as the message."""
    await start_worker(app)
    api = app.api()
    api = await api.start()
    heard: list[str] = []

    def callback(channel: str, event: str, message: Task[float]) -> None:
        assert channel == "task"
        assert isinstance(message, Task)
        heard.append(f"{event} {message.status_string}")

    api.on_events("task", "queued", callback)
    api.on_events("task", "started", callback)
    await api.on_events("task", "done", callback)
    await api.tasks.queue("addition", a=4, b=6)
    await until(lambda: len(heard) == 3)
    assert heard == ["queued QUEUED", "started STARTED", "done SUCCESS"]
    for event in ("queued", "started", "done"):
        await api.remove_event_callback("task", event, callback)
    await api.tasks.queue("addition")
    await api.tasks.queue("addition")
    assert len(heard) == 3
    await api.close()


async def test_an_event_is_a_regular_expression_of_its_kind(serving: Producer) -> None:
    """`'.*'` and `'started|done'` keep their meaning; `'*'` is the form of its own tests."""
    heard: dict[str, list[str]] = {pattern: [] for pattern in ("*", ".*", "started|done", "^done$")}
    for pattern, events in heard.items():
        await serving.on_events("task", pattern, lambda c, e, task, events=events: events.append(e))
    await serving.tasks.queue("addition")
    await until(lambda: all("done" in events for events in heard.values()))
    assert heard["*"] == heard[".*"] == ["queued", "started", "done"]
    assert (heard["started|done"], heard["^done$"]) == (["started", "done"], ["done"])


async def test_messages(serving: Producer) -> None:
    """`api.queue(message, callback)`, `api.execute(message)` and its twin, and the list of consumers."""
    made = [serving.tasks.make("addition", {"a": n, "b": 1}) for n in range(4)]
    assert (await serving.queue(made[0])).result == 1
    assert (await serving.queue(made[1], callback=False)).status_string == "QUEUED"
    assert (await serving.execute(made[2])).result == 3
    assert (await serving.tasks.execute(made[3])).result == 4
    assert [getattr(serving, name) for name in serving.consumers] == [serving.tasks]


# -------------------------------------------------------------------------------------- "Tasks API"
async def test_queue_and_its_options_beside_arguments(serving: Producer) -> None:
    """`callback=False`, then `done_callback`; delay, queue, timeout and the three of `meta_params`."""
    tasks = serving.tasks
    task = await tasks.queue("addition", a=4, b=6, callback=False)
    assert task.status_string == "QUEUED"
    assert f"ID={task.id}" in repr(task.done_callback)
    assert (await task.done_callback).result == 10
    meta = {"max_retries": 3, "retry_delay": 1, "max_concurrency": 2}
    task = await tasks.queue("addition", a=4, delay=0.05, queue="here", timeout=3, meta_params=meta)
    assert (task.result, task.delay, task.queue, task.timeout) == (4, 0.05, "here", 3)
    assert (task.max_retries, task.retry_delay) == (3, 1)
    assert task.time_started - task.time_queued >= 0.05


async def test_queue_local(serving: Producer) -> None:
    """`tasks.queue_local(…)` is `tasks.queue(…, queue=tasks.node_name)`."""
    tasks = serving.tasks
    first = await tasks.queue("addition", a=1, queue=tasks.node_name)
    second = await tasks.queue_local("addition", a=1)
    assert first.queue == second.queue == tasks.node_name
    assert tasks.queues()[0] == tasks.node_name


async def test_execute(api: Producer) -> None:
    """`tasks.execute(…)` is `tasks.queue(…, queue=False)`: no queue, and a success without any server."""
    for future in (api.tasks.execute("addition", a=3, b=-4), api.tasks.queue("addition", 3, -4, queue=False)):
        assert isinstance(future, pq.MessageFuture)
        task = await future
        assert (task.queue, task.status_string, task.result) == (None, "SUCCESS", -1)


async def test_job_list(api: Producer) -> None:
    """A dictionary for each job; the ready-made one now runs in a process of its own."""
    jobs = dict(api.tasks.job_list())
    job = jobs["execute.python"]
    assert (job["type"], job["concurrency"], job["doc_syntax"]) == ("regular", "process", "markdown")
    assert job["doc"].startswith("Run Python code")
    assert jobs["testperiodic"]["type"] == "periodic"


async def test_next_scheduled_size_and_flush(api: Producer) -> None:
    """The three that its README left out."""
    name, seconds = api.tasks.next_scheduled() or ("", 0.0)
    assert (name, seconds <= 1) == ("testperiodic", True)
    name, seconds = api.tasks.next_scheduled(["anchoredeveryhour"]) or ("", 0.0)
    assert (name, 0 < seconds <= 3600) == ("anchoredeveryhour", True)
    await asyncio.gather(*[api.tasks.queue("addition", callback=False) for _ in range(4)])
    assert await api.tasks.size("default") == {"default": 4}
    assert await api.tasks.flush_queues("default") == 4
    assert await api.tasks.size("default") == {"default": 0}


async def test_wrong_arguments_are_not_queued(api: Producer) -> None:
    """They were a failed task; they are an error of the call."""
    with pytest.raises(pq.BadArguments, match="sleep"):
        api.tasks.queue("addition", sleep=2)
    with pytest.raises(pq.TaskNotAvailable):
        api.tasks.queue("jsdbcjsdhbc")


# ---------------------------------------------------------------------------------- "The Job class"
CLASS = """
import asyncio
from pq import api

class AsyncSleep(api.Job):

    async def __call__(self, lag=1):
        await asyncio.sleep(lag)
"""

DECORATOR = """
import asyncio
from pq import api

@api.job()
async def asyncsleep(self, lag=1):
    await asyncio.sleep(lag)
"""


@pytest.mark.parametrize("text", [CLASS, DECORATOR], ids=["class", "decorator"])
async def test_both_ways_to_write_a_job(
    make_app: Any, start_worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """To the letter: with the same name, and the same result."""
    module = f"sleepers_{len(text)}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make_app(task_paths=[module])
    await start_worker(app)
    async with app.api() as api:
        task = await api.tasks.queue("asyncsleep", lag=0.01)
        assert (task.status_string, task.result) == ("SUCCESS", None)


async def test_the_attributes_of_a_job(serving: Producer) -> None:
    """backend, default_queue, http, logger, max_retries, retry_delay, name, task, queue, shell."""
    task = await serving.tasks.queue("attributes")
    assert task.get() == {
        "default_queue": "default",
        "max_retries": 2,
        "retry_delay": 1,
        "name": "attributes",
        "logger": "pq.attributes",
        "task": task.id,
        "node": "here",
        "queues": ["here", "default"],
        "http": "AsyncClient",
        "shell": "42\n",
    }


async def test_a_lock_keeps_them_apart(serving: Producer) -> None:
    """`async with self.lock():`, with the name of the job."""
    tasks = await asyncio.gather(*[serving.tasks.queue("notoverlap") for _ in range(3)])
    results = sorted((task.get() for task in tasks), key=lambda result: result["start"])
    assert results[0]["end"] <= results[1]["start"]
    assert results[1]["end"] <= results[2]["start"]


async def test_periodic_jobs(make_app: Any, start_worker: Any) -> None:
    """A server with `schedule_periodic` queues them; each listener sees the done task."""
    app = make_app(schedule_periodic=True)
    done: list[Task[float]] = []
    async with app.api() as api:
        await api.on_events("task", "done", lambda c, e, task: done.append(task))
        await start_worker(app)
        await until(lambda: done)
    assert (done[0].name, done[0].status_string) == ("testperiodic", "SUCCESS")


# ----------------------------------------------------------------------------------------- "The Task"
def test_the_states() -> None:
    """Their numbers, and the two sets."""
    assert (pq.QUEUED, pq.STARTED, pq.RETRY, pq.REVOKED, pq.FAILURE, pq.SUCCESS) == (6, 5, 4, 3, 2, 1)
    assert {pq.FAILURE, pq.SUCCESS} == pq.FULL_RUN_STATES
    assert {pq.REVOKED, pq.FAILURE, pq.SUCCESS} == pq.READY_STATES
    assert (pq.status_string(243134), pq.status_string("jhbjhbj"), pq.status_string(1)) == (
        "UNKNOWN",
        "UNKNOWN",
        "SUCCESS",
    )


async def test_a_time_out_revokes(serving: Producer) -> None:
    """REVOKED, after no less than its time."""
    task = await serving.tasks.queue("maxconcurrency", lag=10, timeout=0.2)
    assert task.status_string == "REVOKED"
    assert task.time_ended - task.time_queued >= task.timeout


async def test_too_many_are_revoked_where_the_job_says_so(serving: Producer) -> None:
    """Three run, two are REVOKED: with `on_limit="revoke"`, which was the only way; now they wait otherwise."""
    tasks = await asyncio.gather(*[serving.tasks.queue("maxconcurrency", lag=0.3) for _ in range(5)])
    statuses = sorted(task.status_string for task in tasks)
    assert statuses == ["REVOKED", "REVOKED", "SUCCESS", "SUCCESS", "SUCCESS"]
    (revoked,) = {type(error_of(task)) for task in tasks if task.status_string == "REVOKED"}
    assert revoked is pq.TooManyTasksForJob


def error_of(task: Task[Any]) -> Exception:
    with pytest.raises(pq.TaskError) as caught:
        task.get()
    return caught.value


# ------------------------------------------------------------------------------------ "Configuration"
def test_every_setting_by_its_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The flags are those of the README, with the values that it shows."""
    flags = (
        "--concurrent-tasks 5 --data-store redis://127.0.0.1:6379/7 --max-requests 0 --task-pool-timeout 2"
    )
    flags += (
        " --message-broker redis://127.0.0.1:6379/8 --message-serializer json --schedule-periodic --workers 4"
    )
    assert PusarQueue().start([*flags.split(), "config", "--json"]) == 0
    shown = {name: facts["value"] for name, facts in json.loads(capsys.readouterr().out).items()}
    expected = {
        "concurrent_tasks": 5,
        "data_store": "redis://127.0.0.1:6379/7",
        "max_requests": 0,
        "message_broker": "redis://127.0.0.1:6379/8",
        "message_serializer": "json",
        "schedule_periodic": True,
        "task_pool_timeout": 2.0,
        "workers": 4,
    }
    assert {name: shown[name] for name in expected} == expected
    config = tmp_path / "settings.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in expected.items()))
    cfg = PusarQueue(config=str(config)).cfg
    assert {name: getattr(cfg, name) for name in expected} == expected


# -------------------------------------------------------------------------------- "Tasks Concurrency"
@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web site with one page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"<a href=1>one</a> <a href=2>two</a>"
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()


async def test_asyncio_scrapes_and_hands_on(serving: Producer, site: str) -> None:
    """`scrape` gets the page and queues `process.html`, whose task says where it comes from."""
    task = await serving.tasks.queue("scrape", url=site)
    async with asyncio.timeout(10):
        while (found := await serving.tasks.get(task.get())) is None:
            await asyncio.sleep(0.005)  # it was not awaited there, so it may be on its way still
    assert (await found.done_callback).get() == {"links": 2, "from": task.id}
    failed = await serving.tasks.queue("scrape")
    assert failed.status_string == "FAILURE"
    assert (failed.exception or "").startswith("AssertionError: url is required")


async def test_a_thread_reads_and_writes_files(serving: Producer, tmp_path: Path) -> None:
    """`THREAD_IO`: in another thread than the loop's."""
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    task = await serving.tasks.queue(
        "extract.text", input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.txt")
    )
    assert task.get()["text"] == 8
    assert task.get()["thread"] != threading.get_ident()
    assert (tmp_path / "out.txt").read_text() == "one\n\ntwo"


async def test_a_process_computes(serving: Producer, caplog: pytest.LogCaptureFixture) -> None:
    """`CPUBOUND`: in another process, whose log is that of the job; an error has its traceback; a big log blocks nothing."""
    with caplog.at_level(logging.WARNING, logger="pq.cpubound"):
        task = await serving.tasks.queue("cpubound")
    assert task.get()[0] == "OK"
    assert task.get()[1] != os.getpid()
    assert "Testing CpuBound concurrency" in caplog.text
    failed = await serving.tasks.queue("cpubound", error=True)
    assert (failed.status_string, failed.exception) == ("FAILURE", "ValueError: just a test")
    assert "test_ancestor.py" in (failed.stacktrace or "")
    assert (await serving.tasks.queue("cpuboundbiglog")).status_string == "SUCCESS"


async def test_a_greenlet_waits(serving: Producer) -> None:
    """The fourth mode: plain code that waits with `self.wait`."""
    assert (await serving.tasks.queue("greenlet")).get() == [3, "slept"]


async def test_the_jobs_that_come_with_it(api: Producer, tmp_path: Path) -> None:
    """`pq.jobs`: code and scripts."""
    task = await api.tasks.execute("execute.python", code='print("Hello World!")')
    assert (task.status_string, task.result) == ("SUCCESS", "Hello World!\n")
    (tmp_path / "script.py").write_text("print('from a script')")
    task = await api.tasks.execute("execute.python.script", script=str(tmp_path / "script.py"))
    assert task.result == "from a script\n"


# -------------------------------------------------------------------------------------------- "Extend"
class Manager(pq.Manager):
    """The manager of the README."""

    saved: list[str] = []  # noqa: RUF012  shared by the instances on purpose

    async def store_message(self, message: Any) -> None:
        """This method is called when a message/task is queued, started and finished."""
        if message.type == "task":
            self.saved.append(f"{message.name} {message.status_string}")

    def queues(self) -> list[str]:
        """List of queue names for Task consumers."""
        queues = [self.backend.node_name]
        queues.extend(self.cfg.task_queues)
        return queues


async def test_a_manager(valkey: Any, start_worker: Any) -> None:
    """`tq = PulsarQueue(Manager, …)`."""
    Manager.saved.clear()
    tq = PusarQueue(Manager, data_store=valkey.url, task_paths=[__name__], task_queues=["one", "two"])
    await start_worker(tq)
    async with tq.api() as api:
        assert api.tasks.queues() == [api.tasks.node_name, "one", "two"]
        assert (await api.tasks.queue("addition", a=1, queue="two")).result == 1
        await until(lambda: len(Manager.saved) == 3)
    assert sorted(Manager.saved) == ["addition QUEUED", "addition STARTED", "addition SUCCESS"]


async def test_consumers_tell_of_themselves(quick_heartbeat: None, serving: Producer) -> None:
    """Channel `consumer`, event `status`: node, cores, queues and the number of processed tasks."""
    heard: list[dict[str, Any]] = []
    await serving.on_events("consumer", "status", lambda channel, event, info: heard.append(info))
    await until(lambda: heard)
    assert heard[0]["node"] == "here"
    assert heard[0]["queues"] == ["here", "default"]
    assert heard[0]["cores"] >= 1
    assert "processed" in heard[0]
