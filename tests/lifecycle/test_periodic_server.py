"""A real server that schedules, and one of its workers killed on the way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from servers import Serve

pytestmark = pytest.mark.lifecycle

JOBS = """\
from pq import api

@api.job(run_every=1, catch_up="all")
async def beat(self):
    with open("beats.txt", "a") as f:
        f.write(f"{self.task.meta['tick']:.0f}\\n")
"""


def test_every_second_once_while_a_scheduler_is_killed(project: Path, serve: Serve) -> None:
    """Three workers schedule, one is killed: no second is left out, and none comes twice."""
    (project / "jobs.py").write_text(JOBS)
    server = serve("-w", "3", "--schedule-periodic").ready(3)
    server.wait_for("scheduler on · 1 periodic job$", count=3)
    beats = project / "beats.txt"

    def lines() -> list[int]:
        return [int(line) for line in beats.read_text().split()] if beats.exists() else []

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 30
        while len(lines()) < count:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.02)

    wait_for(2)
    time.sleep(0.5)  # between two ticks: the killed one runs nothing, so nothing is run again
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_for(6)
    assert server.stop() == 0
    found = sorted(lines())
    assert found == list(range(found[0], found[0] + len(found)))
