"""The number of tasks that a worker may reserve."""

from __future__ import annotations

import pytest

from pq.worker.capacity import SHORT, SPARE, Children, wanted


@pytest.mark.parametrize(
    ("slots", "running", "before_limit", "for_children", "expected"),
    [
        pytest.param(100, 0, None, None, 50, id="half of the slots at once"),
        pytest.param(1, 0, None, None, 1, id="the half of one slot is one"),
        pytest.param(5, 0, None, None, 3, id="the larger half"),
        pytest.param(100, 80, None, None, 20, id="the free slots"),
        pytest.param(100, 100, None, None, 0, id="no free slot"),
        pytest.param(100, 120, None, None, 0, id="more than the slots run after a lost lease"),
        pytest.param(100, 0, 3, None, 3, id="no more than until the worker is recycled"),
        pytest.param(100, 0, 0, None, 0, id="the worker is to be recycled"),
        pytest.param(100, 0, -1, None, 0, id="beyond the limit"),
        pytest.param(100, 0, None, 2, 2, id="no more than the children take"),
        pytest.param(100, 0, None, 0, 0, id="busy children"),
        pytest.param(100, 99, 5, 2, 1, id="the least of all"),
    ],
)
def test_a_worker_reserves_what_can_start(
    slots: int, running: int, before_limit: int | None, for_children: int | None, expected: int
) -> None:
    """The free slots, at most half of all, and less where the limit or the children say so."""
    assert wanted(slots, running, before_limit=before_limit, for_children=for_children) == expected


@pytest.mark.parametrize(
    ("capacity", "running", "mean_time", "free"),
    [
        pytest.param(2, 0, 1.0, 2, id="free children"),
        pytest.param(0, 2, 1.0, 0, id="busy children"),
        pytest.param(2, 0, SHORT / 2, 2 + 2 * SPARE, id="spare ones of short tasks"),
        pytest.param(0, 2, SHORT / 2, 2 * SPARE, id="spare ones while all are busy"),
        pytest.param(0, 2 + 2 * SPARE, SHORT / 2, 0, id="the spare ones wait already"),
        pytest.param(0, 9, SHORT / 2, 0, id="more wait than there should"),
        pytest.param(None, 50, 1.0, 8, id="an executor without a limit"),
    ],
)
def test_free_children_for_process_tasks(
    capacity: int | None, running: int, mean_time: float, free: int
) -> None:
    """Two children and eight slots: the free children, and spare tasks only where they take milliseconds."""
    children = Children(2, 8, lambda: capacity)
    children.running, children.mean_time = running, mean_time
    assert children.free() == free


def test_children_limit_nothing_until_a_process_task_is_seen() -> None:
    """Then the free children count; with none, one task is reserved until that is a process task."""
    free = 0
    children = Children(2, 8, lambda: free)
    assert children.wanted() is None
    children.in_last_batch = True
    assert children.wanted() == 1
    free = 2
    assert children.wanted() == 2
    free, children.head_waits = 0, True
    assert children.wanted() == 0
    children.running = 1
    children.ended(0.5)
    assert children.wanted() == 1


def test_tasks_are_short_when_they_are_seen_to_be() -> None:
    """One short task among long ones changes little; a long one counts as one second at most."""
    children = Children(2, 8, lambda: 0)
    children.running = 100
    children.ended(0.001)
    assert children.mean_time > SHORT
    for _ in range(40):
        children.ended(0.001)
    assert children.mean_time < SHORT
    children.ended(3600.0)
    assert children.mean_time == pytest.approx(0.2, abs=0.01)
    assert children.running == 58
