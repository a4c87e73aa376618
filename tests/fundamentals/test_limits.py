"""Limits: concurrency, rate, and uniqueness."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from pq import api as pq
from pq.api import Producer
from pq.broker import records
from pq.broker.contract.values import Entry
from pq.model.task import Task

running: Counter[str] = Counter()
most: Counter[str] = Counter()
order: list[Any] = []
gate: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    running.clear()
    most.clear()
    order.clear()
    gate.clear()


async def work(name: str, value: Any = None, rounds: int = 3) -> Any:
    """Be busy for some turns of the loop, and be counted meanwhile."""
    running[name] += 1
    most[name] = max(most[name], running[name])
    order.append(value)
    try:
        for _ in range(rounds):
            await asyncio.sleep(0.001)
        return value
    finally:
        running[name] -= 1


async def hold(name: str, value: Any = None) -> Any:
    """Run until the test says so."""
    running[name] += 1
    most[name] = max(most[name], running[name])
    order.append(value)
    try:
        await gate.setdefault("open", asyncio.Event()).wait()
        return value
    finally:
        running[name] -= 1


async def until(condition: Any) -> None:
    """Wait until it is so; a test that waits in vain fails by its time-out."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pq.job(max_concurrency=3)
async def three(value: int = 0) -> int:
    return await work("three", value)


@pq.job(max_concurrency=1)
async def alone(value: Any = None) -> Any:
    return await hold("alone", value)


@pq.job()
async def free(value: Any = None) -> Any:
    return await work("free", value, rounds=0)


@pq.job(limits=[pq.Concurrency(1, key="tenant"), pq.Concurrency(4)])
async def by_tenant(tenant: Any, value: int = 0) -> int:
    return await work(f"tenant {tenant}", value)


@pq.job(limits=pq.Concurrency(1, name="printer"))
async def printer_a() -> None:
    await work("printer")


@pq.job(limits=pq.Concurrency(1, name="printer"))
async def printer_b() -> None:
    await work("printer")


@pq.job(limits=pq.Rate(20, per=1))
async def twenty_a_second() -> None:
    order.append(asyncio.get_running_loop().time())


@pq.job(limits=pq.Rate(1, per=3600, burst=3, key="user"))
async def three_and_wait(user: str) -> str:
    return user


@pq.job(max_concurrency=1, on_limit="revoke")
async def impatient() -> Any:
    return await hold("impatient")


@pq.job(max_concurrency=1, max_retries=3, retry_delay=0)
async def stumbles(self: Any) -> int:
    await work("stumbles")
    if self.task.retry < 3:
        raise ValueError("not yet")
    return int(self.task.retry)


@pq.job(unique=True)
async def report(day: int, colour: str = "red") -> Any:
    return await hold("report", (day, colour))


@pq.job(unique=pq.Unique(key="day", keep="last"))
async def last_report(day: int, colour: str = "red") -> Any:
    return await work("last", (day, colour))


@pq.job(unique=pq.Unique(key=("day",), keep="replace"))
async def replaced_report(day: int, colour: str = "red") -> Any:
    return await work("replaced", (day, colour))


@pq.job(debounce=pq.Debounce(0.3, key="document"))
async def save(document: int, text: str) -> str:
    order.append(text)
    return text


@pq.job(debounce=pq.Debounce(0.3, key="document", max_wait=0.3))
async def save_soon(document: int, text: str) -> str:
    order.append(text)
    return text


# ------------------------------------------------------------------------------------ how many at once
async def test_no_more_than_max_concurrency_run_at_once(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Three at a time over two workers, and all of them get their turn."""
    await start_worker(app)
    await start_worker(app, name="w2")
    tasks = await api.tasks.map("three", range(40))
    assert [task.get() for task in tasks] == list(range(40))
    assert most["three"] == 3


async def test_a_waiting_task_delays_no_other(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Behind a hundred tasks that have to wait a task of another job runs at once."""
    await start_worker(app)
    waiting = [api.tasks.queue("alone", n) for n in range(100)]
    assert (await api.tasks.queue("free", "x")).get() == "x"
    assert running["alone"] == 1
    assert await api.tasks.size("default") == {"default": 99}
    gate["open"].set()
    assert [task.get() for task in await asyncio.gather(*waiting)] == list(range(100))
    assert [value for value in order if value != "x"] == list(range(100)), "they ran in their order"
    assert most["alone"] == 1


async def test_a_higher_priority_gets_the_next_slot(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Among those that wait the more urgent one is first."""
    await start_worker(app)
    first = api.tasks.queue("alone", "first")
    await until(lambda: running["alone"] == 1)
    usual = api.tasks.queue("alone", "usual")
    urgent = api.tasks.queue("alone", "urgent", meta_params={"priority": 5})
    await api.tasks.size()
    gate["open"].set()
    await asyncio.gather(first, usual, urgent)
    assert order == ["first", "urgent", "usual"]


async def test_a_limit_for_each_value_of_an_argument(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """One task of each tenant at once, four in all; the busy tenant delays no other."""
    await start_worker(app)
    many = api.tasks.queue_many([("by_tenant".replace("_", "."), {"tenant": "big"})] * 30)
    few = api.tasks.queue_many(
        [("by.tenant", {"tenant": name, "value": n}) for n, name in enumerate("abcab")]
    )
    assert [(await future).get() for future in few] == [0, 1, 2, 3, 4]
    assert not many[-1].done(), "the big tenant is still at it"
    await asyncio.gather(*many)
    assert set(most.values()) == {1}


async def test_jobs_that_name_a_limit_share_it(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """One printer, whichever job prints."""
    await start_worker(app)
    await asyncio.gather(*[api.tasks.queue(f"printer.{'ab'[n % 2]}") for n in range(20)])
    assert most["printer"] == 1


async def test_a_task_may_have_a_limit_of_its_own(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """`meta_params` takes the place of the job's number."""
    await start_worker(app)
    options = {"meta_params": {"max_concurrency": 1}}
    await asyncio.gather(*[api.tasks.queue("three", n, **options) for n in range(10)])
    assert most["three"] == 1
    with pytest.raises(pq.InvalidValue, match="max_concurrency is 0"):
        api.tasks.queue("three", meta_params={"max_concurrency": 0})


async def test_on_limit_revoke_ends_what_finds_it_reached(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """The way of the ancestor: REVOKED, and the error says why."""
    await start_worker(app)
    first = api.tasks.queue("impatient")
    await until(lambda: running["impatient"] == 1)
    second = await api.tasks.queue("impatient")
    assert second.status_string == "REVOKED"
    with pytest.raises(
        pq.TooManyTasksForJob, match="concurrency limit 'impatient' of impatient reached; not queued to wait"
    ):
        second.get()
    gate["open"].set()
    assert (await first).status_string == "SUCCESS"
    assert (await api.tasks.queue("impatient")).status_string == "SUCCESS"


async def test_a_retry_lets_its_slot_go_and_waits_for_another(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Attempts are counted like tasks."""
    await start_worker(app)
    ended = await asyncio.gather(*[api.tasks.queue("stumbles") for _ in range(5)])
    assert [task.get() for task in ended] == [3] * 5
    assert most["stumbles"] == 1


async def test_a_cancelled_one_makes_room(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Cancelled while it runs or while it waits: the next one goes."""
    await start_worker(app)
    first, second, third = (api.tasks.queue("alone", n) for n in range(3))
    await until(lambda: order == [0])
    assert await api.tasks.cancel(second.task.id)
    assert await api.tasks.cancel(first.task.id)
    await until(lambda: order == [0, 2])
    gate["open"].set()
    assert (await third).get() == 2


async def test_those_that_wait_are_flushed_with_the_rest(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """A flush leaves no task behind at a limit."""
    await start_worker(app)
    futures = [api.tasks.queue("alone", n) for n in range(10)]
    await until(lambda: order == [0])
    assert await api.tasks.flush_queues("default") == 9
    gate["open"].set()
    ended = await asyncio.gather(*futures)
    assert [task.status_string for task in ended] == ["SUCCESS"] + ["REVOKED"] * 9


async def test_a_stop_hands_back_what_waits_for_nothing(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Another worker goes on where the first one was stopped, and the limit still holds."""
    first = await start_worker(app)
    futures = [api.tasks.queue("alone", n) for n in range(5)]
    await until(lambda: order == [0])
    await first.stop(grace=0.0)
    await start_worker(app, name="w2")
    await until(lambda: order == [0, 0])
    gate["open"].set()
    assert [task.get() for task in await asyncio.gather(*futures)] == [0, 1, 2, 3, 4]
    assert most["alone"] == 1


async def test_a_producer_that_does_not_know_the_job_cannot_pass_its_limit_by(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """The worker knows it, and has the task wait as any other."""
    await start_worker(app)
    broker = await api.broker()
    unaware: list[Task[Any]] = [Task(f"t{n}", "three", "default", time_queued=1.0) for n in range(20)]
    entries = [Entry(task.id, records.live_header() + task.to_wire()) for task in unaware]
    await broker.work.enqueue("default", entries)
    for task in unaware:
        ended = await api.submitting.bind(task).done_callback
        assert ended.status_string == "SUCCESS"
    assert most["three"] <= 3


# --------------------------------------------------------------------------------------------- how often
async def test_a_rate_spaces_tasks_evenly(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Twenty a second: between two starts lie fifty milliseconds of the store's clock, but for its rounding."""
    started: list[float] = []
    await api.on_events("task", "started", lambda channel, event, task: started.append(task.time_started))
    await start_worker(app)
    await asyncio.gather(*[api.tasks.queue("twenty.a.second") for _ in range(6)])
    await until(lambda: len(started) == 6)
    assert started[-1] - started[0] >= 0.249


async def test_a_burst_goes_at_once_and_the_rest_waits(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Three of each user, then one an hour."""
    await start_worker(app)
    futures = {name: [api.tasks.queue("three.and.wait", name) for _ in range(4)] for name in ("ann", "bob")}
    for name, of_user in futures.items():
        assert [(await future).get() for future in of_user[:3]] == [name] * 3
    assert (await api.tasks.size("default"))["default"] == 2
    assert not futures["ann"][3].done()
    assert await api.tasks.flush_queues("default") == 2


# --------------------------------------------------------------------------------- one and the same task
async def test_a_second_one_follows_the_first(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """Queued or running: the second is not queued, and its caller gets the end of the first one."""
    await start_worker(app)
    first = api.tasks.queue("report", 1)
    await until(lambda: len(order) == 1)
    second = api.tasks.queue("report", day=1, colour="red")
    other = api.tasks.queue("report", 2)
    await until(lambda: len(order) == 2)
    gate["open"].set()
    ended = await asyncio.gather(first, second, other)
    assert [task.get() for task in ended] == [(1, "red"), (1, "red"), (2, "red")]
    assert ended[1].id == ended[0].id == second.task.id
    again = await api.tasks.queue("report", 1)
    assert again.id != ended[0].id, "the first has ended, so this one is new"


async def test_the_last_one_is_kept(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """The one that waited is REVOKED and says why; the new one takes its turn at the end."""
    first = api.tasks.queue("last.report", 1, "red")
    between = api.tasks.queue("free", "between")
    last = api.tasks.queue("last.report", 1, "blue")
    ended = await first
    assert ended.status_string == "REVOKED"
    assert "replaced by a later one" in (ended.exception or "")
    await start_worker(app)
    assert (await last).get() == (1, "blue")
    await between
    assert order == ["between", (1, "blue")]


async def test_the_new_arguments_take_the_place_of_the_old(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """One task, which keeps its id and its place; both futures are its."""
    first = api.tasks.queue("replaced.report", 1, "red")
    between = api.tasks.queue("free", "between")
    await api.tasks.size()
    last = api.tasks.queue("replaced.report", 1, "blue", callback=False)
    task = await last
    assert (task.id, task.args) == (first.task.id, [1, "blue"])
    await start_worker(app)
    assert (await first).get() == (await task.done_callback).get() == (1, "blue")
    await between
    assert order == [(1, "blue"), "between"]


async def test_within_one_call_too(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """`queue_many` with the same task thrice is one task."""
    await start_worker(app)
    futures = api.tasks.queue_many([("report", {"day": 1})] * 3)
    gate.setdefault("open", asyncio.Event()).set()
    assert len({task.id for task in await asyncio.gather(*futures)}) == 1
    assert len(order) == 1


async def test_a_debounced_task_runs_once_things_are_quiet(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Each call delays the task; it runs once, with the last call's arguments, and all callers get that result."""
    await start_worker(app)
    futures = []
    for text in ("a", "ab", "abc"):
        futures.append(api.tasks.queue("save", 7, text))
        await api.tasks.size()
    other = api.tasks.queue("save", 8, "x")
    assert [task.get() for task in await asyncio.gather(*futures)] == ["abc"] * 3
    assert (await other).get() == "x"
    assert sorted(order) == ["abc", "x"]


async def test_a_debounced_task_is_not_delayed_forever(
    app: pq.PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """Past `max_wait` from the first call it runs, though calls go on."""
    await start_worker(app)
    first = api.tasks.queue("save.soon", 7, "0")
    calls = 0
    async with asyncio.timeout(20):
        while not first.done():
            calls += 1
            await api.tasks.queue("save.soon", 7, str(calls), callback=False)
    assert (await first).get() == order[0]


# -------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limits": 3}, "limits is 3"),
        ({"limits": [pq.Concurrency(1, key="tennant")]}, "the key 'tennant' is not an argument of odd"),
        ({"on_limit": "drop"}, "on_limit is 'drop'"),
        ({"unique": "yes"}, "unique is 'yes'"),
        ({"debounce": 0}, "Debounce: wait is 0"),
        ({"debounce": 1, "unique": True}, "unique and debounce are both stated"),
        ({"limits": [pq.Rate(1)] * 5}, "5 limits"),
    ],
)
def test_a_wrong_option_raises_with_the_place_of_the_job(options: dict[str, Any], text: str) -> None:
    """At the import, with the job's name."""
    with pytest.raises(pq.ConfigError, match=text) as caught:

        @pq.job(**options)
        def odd(tenant: str = "") -> None: ...

    assert "job odd: " in str(caught.value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: pq.Concurrency(0), "Concurrency: most is 0"),
        (lambda: pq.Concurrency(True), "Concurrency: most is True"),
        (lambda: pq.Concurrency(1, key=3), "Concurrency: key is 3"),
        (lambda: pq.Concurrency(1, name="a b"), "Concurrency: name is 'a b'"),
        (lambda: pq.Rate(1, per=0), "Rate: per is 0"),
        (lambda: pq.Rate(1_000_000, per=0.001), "faster than a µs"),
        (lambda: pq.Rate(5, burst=0), "Rate: burst is 0"),
        (lambda: pq.Unique(keep="best"), "Unique: keep is 'best'"),
        (lambda: pq.Debounce(5, max_wait=1), "max_wait is shorter than wait"),
    ],
)
def test_a_wrong_limit_raises_at_once(make: Any, text: str) -> None:
    """Each error has the value and the expected form."""
    with pytest.raises(pq.ConfigError, match=text):
        make()


@pq.job(limits=pq.Concurrency(1, key=lambda tenant: tenant["name"]))
def by_function(tenant: dict[str, str]) -> str:
    return tenant["name"]


async def test_a_key_by_a_function(serving: Producer) -> None:
    """The key function gets the arguments; if it raises, nothing is queued and the caller gets the error."""
    assert (await serving.tasks.queue("by.function", {"name": "x y, z"})).get() == "x y, z"
    with pytest.raises(pq.BadArguments, match=r"the key of by\.function cannot be computed: KeyError"):
        serving.tasks.queue("by.function", {"nom": "x"})
