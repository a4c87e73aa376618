"""Schedulers in virtual time: any number of them, killed anywhere, on the memory broker and on Valkey."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from stores import Hand

from pq import api as pq
from pq.api import PulsarQueue
from pq.broker import records
from pq.broker.contract.values import CHANGE, PAUSE, RESUME, Tick
from pq.broker.memory.broker import MemoryBroker
from pq.broker.memory.store import MemoryStore
from pq.broker.redis.broker import RedisBroker
from pq.errors import StoreUnavailable
from pq.model.task import Task
from pq.worker.scheduler import POLL, Scheduler

START = 1_700_000_040_000  # a whole minute
TO_THE_HOUR = -START % 3_600_000


@pq.job(run_every=1)
def every_second() -> None: ...


@pq.job(run_every=3600, catch_up="skip")
def skips() -> None: ...


@pq.job(run_every=3600, catch_up="once", default_queue="slow", priority=2)
def once() -> None: ...


@pq.job(run_every=3600, catch_up="all", catch_up_limit=5)
def catches_up(word: str = "all") -> None: ...


@pq.job()
def plain(n: int = 0) -> None: ...


JOBS = {item.name: item for item in (every_second, skips, once, catches_up, plain)}


class World:
    """A store whose clock is moved by hand, and schedulers on it."""

    def __init__(self, make_broker: Callable[[], Any], hand: Hand) -> None:
        self.make_broker = make_broker
        self.hand = hand
        self.broker = make_broker()

    def scheduler(self, *jobs: str, broker: Any = None) -> Scheduler:
        """A scheduler in a process of its own, as it were."""
        app = PulsarQueue(data_store="memory://none")
        app.registry  # noqa: B018  made, and then filled
        for name in jobs:
            app.registry.add(JOBS[name])
        context: Any = SimpleNamespace(broker=broker or self.make_broker())
        return Scheduler(context, app.api().schedules)

    async def tasks(self, queue: str = "default") -> list[Task[Any]]:
        """Return all waiting tasks, in the order in which they would be dispatched."""
        ids = await self.broker.looks.peek(queue, 100_000)
        return [Task.from_wire(records.message(r)) for r in await self.broker.looks.records(queue, ids) if r]

    async def ticks(self, name: str, queue: str = "default") -> list[int]:
        """Seconds after the start of the ticks that were queued for a job."""
        start = START / 1000
        return [round(task.meta["tick"] - start) for task in await self.tasks(queue) if task.name == name]


@pytest.fixture(params=["memory", "valkey"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    hand = Hand(START)
    made: list[Any] = []
    store = MemoryStore(hand)
    fresh = request.getfixturevalue("valkey") if request.param == "valkey" else None

    def make() -> Any:
        if fresh is None:
            made.append(MemoryBroker(store))
        else:
            made.append(RedisBroker(fresh.url, patience=5))
            made[-1].time_override = hand
        return made[-1]

    yield World(make, hand)
    for broker in made:
        await broker.close()


# ------------------------------------------------------------------------------------------- proof
async def test_five_schedulers_over_a_thousand_ticks(world: World) -> None:
    """A thousand tasks exactly, one for each tick, in any order of the five schedulers."""
    five = [world.scheduler("every.second") for _ in range(5)]
    chance = random.Random(7)
    await asyncio.gather(*[one.turn() for one in five])
    for _ in range(1000):
        world.hand.advance(1000)
        awake = chance.sample(five, chance.randint(1, 5))
        await asyncio.gather(*[one.turn() for one in awake])
    await asyncio.gather(*[one.turn() for one in five])
    assert await world.ticks("every.second") == list(range(1, 1001))
    ids = [task.id for task in await world.tasks()]
    assert ids == [f"cron.every.second.{START + 1000 * n}" for n in range(1, 1001)]


@pytest.mark.parametrize("sent", [True, False], ids=["after_the_claim", "before_the_claim"])
async def test_a_scheduler_dies_around_its_claim(world: World, sent: bool) -> None:
    """Nothing lies between claim and queueing: the tick is there once, whether the call arrived or not."""
    broker = world.make_broker()
    dying = world.scheduler("skips", broker=broker)
    await dying.turn()
    claim = broker.work.tick

    async def dies(queue: str, ticks: list[Tick]) -> list[int]:
        if sent:
            await claim(queue, ticks)
        raise StoreUnavailable("killed")

    broker.work.tick = dies
    world.hand.advance(TO_THE_HOUR)
    with pytest.raises(StoreUnavailable):
        await dying.turn()
    assert len(await world.tasks()) == sent
    for _ in range(3):
        await world.scheduler("skips").turn()
    assert len(await world.tasks()) == 1


async def test_a_scheduler_that_was_frozen_with_a_tick_in_its_hand(world: World) -> None:
    """It comes back when the task has long been run and forgotten, and queues nothing."""
    broker = world.make_broker()
    frozen = world.scheduler("skips", broker=broker)
    await frozen.turn()
    claim, thawed, reached = broker.work.tick, asyncio.Event(), asyncio.Event()

    async def sleeps(queue: str, ticks: list[Tick]) -> list[int]:
        reached.set()
        await thawed.wait()
        answers: list[int] = await claim(queue, ticks)
        return answers

    broker.work.tick = sleeps
    world.hand.advance(TO_THE_HOUR)
    turn = asyncio.ensure_future(frozen.turn())
    async with asyncio.timeout(10):
        await reached.wait()
    await world.scheduler("skips").turn()
    (task,) = await world.tasks()
    await run_and_forget(world, task.id)
    thawed.set()
    await turn
    assert await world.tasks() == []


async def run_and_forget(world: World, id: str) -> None:
    done = records.finished_header(3, "cancel:0") + b"x"
    assert await world.broker.work.cancel("default", [(id, done, "")], at_front=True) == ["cancelled"]
    if isinstance(world.broker, RedisBroker):
        await world.broker.calls.run("DEL", world.broker.keys.record("default", id))
    else:
        del world.broker.store.queue("default").task[id]


@pytest.mark.parametrize(("late", "runs"), [(0, 1), (60, 1), (61, 0)])
async def test_all_schedulers_were_down(world: World, late: int, runs: int) -> None:
    """Nine ticks of an hour went by: each job as its policy says, however many schedulers come back."""
    hour, first = 3600, TO_THE_HOUR // 1000
    hours = [first + n * hour for n in range(9)]
    await world.scheduler("skips", "once", "catches.up").turn()
    world.hand.advance((hours[-1] + late) * 1000)
    back = [world.scheduler("skips", "once", "catches.up") for _ in range(3)]
    for _ in range(2):
        await asyncio.gather(*[one.turn() for one in back])
    assert await world.ticks("skips") == hours[-1:] * runs
    assert await world.ticks("once", "slow") == hours[-1:]
    assert await world.ticks("catches.up") == hours[-5:]
    world.hand.advance((hour - late) * 1000)
    await asyncio.gather(*[one.turn() for one in back])
    assert await world.ticks("skips") == [*hours[-1:] * runs, hours[-1] + hour]
    assert await world.ticks("catches.up") == [*hours[-5:], hours[-1] + hour]


async def test_a_stumble_is_not_an_outage(world: World) -> None:
    """Up to a minute late the last tick runs, with `skip` too; the ones before it do not."""
    one = world.scheduler("every.second")
    await one.turn()
    world.hand.advance(3_000)
    await one.turn()
    world.hand.advance(60_000)
    await one.turn()
    assert await world.ticks("every.second") == [3, 63]


# ------------------------------------------------------------------------------- the tasks of ticks
async def test_the_task_of_a_tick(world: World) -> None:
    """It has the options of its job, is due by the store's clock, and says which tick it is of."""
    one = world.scheduler("once")
    await one.turn()
    world.hand.advance(3_600_000)
    await one.turn()
    (task,) = await world.tasks("slow")
    tick = -(-START // 3_600_000) * 3600
    assert (task.id, task.name, task.queue, task.priority) == (f"cron.once.{tick * 1000}", "once", "slow", 2)
    assert task.meta == {"schedule": "once", "tick": tick}
    assert task.time_queued == world.hand.ms / 1000


async def test_it_sleeps_until_the_next_tick_and_never_longer_than_a_poll(world: World) -> None:
    """The scheduler sees changes at run time for that reason."""
    one = world.scheduler("every.second", "skips")
    assert await one.turn() == 1.0
    world.hand.advance(600)
    assert await one.turn() == pytest.approx(0.4)
    assert await world.scheduler("skips").turn() == POLL
    assert await world.scheduler().turn() == POLL


async def test_the_store_s_clock_is_set_back(world: World) -> None:
    """A tick that was claimed is not claimed again; things go on when its time has come once more."""
    one = world.scheduler("every.second")
    await one.turn()
    world.hand.advance(5_000)
    await one.turn()
    world.hand.advance(-4_000)
    another = world.scheduler("every.second")
    for _ in range(6):
        await one.turn()
        await another.turn()
        world.hand.advance(1_000)
    assert await world.ticks("every.second") == [5, 6]


# ------------------------------------------------------------------------------ changes at run time
async def test_changes_are_seen_at_the_next_turn(world: World) -> None:
    """Another rule, a pause and the end of it, all by another program than the scheduler."""
    one = world.scheduler("every.second", "plain")
    await one.turn()
    other = world.scheduler("every.second", "plain")._schedules
    plan = other.plan("plain", 10, {"n": 4}, None, "tens", None, None, None, None)
    await world.broker.schedules.change(CHANGE, "tens", plan.dump())
    await world.broker.schedules.change(PAUSE, "every.second")
    for _ in range(25):
        world.hand.advance(1_000)
        await one.turn()
    assert await world.ticks("every.second") == []
    assert await world.ticks("plain") == [10, 20]
    assert {task.kwargs["n"] for task in await world.tasks()} == {4}
    await world.broker.schedules.change(RESUME, "every.second")
    world.hand.advance(1_000)
    await one.turn()
    assert await world.ticks("every.second") == [26]


async def test_a_schedule_of_a_job_that_is_not_known_here_is_left_alone(world: World) -> None:
    """Another program may know it; so it is neither run nor taken away."""
    await world.scheduler("every.second").turn()
    world.hand.advance(1_000)
    await world.scheduler("skips").turn()
    assert await world.tasks() == []
    await world.scheduler("every.second").turn()
    assert await world.ticks("every.second") == [1]
    assert sorted((await world.broker.schedules.stored())[1]) == ["every.second", "skips"]


async def test_code_that_is_periodic_no_more(world: World) -> None:
    """The schedule goes when a program starts whose job has no `run_every`; an old scheduler does no harm."""
    old = world.scheduler("every.second")
    await old.turn()

    @pq.job("every.second")
    def no_more() -> None: ...

    new = world.scheduler("plain")
    new._schedules._registry().add(no_more)
    await new.turn()
    world.hand.advance(1_000)
    await old.turn()
    await new.turn()
    assert await world.tasks() == []
    assert (await world.broker.schedules.stored())[1] == {}


async def test_what_cannot_be_read_stops_nothing_else(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A newer version may have written it; it is said once."""
    await world.broker.schedules.change(CHANGE, "odd", b"?\n{}")
    one = world.scheduler("every.second")
    for _ in range(3):
        await one.turn()
        world.hand.advance(1_000)
    await world.broker.schedules.change(PAUSE, "odd")
    await one.turn()
    assert await world.ticks("every.second") == [1, 2, 3]
    assert caplog.text.count("the schedule 'odd' cannot be read") == 1


async def test_arguments_that_no_longer_fit_are_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The job's signature has changed since: nothing is queued for that schedule, and the rest goes on."""
    other = world.scheduler("catches.up")._schedules
    plan = other.plan("catches.up", 1, {"word": "x"}, None, None, None, None, None, None)
    await world.broker.schedules.change(CHANGE, "catches.up", plan.dump().replace(b'"word"', b'"wird"'))
    one = world.scheduler("catches.up", "every.second")
    for _ in range(4):
        await one.turn()
        world.hand.advance(1_000)
    assert await world.ticks("catches.up") == []
    assert await world.ticks("every.second") == [1, 2, 3]
    assert caplog.text.count("schedule catches.up queues nothing") == 1
