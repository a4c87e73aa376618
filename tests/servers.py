"""Projects and real server processes of them, with real signals: the one helper of all tests that start a server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pq.api import Producer, PulsarQueue

ROOT = Path(__file__).parents[1]

MANAGE = """\
from pq.api import PulsarQueue

def app():
    return PulsarQueue(config="config.py")

if __name__ == "__main__":
    app().start()
"""


def clean_environment(path: Path = ROOT) -> dict[str, str]:
    """Return the environment without settings of the user, with `path` for imports."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PQ_")}
    return {**own, "PYTHONPATH": str(path), "PYTHONUNBUFFERED": "1"}


class ServerProcess:
    """`python manage.py …` in a project's directory; a thread reads its log.

    Args:
        directory: the project.
        arguments: flags and verb.
        env: variables on top of `base`.
        base: the environment; by default that of the tests, without `PQ_*` variables.
        prefix: a command that runs the server as the same process elsewhere, such as in a network namespace.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        base: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        environment = {**(clean_environment() if base is None else base), **(env or {})}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "manage.py", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, *, count: int = 1, timeout: float = 30.0) -> list[str]:
        """Wait until `count` lines match `pattern`; return them."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                found = [line for line in self.lines if re.search(pattern, line)]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"{pattern!r} was not logged {count} times:\n{self.log}")
                self._news.wait(min(left, 0.5))

    def ready(self, workers: int) -> ServerProcess:
        """Wait until N workers have logged that they are ready."""
        self.wait_for(r"ready · pid", count=workers)
        return self

    def worker_pids(self) -> list[int]:
        """Return the process ids of living workers that have logged that they are ready."""
        pids = [int(match[1]) for line in self.lines if (match := re.search(r"ready · pid (\d+)", line))]
        return [pid for pid in pids if alive(pid)]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """Signal, wait for the end, return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def kill(self) -> None:
        """Kill it and the rest of its session, for a test that failed half way."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


def of_session(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if entry.name.isdigit() and fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """True for a process that lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_store(directory: Path) -> None:
    """Kill the embedded server of a project whose last user was killed, and could not stop it."""
    try:
        pid = int((directory / ".pq" / "server.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if str(directory).encode() in command:
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass  # there is none


Serve = Callable[..., ServerProcess]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a directory whose name has a space."""
    directory = tmp_path / "my project"
    directory.mkdir()
    (directory / "manage.py").write_text(MANAGE)
    (directory / "config.py").write_text('task_paths = ["jobs"]\n')
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(directory))
    yield directory
    sys.modules.pop("jobs", None)
    end_store(directory)


@pytest.fixture
def serve(project: Path) -> Iterator[Serve]:
    """Start servers in the project; the rest of them is killed at the end."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> ServerProcess:
        server = ServerProcess(project, *arguments, env=env)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def api(project: Path, request: pytest.FixtureRequest) -> Iterator[Producer]:
    """An api in the test, on the project's own embedded store, as a second terminal has it.

    The project's jobs are those of the test module's text `JOBS`.
    """
    (project / "jobs.py").write_text(request.module.JOBS)
    producer = PulsarQueue(config="config.py").api()
    yield producer
    producer.close()
