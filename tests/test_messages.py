"""The texts of common mistakes: each one made for real, and the whole text of the answer.

The event with its values and its slug, then the text to type. At the command line that is six lines at most, with no
frame of the library; in Python the same text is the exception's message, and the hint is a note of it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ServerProcess, clean_environment
from stores import Server

from pq import api as pq
from pq import errors
from pq.api import Producer, PulsarQueue
from pq.broker.embedded import find_binary
from pq.commands.explain import pages
from pq.worker.worker import Worker

ROOT = Path(__file__).resolve().parents[1]

MANAGE = """\
from pq.api import PulsarQueue

task_paths = ["jobs.*"]

def app():
    return PulsarQueue(config=__file__)

if __name__ == "__main__":
    app().start()
"""

JOBS = """\
import asyncio, os, signal, threading, time
from pq import api

@api.job()
def addition(self, a=0, b=0):
    return a + b

@api.job()
def report(self):
    return {"rows": [threading.Lock()]}

@api.job()
def resize(self):
    time.sleep(2)

@api.job(timeout=0.2)
async def crawl(self):
    await asyncio.sleep(60)

@api.job()
def train(self):
    os.kill(os.getpid(), signal.SIGKILL)
"""

Run = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a directory of its own."""
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    (tmp_path / "jobs" / "all.py").write_text(JOBS)
    return tmp_path


def plain(text: str, *places: tuple[str, str]) -> str:
    """Return `text` without the parts that differ from run to run."""
    for value, name in places:
        text = text.replace(value, name)
    for pattern, name in (
        (r"\bi[0-9a-f]{7,32}\b", "ID"),
        (r"\bpid \d+", "pid N"),
        (r"[\d,]*\d(\.\d+)? (ms|s)\b", "N s"),
        (r"^\d\d:\d\d:\d\d ", ""),
    ):
        text = re.sub(pattern, name, text, flags=re.M)
    return text


@pytest.fixture
def run(project: Path) -> Run:
    """Run the command line of the project, and return all of its output. The exit code must not be 0."""

    def call(*words: str, code: int = 1, program: tuple[str, ...] = ("manage.py",), **env: str) -> str:
        done = subprocess.run(
            [sys.executable, *program, *words],
            cwd=project,
            env=clean_environment() | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return plain(said, (str(project), "PROJECT"))

    return call


class Serving:
    """A server of the project; `said` is its log so far, without the parts that differ from run to run."""

    def __init__(self, project: Path, *words: str, url: str) -> None:
        self._project, self._url = project, url
        self.process = ServerProcess(project, *words, env={"PQ_DATA_STORE": url})

    @property
    def said(self) -> str:
        return plain(self.process.log, (str(self._project), "PROJECT"), (self._url, "STORE"))

    def until(self, text: str) -> str:
        """Return its log once `text` stands in it."""
        self.process.wait_for(re.escape(text))
        return self.said


@pytest.fixture
def server(project: Path, valkey: Any) -> Iterator[Callable[..., Serving]]:
    """Start a server of the project; stopped at the end."""
    started: list[Serving] = []

    def start(*words: str, url: str = valkey.url) -> Serving:
        started.append(Serving(project, "-w", "1", *words, url=url))
        return started[-1]

    yield start
    for each in started:
        each.process.stop()
        each.process.kill()


# --------------------------------------------------------------------------------------- the store
def test_broker_unreachable(run: Run) -> None:
    """The error has the URL without its password, and where it was set."""
    url = "redis://app:secret@127.0.0.1:1/0"
    expected = (
        "error: no Redis or Valkey at redis://app:***@127.0.0.1:1/0: connection refused [store-unreachable]\n"
        "hint: start it, or remove data_store ({}) to use the embedded server\n"
    )
    assert run("queue", "addition", PQ_DATA_STORE=url) == expected.format("variable PQ_DATA_STORE")
    assert run("-w", "1", "--data-store", url) == expected.format("flag --data-store")


def test_broker_unreachable_names_the_line(run: Run, project: Path) -> None:
    """Where a file has the URL, the hint has its line."""
    (project / "manage.py").write_text(MANAGE.replace("\ndef", 'data_store = "unix:///nowhere/s"\n\ndef', 1))
    assert run("queue", "addition") == (
        "error: no Redis or Valkey at unix:///nowhere/s: no such socket [store-unreachable]\n"
        "hint: start it, or remove data_store (manage.py, line 4) to use the embedded server\n"
    )


def test_no_broker(run: Run) -> None:
    """In production no server is started by itself."""
    assert run("queue", "addition", PQ_ENV="production") == (
        "error: the embedded server is not for production (PQ_ENV=production), and no store is configured [no-store]\n"
        "hint: set PQ_DATA_STORE to the URL of your own, such as redis://localhost:6379/0\n"
    )


def test_broker_auth(run: Run) -> None:
    """A login that was refused: the server's words, and where the password stands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    closed = Server(find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "right")
    try:
        said = run("queue", "addition", PQ_DATA_STORE=f"redis://:wrong@127.0.0.1:{port}/0")
    finally:
        closed.close()
    assert plain(said, (str(port), "PORT")) == (
        "error: redis://:***@127.0.0.1:PORT/0 refused: WRONGPASS invalid username-password pair or user is disabled. "
        "[store-refused]\n"
        "hint: check user, password and rights in data_store (variable PQ_DATA_STORE); "
        "percent-encode @ : / in a password\n"
    )


def test_broker_evicts(run: Run, server: Callable[..., Serving]) -> None:
    """A store that deletes keys when it is full: a server starts on it only with a setting for that."""
    cache = Server(find_binary(), "--maxmemory-policy", "allkeys-lru")
    what = (
        "this store deletes keys when it is full (maxmemory-policy allkeys-lru): "
        "tasks can vanish silently [store-evicts]\n"
    )
    hint = "hint: CONFIG SET maxmemory-policy noeviction, or a store of its own"
    try:
        assert f"error: {what}{hint}; --allow-eviction starts all the same\n" in run(
            "serve", PQ_DATA_STORE=cache.url
        )
        said = server("--allow-eviction", url=cache.url).until("ready")
    finally:
        cache.close()
    assert f"server   warning: {what}                  {hint}\n" in said


# ---------------------------------------------------------------------------- what is to be served
def test_app_not_found(run: Run) -> None:
    """The nearest module of the directory."""
    assert run("jobs", program=("-m", "pq", "-a", "manag")) == (
        "error: no module 'manag' (from -a) in the current directory, PROJECT [app-not-found]\n"
        "hint: did you mean 'manage'?\n"
    )


def test_import_failed(run: Run, project: Path) -> None:
    """The missing value, and the user's own line."""
    (project / "jobs" / "mail.py").write_text("\n\nimport aiosmtplib_zzz\n")
    assert run("jobs") == (
        "error: jobs.mail could not be imported: ModuleNotFoundError: No module named 'aiosmtplib_zzz' "
        "(PROJECT/jobs/mail.py, line 3) [import-failed]\n"
        "hint: mend it, install what is missing, or remove 'jobs.mail' from task_paths\n"
    )


def test_no_jobs(project: Path, server: Callable[..., Serving]) -> None:
    """The modules were found, and define no job."""
    (project / "jobs" / "all.py").write_text("")
    assert (
        "server   warning: task_paths ['jobs.*'] matched 2 modules and no job [no-jobs]\n"
        "                  hint: decorate a function with @api.job(), or list the module that has them in task_paths\n"
    ) in server().until("ready")


def test_unknown_setting(run: Run, project: Path) -> None:
    """The line of the file, or the variable; and the nearest right name."""
    assert run("config", PQ_CONCURENT_TASKS="3") == (
        "error: environment: unknown setting 'PQ_CONCURENT_TASKS' [unknown-setting]\n"
        "hint: did you mean 'PQ_CONCURRENT_TASKS'?\n"
    )
    (project / "manage.py").write_text(MANAGE.replace("\ndef", "concurent_tasks = 3\n\ndef", 1))
    assert run("jobs") == (
        "error: manage.py, line 4: unknown setting 'concurent_tasks' [unknown-setting]\n"
        "hint: did you mean 'concurrent_tasks'?; "
        "a value of your own is called _concurent_tasks, with an underscore, or in CAPITALS\n"
    )


def test_bad_cron(run: Run, project: Path) -> None:
    """The line, its field, its value and the expected form."""
    (project / "jobs" / "cron.py").write_text(
        "from pq import api\n\n@api.job(run_every='0 25 * * *')\ndef nightly(self):\n    pass\n"
    )
    assert run("jobs") == (
        "error: job nightly: run_every: '0 25 * * *': the hour '25' cannot be (it is 0-23) "
        "(PROJECT/jobs/cron.py, line 3) [bad-cron]\n"
        "hint: the fields are minute hour day-of-month month day-of-week, as in '30 3 * * *' (03:30 every day)\n"
    )


def test_duplicate_job(run: Run, project: Path) -> None:
    """Both places."""
    (project / "jobs" / "more.py").write_text(
        "from pq import api\n\n@api.job()\ndef addition(self):\n    pass\n"
    )
    assert run("jobs") == (
        "error: two jobs are named 'addition': PROJECT/jobs/all.py:4 and PROJECT/jobs/more.py:3 [duplicate-job]\n"
        "hint: give one another name: @api.job(name=…)\n"
    )


def test_port_in_use(run: Run) -> None:
    """The address, and a port that may be free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = run("web", "--port", str(port))
    assert said == (
        f"error: another program listens on 127.0.0.1:{port} [port-in-use]\n"
        f"hint: use another port: --port {port + 1}\n"
    )


# ------------------------------------------------------------------------------------ what is queued
def test_unknown_job(run: Run, valkey: Any) -> None:
    """The nearest name."""
    assert run("queue", "additon", "a=1", PQ_DATA_STORE=valkey.url) == (
        "error: no job named 'additon' (5 known) [unknown-job]\nhint: did you mean 'addition'?\n"
    )


def test_bad_arguments(run: Run, valkey: Any) -> None:
    """The signature, before anything is queued."""
    assert run("queue", "addition", "c=1", PQ_DATA_STORE=valkey.url) == (
        "error: addition(a=0, b=0) got an unexpected keyword argument 'c'; nothing was queued [bad-arguments]\n"
    )


@pq.job()
def addition(self: pq.Job, a: Any = 0, b: Any = 0) -> Any:
    return a + b


def shout(text: str) -> str:
    return text.upper()


@pytest.fixture
async def api(valkey: Any) -> AsyncIterator[Producer]:
    """A producer of an application whose jobs are this module's."""
    async with PulsarQueue(data_store=valkey.url, task_paths=[__name__], node_name="here").api() as producer:
        yield producer


def told(error: BaseException) -> str:
    """Return the error of a traceback in the form of the command line."""
    assert isinstance(error, errors.PqError)
    notes = getattr(error, "__notes__", [])
    assert notes[:1] == ([f"hint: {error.hint}"] if error.hint else [])
    return plain("\n".join([f"{error} [{error.slug}]", *notes[:1]]))


def caught(call: Callable[[], Any]) -> str:
    with pytest.raises(errors.PqError) as found:
        call()
    return told(found.value)


async def test_not_serializable(api: Producer, tmp_path: Path) -> None:
    """The error names the argument, the job and the type."""
    with (tmp_path / "file").open("w") as file:
        assert caught(lambda: api.tasks.queue("addition", a=file)) == (
            "argument 'a' of addition is a TextIOWrapper and cannot be sent; nothing was queued [not-serializable]\n"
            "hint: pass its path instead of the open file"
        )


async def test_not_importable(api: Producer) -> None:
    """A function that no worker could find, and why."""
    assert caught(lambda: api.tasks.queue(lambda: 1)) == (
        "test_messages.test_not_importable.<locals>.<lambda>.<locals>.<lambda> is not a job: workers find a function "
        "by its name, and a lambda has none [not-importable]\n"
        "hint: write it as `def` in a module of task_paths"
    )

    def nested() -> None: ...

    assert caught(lambda: api.tasks.queue(nested)) == (
        "test_messages.test_not_importable.<locals>.nested is not a job: workers find a function by its name in a module, "
        "and this one is within a function or class [not-importable]\n"
        "hint: take it out of there"
    )


async def test_wait_in_loop(api: Producer) -> None:
    """It would block the loop that is to resolve it."""
    future = api.tasks.queue("addition")
    assert caught(future.wait) == (
        "wait() inside a running event loop would block it forever [wait-in-loop]\nhint: write `await task`"
    )


async def gone(api: Producer, valkey: Any, age: float) -> str:
    """Return the error of a future whose record is gone, of a task that was queued `age` seconds ago."""
    task = await api.tasks.queue("addition", callback=False)
    task.time_queued = (task.time_queued or 0.0) - age
    future = task.done_callback
    valkey.client.flushall()
    with pytest.raises(errors.TaskLost) as found:
        await asyncio.wait_for(future, 30)
    return told(found.value)


async def test_task_lost_and_result_expired(
    api: Producer, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of the task decides between the two errors of a missing record."""
    monkeypatch.setattr("pq.producer.awaiting.LOOK_AFTER", 0.1)
    assert await gone(api, valkey, 0) == (
        "task ID is not in the store any more: deleted, or lost with the store's data [task-lost]\n"
        "hint: for durability see docs/explain/guarantees.md"
    )
    assert await gone(api, valkey, 7200) == (
        "task ID is not in the store any more: it was queued N s ago, and results are kept N s [result-expired]\n"
        "hint: fetch results sooner, or raise result_ttl"
    )


# -------------------------------------------------------------------------------------- what waits
@pytest.fixture
async def start_worker(valkey: Any) -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """Start a worker in this loop; stopped at the end."""
    workers: list[Worker] = []

    async def start(**settings: Any) -> Worker:
        app = PulsarQueue(data_store=valkey.url, **settings)
        worker = Worker(app.cfg, app.store, app.registry, name="w1", node="here")
        await worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        await worker.stop(grace=0.0)


async def waits(api: Producer, id: str, slug: str) -> str:
    """Why a task waits, once that is the reason."""
    for _ in range(200):
        reason = await api.tasks.why(id)
        if reason is not None and reason.slug == slug:
            return plain(f"it waits: {reason.text} [{reason.slug}]\nhint: {reason.hint}")
        await asyncio.sleep(0.05)
    raise AssertionError(reason)


async def test_job_not_served(api: Producer, start_worker: Any) -> None:
    """Workers of other code: they serve the queue, and do not know the job. A plain function counts as known."""
    task = await api.tasks.queue("addition", callback=False)
    await start_worker(task_paths=["pq.jobs"])
    assert await waits(api, task.id, "job-not-served") == (
        "it waits: no worker of queue 'default' knows the job 'addition' (w1: 2 jobs) [job-not-served]\n"
        "hint: restart the servers, or reload them (kill -HUP), so that they have the new code"
    )
    await start_worker(task_paths=[__name__])
    assert await (await api.tasks.queue(shout, "a", callback=False)).done_callback


async def test_queue_unserved(api: Producer, start_worker: Any) -> None:
    """A queue without a worker: the nearest one, and how to start a worker for it."""
    await start_worker(task_paths=[__name__], task_queues=["emails"])
    task = await api.tasks.queue("addition", queue="emials", callback=False)
    assert await waits(api, task.id, "queue-unserved") == (
        "it waits: it is in queue 'emials', and the workers serve emails, here [queue-unserved]\n"
        "hint: did you mean 'emails'? start one for it: python manage.py -q emials"
    )


def test_no_consumer(run: Run, valkey: Any) -> None:
    """A waiting caller gets the reason why nothing happens, and goes on waiting."""
    id = run("queue", "addition", code=0, PQ_DATA_STORE=valkey.url)
    assert id == "ID\nqueued: addition ID · manage.py wait ID waits for it\n"
    found = [key.decode() for key in valkey.client.keys("*")]
    client = valkey.client
    ready = next(key for key in found if key.endswith(":ready"))
    (first,) = client.zrange(ready, 0, -1) if client.type(ready) == b"zset" else client.lrange(ready, 0, -1)
    told = run("wait", first.decode(), "--timeout", "4s", PQ_DATA_STORE=valkey.url)
    # Where the program was slow to start, the task has waited so long that the producer says it too.
    told = re.sub(r"task\.addition\S+ is still waiting after .*\nhint: .*\n", "", told)
    assert told == (
        "ID waits: no worker is running [no-worker]\n"
        "hint: start one: python manage.py -w 2 (or pq -w 2)\n"
        "addition ID is not done after 4s; it goes on\n"
    )


# --------------------------------------------------------------------------------------- what runs
def test_what_becomes_of_tasks(run: Run, server: Callable[..., Serving], valkey: Any) -> None:
    """A result that cannot be stored, a time-out, a job that blocks, one that kills its workers."""
    serving = server()
    serving.until("ready")

    def wait_for(job: str, code: int = 1) -> str:
        return run("queue", job, "--wait", code=code, PQ_DATA_STORE=valkey.url)

    assert wait_for("report") == (
        "FAILURE: report ID: ResultNotSerializable: the task ran, but its result cannot be stored: rows[0] in the "
        "result is a lock and cannot be sent (hint: send plain data: numbers, text, bytes, lists, dicts, sets, dates, "
        "Decimal, UUID) [result-not-serializable]\n"
    )
    said = wait_for("crawl").splitlines()
    assert said[0] == "REVOKED: crawl ID: the task ran longer than its time-out of N s [timed-out]"
    assert 'File "PROJECT/jobs/all.py", line 18, in crawl' in said[2]
    assert said[-1] == "hint: give it more time: @api.job(timeout=…), None for no limit"
    assert wait_for("resize", 0) == "None\n"
    log = serving.until("the event loop answers again")
    assert (
        "w1       warning: resize ID holds the event loop for N s at jobs/all.py:14; every other task of this worker "
        "waits [loop-blocked]\n"
        '                    File "PROJECT/jobs/all.py", line 14, in resize\n'
        "                      time.sleep(2)\n"
        '                  hint: @api.job(concurrency="thread"), or "process" for CPU work\n'
    ) in log
    assert wait_for("train") == (
        "FAILURE: train ID: TaskCrashed: 3 workers died while they ran this task, so it was set aside [worker-lost]\n"
        "hint: look at the logs of its workers; when it is mended: pq retry ID\n"
    )
    assert (
        "server   warning: w1 (pid N) died: SIGKILL\nserver   1 task of w1 released to the queue\n"
        in serving.said
    )
    valkey.check = False  # its dead tasks stay


# ------------------------------------------------------------------------------------------- pages
def test_explain_knows_them_all() -> None:
    """Each slug that any text here shows has a page that says more than the message."""
    text = Path(__file__).read_text("utf-8")
    slugs = set(re.findall(r"\[([a-z]{2,}(?:-[a-z]+)+)\]", text))
    assert len(slugs) >= 20
    known = pages()
    assert not slugs - known.keys()
    assert all(len(known[slug]) > 100 for slug in slugs)
