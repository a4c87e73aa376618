"""The verbs of the command line, against a real store and a real worker: the output, and the exit codes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import pty
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pq import api as pq
from pq import cli
from pq.api import Producer

gate: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    gate.clear()


@pq.job()
def addition(a: int = 0, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


@pq.job(max_retries=1, retry_delay=0)
def breaks(what: str = "it") -> None:
    raise ValueError(f"{what} is broken")


@pq.job()
async def held(self: pq.Job) -> str:
    self.logger.warning("a line of its log")
    self.progress(3, 4, "nearly")
    await gate.setdefault("open", asyncio.Event()).wait()
    return "released"


@pq.job(run_every=3600)
def hourly() -> None: ...


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Said]]


@pytest.fixture
def run(app: pq.PulsarQueue, make_app: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Use the command line, in a thread of its own as a second terminal would be."""

    async def run(*words: str) -> Said:
        capsys.readouterr()
        code = await asyncio.to_thread(cli.run, make_app(), list(words))
        return Said(code, *capsys.readouterr())

    return run


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------- queue and wait
async def test_queue_and_wait(serving: Producer, run: Run) -> None:
    """Values are JSON where they are that; the result is printed, and nothing else on standard output."""
    assert await run("queue", "addition", "4", "b=6", "--wait") == (0, "10\n", "")
    assert (await run("queue", "addition", 'a="x"', "b=y", "--wait")).out == "xy\n"
    told = json.loads((await run("queue", "addition", "a=1", "--wait", "--json")).out)
    assert (told["result"], told["status_string"], told["kwargs"]) == (1, "SUCCESS", {"a": 1})


async def test_a_task_that_fails_is_exit_code_1(serving: Producer, run: Run) -> None:
    """Its error is on standard error, with the lines of the job."""
    said = await run("queue", "breaks", "--wait")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("FAILURE: breaks i")
    assert "ValueError: it is broken" in said.err
    assert 'raise ValueError(f"{what} is broken")' in said.err


async def test_queue_without_waiting_prints_the_id(api: Producer, run: Run) -> None:
    """For a script: the id alone on standard output; the rest says how to wait for it."""
    said = await run("queue", "addition", "--delay", "1h", "--queue", "other")
    task = await api.tasks.get(said.out.strip())
    assert task is not None
    assert (task.queue, task.delay) == ("other", 3600)
    assert "wait i" in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["queue", "additon"], 1, "did you mean 'addition'?"),
        (
            ["queue", "addition", "c=1"],
            1,
            "addition(a: int = 0, b: int = 0) got an unexpected keyword argument 'c'",
        ),
        (["queue", "addition", "a=1", "a=2"], 2, "a was given twice"),
        (["queue", "addition", "--delay", "soon"], 2, "'soon' is not a length of time"),
        (["queue"], 2, "the following arguments are required: JOB"),
        (["status", "zz"], 1, "no task begins with 'zz'"),
        (["status", "a*"], 1, "is not a valid task id"),
        (["tasks", "--status", "faild"], 1, "did you mean 'failure'?"),
        (["tasks", "-n", "0"], 1, "count is 0"),
        (["retry"], 2, "which tasks?"),
        (["logs"], 2, "whose log?"),
        (["pause"], 2, "required: QUEUE"),
        (["purge", "default", "extra", "--ja"], 2, "unknown flag '--ja'"),
        (["schedule", "paus", "x"], 2, "unknown action 'paus'"),
        (["schedule", "pause", "hourl"], 1, "did you mean 'hourly'?"),
        (["explain", "no-workr"], 1, "did you mean 'no-worker'"),
    ],
)
async def test_mistakes(api: Producer, run: Run, words: list[str], code: int, text: str) -> None:
    """A few lines with a text to type instead; 1 for a mistake, 2 for arguments that make no sense."""
    said = await run(*words)
    assert (said.code, said.out) == (code, "")
    assert text in said.err
    assert len(said.err.splitlines()) <= 6


async def test_a_waiting_caller_gets_the_reason(
    api: Producer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker runs: the output says that, with a hint; after its time the command gives up."""
    monkeypatch.setattr("pq.commands.queue.IMPATIENT", 0.05)
    task = await api.tasks.queue("addition", callback=False)
    said = await run("wait", task.id[:9], "--timeout", "1s")
    assert said.code == 1
    assert f"{task.id[:9]} waits: no worker is running [no-worker]\nhint: start one" in said.err
    assert "is not done after 1s; it goes on" in said.err


async def test_wait_for_one_that_is_done(serving: Producer, run: Run) -> None:
    """It is answered at once, by the beginning of its id."""
    task = await serving.tasks.queue("addition", 1, 2)
    assert await run("wait", task.id[:9]) == (0, "3\n", "")


# ---------------------------------------------------------------------------------------------- looks
async def test_tasks_and_status(serving: Producer, run: Run) -> None:
    """A table for people, JSON for programs; the status of one with its log and how far it is."""
    done = await serving.tasks.queue("addition", a=4, b=6)
    failed = await serving.tasks.queue("breaks", "the pump")
    running = serving.tasks.queue("held")

    async def logged() -> bool:
        return bool(await serving.tasks.log(running.id))

    await until(logged)
    said = await run("tasks")
    assert re.search(rf"{running.id[:9]} +held +STARTED +default .* 75 % nearly", said.out)
    assert re.search(
        rf"{failed.id[:9]} +breaks +FAILURE +default .* 2/2 +ValueError: the pump is broken", said.out
    )
    assert re.search(rf"{done.id[:9]} +addition +SUCCESS +default .* 1/1 +10", said.out)
    assert (
        len((await run("tasks", "--status", "failed", "--text", "pump", "--since", "1h")).out.splitlines())
        == 2
    )
    assert [task["id"] for task in json.loads((await run("tasks", "--job", "addition", "--json")).out)] == [
        done.id
    ]
    nothing = await run("tasks", "--job", "nothing")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no such tasks\n")

    said = await run("status", running.id[:9])
    assert said.out.splitlines()[0] == f"held {running.id}  STARTED"
    assert "75 % nearly" in said.out
    assert re.search(r"log\n\d\d:\d\d:\d\d WARNING  a line of its log", said.out)
    assert "the pump is broken" in (await run("status", failed.id)).out
    facts = json.loads((await run("status", running.id, "--json")).out)
    assert facts["log"][0]["text"] == "a line of its log"
    assert "a line of its log" in (await run("logs", running.id)).out
    gate["open"].set()
    await running


async def test_status_says_why_a_task_waits(api: Producer, run: Run) -> None:
    """The question that is asked most."""
    task = await api.tasks.queue("addition", callback=False)
    assert "waits      no worker is running [no-worker]" in (await run("status", task.id)).out


async def test_jobs(api: Producer, run: Run) -> None:
    """Their signatures, and one with all that is known of it."""
    said = await run("jobs")
    assert re.search(r"addition\(a: int = 0, b: int = 0\) +asyncio +Add two numbers\.", said.out)
    assert re.search(r"hourly\(\) +asyncio +3600", said.out)
    said = await run("jobs", "breaks")
    assert "max_retries      1" in said.out
    assert "defined_at" in json.loads((await run("jobs", "--json")).out)["addition"]


async def test_workers_queues_doctor_and_check(
    app: pq.PulsarQueue, api: Producer, start_worker: Any, run: Run
) -> None:
    """Before and after a worker is there."""
    await api.tasks.queue("addition", queue="emials", callback=False)
    assert (await run("workers")).err.startswith("no worker is running")
    assert (await run("check")).code == 1
    assert (await run("check", "--store")).code == 0
    assert "no worker of node" in (await run("check", "--here")).err
    assert "! no worker is running" in (await run("doctor")).out
    await start_worker(app)

    async def beats() -> bool:
        return bool(await api.tasks.workers())

    await until(beats)
    assert (await run("check", "--here")).code == 0
    await api.tasks.pause("default")
    assert re.search(r"here +w1 +\d+ +0/100", (await run("workers")).out)
    assert json.loads((await run("workers", "--json")).out)[0]["node"] == "here"
    assert (await run("consumers", "--json")).code == 0, "the former name"
    said = await run("queues")
    assert re.search(r"emials +1 +0 +0 +0 +0 +[\d.]+ s +no worker", said.out)
    assert re.search(r"default +0 +0 +0 +0 +0 +paused", said.out)
    assert json.loads((await run("queues", "--json")).out)["emials"]["ready"] == 1
    said = await run("doctor")
    assert said.code == 0
    assert "✓ 4 jobs of" in said.out
    assert re.search(r"✓ Valkey [\d.]+ at unix://.* µs a round trip", said.out)
    assert "! queue 'emials' has 1 tasks and no worker" in said.out
    assert "! queue 'default' is paused" in said.out
    assert (await run("check")).out.startswith("ok (")


async def test_a_store_that_deletes_keys_is_an_error_for_the_doctor(
    valkey: Any, api: Producer, run: Run
) -> None:
    """The exit code says it too."""
    valkey.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        said = await run("doctor")
    finally:
        valkey.client.config_set("maxmemory-policy", "noeviction")
    assert said.code == 1
    assert "✗ it deletes keys when it is full (maxmemory-policy allkeys-lru)" in said.out


# ----------------------------------------------------------------------------------------------- acts
async def test_retry_and_cancel(serving: Producer, run: Run) -> None:
    """A task is named by the beginning of its id, or all of the dead set; an impossible retry is exit code 1."""
    failed = [await serving.tasks.queue("breaks", str(n)) for n in range(2)]
    assert (await run("retry", failed[0].id[:9])).out == f"queued again: breaks {failed[0].id[:9]}\n"

    async def both_dead() -> bool:
        return len(await serving.tasks.dead()) == 2

    await until(both_dead)
    said = await run("retry", "--dead", "--job", "breaks")
    assert said.out.count("queued again: breaks") == 2
    running = serving.tasks.queue("held")
    await serving.tasks.size()
    assert (await run("cancel", running.id)).out == f"cancelled: held {running.id[:9]}\n"
    assert (await running).status_string == "REVOKED"
    quiet = await serving.tasks.queue("addition")
    assert (await run("logs", quiet.id)).err == f"addition {quiet.id[:9]} has logged nothing\n"
    said = await run("cancel", running.id)
    assert (said.code, said.err) == (1, f"held {running.id[:9]} is finished already\n")


async def test_pause_resume_and_purge(api: Producer, run: Run) -> None:
    """Nothing is destroyed without a yes."""
    await api.tasks.queue("addition", callback=False)
    assert (await run("pause", "default")).out == "paused: default\n"
    assert (await run("resume", "default")).out == "resumed: default\n"
    assert (await run("resume", "defalt")).err == "defalt was not used yet\nhint: did you mean 'default'?\n"
    said = await run("purge", "default")
    assert (said.code, said.out) == (2, "")
    assert "1 tasks wait in default. Revoke all of them? There is no terminal to ask on" in said.err
    assert await api.tasks.size("default") == {"default": 1}
    assert (await run("purge", "default", "--yes")).out == "revoked: 1\n"
    assert await api.tasks.size("default") == {"default": 0}


async def test_schedules(api: Producer, run: Run) -> None:
    """Listed, paused, resumed, run now."""
    # Its minutes begin in half of one, wherever the clock's do.
    anchor = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    await api.tasks.schedule("addition", run_every=60, anchor=anchor, name="sums")
    assert re.search(r"sums +addition +.* in (\d+ s|1 min) +- +run time", (await run("schedule")).out)
    assert (await run("schedule", "pause", "sums")).out == "sums: paused\n"
    assert "paused" in (await run("schedule")).out
    assert (await run("schedule", "resume", "sums")).out == "sums: resumed\n"
    assert re.match(r"queued: addition i\w+\n", (await run("schedule", "run", "sums")).out)


async def test_explain_knows_every_slug(api: Producer, run: Run) -> None:
    """Each error and each reason for waiting has a page."""
    said = await run("explain")
    slugs = {line.split()[0] for line in said.out.splitlines()}
    kinds: list[type[pq.PqError]] = [pq.PqError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        assert kind.slug in slugs
    assert {"no-worker", "queue-unserved", "queue-paused", "at-limit", "delayed", "in-line"} <= slugs
    assert (await run("explain", "[timed-out]")).out.startswith("[timed-out]\n\nThe attempt ran longer")


async def test_follow_the_log_of_a_task(serving: Producer, run: Run) -> None:
    """The command prints the log from its first line to its end."""
    future = serving.tasks.queue("held")
    await serving.sent()  # the command has a connection of its own, and may be quicker
    following = asyncio.create_task(run("logs", future.id, "-f"))

    async def logged() -> bool:
        return bool(await serving.tasks.log(future.id))

    await until(logged)
    gate["open"].set()
    said = await following
    assert "WARNING  a line of its log" in said.out
    assert said.out.splitlines()[-1] == f"held {future.id[:9]} SUCCESS 'released'"


# ---------------------------------------------------------------------------------------- a new project
async def test_a_new_project_works(tmp_path: Path) -> None:
    """Its own test passes, and nothing is overwritten by a second call."""
    env = {**os.environ, "PYTHONPATH": str(Path(pq.__file__).parents[1])}

    async def python(*words: str, cwd: Path = tmp_path) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            cwd=cwd,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode()

    code, text = await python("-m", "pq", "new", "my shop")
    assert (code, text.splitlines()[0]) == (0, "wrote 6 files to my shop/")
    code, text = await python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "my shop")
    assert "2 passed" in text, text
    code, text = await python("manage.py", "jobs", cwd=tmp_path / "my shop")
    assert "greet(name: str = 'world')" in text
    code, text = await python("-m", "pq", "new", "my shop")
    assert code == 1
    assert "manage.py is there already; nothing was written" in text


# --------------------------------------------------------------------------------------- on a terminal
def typed(script: str, env: dict[str, str]) -> str:
    """Run a program on a terminal of its own; all that appears there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", script], {**os.environ, **env})
    seen = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is gone
            break
        if not more:
            break
        seen += more
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen.decode()
    return seen.decode()


BAR = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pq import api, cli

@api.job()
async def rows(self):
    for n in self.progress(range(20)):
        await asyncio.sleep(0.03)
    return "all"

app = api.PulsarQueue(data_store="memory://", task_paths=["__main__"])
sys.exit(cli.run(app, ["queue", "rows", "--wait"]))
"""


def test_a_bar_moves_on_a_terminal() -> None:
    """In place, from the first rows to the last; the result comes after it."""
    seen = typed(BAR.format(root=str(Path(pq.__file__).parents[1])), {"TERM": "xterm", "NO_COLOR": ""})
    shares = [int(share) for share in re.findall(r"(\d+) %", seen)]
    assert len(set(shares)) >= 3
    assert shares == sorted(shares)
    assert "━" in seen
    assert seen.rstrip().endswith("all")
    assert "\x1b[2m" in seen
    assert "\x1b[2m" not in typed(
        BAR.format(root=str(Path(pq.__file__).parents[1])), {"TERM": "xterm", "NO_COLOR": "1"}
    )
