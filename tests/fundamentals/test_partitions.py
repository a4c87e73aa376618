"""A queue of several partitions: spread evenly, in order by key, and one queue for every caller that looks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from pq import api as pq
from pq.api import Concurrency, Producer, PulsarQueue
from pq.broker.contract.values import ReserveCall
from pq.clock import SYSTEM
from pq.config import Settings
from pq.model.limits import partition_key_text
from pq.model.partitions import Partitions, number_of, shuffled
from pq.worker.attempts import Attempts
from pq.worker.context import Counts
from pq.worker.round_trips import RoundTrips
from pq.worker.settling import Settling

PARTS = [f"orders.p{n}" for n in range(8)]

started: list[tuple[str, int]] = []
open_now: Counter[str] = Counter()
most_open: Counter[str] = Counter()
meeting: list[int] = []
"""The number of customers at work before any step ends: more than one worker can take."""


@pq.job(partition_key="customer", limits=[Concurrency(1, key="customer")])
async def step(customer: str, n: int) -> int:
    started.append((customer, n))
    open_now[customer] += 1
    most_open[customer] = max(most_open[customer], open_now[customer])
    while meeting and len(most_open) < meeting[0]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.001)
    open_now[customer] -= 1
    return n


@pq.job()
async def echo(value: int = 0) -> int:
    return value


@pq.job(partition_key=lambda order, **_: order["customer"])
async def by_function(order: dict[str, Any], n: int = 0) -> int:
    return n


@pq.job(partition_key=["tenant", "customer"])
async def by_two(tenant: int, customer: int, n: int = 0) -> int:
    return n


@pq.job(max_concurrency=3)
async def few() -> None: ...


@pq.job(unique=True)
async def alone(value: int) -> int:
    return value


class FirstOf:
    """A broker that counts which of two queues comes first."""

    def __init__(self) -> None:
        self.firsts: Counter[str] = Counter()
        self.work = self

    async def exchange(self, call: ReserveCall, settlements: Any) -> None:
        queues = call.queues
        assert sorted(queues) == sorted(["here", "orders", *PARTS, "low"])
        self.firsts[next(name for name in queues if name in ("orders", "low"))] += 1


@pytest.fixture(autouse=True)
def forget() -> None:
    started.clear()
    open_now.clear()
    most_open.clear()
    meeting.clear()


@pytest.fixture
def app(make_app: Any) -> PulsarQueue:
    """An application whose queue `orders` is cut into eight."""
    return make_app(task_queues=["orders"], partitions={"orders": 8})


async def part_of(api: Producer, job: str, *args: Any, **options: Any) -> str:
    task = await api.tasks.queue(job, *args, callback=False, **options)
    assert task.queue is not None
    return task.queue


def by_customer() -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for customer, n in started:
        found[customer].append(n)
    return found


async def test_tasks_without_a_key_are_spread_evenly(api: Producer) -> None:
    """The partitions take turns; `task.queue` is the partition, and in the store each is a queue."""
    futures = api.tasks.queue_many([("echo", (n,)) for n in range(80)], callback=False)
    queued = Counter([(await future).queue for future in futures])
    assert queued == dict.fromkeys(PARTS, 10)
    states = await api.tasks.queue_states()
    assert {name: state.ready for name, state in states.items()} == dict.fromkeys(PARTS, 10)


async def test_tasks_of_one_key_are_in_one_partition(api: Producer) -> None:
    """However the key is stated: an argument, several, a function, or beside the arguments; by all jobs alike."""
    wanted = {f"c{n}": await part_of(api, "step", f"c{n}", 0) for n in range(40)}
    assert set(wanted.values()) == set(PARTS)
    for customer, part in wanted.items():
        assert await part_of(api, "step", customer=customer, n=1) == part
        assert await part_of(api, "by.function", {"customer": customer}) == part
        assert await part_of(api, "echo", meta_params={"partition_key": customer}) == part
        assert await part_of(api, "step", "x", 1, meta_params={"partition_key": customer}) == part
        assert (await echo.options(partition_key=customer, callback=False).queue(1)).queue == part
    pairs = {await part_of(api, "by.two", tenant, 7) for tenant in range(40) for _ in range(2)}
    assert len(pairs) > 4
    assert await part_of(api, "by.two", 1, 2) == await part_of(api, "by.two", customer=2, tenant=1)
    assert await part_of(api, "echo", meta_params={"partition_key": 8}) == await part_of(api, "step", "8", 0)
    kept = await api.tasks.queue(
        "echo", callback=False, meta_params={"partition_key": "a", "about": "b"}, queue="orders"
    )
    assert kept.meta == {"about": "b"}


async def test_tasks_that_share_a_limit_meet_in_one_partition(api: Producer) -> None:
    """A limit holds in one queue, a unique key too: so where no key is stated it is that."""
    assert len({await part_of(api, "few") for _ in range(20)}) == 1
    assert len({(await api.tasks.queue("alone", 3, callback=False)).id for _ in range(10)}) == 1
    assert len({await part_of(api, "alone", n) for n in range(40)}) > 4


async def test_order_is_kept_by_key_over_several_workers(make_app: Any, start_worker: Any) -> None:
    """Each customer's steps start in the order in which they were queued, one after the other."""
    app = make_app(task_queues=["orders"], partitions="orders=8", concurrent_tasks=3)
    meeting.append(4)
    async with app.api() as api:
        calls = [("step", (f"c{customer}", n)) for n in range(40) for customer in range(6)]
        futures = api.tasks.queue_many(calls)
        for name in ("w1", "w2"):
            await start_worker(app, name)
        async with asyncio.timeout(60):
            tasks = await asyncio.gather(*futures)
    assert {task.worker for task in tasks} == {"w1", "w2"}
    assert by_customer() == {f"c{customer}": list(range(40)) for customer in range(6)}
    assert set(most_open.values()) == {1}


async def test_what_was_queued_before_the_cut_is_run_first(make_app: Any, start_worker: Any) -> None:
    """A program that does not know of the partitions queues to the queue itself, which is consumed too."""
    before = make_app(task_queues=["orders"])
    after = make_app(task_queues=["orders"], partitions="orders=4", concurrent_tasks=1)
    async with before.api() as old, after.api() as new:
        futures = [new.tasks.queue("step", "new", n) for n in range(3)]
        await new.tasks.size()
        futures += [old.tasks.queue("step", "old", n) for n in range(3)]
        await old.tasks.size()
        assert await new.tasks.size("orders") == {"orders": 6}
        await start_worker(after)
        async with asyncio.timeout(60):
            await asyncio.gather(*futures)
    assert [customer for customer, _ in started] == ["old"] * 3 + ["new"] * 3


async def test_no_partition_waits_for_another(make_app: Any, start_worker: Any) -> None:
    """The partitions of a queue take turns; the order of queues stays: preferred ones are done first."""
    app = make_app(task_queues=["high", "orders"], partitions="orders=2", concurrent_tasks=1)
    async with app.api() as api:
        keys = {api.partitions.of_key("orders", f"c{n}"): f"c{n}" for n in range(20)}
        for key in keys.values():
            for n in range(30):
                api.tasks.queue("step", key, n, queue="orders", callback=False)
        high = [api.tasks.queue("step", "high", n, queue="high") for n in range(10)]
        while sum((await api.tasks.size()).values()) < 70:
            await asyncio.sleep(0.01)
        await start_worker(app)
        async with asyncio.timeout(60):
            await asyncio.gather(*high)
            assert [customer for customer, _ in started[:10]] == ["high"] * 10
            while len(started) < 70:
                await asyncio.sleep(0.01)
    one, two = ([at for at, (customer, _) in enumerate(started) if customer == key] for key in keys.values())
    assert one[0] < two[-1]
    assert two[0] < one[-1]


def test_an_order_of_chance_within_a_queue() -> None:
    """Each partition comes first equally often; the queue itself is before them, and other queues keep their place."""
    partitions = Partitions({"orders": 4})
    groups = partitions.groups(["own", "orders", *partitions.of("orders"), "low"])
    chance = random.Random(1).random
    orders = [shuffled(groups, groups, chance) for _ in range(4000)]
    assert all(order[:2] == ["own", "orders"] and order[-1] == "low" for order in orders)
    firsts = Counter(order[2] for order in orders)
    assert sorted(firsts) == list(partitions.of("orders"))
    assert all(900 < count < 1100 for count in firsts.values())


async def test_weights_are_those_of_the_whole_queue(make_app: Any, start_worker: Any) -> None:
    """A queue that is cut has no more turns than one that is not."""
    app = make_app(task_queues=["orders", "low"], partitions="orders=8", queue_weights="orders:1,low:1")
    broker = FirstOf()
    settings: Any = SimpleNamespace(
        cfg=app.cfg, broker=broker, queues=["here", "orders", *PARTS, "low"], clock=SYSTEM,
        lease="", name="", node="", counts=Counts(),
    )  # fmt: skip
    round_trips = RoundTrips(settings, Settling(settings, Attempts()))
    for _ in range(3000):
        await round_trips.call({}, 1, idle=True)
    assert {name: round(count / 500) for name, count in broker.firsts.items()} == {"orders": 3, "low": 3}


async def test_looks_and_switches_are_over_all_partitions(
    app: PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """`orders` is one queue for callers: sizes, lateness, pause, limit, lists; its partitions can be named too."""
    for n in range(16):
        await api.tasks.queue("echo", n, callback=False)
    assert await api.tasks.size("orders") == {"orders": 16}
    assert await api.tasks.size("orders.p3") == {"orders.p3": 2}
    assert len(await api.tasks.search(queue="orders")) == 16
    await api.tasks.pause("orders")
    states = await api.tasks.queue_states()
    assert all(states[name].paused for name in PARTS)
    await start_worker(app)
    assert (await api.tasks.queue_local("echo", 1)).get() == 1
    assert await api.tasks.size("orders") == {"orders": 16}
    await api.tasks.limit("orders", 16)
    refused = await asyncio.gather(*(api.tasks.queue("echo", n) for n in range(8)), return_exceptions=True)
    assert {type(error) for error in refused} == {pq.QueueFull}
    await api.tasks.limit("orders", None)
    assert await api.tasks.flush_queues("orders") == 16
    assert await api.tasks.size("orders") == {"orders": 0}
    future = api.tasks.queue("echo", 5)
    await api.tasks.resume("orders")
    assert (await asyncio.wait_for(future, 60)).get() == 5


async def test_a_queue_is_as_late_as_its_latest_partition(
    api: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest wait of a partition is that of the queue."""

    async def latency(broker: Any, queue: str) -> float:
        return float(queue[-1]) if queue in PARTS else 0.0

    monkeypatch.setattr("pq.producer.listing.latency", latency)
    assert await api.tasks.latency("orders", "orders.p2", "other") == {
        "orders": 7.0,
        "orders.p2": 2.0,
        "other": 0.0,
    }


async def test_a_smaller_number_loses_nothing(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker consumes the partitions that are too many, and says at its start how much they hold."""
    many = make_app(task_queues=["orders"], partitions="orders=8")
    fewer = make_app(task_queues=["orders"], partitions="orders=2")
    async with many.api() as api:
        futures = [api.tasks.queue("echo", n) for n in range(16)]
        assert await api.tasks.size("orders") == {"orders": 16}
        async with fewer.api() as after:
            assert await after.tasks.size("orders") == {"orders": 16}
            assert await part_of(after, "echo") in PARTS[:2]
        with caplog.at_level(logging.WARNING, "pq.worker"):
            await start_worker(fewer)
        assert "queue orders has 2 partitions, and 12 tasks wait in former ones (orders.p2, " in caplog.text
        async with asyncio.timeout(60):
            assert [(await future).result for future in futures] == list(range(16))


async def test_a_periodic_job_goes_to_the_queue_itself(
    app: PulsarQueue, api: Producer, start_worker: Any
) -> None:
    """A tick is claimed in one queue, whatever is cut; workers run it as the rest."""
    info = await api.tasks.schedule("echo", 3600, queue="orders", name="hourly")
    assert info.queue == "orders"
    await start_worker(app)
    task = await api.tasks.run_schedule_now("hourly")
    assert task.queue == "orders"
    async with asyncio.timeout(60):
        assert (await task.done_callback).status_string == "SUCCESS"
    await api.tasks.unschedule("hourly")


async def test_wrong_partitions_and_keys_are_refused(api: Producer) -> None:
    """A partition may be named for a task, if there is one; a key must be the same in every program."""
    assert await part_of(api, "echo", queue="orders.p7") == "orders.p7"
    with pytest.raises(pq.InvalidValue, match=r"'orders' has 8 partitions, and 'orders.p8' is not one"):
        api.tasks.queue("echo", queue="orders.p8")
    with pytest.raises(pq.BadArguments, match="the partition key is <object"):
        api.tasks.queue("echo", meta_params={"partition_key": object()})
    with pytest.raises(pq.BadArguments, match=r"the key of by\.function cannot be computed: KeyError"):
        api.tasks.queue("by.function", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"partitions": "orders=one"},
            "partitions: 'orders=one' (Settings) is not a list of queues with their",
        ),
        ({"partitions": {"orders": 0}}, "number of partitions from 2 to 256, such as orders=8"),
        ({"partitions": "orders=1000"}, "number of partitions from 2 to 256, such as orders=8"),
        ({"partitions": "orders"}, "such as orders=8"),
        ({"partitions": "orders=8,orders=4"}, "orders comes twice"),
        ({"partitions": {"o" * 126: 8}}, "may have 123 characters"),
        ({"partitions": "a b=8"}, "a name of up to 128 letters"),
        ({"partitions": "a=2,a.p1=2"}, "partitions: 'a.p1' is the name of a partition of 'a'"),
        (
            {"partitions": "a=2", "task_queues": ["a", "a.p9"]},
            "task_queues: 'a.p9' is the name of a partition of",
        ),
        ({"partitions": "a=2", "default_task_queue": "a.p0"}, "default_task_queue: 'a.p0' is the name of a"),
    ],
)
def test_a_bad_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    """The error has the wrong value, and a right one."""
    with pytest.raises(pq.ConfigError) as caught:
        Settings(**settings)
    assert message in str(caught.value)


def test_a_bad_key_of_a_job_is_refused() -> None:
    """When it is defined, not when it is queued."""
    with pytest.raises(pq.ConfigError, match=r"the key 'costumer' is not an argument of order.*"):

        @pq.job(partition_key="costumer")
        async def order(customer: str) -> None: ...

    with pytest.raises(pq.ConfigError, match="partition_key names no argument"):

        @pq.job(partition_key=())
        async def other(customer: str) -> None: ...


async def test_an_unserved_queue_is_named(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt name cuts nothing, which a worker says."""
    with caplog.at_level(logging.WARNING, "pq.worker"):
        await start_worker(make_app(task_queues=["orders"], partitions="ordes=8"))
    assert (
        "no job queues to 'ordes', and this worker does not serve it; did you mean 'orders'?" in caplog.text
    )


def test_a_key_has_the_same_partition_forever() -> None:
    """Programs of all versions and hosts have to agree on it."""
    assert [number_of(key, 8) for key in ("ann", "bob", "42", "é", "")] == [5, 2, 2, 7, 4]
    assert partition_key_text(42) == "42"
    assert partition_key_text([1, "a"]) == partition_key_text((1, "a"))
    spread = Counter(number_of(f"customer-{n}", 8) for n in range(8000))
    assert all(850 < count < 1150 for count in spread.values())
