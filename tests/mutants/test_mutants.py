"""The list of mutants fits the scripts; `./run mutants` tries them."""

from __future__ import annotations

import pytest
from mutants import EQUIVALENT, MUTANTS, Mutant

from pq.broker.redis.scripts import NAMES, _read


@pytest.mark.parametrize("mutant", [*MUTANTS, *EQUIVALENT], ids=lambda m: f"{m.script}-{m.old[:40]}")
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    """Its text is in the script once, so the script has not moved on without it."""
    assert _read(mutant.script).count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_the_scripts_that_move_tasks_have_mutants() -> None:
    """At least forty, and none of these scripts is left out."""
    assert len(MUTANTS) >= 40
    assert len(set(MUTANTS)) == len(MUTANTS)
    moving = {
        "enqueue",
        "reserve",
        "settle",
        "renew",
        "hand_back",
        "cancel",
        "retry_dead",
        "tick",
        "replace",
        "displace",
    }
    assert moving <= {mutant.script for mutant in MUTANTS} & set(NAMES)
