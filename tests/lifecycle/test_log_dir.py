"""`--log-dir`: a log file for each process of a server, its child processes included."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Serve

from pq.api import Producer

pytestmark = pytest.mark.lifecycle

JOBS = """\
import logging, os, sys, time
from pq import api

@api.job()
async def say(self, text):
    self.logger.warning("%s", text)
    return os.getpid()

@api.job(concurrency=api.CPUBOUND, max_retries=0)
def say_in_child(self, text, seconds=0, die=False):
    print(f"printed {text}")
    self.logger.warning("logged %s", text)
    logging.getLogger("library").warning("told %s", text)
    time.sleep(seconds)
    if die:
        sys.stderr.write(f"last words of {text}\\n")
        os._exit(7)
    return os.getpid()
"""


def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def text_of(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def names(logs: Path) -> list[str]:
    """The files, in the order in which `ls` shows them, without process ids."""
    return [re.sub(r"\d+\.log$", "N.log", path.name) for path in sorted(logs.iterdir())]


def test_each_process_has_a_file_of_its_own(project: Path, api: Producer, serve: Serve) -> None:
    """The directory is made; a worker's lines are in its file, with their date, and on standard error still."""
    server = serve("-w", "2", "--log-dir", "var/logs").ready(2)
    logs = project / "var/logs"
    assert names(logs) == ["pq-supervisor-N.log", "pq-worker-1-N.log", "pq-worker-2-N.log"]
    supervisor = logs / f"pq-supervisor-{server.process.pid}.log"
    ready = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d w[12] +ready · pid", re.M)
    until(lambda: len(ready.findall(text_of(supervisor))) == 2)
    pid = api.tasks.queue("say", text="hello").wait(20).get()
    assert pid in server.worker_pids()
    (mine,) = logs.glob(f"pq-worker-*-{pid}.log")
    until(lambda: "✓ say" in text_of(mine))
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d w[12] +warning: hello$", mine.read_text(), re.M)
    assert "hello" not in "".join(text_of(path) for path in logs.iterdir() if path != mine)
    server.wait_for("warning: hello")
    assert server.stop() == 0
    assert "stopped · 1 done" in supervisor.read_text()


def test_a_child_has_a_file_named_by_its_process_id(project: Path, api: Producer, serve: Serve) -> None:
    """The output of a worker, its log, and the ends of its tasks are in its file and in the server's."""
    server = serve("-w", "1", "--processes", "2", "--name", "shop", "--log-dir", "logs").ready(1)
    futures = api.tasks.queue_many(
        [("say.in.child", {"text": word, "seconds": 0.3}) for word in ("one", "two")]
    )
    pids = [future.wait(20).get() for future in futures]
    assert pids[0] != pids[1]
    logs = project / "logs"
    worker = logs / f"shop-worker-1-{server.worker_pids()[0]}.log"
    until(lambda: text_of(worker).count("✓ say.in.child") == 2)
    for pid, word, other in zip(pids, ("one", "two"), ("two", "one"), strict=True):
        told = (logs / f"shop-worker-1-child-{pid}.log").read_text()
        for line in (
            f"printed {word}",
            f"shop.say.in.child: warning: logged {word}",
            f"library: warning: told {word}",
        ):
            assert re.search(rf"^\S+ \S+ {pid} .*{line}$", told, re.M), told
            assert line in worker.read_text()
        assert "✓ say.in.child" in told
        assert other not in told
    assert server.stop() == 0


def test_the_last_words_of_a_child_that_dies_are_in_its_file(
    project: Path, api: Producer, serve: Serve
) -> None:
    """A worker writes the files of its children, so a crash takes nothing with it; the next child has its own."""
    serve("-w", "1", "--processes", "1", "--max-crashes", "1", "--log-dir", "logs").ready(1)
    task = api.tasks.queue("say.in.child", text="the first", die=True).wait(20)
    assert task.reason == "worker-lost"
    pid = api.tasks.queue("say.in.child", text="the second").wait(20).get()
    (worker,) = [path for path in (project / "logs").glob("pq-worker-1-*.log") if "child" not in path.name]
    until(lambda: "✓ say.in.child" in text_of(worker))
    files = {path.name: path.read_text() for path in (project / "logs").glob("pq-worker-1-child-*.log")}
    assert len(files) == 2
    second = files.pop(f"pq-worker-1-child-{pid}.log")
    assert "the first" not in second
    (first,) = files.values()
    assert "last words of the first" in first
    assert "✗ say.in.child" in first


def test_json_lines_say_which_child(project: Path, api: Producer, serve: Serve) -> None:
    """With `log_format` json files have objects too, and a child's lines its process id in each file."""
    server = serve("-w", "1", "--log-format", "json", env={"PQ_LOG_DIR": "logs"})
    server.wait_for('"ready ')
    pid = api.tasks.queue("say.in.child", text="hello").wait(20).get()
    (worker,) = [path for path in (project / "logs").glob("pq-worker-1-*.log") if "child" not in path.name]
    until(lambda: r"\u2713 say.in.child" in text_of(worker))
    for path in (worker, project / f"logs/pq-worker-1-child-{pid}.log"):
        told = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["logger"] for line in told if line["message"] == "told hello"] == ["library"]
        assert {
            line["message"]: line["child"] for line in told if "hello" in line["message"] and "child" in line
        } == {
            "printed hello": pid,
            "logged hello": pid,
            "told hello": pid,
        }


def test_a_replaced_worker_writes_a_new_file(project: Path, api: Producer, serve: Serve) -> None:
    """kill -9 of a worker: the file of the dead one stays as it is; the new one has a number and an id of its own."""
    server = serve("-w", "1", "--log-dir", "logs").ready(1)
    api.tasks.queue("say", text="before").wait(20)
    (first,) = server.worker_pids()
    os.kill(first, signal.SIGKILL)
    server.ready(2)
    (second,) = server.worker_pids()
    api.tasks.queue("say", text="after").wait(20)
    logs = project / "logs"
    assert "after" in until(lambda: text_of(logs / f"pq-worker-2-{second}.log"))
    assert "after" not in text_of(logs / f"pq-worker-1-{first}.log")
    assert "died: SIGKILL" in text_of(logs / f"pq-supervisor-{server.process.pid}.log")


def test_a_log_file_that_was_moved_away_is_created_again(project: Path, api: Producer, serve: Serve) -> None:
    """logrotate moves files without a signal; the whole directory may be removed too."""
    server = serve("-w", "1", "--log-dir", "logs").ready(1)
    (pid,) = server.worker_pids()
    log, old = project / f"logs/pq-worker-1-{pid}.log", project / "logs/old.1"
    api.tasks.queue("say", text="before").wait(20)
    until(lambda: "✓ say" in text_of(log))
    log.rename(old)
    api.tasks.queue("say", text="between").wait(20)
    until(lambda: "✓ say" in text_of(log))
    assert ("before" in old.read_text(), "between" in old.read_text()) == (True, False)
    assert ("before" in log.read_text(), "between" in log.read_text()) == (False, True)
    (project / "logs").rename(project / "archive")
    api.tasks.queue("say", text="after").wait(20)
    assert "after" in until(lambda: text_of(log))
    assert server.stop() == 0


def test_sighup_goes_on_in_files(project: Path, api: Producer, serve: Serve) -> None:
    """After a reload the supervisor's file goes on, is created again, or is in another directory; new workers have their own."""
    config = 'task_paths = ["jobs"]\nworkers = 1\nlog_dir = {!r}\n'
    (project / "config.py").write_text(config.format("logs"))
    server = serve().ready(1)
    log = project / f"logs/pq-supervisor-{server.process.pid}.log"
    first = text_of(log)

    def reload() -> int:
        """Reload, and wait until one worker is left, which is none of those before."""
        before = set(server.worker_pids())
        server.send(signal.SIGHUP)
        (pid,) = until(lambda: len(now := server.worker_pids()) == 1 and not before & set(now) and now)
        return pid

    pid = reload()
    until(lambda: f"ready · pid {pid}" in text_of(log))
    assert text_of(log).startswith(first), "appended to, not truncated"
    assert list(log.parent.glob(f"pq-worker-*-{pid}.log"))
    log.rename(project / "logs/old.1")
    pid = reload()
    until(lambda: f"ready · pid {pid}" in text_of(log))
    (project / "config.py").write_text(config.format("elsewhere") + "# of another length\n")
    pid = reload()
    elsewhere = project / "elsewhere" / log.name
    until(lambda: f"ready · pid {pid}" in text_of(elsewhere))
    assert f"ready · pid {pid}" not in text_of(log)
    assert list(elsewhere.parent.glob(f"pq-worker-*-{pid}.log"))
    (project / "config.py").write_text(config.format("config.py/logs") + "# and another\n")
    server.send(signal.SIGHUP)
    server.wait_for(r"not reloaded: log_dir: '.*/config.py/logs' \(config.py, line 3\) cannot be written")
    until(lambda: "not reloaded" in text_of(elsewhere))
    assert api.tasks.queue("say", text="still here").wait(20).status_string == "SUCCESS"
    assert server.stop() == 0


def test_a_reload_makes_one_file_for_each_new_worker(project: Path, api: Producer, serve: Serve) -> None:
    """Each of two workers is replaced once, so there are two files more and none of a worker that came in vain."""
    server = serve("-w", "2", "--log-dir", "logs").ready(2)
    before = set(server.worker_pids())
    server.send(signal.SIGHUP)
    until(lambda: len(now := server.worker_pids()) == 2 and not before & set(now))
    assert server.stop() == 0
    assert names(project / "logs") == ["pq-supervisor-N.log", *(f"pq-worker-{n}-N.log" for n in (1, 2, 3, 4))]


@pytest.mark.parametrize("directory", ["config.py", "config.py/logs", "/proc/logs"])
def test_a_directory_that_cannot_be_written_is_a_mistake_at_the_start(
    project: Path, api: Producer, serve: Serve, directory: str
) -> None:
    """The path, where it was set, and the reason; a hint; exit code 1; nothing is left running."""
    server = serve("-w", "1", "--log-dir", directory)
    assert server.process.wait(30) == 1
    server._reader.join(5)
    path = re.escape(os.path.abspath(directory))
    assert re.match(
        rf"error: log_dir: '{path}' \(flag --log-dir\) cannot be written: (Not a|No such file).* \[bad-setting\]$",
        server.lines[0],
    ), server.log
    assert server.lines[1].startswith("hint: ")
    assert len(server.lines) == 2


def test_a_worker_works_on_without_its_file(project: Path, api: Producer, serve: Serve) -> None:
    """A directory that is lost while the server runs costs the files, and is said on standard error."""
    server = serve("-w", "1", "--log-dir", "logs").ready(1)
    (project / "logs").rename(project / "archive")
    (project / "logs").write_text("in the way")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.ready(2)
    server.wait_for(r"w2 +warning: this process has no log file: .*/logs cannot be written: Not a directory")
    assert api.tasks.queue("say.in.child", text="hello").wait(20).status_string == "SUCCESS"
    assert server.stop() == 0


def test_without_the_setting_there_are_no_files(project: Path, api: Producer, serve: Serve) -> None:
    """Files are written only if they are configured."""
    serve("-w", "1").ready(1)
    api.tasks.queue("say.in.child", text="hello").wait(20)
    assert not list(project.rglob("*-worker-*")) + list(project.rglob("*-supervisor-*"))
