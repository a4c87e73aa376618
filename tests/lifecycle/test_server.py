"""A server from its start to its end: signals, kills, replacement, leftovers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Serve, alive, clean_environment, of_session

from pq.api import Producer, PulsarQueue

pytestmark = pytest.mark.lifecycle

JOBS = """\
import asyncio, os, time
from pathlib import Path
from pq import api

def note(key):
    with open("runs.txt", "a") as f:
        f.write(f"{key} {os.getpid()}\\n")

@api.job()
async def quick(n):
    return n * 2

@api.job()
async def nap(key, seconds):
    note(key)
    await asyncio.sleep(seconds)
    return key

@api.job(concurrency=api.THREAD_IO)
def nap_thread(key, seconds):
    note(key)
    time.sleep(seconds)
    return key

@api.job(concurrency=api.CPUBOUND)
def nap_process(key, seconds):
    note(key)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return key

@api.job()
def poison():
    os._exit(9)

@api.job()
def version():
    return 1
"""


def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def runs(project: Path) -> list[str]:
    path = project / "runs.txt"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def test_the_server_comes_first(api: Producer, serve: Serve) -> None:
    """A server starts the embedded store; a shell finds it, queues and awaits; SIGTERM ends all of it."""
    server = serve("-w", "2").ready(2)
    assert api.tasks.queue("quick", n=21).wait(10).get() == 42
    assert server.stop() == 0
    assert re.search(r"stopped · 1 done, 0 failed · data kept in .pq", server.log)
    until(lambda: not of_session(server.process.pid))


def test_the_shell_comes_first(api: Producer, serve: Serve) -> None:
    """A task queued before there is any server waits in the store, and is done when one comes."""
    future = api.tasks.queue("quick", n=4)
    assert api.tasks.size("default").wait(10) == {"default": 1}
    serve("-w", "1").ready(1)
    assert future.wait(10).get() == 8


def test_two_apis_of_one_application(project: Path, api: Producer) -> None:
    """Closing the one leaves the other its store; the last to leave stops it."""
    application = PulsarQueue(config="config.py")
    first, second = application.api(), application.api()
    for each in (first, second):
        each.tasks.queue("quick", n=1, callback=False).wait(10)
    first.close()
    assert second.tasks.size("default").wait(10) == {"default": 2}
    second.close()
    until(lambda: not store_pids(project))


def test_tasks_outlive_every_process(project: Path, api: Producer, serve: Serve) -> None:
    """Queued tasks are there after shell, server and store were gone."""
    task = api.tasks.queue("quick", n=5, callback=False).wait(10)
    api.close()
    assert not (project / ".pq" / "valkey.sock").exists()
    serve("-w", "1").ready(1)
    assert task.done_callback.wait(10).get() == 10


def test_a_killed_worker_is_replaced_and_its_task_taken_over(
    project: Path, api: Producer, serve: Serve
) -> None:
    """kill -9 of a worker: its task goes on elsewhere within a second, not after the lease of 30 s."""
    server = serve("-w", "2").ready(2)
    future = api.tasks.queue("nap", key="a", seconds=1.0)
    pid = int(until(lambda: runs(project))[0].split()[1])
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(runs(project)) == 2)
    assert time.monotonic() - killed < 5
    task = future.wait(10)
    assert (task.get(), task.retry, task.run_info["crashes"]) == ("a", 1, 1)
    server.wait_for(r"died: SIGKILL")
    server.wait_for(r"1 task of w\d released to the queue")
    server.ready(3)
    assert server.stop() == 0


def test_a_poison_task_is_set_aside(api: Producer, serve: Serve) -> None:
    """A task that takes three workers with it is not given a fourth; the innocent beside it all complete."""
    serve("-w", "2").ready(2)
    innocent = api.tasks.queue_many([("nap", {"key": str(n), "seconds": 0.2}) for n in range(40)])
    poison = api.tasks.queue("poison")
    more = api.tasks.queue_many([("quick", {"n": n}) for n in range(60)])
    task = poison.wait(60)
    assert (task.status_string, task.reason) == ("FAILURE", "worker-lost")
    assert [future.wait(60).get() for future in innocent] == [str(n) for n in range(40)]
    assert [future.wait(60).get() for future in more] == [n * 2 for n in range(60)]


def test_sigterm_drains(project: Path, api: Producer, serve: Serve) -> None:
    """Running tasks end; waiting ones stay for the next server; nothing is lost and nothing runs twice."""
    server = serve("-w", "2", "--concurrent-tasks", "4").ready(2)
    futures = api.tasks.queue_many([("nap", {"key": str(n), "seconds": 0.5}) for n in range(12)])
    until(lambda: len(runs(project)) == 8)
    assert server.stop() == 0
    ran = len(runs(project))
    assert sum(future.done() for future in futures) == ran == 8
    serve("-w", "2").ready(2)
    assert [future.wait(20).get() for future in futures] == [str(n) for n in range(12)]
    assert len(runs(project)) == 12


def test_what_does_not_end_in_time_is_handed_back_unspent(project: Path, api: Producer, serve: Serve) -> None:
    """After `graceful_timeout` a running task goes back, in every mode, and costs no attempt."""
    server = serve("-w", "1", "--graceful-timeout", "0.2", "--processes", "1").ready(1)
    jobs = ("nap", "nap.thread", "nap.process")
    futures = [api.tasks.queue(job, key=job, seconds=60 if job != "nap.thread" else 10) for job in jobs]
    until(lambda: len(runs(project)) == 3)
    assert server.stop() == 0
    assert not any(future.done() for future in futures)
    assert api.tasks.size("default").wait(10) == {"default": 3}
    (project / "jobs.py").write_text(
        JOBS.replace("time.sleep(seconds)", "pass")
        .replace("asyncio.sleep(seconds)", "asyncio.sleep(0)")
        .replace("end = time.monotonic() + seconds", "end = 0")
    )
    serve("-w", "1").ready(1)
    tasks = [future.wait(20) for future in futures]
    assert [(task.get(), task.retry, task.run_info.get("crashes")) for task in tasks] == [
        (job, 1, None) for job in jobs
    ]


def test_two_interrupts_stop_at_once(project: Path, api: Producer, serve: Serve) -> None:
    """The first SIGINT drains, the second does not wait; the task is back in its queue."""
    server = serve("-w", "1").ready(1)
    future = api.tasks.queue("nap", key="long", seconds=60)
    until(lambda: runs(project))
    server.send(signal.SIGINT)
    server.wait_for("stopping: running tasks get up to 30 s")
    time.sleep(0.4)  # lifecycle: two presses, not one press that is delivered twice
    server.send(signal.SIGINT)
    assert server.process.wait(10) == 0
    assert not future.done()
    assert api.tasks.size("default").wait(10) == {"default": 1}


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.2, 0.25, 0.3, 0.4, 0.6])
def test_sigterm_at_any_moment_of_the_start(project: Path, api: Producer, serve: Serve, delay: float) -> None:
    """A server that is stopped while it starts ends soon, and leaves no process behind."""
    server = serve("-w", "2")
    time.sleep(delay)  # lifecycle: the moment is what is tested
    server.stop(timeout=15)
    until(lambda: not of_session(server.process.pid))
    until(lambda: not store_pids(project))


def test_a_killed_supervisor_leaves_no_workers(project: Path, api: Producer, serve: Serve) -> None:
    """kill -9 of the supervisor: its workers drain and end, busy children too, and the next server goes on."""
    server = serve("-w", "2", "--graceful-timeout", "0.5").ready(2)
    future = api.tasks.queue("nap.process", key="cpu", seconds=3)
    child = int(until(lambda: runs(project))[0].split()[1])
    server.process.kill()
    server.process.wait(10)
    until(lambda: not alive(child), 15)
    until(lambda: not of_session(server.process.pid), 15)
    serve("-w", "1").ready(1)
    assert future.wait(20).get() == "cpu"


def test_a_killed_store_is_started_again(project: Path, api: Producer, serve: Serve) -> None:
    """kill -9 of the embedded Valkey: another process starts it again, and nothing that was acknowledged is lost."""
    server = serve("-w", "2").ready(2)
    futures = api.tasks.queue_many([("nap", {"key": str(n), "seconds": 0.3}) for n in range(300)])
    until(lambda: len(runs(project)) > 20)
    os.kill(store_pids(project)[0], signal.SIGKILL)
    assert [future.wait(60).get() for future in futures] == [str(n) for n in range(300)]
    assert api.tasks.queue("quick", n=1).wait(20).get() == 2
    assert server.stop() == 0


def store_pids(project: Path) -> list[int]:
    """The embedded servers that run for this project."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            entry.name.isdigit()
            and b"valkey-server" in command[0]
            and str(project).encode() in b" ".join(command)
        ):
            found.append(int(entry.name))
    return found


def test_workers_are_added_and_taken_away(api: Producer, serve: Serve) -> None:
    """SIGTTIN is one worker more, SIGTTOU one less."""
    server = serve("-w", "1").ready(1)
    server.send(signal.SIGTTIN)
    server.ready(2)
    assert len(server.worker_pids()) == 2
    server.send(signal.SIGTTOU)
    until(lambda: len(server.worker_pids()) == 1)
    assert api.tasks.queue("quick", n=1).wait(10).get() == 2
    assert server.stop() == 0


def test_reload_takes_new_code_and_new_settings(project: Path, api: Producer, serve: Serve) -> None:
    """SIGHUP: the next worker is ready before the old one goes; broken settings change nothing."""
    server = serve().ready(2) if os.cpu_count() == 2 else serve("-w", "2").ready(2)
    assert api.tasks.queue("version").wait(10).get() == 1
    # Of another length: Python takes a file of the same second and size for the one it has compiled.
    (project / "jobs.py").write_text(JOBS.replace("return 1", "return 1 + 1"))
    before = set(server.worker_pids())
    server.send(signal.SIGHUP)
    until(lambda: len(server.worker_pids()) == 2 and not before & set(server.worker_pids()))
    assert api.tasks.queue("version").wait(10).get() == 2
    (project / "config.py").write_text('task_paths = ["jobs"]\nworkesr = 3\n')
    server.send(signal.SIGHUP)
    server.wait_for("not reloaded")
    server.wait_for("did you mean 'workers'")
    assert api.tasks.queue("version").wait(10).get() == 2
    assert server.stop() == 0


def test_a_worker_is_recycled_after_max_requests(api: Producer, serve: Serve) -> None:
    """With `--max-requests` workers come and go, and no task is lost on the way."""
    server = serve("-w", "1", "--max-requests", "20").ready(1)
    futures = api.tasks.queue_many([("quick", {"n": n}) for n in range(100)])
    assert [future.wait(40).get() for future in futures] == [n * 2 for n in range(100)]
    server.ready(5)
    assert "died" not in server.log
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"jobs.py": "import nonsense_zzz\n"},
            ["jobs could not be imported", "nonsense_zzz", "jobs.py, line 1", "[import-failed]"],
        ),
        (
            {"config.py": "workesr = 3\n"},
            ["workesr", "config.py", "did you mean 'workers'?", "[unknown-setting]"],
        ),
        ({"config.py": "workers = 'many'\n"}, ["workers", "many", "[bad-setting]"]),
        (
            {"config.py": "data_store = 'redis://user:geheim@127.0.0.1:1'\n"},
            ["127.0.0.1:1", "[store-unreachable]"],
        ),
    ],
)
def test_a_mistake_at_the_start_is_a_few_lines(
    project: Path, api: Producer, serve: Serve, files: dict[str, str], says: list[str]
) -> None:
    """No traceback of the library, a hint, exit code 1, and no password."""
    for name, text in files.items():
        (project / name).write_text(text)
    server = serve("-w", "1")
    assert server.process.wait(30) == 1
    server._reader.join(5)
    for words in says:
        assert words in server.log
    assert "Traceback" not in server.log
    assert "geheim" not in server.log
    assert len(server.lines) <= 6


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_descriptors(project: Path, api: Producer, closed: str) -> None:
    """A service manager may close them: tasks run, a child process too, and the server ends in order."""
    environment = clean_environment() | {"PQ_LOG_DIR": str(project / "logs")}
    command = f'exec "$0" manage.py -w 1 {closed}'
    process = subprocess.Popen(["sh", "-c", command, sys.executable], cwd=project, env=environment)
    try:
        assert api.tasks.queue("nap.process", "k", 0.01).wait(30).status_string == "SUCCESS"
        assert api.tasks.queue("quick", 1).wait(30).status_string == "SUCCESS"
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
