"""The benchmark works: each of its figures is there. How fast anything is, no test says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pq.broker.embedded import find_binary
from pq.errors import NoStore

BENCH = Path(__file__).parents[1] / "bench"

FIGURES = {
    "backlog.memory",
    "call.gathered",
    "call.p50",
    "call.p99",
    "drain.append_only",
    "drain.heard",
    "drain.one",
    "drain.plain",
    "drain.server_cpu",
    "drain.two",
    "drain.worker_cpu",
    "idle.commands",
    "idle.cpu",
    "idle.memory",
    "naps",
    "process.burn",
    "process.trifle",
    "queue.gathered",
    "queue.many",
    "queue.one",
    "start.bare",
    "start.first",
    "start.help",
    "start.import",
}
COMPARED = {name for name in FIGURES if name.startswith(("drain.", "queue."))} | {"naps", "process.burn"}


def run_bench(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "run.py"), *arguments],
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.fixture
def near_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a path that is short enough for a socket."""
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    return tmp_path_factory.mktemp("b")


@pytest.mark.endurance
@pytest.mark.lifecycle
def test_quick_run_has_every_figure(near_tmp: Path) -> None:
    """A quick run measures each figure, names its conditions, and leaves nothing behind."""
    done = run_bench("--quick", "--json", "figures.json", directory=near_tmp)
    assert done.returncode == 0, done.stderr
    told = json.loads((near_tmp / "figures.json").read_text("utf-8"))
    figures = told["figures"]
    assert figures.keys() == FIGURES
    for name, figure in figures.items():
        # A figure on top of a bare interpreter may drown in noise; it is a number nevertheless.
        assert math.isfinite(figure["value"]), name
        assert figure["value"] > 0 or name in ("start.help", "start.import"), name
        assert figure["about"] in done.stdout
        assert (figure["ratio"] is not None) == (name in COMPARED), name
    for fact in ("date", "cores", "cpu", "python", "uvloop", "redis", "hiredis", "server"):
        assert told[fact], fact
        assert str(told[fact]) in done.stdout
    assert [entry.name for entry in near_tmp.iterdir()] == ["figures.json"]


def test_mistakes_are_explained(near_tmp: Path) -> None:
    """A store that is not there, and a figure that is not there, end in a line and not in a traceback."""
    done = run_bench("--only", "idle", "--redis-url", f"unix://{near_tmp}/none", directory=near_tmp)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert run_bench("--only", "nothing", directory=near_tmp).returncode == 2
    assert not list(near_tmp.iterdir())
