"""Periodic jobs: the manual. A job says how often it runs; a server that schedules sees to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, PeriodicJob, Producer, PulsarQueue

ran: list[Any] = []


@pq.job(run_every=1)
def tick(self: Job) -> None:
    ran.append(self.task.meta["tick"])


@pq.job(run_every="30 3 * * *", timezone="Europe/Berlin", catch_up="once")
def nightly() -> None: ...


class Hourly(PeriodicJob):
    """A class is as good."""

    run_every = dt.timedelta(hours=1)
    anchor = pq.anchorDate(minute=15)
    default_queue = "slow"

    def __call__(self, deep: bool = False) -> str:
        return "deep" if deep else "shallow"


@pq.job()
def greet(name: str) -> str:
    return f"hello {name}"


async def until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------------------------------- declaring
def test_periodic_jobs_are_listed(app: PulsarQueue) -> None:
    """They are jobs like others, and can be queued like others."""
    jobs = dict(app.api().tasks.job_list())
    assert {name for name, facts in jobs.items() if facts["type"] == "periodic"} == {
        "tick",
        "nightly",
        "hourly",
    }
    assert jobs["nightly"]["run_every"] == "30 3 * * *"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run_every": "61 * * * *"}, "job broken: run_every: .* the minute"),
        ({"run_every": 0.1}, "job broken: run_every is 0.1 seconds"),
        ({"run_every": 5, "timezone": "Mars"}, "job broken: there is no time zone 'Mars'"),
        ({"run_every": 5, "catch_up": "some"}, "job broken: catch_up is 'some'"),
        ({"run_every": 5, "catch_up_limit": 0}, "job broken: catch_up_limit is 0"),
        ({"timezone": "Europe/Berlin"}, "timezone is for periodic jobs"),
        ({"run_every": 5, "name": "x" * 101}, "may have 100 characters"),
    ],
)
def test_a_mistake_raises_when_the_job_is_defined(options: dict[str, Any], says: str) -> None:
    """The error does not wait until the first run is due at night."""
    with pytest.raises(pq.ConfigError, match=says):

        @pq.job(**options)
        def broken() -> None: ...


def test_arguments_need_defaults() -> None:
    """A scheduler passes none."""
    with pytest.raises(
        pq.ConfigError, match="missing a required argument: 'day', and a scheduler passes none"
    ):

        @pq.job(run_every=5)
        def report(day: str) -> None: ...


def test_a_periodic_class_says_how_often() -> None:
    """An abstract one may leave it to its children."""
    with pytest.raises(pq.ConfigError, match="a PeriodicJob without run_every"):

        class Never(PeriodicJob):
            def __call__(self) -> None: ...

    class Base(PeriodicJob):
        abstract = True

        def __call__(self) -> None: ...

    class Child(Base):
        run_every = 5

    assert Child.periodic_schedule is not None
    assert Child.periodic_schedule.text == "every 5 s"


# ----------------------------------------------------------------------------------------- running
async def test_a_server_that_schedules(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each second once, though two workers schedule; the heartbeat says that they do."""
    ran.clear()
    app = make_app(schedule_periodic=True)
    beats: list[Any] = []
    async with app.api() as api:
        await api.on_events("consumer", "status", lambda c, e, facts: beats.append(facts["scheduling"]))
        with caplog.at_level(logging.INFO, logger="pq.worker"):
            await start_worker(app, "w1")
            await start_worker(app, "w2")
        await until(lambda: len(ran) >= 2)
    assert ran == sorted(set(ran))
    assert all(moment == int(moment) for moment in ran)
    assert beats
    assert all(beats)
    assert caplog.text.count("scheduler on · 3 periodic jobs") == 2


async def test_a_program_without_a_server(make_app: Any) -> None:
    """With `memory://` the worker in the program schedules, if its setting says so."""
    ran.clear()
    async with make_app(data_store="memory://periodic", schedule_periodic=True).api():
        await until(lambda: ran)


async def test_a_server_that_does_not(app: PulsarQueue, serving: Producer) -> None:
    """Without the setting nothing is scheduled, and nothing is kept."""
    assert await serving.tasks.schedules() == []


# ------------------------------------------------------------------------------------------ looking
def test_next_scheduled_in_a_plain_shell(app: PulsarQueue) -> None:
    """The name and the seconds come from the code, without a call to the store."""
    tasks = app.api().tasks
    name, seconds = tasks.next_scheduled() or ("", -1.0)
    assert name == "tick"
    assert 0 < seconds <= 1
    name, seconds = tasks.next_scheduled(["hourly", "greet"]) or ("", -1.0)
    assert name == "hourly"
    assert 0 < seconds <= 3600
    assert tasks.next_scheduled(["greet"]) is None
    with pytest.raises(pq.TaskNotAvailable, match="no job named 'hurly'"):
        tasks.next_scheduled(["hurly"])


async def test_schedules_tell_what_the_store_has(make_app: Any, start_worker: Any) -> None:
    """Schedules come from the code, brought by a server, and from run time."""
    app = make_app(schedule_periodic=True)
    await start_worker(app)
    async with app.api() as api:
        await api.tasks.schedule("greet", 60, kwargs={"name": "Ada"}, name="greet.ada")
        infos: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while len(infos) < 4:
                infos = {info.name: info for info in await api.tasks.schedules()}
    nightly, ada = infos["nightly"], infos["greet.ada"]
    assert (nightly.runs, nightly.by, nightly.catch_up) == ("30 3 * * * Europe/Berlin", "code", "once")
    assert nightly.next_run is not None
    assert nightly.next_run.minute == 30
    assert "test_periodic.py" in nightly.defined_at
    assert (ada.job, ada.runs, ada.by, ada.kwargs) == ("greet", "every 60 s", "run time", {"name": "Ada"})
    assert (ada.last, ada.paused, ada.queue, infos["hourly"].queue) == (None, False, "default", "slow")
    assert ada.next is not None
    assert ada.next % 60 == 0


# ---------------------------------------------------------------------------------------- run time
async def test_scheduling_at_run_time(make_app: Any, start_worker: Any) -> None:
    """Any job, with arguments, from any program; a running server takes it up within seconds."""
    app = make_app(schedule_periodic=True)
    await start_worker(app)
    done: list[Any] = []
    async with make_app().api() as api:
        await api.on_events("task", "done", lambda c, e, task: done.append((task.name, task.result)))
        info = await api.tasks.schedule(greet, 1, kwargs={"name": "Ada"})
        assert (info.name, info.by, info.paused) == ("greet", "run time", False)
        await until(lambda: ("greet", "hello Ada") in done)
        assert await api.tasks.unschedule("greet") is None


async def test_run_time_counts_more_than_the_code(api: Producer) -> None:
    """Until it is unscheduled: then the code counts again."""
    tasks = api.tasks
    await tasks.pause_schedule("nightly")
    await tasks.resume_schedule("nightly")
    info = await tasks.schedule("nightly", "@hourly", timezone="America/New_York")
    assert (info.runs, info.by, info.catch_up) == ("0 * * * * America/New_York", "run time", "once")
    back = await tasks.unschedule("nightly")
    assert back is not None
    assert (back.runs, back.by) == ("30 3 * * * Europe/Berlin", "code")


async def test_pausing_and_resuming(api: Producer) -> None:
    """A pause works before any server has brought the code's schedules; a paused schedule has no next run."""
    paused = await api.tasks.pause_schedule("tick")
    assert (paused.paused, paused.next) == (True, None)
    resumed = await api.tasks.resume_schedule("tick")
    assert not resumed.paused
    assert resumed.next is not None


async def test_running_one_now(serving: Producer) -> None:
    """The run has the arguments of the schedule, and changes none of its ticks."""
    await serving.tasks.schedule("greet", "@yearly", kwargs={"name": "Ada"}, name="ada")
    queued = await serving.tasks.run_schedule_now("ada")
    assert queued.meta == {"schedule": "ada"}
    assert (await queued.done_callback).get() == "hello Ada"
    queued = await serving.tasks.run_schedule_now("nightly")
    assert (await queued.done_callback).status_string == "SUCCESS"


def test_in_a_plain_shell(app: PulsarQueue, valkey: Any) -> None:
    """`.wait()` in place of `await`."""
    api = app.api()
    tasks = api.tasks
    assert tasks.schedule("greet", 60, kwargs={"name": "Ada"}).wait(10).name == "greet"
    assert tasks.pause_schedule("greet").wait(10).paused
    assert not tasks.resume_schedule("greet").wait(10).paused
    assert [info.name for info in tasks.schedules().wait(10)] == ["greet"]
    assert tasks.run_schedule_now("greet").wait(10).status_string == "QUEUED"
    assert tasks.unschedule("greet").wait(10) is None
    assert tasks.schedules().wait(10) == []
    api.close()


# ----------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("call", "error", "says", "hint"),
    [
        (("greet", "61 * * * *", {"name": "x"}), pq.InvalidValue, "the minute '61'", "minute hour"),
        (("greet", 0.1, {"name": "x"}), pq.InvalidValue, "0.1 seconds", "several rounds"),
        (("grete", 60), pq.TaskNotAvailable, "no job named 'grete'", "'greet'"),
        (("greet", 60), pq.BadArguments, "needs the argument 'name'", None),
        (("greet", 60, {"name": object()}), pq.NotSerializable, "argument 'name'", None),
        (
            ("greet", 60, {"name": "x"}, "no good"),
            pq.InvalidValue,
            "'no good' is not a valid schedule name",
            "letters",
        ),
        (("greet", 60, {"name": "x"}, "y" * 101), pq.InvalidValue, "101 characters", None),
        (
            ("greet", 60, {"name": "x"}, "nightly"),
            pq.InvalidValue,
            "the schedule of the job nightly",
            "another name=",
        ),
    ],
)
async def test_mistakes_change_nothing(
    api: Producer, call: tuple[Any, ...], error: type[pq.PqError], says: str, hint: str | None
) -> None:
    """The errors are raised at once, before a call to the store."""
    job, every, *rest = call
    with pytest.raises(error) as caught:
        api.tasks.schedule(job, every, **dict(zip(("kwargs", "name"), rest, strict=False)))
    assert says in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert await api.tasks.schedules() == []


async def test_unknown_schedules(api: Producer) -> None:
    """The error has the nearest names, or what to type."""
    with pytest.raises(pq.InvalidValue, match="no schedule named 'x'") as caught:
        await api.tasks.unschedule("x")
    assert "hourly, nightly" in (caught.value.hint or "")
    await api.tasks.schedule("greet", 60, kwargs={"name": "x"}, name="morning")
    for call in (
        api.tasks.pause_schedule,
        api.tasks.resume_schedule,
        api.tasks.run_schedule_now,
        api.tasks.unschedule,
    ):
        with pytest.raises(pq.InvalidValue, match="no schedule named 'mornin'") as caught:
            await call("mornin")
        assert "'morning'" in (caught.value.hint or "")
    with pytest.raises(pq.InvalidValue, match="not a valid schedule name"):
        api.tasks.pause_schedule("no good")


async def test_what_is_in_the_code_is_not_unscheduled(api: Producer) -> None:
    """The next server would bring it back; the hint has the two ways that last."""
    with pytest.raises(pq.InvalidValue, match="the schedule 'nightly' is in the code") as caught:
        await api.tasks.unschedule("nightly")
    assert "tasks.pause_schedule('nightly')" in (caught.value.hint or "")


async def test_there_is_an_end_to_schedules(
    api: Producer,
    make_app: Any,
    start_worker: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A further one is refused; a server starts nevertheless, and logs those that do not run."""
    monkeypatch.setattr("pq.producer.schedules.MOST", 1)
    await api.tasks.schedule("greet", 60, kwargs={"name": "x"})
    with pytest.raises(pq.QueueFull, match="keeps no more") as caught:
        await api.tasks.schedule("greet", 60, kwargs={"name": "x"}, name="another")
    assert "tasks.unschedule(name)" in (caught.value.hint or "")
    await start_worker(make_app(schedule_periodic=True))
    await until(lambda: caplog.text.count("does not run") == 3)
