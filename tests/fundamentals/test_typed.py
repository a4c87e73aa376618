"""`addition.options(delay=2).queue(a=4, b=6)`: options apart from arguments, on the api that is near."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, PulsarQueue


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pq.job()
def echo(delay: int, queue: str = "", **rest: Any) -> list[Any]:
    return [delay, queue, rest]


@pq.job()
def square(n: int) -> int:
    return n * n


@pq.job()
async def asks_for_more(self: Job) -> str:
    return (await addition.queue(a=1)).id


@pq.job(concurrency=pq.THREAD_IO)
def asks_in_a_thread(self: Job) -> str:
    return addition.options(priority=3).queue(a=1).wait(20).id


@pq.job(concurrency=pq.CPUBOUND)
async def asks_in_a_process(self: Job) -> str:
    return (await echo.options(priority=3, meta={"order": 12}).queue(delay=5, queue="none")).id


@pq.job(concurrency=pq.CPUBOUND)
def maps_in_a_process(self: Job) -> None:
    square.map([1, 2])


@pq.job(concurrency=pq.GREEN_IO)
def asks_in_a_greenlet(self: Job) -> str:
    return self.wait(addition.queue(a=1)).id


@pq.job()
async def asks_the_executor(self: Job) -> str:
    return await self.run_in_executor(lambda: addition.queue(a=1).wait(20).id)


class Volume(pq.Job):
    def __call__(self, width: float, height: float, depth: float = 1.0) -> float:
        return width * height * depth


async def test_a_decorated_function_queues_itself(serving: Producer) -> None:
    """`addition.queue(…)` is `api.tasks.queue(addition, …)`, to the api that is open."""
    task = await addition.queue(a=4, b=6)
    assert (task.get(), task.name, task.kwargs) == (10, "addition", {"a": 4, "b": 6})
    assert (await addition.queue(1, b=2)).get() == 3


async def test_options_are_apart_from_arguments(serving: Producer) -> None:
    """An argument may have the name of an option."""
    how = echo.options(delay=0.01, timeout=20, priority=5, expires=60, max_retries=2, retry_delay=0.5)
    task = await how.queue(delay=5, queue="none", timeout=1)
    assert task.get() == [5, "none", {"timeout": 1}]
    assert (task.delay, task.timeout, task.priority, task.expires) == (0.01, 20, 5, 60)
    assert (task.max_retries, task.retry_delay, task.queue, task.meta) == (2, 0.5, "default", {})
    assert (await how.queue(delay=6)).get() == [6, "", {}]


async def test_where_it_goes(api: Producer) -> None:
    """Another queue, its own meta data, and a future of its being queued."""
    how = addition.options(queue="elsewhere", callback=False, meta={"order": 12}, max_concurrency=3)
    task = await how.queue(a=1)
    assert (task.status_string, task.queue) == ("QUEUED", "elsewhere")
    assert task.meta["order"] == 12
    assert "1/3" not in task.limits_text
    assert task.limits_text


async def test_queue_false_runs_it_here(api: Producer) -> None:
    """Without a queue, without a worker; options of queueing do not matter then."""
    task = await addition.options(queue=False, delay=60).queue(a=1, b=2)
    assert (task.get(), task.queue) == (3, None)


async def test_a_task_for_each_item(serving: Producer) -> None:
    """`map` has the tasks in the order of the items."""
    assert [task.get() for task in await square.map([1, 2, 3])] == [1, 4, 9]
    assert [task.priority for task in await square.options(priority=2).map(range(2))] == [2, 2]


async def test_a_class_is_queued_through_an_api(serving: Producer) -> None:
    """`queue` of a class is a method of its instances, so the api gives the typed call."""
    how = serving.tasks.options(Volume, priority=1)
    assert (await how.queue(2, height=3, depth=4)).get() == 24
    assert (await serving.tasks.options(addition).queue(a=1)).get() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dealy": 2}, "options() has no option 'dealy'"),
        ({"delay": -1}, "delay is -1, and must be a number from 0"),
        ({"delay": "2"}, "delay is '2'"),
        ({"queue": "no spaces"}, "'no spaces' is not a valid queue name"),
        ({"queue": True}, "True is not a valid queue name"),
        ({"timeout": 0}, "timeout is 0"),
        ({"callback": None}, "callback is None"),
        ({"priority": 1.5}, "priority is 1.5"),
        ({"expires": float("nan")}, "expires is nan"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"retry_delay": True}, "retry_delay is True"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"meta": [1]}, "meta is [1]"),
        ({"meta": {1: 2}}, "meta is {1: 2}"),
        ({"meta": {"priority": 2}}, "meta has 'priority', which is an option"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    """No api is needed to hear that an option is wrong."""
    with pytest.raises(pq.QueueingError) as caught:
        addition.options(**options)
    assert message in str(caught.value)


def test_an_unknown_option_is_a_type_error_with_a_hint() -> None:
    """The error is like Python's own, with the nearest name."""
    with pytest.raises(TypeError) as caught:
        addition.options(dealy=2)  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["hint: did you mean 'delay'?"]


async def test_wrong_arguments(api: Producer) -> None:
    """The type checker refuses them; without one, the call does."""
    with pytest.raises(pq.BadArguments, match="unexpected keyword argument 'c'"):
        addition.options(delay=2).queue(c=1)  # type: ignore[call-arg]


def test_options_do_not_change() -> None:
    """Calls may be kept and used again by any code."""
    how = addition.options(delay=2, meta={"order": 12})
    assert repr(how) == "<job 'addition' with delay=2, order=12>"
    with pytest.raises(AttributeError):
        how._options = {}  # type: ignore[assignment]


# ----------------------------------------------------------------------------------- which api
def test_without_an_api_there_is_an_error() -> None:
    """It says how to make one."""
    gc.collect()
    with pytest.raises(pq.NoApi, match="there is no api to queue addition to") as caught:
        addition.queue(a=1)
    assert caught.value.hint == "make one, and keep it: api = app().api()"


async def test_a_closed_or_forgotten_api_is_none(make_app: Any) -> None:
    """An application that cannot be used is not chosen."""
    async with make_app().api():
        pass
    make_app().api()
    gc.collect()
    with pytest.raises(pq.NoApi):
        addition.queue(a=1)


def test_in_a_script_the_api_that_was_made_is_used(make_app: Any) -> None:
    """Without a loop, and in any thread."""
    api = make_app().api()
    try:
        task = addition.options(callback=False).queue(a=1).wait(20)
        assert api.tasks.get(task.id).wait(20).id == task.id
        seen = []
        thread = threading.Thread(target=lambda: seen.append(addition.queue(a=2).id))
        thread.start()
        thread.join()
        assert api.tasks.get(seen[0]).wait(20) is not None
    finally:
        api.close().wait()


async def test_two_applications_are_not_guessed_between(make_app: Any, valkey: Any) -> None:
    """Two objects of one application are one; with another one, the caller has to choose."""
    here, again, other = make_app().api(), make_app().api(), make_app(namespace="other").api()
    with pytest.raises(pq.NoApi, match="could go to 2 applications") as caught:
        addition.queue(a=1)
    assert "api.tasks.options(addition)" in str(caught.value.hint)
    async with other:
        task = await addition.options(callback=False).queue(a=1)
        assert await other.tasks.get(task.id) is not None
        async with here:
            inner = await addition.options(callback=False).queue(a=1)
        assert await other.tasks.get(inner.id) is None
        assert await addition.options(callback=False).queue(a=1)  # the outer one again
    task = await addition.options(callback=False).queue(a=1)
    assert await again.tasks.get(task.id) is not None
    await again.close()
    valkey.client.flushall()  # the look afterwards knows one namespace


@pytest.mark.parametrize(
    "job", [asks_for_more, asks_in_a_thread, asks_in_a_process, asks_in_a_greenlet, asks_the_executor]
)
async def test_within_a_job_it_is_the_workers_own(job: Any, make_app: Any, start_worker: Any) -> None:
    """In every mode, whatever else the program has; and `meta['from_task']` is the job's task."""
    other = make_app(namespace="other").api()
    # Two children: a worker whose only child is busy reserves nothing more, not even a task that its job awaits.
    app: PulsarQueue = make_app(processes=2)
    await start_worker(app)
    async with app.api() as api, other:
        task = await api.tasks.queue(job)
        asked = await api.tasks.get(task.get())
        assert asked is not None
        assert asked.meta["from_task"] == task.id
        if job is asks_in_a_process:
            assert (asked.get(), asked.priority, asked.meta["order"]) == ([5, "none", {}], 3, 12)


async def test_a_process_job_has_no_map(serving: Producer) -> None:
    """It has no api of its own, and says so."""
    task = await serving.tasks.queue(maps_in_a_process)
    assert "a process job has no api of its own to map with" in task.exception


async def test_a_job_that_is_executed_here_queues_with_its_api(make_app: Any) -> None:
    """`execute` runs it in this program, with the api that it was asked of."""
    other = make_app(namespace="other").api()
    async with make_app().api() as api, other:
        ended = api.tasks.execute(asks_for_more)
        while not (await api.tasks.size("default"))["default"]:
            await asyncio.sleep(0)
        await api.tasks.flush_queues()
        task = await ended
        assert task.get()


def test_what_is_queued_just_before_the_end_is_queued(make_app: Any) -> None:
    """An api that is closed while it still connects sends its tasks, and leaves no thread."""
    api = make_app().api()
    before = set(threading.enumerate())
    future = addition.options(callback=False).queue(a=1)
    api.close()
    assert set(threading.enumerate()) == before
    reader = make_app().api()
    task = reader.tasks.get(future.id).wait(20)
    reader.close()
    assert task is not None
    assert task.kwargs == {"a": 1}


def test_options_of_a_partial_are_kept_without_parentheses() -> None:
    """A project's own decorator is the plain one with options, used in both ways."""
    blocking = functools.partial(pq.job, concurrency=pq.THREAD_IO, timeout=5)

    @blocking
    def bare() -> None: ...

    @blocking()
    def called() -> None: ...

    for made in (bare, called):
        assert isinstance(made, pq.JobFunction)
        assert (made.job_class.concurrency, made.job_class.timeout) == ("thread", 5)
