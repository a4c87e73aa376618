"""The tour (`pq demo`), as a program: it shows its steps, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.endurance

ROOT = Path(__file__).resolve().parents[1]
LINES = (
    r"pq \d\S* · python 3\.\S+ · (uvloop|asyncio) · (Valkey|Redis) \S+ embedded, in a temporary directory",
    r"2 workers up in \d+\.\d\d s · 4 jobs of pq\.demo\.jobs",
    r"",
    r"  1  addition\(a=4, b=6\) +10 +\d+(\.\d)? m?s",
    r"     1,000 additions, queued in one call +all right, in order +\d+(\.\d)? m?s",
    r"  2  100 × asyncio\.sleep\(0\.1\) at once +\(10 s one by one\) +\d+(\.\d)? m?s",
    r"  3  count_words\(chapters=100\), a process job +6,000,000 words +\d+(\.\d)? m?s",
    r"  4  walk\(\), and kill -9 on its worker w\d +killed pid \d+",
    r"     the task went on in another worker +pid \d+ +\d+(\.\d)? m?s",
    r"     and ended: SUCCESS +attempt 1, crashes 1 +\d+(\.\d)? m?s",
    r"  5  addition\(a=1, b=1\), delay=1 +started \d+ ms late +1\.\d s",
    r"",
    r"1,104 tasks done, none lost, 1 worker killed on the way · server stopped in \d+\.\d\d s, its data removed",
    r"",
)


class Tour:
    """`pq demo` in an empty directory, with a temporary directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.here = directory / "empty"
        self.here.mkdir()
        # A short path: sockets are made below it.
        self.temporary = Path(tempfile.mkdtemp(prefix="pq-test-"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PQ_")}
        # Settings of the user's: the tour keeps to its own.
        environment |= {"PQ_DATA_STORE": "redis://127.0.0.1:1", "PQ_WORKERS": "1", "PQ_NAMESPACE": "mine"}
        self.environment = environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pq", "demo"],
            cwd=self.here,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def processes(self) -> list[str]:
        """Command lines of the processes that belong to it: all of them have its directory in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and str(self.temporary).encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass  # it ended, or belongs to another user
        return [command for command in found if command]  # a zombie has none

    def is_gone(self) -> bool:
        return not self.processes() and not list(self.temporary.iterdir()) and not list(self.here.iterdir())


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    tour = Tour(tmp_path)
    yield tour
    if tour.process is not None and tour.process.poll() is None:
        tour.process.kill()
        tour.process.communicate()
    shutil.rmtree(tour.temporary)


def until_gone(tour: Tour) -> None:
    deadline = time.monotonic() + 10
    while not tour.is_gone():
        assert time.monotonic() < deadline, (tour.processes(), list(tour.temporary.iterdir()))
        time.sleep(0.02)


def test_the_tour_shows_what_it_says(tour: Tour) -> None:
    """All steps, in order, in an empty directory, whatever the environment is set to; and all of it is removed."""
    out, err = tour.start().communicate(timeout=60)
    assert tour.process is not None
    assert (tour.process.returncode, err) == (0, "")
    lines = out.splitlines()
    bars = [
        line for line in lines if re.fullmatch(r"  3  count_words\(chapters=100\), a process job +\d+%", line)
    ]
    assert len(bars) <= 3  # a quarter each; a fast machine jumps some
    others = [line for line in lines if line not in bars]
    for expected, line in zip(LINES, others, strict=False):
        assert re.fullmatch(expected, line), f"{line!r} does not match {expected!r} in\n{out}"
    assert others[len(LINES) :] == [
        "next: write your own jobs, docs/tutorial.md shows how; `pq --help` has the verbs"
    ]
    assert "\x1b" not in out
    killed, took_over = re.findall(r"pid (\d+)", out)
    assert killed != took_over
    until_gone(tour)


@pytest.mark.parametrize("said", ["embedded", "2 workers up", "  2  ", "  4  "])
def test_ctrl_c_stops_it_cleanly(tour: Tour, said: str) -> None:
    """At any step: exit code 130, no traceback, no process and no file left."""
    process = tour.start()
    assert process.stdout is not None
    for line in process.stdout:
        if said in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-1] == "stopped"
    until_gone(tour)


def test_a_killed_tour_leaves_no_process(tour: Tour) -> None:
    """kill -9 of the tour itself: its server hears the end of the pipe, and stops."""
    process = tour.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "2 workers up" in line:
            break
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 15
    while tour.processes():
        assert time.monotonic() < deadline, tour.processes()
        time.sleep(0.02)


def test_errors_are_reported(tour: Tour) -> None:
    """Where no embedded server may be started, the tour says so and ends with 1."""
    tour.environment["PQ_ENV"] = "production"
    out, err = tour.start().communicate(timeout=30)
    assert tour.process is not None
    assert (tour.process.returncode, out) == (1, "")
    assert "not for production" in err
    assert "Traceback" not in err
    until_gone(tour)
