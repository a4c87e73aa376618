"""A small run of `./run chaos`: everything is killed, and nothing is lost, settled twice, or left hanging."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos import Plan, run
from oracle import Story


@pytest.mark.lifecycle
@pytest.mark.timeout(400)
def test_5000_tasks_under_50_kills(tmp_path: Path) -> None:
    """Two servers on one store: workers, a child, a whole server and the store are killed, workers are frozen."""
    seed = int(os.environ.get("PQ_CHAOS_SEED", "1"))
    report = run(Plan(seed=seed), tmp_path)
    assert not report.wrong, f"seed {seed}:\n{report.text()}"
    assert report.tasks == report.succeeded == 5000
    assert report.workers_killed >= 45, "blows that found nobody at work are few"
    assert report.blows["store"] == 2
    assert report.starts > report.tasks, "some were begun again"


def test_the_oracle_is_read_as_it_grows(tmp_path: Path) -> None:
    """Half of a line waits for its rest; who died at what, and when that was begun again."""
    path = tmp_path / "oracle.txt"
    story = Story(path)
    story.read()
    path.write_text("b 1 1 10 loop 5.0\nb 2 1 10 loop 5.1\ne 2 10 5.2\nb 3 1 11 pro")
    story.read()
    assert story.at_it[10] == {1}
    assert story.workers() == [10]
    with path.open("a") as file:
        file.write("cess 5.3\nb 1 1 12 loop 6.5\n")
    story.read()
    assert story.begun[3] == [(5.3, 11)]
    assert story.recovery(10, 6.0) == 0.5
    assert story.recovery(11, 6.0) is None, "it was begun nowhere else"


def test_only_what_a_process_was_at_when_it_died_counts_as_recovered(tmp_path: Path) -> None:
    """Not an attempt that had failed there, nor one that somebody else had begun since."""
    path = tmp_path / "oracle.txt"
    path.write_text(
        "b 1 1 10 loop 5.0\nx 1 10 5.1\nb 2 1 10 loop 5.0\nb 2 1 11 loop 5.5\nb 3 1 10 loop 5.2\n"
    )
    story = Story(path)
    story.read()
    with path.open("a") as file:
        file.write("b 1 2 12 loop 9.0\nb 2 1 12 loop 9.0\nb 3 1 12 loop 6.25\n")
    story.read()
    assert story.recovery(10, 6.0) == 0.25
