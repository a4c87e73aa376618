"""Every way to call: the producer, its futures, `api.tasks`, and the parts of a call that go to the job."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, MessageFuture, Producer, PulsarQueue, Task, TaskFuture


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    """Add two numbers."""
    return a + b


@pq.job(concurrency=pq.THREAD_IO)
def in_a_thread(self: Job) -> None:
    """Blocks."""


@pq.job(concurrency=pq.CPUBOUND, doc_syntax="rst")
def in_a_process(self: Job) -> None:
    """Computes."""


@pq.job(concurrency=pq.GREEN_IO)
def in_a_greenlet(self: Job) -> None:
    """Waits."""


@pq.job(run_every="0 3 * * *")
def nightly(self: Job) -> None:
    """Comes again."""


@pq.job()
def anything(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------------------------- the application
def test_the_application_under_both_its_names() -> None:
    """`PusarQueue`, as one text spells it, is the same class."""
    assert pq.PusarQueue is pq.PulsarQueue
    assert isinstance(pq.PusarQueue(data_store="memory://spelt"), PulsarQueue)


def test_making_an_application_and_its_api_costs_nothing(make_app: Any) -> None:
    """Nothing is connected before something is asked for; so a program may call `app().api()` where it likes."""
    app = make_app(data_store="redis://127.0.0.1:1/0")
    assert app.api() is not app.api()


# ------------------------------------------------------------------------------------------ starting
async def test_start_resolves_to_the_api(app: PulsarQueue) -> None:
    """`api = await api.start()`; the same with `async with`, and by awaiting the api itself."""
    api = app.api()
    assert await api.start() is api
    assert await api is api
    async with api as same:
        assert same is api


def test_start_in_a_plain_shell(app: PulsarQueue) -> None:
    """`api.start().wait()`."""
    api = app.api()
    assert api.start().wait(10) is api
    api.close()


# -------------------------------------------------------------------------------------------- events
async def test_on_events_need_not_be_awaited(serving: Producer) -> None:
    """The subscription stands before a task that is queued after it."""
    heard: list[str] = []
    serving.on_events("task", "*", lambda channel, event, task: heard.append(event))
    await serving.tasks.queue("addition")
    await until(lambda: "done" in heard)


def test_a_listener_may_leave_at_once(app: PulsarQueue, caplog: pytest.LogCaptureFixture) -> None:
    """`on_events`, not waited for, and `close` right after it: nothing is left behind in the loop."""
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            api = app.api()
            api.on_events("task", "*", lambda *_: None)
            api.close()
            del api
            gc.collect()
    assert caplog.text == ""


async def test_taking_away_what_was_never_there(serving: Producer) -> None:
    """Another channel, another pattern, another function: each is harmless. It may be awaited."""
    heard: list[str] = []

    def callback(channel: str, event: str, task: object) -> None:
        heard.append(event)

    serving.remove_event_callback("task", "done", callback)
    await serving.on_events("task", "done", callback)
    await serving.remove_event_callback("task", "*", callback)
    await serving.remove_event_callback("consumer", "done", callback)
    await serving.remove_event_callback("no-such-channel", "done", callback)
    await serving.remove_event_callback("task", "done", print)
    await serving.tasks.queue("addition")
    await until(lambda: heard)
    assert heard == ["done"]


def test_taking_away_in_a_plain_shell(app: PulsarQueue) -> None:
    """The calls work with and without `.wait()`."""
    api = app.api()
    api.on_events("task", "done", print)
    api.remove_event_callback("task", "done", print)
    api.remove_event_callback("task", "done", print).wait(5)
    api.close()


async def test_a_consumer_is_heard_by_pattern_too(quick_heartbeat: None, serving: Producer) -> None:
    """`'*'` and `'status'` are the heartbeat; other words are not."""
    heard: list[tuple[str, str]] = []
    others: list[Any] = []
    serving.on_events("consumer", "done", lambda *event: others.append(event))
    await serving.on_events("consumer", "*", lambda channel, event, facts: heard.append((channel, event)))
    await until(lambda: heard)
    assert heard[0] == ("consumer", "status")
    assert not others


# ------------------------------------------------------------------------------------------ messages
async def test_a_message_is_resolved_when_it_is_done_or_when_it_is_queued(serving: Producer) -> None:
    """`api.queue(message)` and `api.queue(message, callback=False)`, with a task that was made before."""
    done = serving.queue(serving.tasks.make("addition", {"a": 1, "b": 1}))
    assert isinstance(done, MessageFuture)
    assert (await done).get() == 2
    queued = await serving.queue(serving.tasks.make("addition", {"a": 2}, queue="unserved"), callback=False)
    assert (queued.status_string, queued.queue) == ("QUEUED", "unserved")
    assert await serving.tasks.cancel(queued.id)


async def test_a_message_is_executed_in_two_ways(api: Producer) -> None:
    """`api.execute(task)` is `api.tasks.execute(task)`: here and now, without a queue."""
    for execute in (api.execute, api.tasks.execute):
        task = await execute(api.tasks.make("addition", {"a": 1, "b": 2}))
        assert (task.queue, task.status_string, task.result) == (None, "SUCCESS", 3)
    with pytest.raises(pq.BadArguments, match="has its arguments"):
        api.tasks.execute(api.tasks.make("addition", {}), a=1)


async def test_only_tasks_are_messages(api: Producer) -> None:
    """Anything else is refused, with a text to type."""
    for call in (api.queue, api.execute):
        with pytest.raises(pq.InvalidValue, match="'addition' is not a message") as caught:
            call("addition")
        assert "takes a Task" in (caught.value.hint or "")


async def test_the_consumers_of_an_api(api: Producer) -> None:
    """The kinds of message that it can queue and execute; each is an attribute."""
    assert api.consumers == ["tasks"]
    assert all(hasattr(api, name) for name in api.consumers)


# ------------------------------------------------------------------------------------------- futures
async def test_a_future_under_both_its_names(serving: Producer) -> None:
    """`TaskFuture` and `MessageFuture` are one class, and an asyncio future."""
    assert MessageFuture is TaskFuture
    future = serving.tasks.queue("addition")
    assert isinstance(future, asyncio.Future)
    assert isinstance(await future, Task)
    assert await future is await asyncio.wait_for(future, 1)


# --------------------------------------------------------------------------------------------- queue
async def test_what_is_not_passed_to_the_job(serving: Producer) -> None:
    """`callback`, `delay`, `queue`, `timeout` and `meta_params` are of the task; all else is of the job."""
    task = await serving.tasks.queue(
        "anything",
        1,
        callback=True,
        delay=0.01,
        queue="here",
        timeout=9,
        meta_params={"who": "me"},
        retries=3,
        name="x",
    )
    assert task.result == [[1], {"retries": 3, "name": "x"}]
    assert (task.delay, task.queue, task.timeout, task.meta) == (0.01, "here", 9, {"who": "me"})


async def test_nor_by_the_other_ways_to_queue(serving: Producer) -> None:
    """`queue_local`, `queue_many` and `execute` know the same options."""
    options: dict[str, Any] = {"timeout": 9, "meta_params": {"who": "me"}}
    local = await serving.tasks.queue_local("anything", 1, x=2, delay=0, callback=True, **options)
    (many,) = serving.tasks.queue_many([("anything", (1,), {"x": 2})], delay=0, queue="default", **options)
    here = await serving.tasks.execute("anything", 1, x=2, delay=1, callback=False, **options)
    for task in (local, await many, here):
        assert (task.result, task.timeout, task.meta) == ([[1], {"x": 2}], 9, {"who": "me"})
    assert [task.queue for task in (local, many.task, here)] == ["here", "default", None]


async def test_thousands_go_in_one_round_trip(api: Producer, valkey: Any) -> None:
    """`queue_many` of a thousand is one call of the store, not a thousand."""
    await api.tasks.size()
    valkey.client.config_resetstat()
    futures = api.tasks.queue_many([("addition", {"a": n}) for n in range(1000)], callback=False)
    await asyncio.gather(*futures)
    calls = {name: facts["calls"] for name, facts in valkey.client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 1
    assert await api.tasks.size("default") == {"default": 1000}
    await api.tasks.flush_queues("default")


async def test_arguments_that_do_not_fit_are_a_type_error(api: Producer) -> None:
    """Code that expects Python's own errors goes on working."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        api.tasks.queue("addition", c=1)


# -------------------------------------------------------------------------------------------- looking
async def test_job_list_tells_the_mode_in_words(api: Producer) -> None:
    """`asyncio`, `thread`, `process`, `green`; `regular` or `periodic`; the documentation and how it is written."""
    jobs = dict(api.tasks.job_list())
    facts = {
        name: (job["type"], job["concurrency"], job["doc_syntax"], job["doc"]) for name, job in jobs.items()
    }
    assert facts == {
        "addition": ("regular", "asyncio", "markdown", "Add two numbers."),
        "in.a.thread": ("regular", "thread", "markdown", "Blocks."),
        "in.a.process": ("regular", "process", "rst", "Computes."),
        "in.a.greenlet": ("regular", "green", "markdown", "Waits."),
        "nightly": ("periodic", "asyncio", "markdown", "Comes again."),
        "anything": ("regular", "asyncio", "markdown", ""),
    }
    assert [name for name, _ in api.tasks.job_list(["nightly", "addition"])] == ["nightly", "addition"]


async def test_job_list_names_its_constants() -> None:
    """The words are the constants, so they may be written either way."""
    assert (pq.ASYNC_IO, pq.THREAD_IO, pq.CPUBOUND, pq.GREEN_IO) == ("asyncio", "thread", "process", "green")


# ---------------------------------------------------------------------------------------------- tasks
async def test_everything_that_a_task_tells(serving: Producer) -> None:
    """All attributes are there, on a finished task as on one that waits; times are seconds since the epoch."""
    waiting = await serving.tasks.queue("addition", 1, queue="unserved", callback=False)
    done = await serving.tasks.queue("addition", 1, b=2, meta_params={"max_retries": 2, "who": "me"})
    for name in (
        *("id", "name", "queue", "args", "kwargs", "status", "result", "exception", "stacktrace", "retry"),
        *("max_retries", "delay", "timeout", "time_queued", "time_started", "time_ended", "worker", "node"),
        *("meta", "run_info", "status_string", "expiry", "full_name"),
    ):
        assert hasattr(waiting, name)
        assert hasattr(done, name)
    assert (waiting.time_started, waiting.time_ended, waiting.worker, waiting.result) == (None,) * 4
    assert (done.args, done.kwargs, done.retry, done.max_retries) == ([1], {"b": 2}, 1, 2)
    assert 1.6e9 < done.time_queued <= done.time_started <= done.time_ended < 1e11
    assert (waiting.done(), done.done()) == (False, True)
    assert (done.full_name, done.expiry) == ("task.addition", None)
    assert done.info() == f"task.addition<{done.id}><SUCCESS>"
    assert await serving.tasks.cancel(waiting.id)


async def test_a_task_as_json(serving: Producer) -> None:
    """`tojson()` has plain names and values: `json.dumps` takes it."""
    import json

    task = await serving.tasks.queue("addition", 1, b=2, meta_params={"who": "me", "expires": 60})
    facts = json.loads(json.dumps(task.tojson()))
    assert (facts["type"], facts["id"], facts["name"], facts["queue"]) == (
        "task",
        task.id,
        "addition",
        "default",
    )
    assert (facts["args"], facts["kwargs"], facts["result"], facts["meta"]) == (
        [1],
        {"b": 2},
        3,
        {"who": "me"},
    )
    assert (facts["status"], facts["status_string"], facts["retry"]) == (1, "SUCCESS", 1)
    assert (facts["worker"], facts["node"]) == ("w1", "here")
    assert task.expiry == task.time_queued + 60


def test_statuses_are_numbers_with_names() -> None:
    """The same numbers as on the wire; any other number is unknown."""
    names = {number: pq.status_string(number) for number in range(1, 7)}
    assert names == {1: "SUCCESS", 2: "FAILURE", 3: "REVOKED", 4: "RETRY", 5: "STARTED", 6: "QUEUED"}
    assert names == {getattr(pq, name): name for name in names.values()}
    assert {pq.status_string(other) for other in (0, 7, -1, 243134, "jhbjhbj", None)} == {"UNKNOWN"}
    assert {pq.FAILURE, pq.SUCCESS} == pq.FULL_RUN_STATES
    assert {pq.REVOKED, pq.FAILURE, pq.SUCCESS} == pq.READY_STATES


def test_errors_have_one_root() -> None:
    """`except api.PqError` catches all; `except api.TaskError` those by which a task ended."""
    errors = [
        kind
        for name in pq.__all__
        if isinstance(kind := getattr(pq, name), type) and issubclass(kind, Exception)
    ]
    assert {pq.TaskError, pq.TaskNotAvailable, pq.TaskTimeout, pq.TooManyTasksForJob} <= set(errors)
    verdicts = {pq.Retry, pq.Snooze, pq.Cancel}  # a job's own word, and no error
    assert {kind.__name__ for kind in errors if not issubclass(kind, pq.PqError)} <= {
        v.__name__ for v in verdicts
    }
    assert issubclass(pq.TaskTimeout, pq.TaskError)
    assert issubclass(pq.TooManyTasksForJob, pq.TaskError)


# ------------------------------------------------------------------------------------------- managers
class Watching(pq.Manager):
    """Return the arguments of the call."""

    calls: list[str] = []  # noqa: RUF012  shared by the instances on purpose

    async def start(self) -> None:
        self.calls.append(f"start on {self.backend.node_name}")

    async def close(self) -> None:
        self.calls.append("close")

    def queues(self) -> list[str]:
        queues = [self.backend.node_name]
        queues.extend(self.cfg.task_queues)
        return queues


async def test_a_manager_starts_before_the_first_task_and_closes_after_the_last(
    make_app: Any, start_worker: Any
) -> None:
    """In the worker; it knows the settings and its node."""
    Watching.calls.clear()
    app = make_app(manager=Watching, task_queues=["high", "low"])
    worker = await start_worker(app)
    assert Watching.calls == ["start on here"]
    async with app.api() as api:
        assert api.tasks.queues() == ["here", "high", "low"]
        assert (await api.tasks.queue("addition", a=1)).queue == "high"
    await worker.stop()
    assert Watching.calls == ["start on here", "close"]


def test_a_manager_is_a_class_of_managers() -> None:
    """Anything else is refused at once."""
    with pytest.raises(pq.ConfigError, match="is not a Manager"):
        PulsarQueue(dict)  # type: ignore[arg-type]


def test_an_api_shows_its_store() -> None:
    """At the first prompt of the tutorial; a password is masked."""
    api = pq.PulsarQueue(data_store="redis://:secret@h:1/0").api()
    try:
        assert repr(api) == "<api of redis://:***@h:1/0>"
    finally:
        api.close()
