"""A small run of `./run chaos`: everything is killed, and nothing is lost, settled twice, or left hanging."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos import Plan, run
from handouts import Handouts
from oracle import Story


@pytest.mark.endurance
@pytest.mark.lifecycle
@pytest.mark.timeout(400)
def test_5000_tasks_under_50_kills(tmp_path: Path) -> None:
    """Two servers on one store: workers, a child, a whole server and the store are killed, workers are frozen."""
    seed = int(os.environ.get("PQ_CHAOS_SEED", "1"))
    report = run(Plan(seed=seed), tmp_path)
    assert not report.wrong, f"seed {seed}:\n{report.text()}"
    assert report.tasks == report.succeeded == 5000
    assert report.workers_killed >= 45, "blows that found no worker at work are few"
    assert report.blows["store"] == 2
    assert report.starts > report.tasks, "some were begun again"


def test_the_oracle_is_read_as_it_grows(tmp_path: Path) -> None:
    """Half of a line waits for its rest; each death has its cause, and the time when the task began again."""
    path = tmp_path / "oracle.txt"
    story = Story(path)
    story.read()
    path.write_text("b 1 1 10 loop 5.0 a/w1\nb 2 1 10 loop 5.1 a/w1\ne 2 10 5.2\nb 3 1 11 pro")
    story.read()
    assert story.at_it[10] == {1}
    assert story.workers() == [10]
    with path.open("a") as file:
        file.write("cess 5.3 a/w1\nb 1 1 12 loop 6.5 b/w1\n")
    story.read()
    assert story.begun[3] == [(5.3, 11, 1)]
    assert story.names == {10: "a/w1", 12: "b/w1"}
    assert story.recovery(10, 6.0) == 0.5
    assert story.recovery(11, 6.0) is None, "it was begun nowhere else"


def test_only_what_a_process_was_at_when_it_died_counts_as_recovered(tmp_path: Path) -> None:
    """An attempt that had failed there does not count, nor one that another worker had begun since."""
    path = tmp_path / "oracle.txt"
    path.write_text(
        "b 1 1 10 loop 5.0 a/w1\nx 1 10 5.1\nb 2 1 10 loop 5.0 a/w1\nb 2 1 11 loop 5.5 a/w2\n"
        "b 3 1 10 loop 5.2 a/w1\n"
    )
    story = Story(path)
    story.read()
    with path.open("a") as file:
        file.write("b 1 2 12 loop 9.0 a/w3\nb 2 1 12 loop 9.0 a/w3\nb 3 1 12 loop 6.25 a/w3\n")
    story.read()
    assert story.recovery(10, 6.0) == 0.25


def test_what_a_zombie_begins_after_others_have_done_it_is_not_recovered(tmp_path: Path) -> None:
    """Its attempt failed elsewhere, and the next one waits for its time: not for the zombie's death."""
    path = tmp_path / "oracle.txt"
    path.write_text("b 1 1 11 retry 5.0 a/w2\nx 1 11 5.1\nb 1 1 10 retry 5.9 a/w1\nb 2 1 10 retry 5.9 a/w1\n")
    story = Story(path)
    story.read()
    with path.open("a") as file:
        file.write("b 1 2 12 retry 9.0 a/w3\nb 2 1 12 retry 6.5 a/w3\n")
    story.read()
    assert story.recovery(10, 6.0) == 0.5


def test_a_hit_worker_is_counted_apart_from_the_next_one() -> None:
    """A task that goes from one dead worker to another counts for each from its own death on."""
    handouts = Handouts()
    handouts.started("1", "a/w1", 5.0)
    handouts.started("2", "a/w1", 5.0)
    handouts.started("3", "a/w1", 5.0)
    handouts.ended("2")
    handouts.hit("dead worker", "a/w1", 6.0)
    handouts.ended("3")  # it had been settled before
    handouts.started("1", "b/w1", 6.5)
    handouts.hit("frozen worker", "b/w1", 7.0)
    handouts.started("1", "a/w2", 11.0)
    assert [(case.who, case.longest, case.tasks) for case in handouts.cases] == [
        ("a/w1", 0.5, 1),
        ("b/w1", 4.0, 1),
    ]
    assert handouts.of_node("a") == ["a/w2"]
    assert handouts.of_node("b") == []
    assert handouts.cases[1].text() == (
        "frozen worker b/w1, 1 tasks: -2.00 a/w1, -1.00 dead worker, -0.50 b/w1, +0.00 frozen worker, +4.00 a/w2"
    )


def test_a_hand_out_that_is_heard_of_after_a_death_was_made_before_it() -> None:
    """Events come a moment late."""
    handouts = Handouts()
    handouts.hit("dead worker", "a/w1", 6.0)
    handouts.started("1", "a/w1", 6.1)
    handouts.started("1", "a/w2", 6.5)
    assert [case.longest for case in handouts.cases] == [0.5]
    handouts.hit("dead worker", "a/w2", 7.0)
    handouts.started("2", "a/w3", 7.1)
    assert [case.longest for case in handouts.cases] == [0.5, None]


def test_no_recovery_is_derived_from_missed_events() -> None:
    """An end whose event reached no listener must not look like a task that lies with a dead worker."""
    handouts = Handouts()
    handouts.started("1", "a/w1", 5.0)
    handouts.forget()
    handouts.hit("dead worker", "a/w1", 6.0)
    handouts.started("1", "a/w2", 20.0)
    assert [case.longest for case in handouts.cases] == [None]
