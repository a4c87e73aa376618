"""Four ways to have many tasks done: `map`, `as_completed`, one call of `queue_many`, many calls of `queue`."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer, PulsarQueue

MANY = 10_000


@pq.job()
def double(self: Job, number: int = 0) -> int:
    """Double a number."""
    return number * 2


@pq.job()
def even(number: int) -> int:
    """Refuse odd numbers."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@pq.job()
async def wait_for_turn(turn: int) -> int:
    """End after those with a smaller number."""
    await turns[turn].wait()
    if turn:
        turns[turn - 1].set()
    return turn


turns: list[asyncio.Event] = []


def reversed_turns(count: int) -> None:
    """Have `wait_for_turn` end in the order count - 1, …, 1, 0."""
    turns[:] = [asyncio.Event() for _ in range(count)]
    turns[-1].set()


# ------------------------------------------------------------------------------------ each way works
async def by_map(api: Producer, numbers: Any) -> list[int]:
    return [task.get() for task in await api.tasks.map("double", numbers)]


async def by_as_completed(api: Producer, numbers: Any) -> list[int]:
    futures = api.tasks.queue_many([("double", (number,)) for number in numbers])
    return sorted([task.get() async for task in api.tasks.as_completed(futures)])


async def by_one_call(api: Producer, numbers: Any) -> list[int]:
    futures = api.tasks.queue_many(("double", {"number": number}) for number in numbers)
    return [(await future).get() for future in futures]


async def by_many_calls(api: Producer, numbers: Any) -> list[int]:
    tasks = await asyncio.gather(*[api.tasks.queue("double", number) for number in numbers])
    return [task.get() for task in tasks]


WAYS = [by_map, by_as_completed, by_one_call, by_many_calls]


@pytest.mark.parametrize("way", WAYS)
async def test_ten_thousand_tasks(serving: Producer, way: Callable[[Producer, Any], Any]) -> None:
    """Each way does them all, every result in its place."""
    assert await way(serving, range(MANY)) == [number * 2 for number in range(MANY)]


@pytest.mark.parametrize("way", WAYS)
async def test_a_generator_is_read_once(serving: Producer, way: Callable[[Producer, Any], Any]) -> None:
    """An iterator that can be read only once will do."""
    assert await way(serving, (number for number in range(3))) == [0, 2, 4]


@pytest.mark.parametrize("way", WAYS)
async def test_no_items_are_no_tasks(api: Producer, way: Callable[[Producer, Any], Any]) -> None:
    """An empty iterable is done at once, without any worker."""
    assert await asyncio.wait_for(way(api, []), 10) == []


# --------------------------------------------------------------------------------------------- order
async def test_map_keeps_the_order_of_the_items(serving: Producer) -> None:
    """The first item is the first result, also when it was the last to end."""
    reversed_turns(5)
    tasks = await serving.tasks.map("wait.for.turn", range(5))
    assert [task.get() for task in tasks] == [0, 1, 2, 3, 4]


async def test_as_completed_keeps_the_order_of_the_ends(serving: Producer) -> None:
    """The first to end is the first to come."""
    reversed_turns(5)
    futures = serving.tasks.queue_many([("wait.for.turn", (turn,)) for turn in range(5)])
    futures.append(futures[0])  # once is enough
    assert [task.get() async for task in serving.tasks.as_completed(futures)] == [4, 3, 2, 1, 0]


# ------------------------------------------------------------------------------------------ failures
async def test_a_task_that_fails_is_a_task_among_the_others(serving: Producer) -> None:
    """Neither `map` nor `as_completed` raises for it: its status and its `get()` show the failure."""
    tasks = await serving.tasks.map("even", range(4))
    assert [task.status_string for task in tasks] == ["SUCCESS", "FAILURE", "SUCCESS", "FAILURE"]
    with pytest.raises(pq.TaskError, match="1 is odd"):
        tasks[1].get()
    futures = serving.tasks.queue_many([("even", (number,)) for number in range(4)])
    ended = [task.status_string async for task in serving.tasks.as_completed(futures)]
    assert sorted(ended) == ["FAILURE", "FAILURE", "SUCCESS", "SUCCESS"]


def broken() -> Iterator[int]:
    yield 1
    raise RuntimeError("the file ended early")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda t: t.map("double", [1, 2, object()]), pq.NotSerializable, "argument 1 of double is a object"),
        (lambda t: t.queue_many([("double", (1,)), ("double", {"nmber": 2})]), pq.BadArguments, "'nmber'"),
        (lambda t: t.queue_many([("double", (1,)), ("duoble", (2,))]), pq.TaskNotAvailable, "'duoble'"),
        (lambda t: t.queue_many([("double", (1,)), ("double", 2)]), pq.BadArguments, "cannot read ('double', 2)"),
        (lambda t: t.map("double", broken()), RuntimeError, "the file ended early"),
        (lambda t: t.map("duoble", []), pq.TaskNotAvailable, "no job named 'duoble'"),
        (lambda t: t.map("double", [], dealy=1), pq.BadArguments, "'dealy' is not an option"),
        (lambda t: t.map("double", 5), pq.BadArguments, "tasks.map() expects an iterable, got 5 (int)"),
        (lambda t: t.queue_many(None), pq.BadArguments, "tasks.queue_many() expects an iterable, got None (NoneType)"),
        (lambda t: t.queue_many("double"), pq.BadArguments, "'double' is a text"),
    ],
)  # fmt: skip
async def test_one_wrong_item_and_nothing_is_queued(
    api: Producer, call: Callable[[Any], Any], error: type[Exception], says: str
) -> None:
    """The items are all checked before the first one leaves, and the error names the wrong one."""
    with pytest.raises(error) as caught:
        call(api.tasks)
    assert says in str(caught.value)
    assert await api.tasks.size("default") == {"default": 0}


async def test_the_wrong_item_is_named(api: Producer) -> None:
    """The error has the number of the item among ten thousand."""
    items: list[Any] = [("double", (number,)) for number in range(MANY)]
    items[7_001] = ("double", (open,))
    with pytest.raises(pq.NotSerializable) as caught:
        api.tasks.queue_many(items)
    assert "this is item 7001, counted from 0; none of the items was queued" in caught.value.__notes__


async def test_an_async_generator_is_to_be_collected_first(api: Producer) -> None:
    """The hint has the line that does it."""

    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(pq.BadArguments) as caught:
        api.tasks.map("double", numbers())  # type: ignore[arg-type]
    assert caught.value.hint == "collect it first: [item async for item in …]"


async def test_as_completed_wants_the_futures_of_tasks(serving: Producer) -> None:
    """The one future of `map` is refused, and so are tasks that are done."""
    everything = serving.tasks.map("double", range(3))
    with pytest.raises(pq.BadArguments, match="takes the futures of tasks"):
        serving.tasks.as_completed(everything)  # type: ignore[arg-type]
    with pytest.raises(pq.BadArguments, match="takes the futures of tasks"):
        serving.tasks.as_completed(await everything)  # type: ignore[arg-type]


async def test_a_refused_task_raises_at_once(api: Producer, caplog: pytest.LogCaptureFixture) -> None:
    """A full queue refuses some: `map` and `as_completed` raise that, though others will never be done."""
    await api.tasks.limit("small", 3)
    with pytest.raises(pq.QueueFull):
        await asyncio.wait_for(api.tasks.map("double", range(10), queue="small"), 10)
    assert await api.tasks.size("small") == {"small": 3}
    futures = api.tasks.queue_many([("double", (number,)) for number in range(10)], queue="small")
    with pytest.raises(pq.QueueFull):
        async for _ in api.tasks.as_completed(futures, timeout=10):
            pass
    del futures
    gc.collect()  # asyncio complains of an error that no code has read when its future is thrown away
    await api.tasks.flush_queues("small")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_waiting_may_be_limited(api: Producer) -> None:
    """No worker runs: `as_completed` gives up after its time-out, and the tasks stay queued."""
    futures = api.tasks.queue_many(["double", "double"])
    with pytest.raises(TimeoutError):
        async for _ in api.tasks.as_completed(futures, timeout=0.01):
            pass
    assert await api.tasks.size("default") == {"default": 2}
    await api.tasks.flush_queues("default")


# ------------------------------------------------------------------------------------------- options
async def test_options_are_for_all(api: Producer) -> None:
    """`callback=False` resolves when all are queued; `queue`, `delay` and the like count for each."""
    tasks = await api.tasks.map("double", range(3), callback=False, queue="later", delay=60, timeout=5)
    assert {(task.status_string, task.queue, task.delay, task.timeout) for task in tasks} == {
        ("QUEUED", "later", 60, 5)
    }
    await api.tasks.flush_queues("later")


# ------------------------------------------------------------------------------------- without a loop
async def test_in_a_plain_script(app: PulsarQueue, serving: Producer) -> None:
    """`.wait()` and a plain `for`, as a program without a loop has them: here, in a thread."""

    def script() -> tuple[list[int], list[int], list[str]]:
        api = app.api()
        try:
            tasks = api.tasks
            ordered = [task.get() for task in tasks.map("double", range(MANY)).wait(60)]
            futures = [tasks.queue("double", number) for number in range(100)]
            # Each task comes once, however often its future is given.
            ended = sorted(task.get() for task in tasks.as_completed(futures * 2, timeout=60))
            failed = [task.status_string for task in tasks.map("even", range(2)).wait(60)]
            assert list(tasks.as_completed([])) == tasks.map("double", []).wait(60) == []
        finally:
            api.close()
        return ordered, ended, failed

    with ThreadPoolExecutor(1) as pool:
        ordered, ended, failed = await asyncio.get_running_loop().run_in_executor(pool, script)
    assert ordered == [number * 2 for number in range(MANY)]
    assert ended == [number * 2 for number in range(100)]
    assert failed == ["SUCCESS", "FAILURE"]
