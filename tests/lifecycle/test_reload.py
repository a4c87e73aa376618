"""`--reload`: a real server takes new code by itself, and nothing else moves it."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import re
import time
from pathlib import Path

import pytest
from servers import MANAGE, Serve, ServerProcess

from pq.api import Producer, PulsarQueue
from pq.server.sources import Sources, named

JOBS = """\
from pq import api

@api.job()
def version(self):
    return 1

@api.job()
def write(self, path, text):
    with open(path, "w") as file:
        file.write(text)
"""


def version(api: Producer) -> int:
    """Return the present answers of the workers."""
    return api.tasks.queue("version").wait(20).get()


def after(server: ServerProcess, before: list[int]) -> None:
    """Wait until the workers `before` have been replaced by others."""
    deadline = time.monotonic() + 30
    while not server.worker_pids() or set(before) & set(server.worker_pids()):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)


@pytest.fixture
def server(api: Producer, serve: Serve) -> ServerProcess:
    """A server with one worker that watches its files."""
    server = serve("-w", "1", "--reload", env={"PYTHONDONTWRITEBYTECODE": ""}).ready(1)
    server.wait_for("reload is for development")
    assert version(api) == 1
    return server


def test_new_code_is_taken(project: Path, api: Producer, server: ServerProcess) -> None:
    """The log names the file; a second edit of the same length in the same second is seen as well."""
    before = server.worker_pids()
    stamp = (project / "jobs.py").stat()
    assert Path(importlib.util.cache_from_source(str(project / "jobs.py"))).exists()
    (project / "jobs.py").write_text(JOBS.replace("return 1", "return 2"))
    os.utime(project / "jobs.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns // 10**9 * 10**9 + 1))
    after(server, before)
    assert version(api) == 2
    assert server.wait_for(r"server   changed: jobs\.py$")
    assert server.stop() == 0


def test_a_broken_file_changes_nothing_until_it_is_mended(
    project: Path, api: Producer, server: ServerProcess
) -> None:
    """A few lines have the error; the old worker serves on."""
    worker = server.worker_pids()
    (project / "jobs.py").write_text("def f(:\n")
    server.wait_for("the old workers stay")
    (line,) = server.wait_for(r"a worker could not start: jobs could not be imported: SyntaxError")
    assert line.endswith("[import-failed]")
    assert "Traceback" not in server.log
    assert version(api) == 1
    assert server.worker_pids() == worker
    (project / "jobs.py").write_text(JOBS.replace("return 1", "return 1 + 1"))
    after(server, worker)
    assert version(api) == 2
    assert server.stop() == 0


def test_a_new_module_and_a_new_setting(project: Path, api: Producer, server: ServerProcess) -> None:
    """A module that comes, and is listed; and a config file that is wrong for a while."""
    before = server.worker_pids()
    (project / "more.py").write_text(
        "from pq import api\n\n@api.job()\ndef extra(self):\n    return 'more'\n"
    )
    after(server, before)
    (project / "config.py").write_text('task_paths = ["jobs", "more"]\nworkers = 1\nworkesr = 2\n')
    server.wait_for(r"not reloaded: config\.py, line 3: unknown setting 'workesr' \[unknown-setting\]")
    server.wait_for(r"hint: did you mean 'workers'\?")
    assert version(api) == 1
    before = server.worker_pids()
    (project / "config.py").write_text('task_paths = ["jobs", "more"]\n')
    server.wait_for(r"ready .* 3 jobs")
    after(server, before)
    by_name = PulsarQueue().api()
    assert by_name.tasks.queue("extra").wait(20).get() == "more"
    by_name.close()
    assert server.stop() == 0


def test_a_file_that_goes(project: Path, api: Producer, serve: Serve) -> None:
    """Its jobs go with it."""
    package = project / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mails.py").write_text("from pq import api\n\n@api.job()\ndef send(self):\n    pass\n")
    (project / "config.py").write_text('task_paths = ["jobs", "shop.*"]\n')
    server = serve("-w", "1", "--reload").ready(1)
    server.wait_for(r"ready .* 3 jobs")
    before = server.worker_pids()
    (package / "mails.py").unlink()
    server.wait_for(r"server   changed: shop/mails\.py$")
    server.wait_for(r"ready .* 2 jobs")
    after(server, before)
    assert version(api) == 1
    assert server.stop() == 0


def test_the_settings_of_a_program_that_is_its_own_config_file(project: Path, serve: Serve) -> None:
    """`config=__file__`: its names are read again."""
    text = MANAGE.replace('"config.py"', "__file__").replace(
        "def app", 'task_paths = ["jobs"]\nworkers = 1\n\ndef app'
    )
    (project / "manage.py").write_text(text)
    (project / "jobs.py").write_text(JOBS)
    server = serve("--reload").ready(1)
    (project / "manage.py").write_text(text.replace("workers = 1", "workers = 2"))
    server.wait_for(r"server   changed: manage\.py$")
    server.ready(3)
    assert server.stop() == 0


def test_what_the_server_writes_itself_moves_nothing(project: Path, api: Producer, serve: Serve) -> None:
    """Compiled files, logs, data, hidden directories and virtual environments; a real change then comes first."""
    (project / "venv").mkdir()
    (project / "venv" / "pyvenv.cfg").write_text("")
    server = serve("-w", "1", "--reload", "--log-dir", "logs").ready(1)
    (project / ".hidden").mkdir()
    for path in ("data.txt", "venv/module.py", ".hidden/module.py", ".#jobs.py"):
        assert api.tasks.queue("write", str(project / path), "x = 1\n").wait(20).status_string == "SUCCESS"
    py_compile.compile(str(project / "jobs.py"))
    before = server.worker_pids()
    # Were any of it seen, it would be named: now, or beside this one.
    (project / "jobs.py").write_text(JOBS.replace("return 1", "return 1 + 1"))
    after(server, before)
    assert version(api) == 2
    assert re.findall(r"server   changed: (.*)", server.log) == ["jobs.py"]
    assert server.stop() == 0
    assert server.log.count("reloading") == 1


def test_never_in_production(project: Path, api: Producer, serve: Serve) -> None:
    """The server does not start, so this cannot happen by accident either."""
    server = serve("-w", "1", env={"PQ_RELOAD": "1", "PQ_ENV": "production"})
    server.wait_for(
        r"error: reload \(variable PQ_RELOAD\) is not for production \(PQ_ENV=production\) \[bad-setting\]"
    )
    assert server.process.wait(20) == 1


def test_without_it_nothing_is_watched(api: Producer, serve: Serve) -> None:
    """It is off unless it is asked for."""
    server = serve("-w", "1").ready(1)
    assert version(api) == 1
    assert server.stop() == 0
    assert "reload" not in server.log


def test_what_is_looked_at(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project, and the packages of `task_paths` elsewhere; not Python's own, nor this library."""
    elsewhere = tmp_path / "elsewhere" / "otherpackage"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    (project / "settings.txt").write_text("")
    sources = Sources(
        str(project / "settings.txt"),
        lambda: ["otherpackage.*", "json", "pq.jobs", "pytest", "no_such_module"],
    )
    assert {named([path]) for path in sources.look()} == {
        "config.py",
        "manage.py",
        "settings.txt",
        str(elsewhere / "__init__.py"),
    }
    assert named(["/a.py", "/b.py", "/c.py", "/d.py", "/e.py"]) == "/a.py, /b.py, /c.py and 2 more"
