"""Hundreds of schedules of everything that can happen between machines; each must keep every rule of `history.py`.

A seed is a whole schedule: workers, producers, a network and their faults. `PQ_SIM_SEED=n` runs that one alone and
tells its history; `PQ_SIM_SEEDS=n` runs more of them. They run in processes of their own, with nothing of pytest in
them, so that they leave nothing behind in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from history import History, broken_rules, read

from pq.broker.embedded import find_binary
from pq.errors import NoStore

RUN = Path(__file__).parent / "run.py"
SEEDS = int(os.environ.get("PQ_SIM_SEEDS", "500"))
PARTS = 2
"""Processes at once."""


@pytest.fixture(autouse=True)
def valkey_program() -> None:
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")


def begin(*words: object, hash_seed: str = "0") -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PQ_")}
    return subprocess.Popen(
        [sys.executable, str(RUN), *map(str, words)],
        env={**env, "PYTHONHASHSEED": hash_seed}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answers(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The report of a run about its seeds. A seed that ended otherwise than it should is a failure here."""
    try:
        out, err = process.communicate(timeout=60 + 6 * SEEDS)
    except BaseException:
        process.terminate()  # it takes its server with it
        process.wait(20)
        raise
    assert process.returncode in (0, 1), f"the simulation itself failed:\n{err[-4000:]}"
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def seeds(count: int, *words: str) -> list[dict[str, Any]]:
    """The results of the first `count` seeds, some processes at once."""
    size = -(-count // PARTS)
    running = [begin(1 + part * size, min(size, count - part * size), *words) for part in range(PARTS)]
    # All are read at once: a process that is not read stands still when its pipe is full.
    with ThreadPoolExecutor(PARTS) as pool:
        try:
            return [answer for found in pool.map(answers, running) for answer in found]
        finally:
            for process in running:
                process.terminate()


@pytest.mark.endurance
@pytest.mark.timeout(300 + 10 * SEEDS)
def test_no_seed_breaks_a_rule() -> None:
    """Nothing lost, nothing ended twice, no caller left waiting, whatever happened before the faults ended."""
    if seed := os.environ.get("PQ_SIM_SEED"):
        process = begin(int(seed), 1, "-v")
        out, err = process.communicate(timeout=120)
        print(err, out, sep="\n")
        assert process.returncode == 0, f"PQ_SIM_SEED={seed}: see its history above"
        return
    found = seeds(SEEDS)
    assert len(found) == SEEDS
    broken = [
        f"PQ_SIM_SEED={answer['seed']} ./run test tests/simulation\n    "
        + "\n    ".join(answer["broken"][:5])
        for answer in found
        if answer["broken"]
    ]
    assert not broken, f"{len(broken)} of {SEEDS} seeds broke a rule:\n" + "\n".join(broken[:10])


@pytest.mark.endurance
@pytest.mark.timeout(300 + 10 * SEEDS)
def test_no_stream_is_read_wrong() -> None:
    """A reader of a whole stream has all parts of the run that counts, and no other, whatever happened meanwhile."""
    found = seeds(SEEDS // 10 + 1, "--streams")
    broken = [
        f"run.py {answer['seed']} 1 --streams -v: {answer['broken'][:3]}"
        for answer in found
        if answer["broken"]
    ]
    assert not broken, "\n".join(broken)


def test_a_seed_is_the_same_in_every_process() -> None:
    """The same steps at the same times, for any process, hash seed, and earlier runs."""
    first = answers(begin(1, 12))
    again = answers(begin(1, 12, hash_seed="random"))
    alone = [answers(begin(seed, 1)) for seed in (7, 12)]
    assert [a["digest"] for a in first] == [a["digest"] for a in again]
    assert [a[0]["digest"] for a in alone] == [first[6]["digest"], first[11]["digest"]]
    assert len({a["digest"] for a in first}) == 12


@pytest.mark.endurance
@pytest.mark.timeout(300)
def test_each_breakage_is_noticed() -> None:
    """pq, broken in one place after the other: a simulation that notices nothing would show nothing."""
    found = answers(begin("--notice"))
    missed = [answer["breakage"] for answer in found if not answer["noticed"]]
    assert len(found) > 10
    assert not missed, f"not noticed: {missed}; `tests/simulation/run.py --hunt` looks for other seeds"


# ------------------------------------------------------------------------------------- the checker
def story(*events: tuple[str, str, dict[str, Any]]) -> History:
    """A history of (process, op, facts); an op with a slash has its phase in it. One event a second."""
    history = History()
    for time, (process, op, facts) in enumerate(events):
        name, _, phase = op.partition("/")
        history.note(float(time), process, name, phase or "info", **facts)
    return history


GOOD = (
    ("w", "lease", {"lease": "L"}),
    ("p", "enqueue/ok", {"id": "a"}),
    ("store", "stored", {"id": "a", "queue": "q", "priority": 0, "plain": True}),
    ("p", "await/invoke", {"id": "a/1"}),
    ("store", "handout", {"id": "a", "lease": "L", "batch": 1}),
    ("w", "start", {"id": "a", "run": 1, "attempt": 1}),
    ("w", "value", {"id": "a", "run": 1, "value": "v"}),
    ("store", "end", {"id": "a", "status": "SUCCESS", "token": "L:1", "value": "v"}),
    ("p", "await/ok", {"id": "a/1", "task": "a", "status": "SUCCESS", "value": "v"}),
    ("world", "quiesce", {"within": 5.0, "told": 5.0, "behind": 0.0}),
)


def changed(at: int, **facts: Any) -> tuple[Any, ...]:
    process, op, before = GOOD[at]
    return (*GOOD[:at], (process, op, {**before, **facts}), *GOOD[at + 1 :])


BAD = {
    "S1": GOOD[:7] + GOOD[9:],
    "S2": (*GOOD, GOOD[7]),
    "S3": changed(8, value="w"),
    "S3 ": changed(7, token="M:1"),
    "S4": (*GOOD, GOOD[4]),
    "S4 ": GOOD[:5] + GOOD[5:6] * 2 + GOOD[6:],
    "S5": (
        GOOD[2],
        ("store", "stored", {"id": "b", "queue": "q", "priority": 0, "plain": True}),
        ("store", "handout", {"id": "b", "lease": "L", "batch": 1}),
        GOOD[4],
    ),
    "S6": (
        GOOD[2],
        ("store", "end", {"id": "a", "status": "REVOKED", "token": "cancel:0", "value": None}),
        GOOD[5],
    ),
    "S7": (*GOOD[:6], ("w", "child", {"id": "a", "run": 1, "child": "c"}), *GOOD[6:]),
    "S8": (("store", "tick", {"schedule": "s", "at": 5}),) * 2,
    "S9": (("world", "healthy", {}), GOOD[0], ("w", "lease", {"lease": "M"})),
    "S10": (
        *GOOD,
        ("p", "read/invoke", {"id": "a"}),
        ("w", "streamed", {"id": "a", "run": 1, "parts": 2}),
        ("p", "read/ok", {"id": "a", "parts": [[1, 0]]}),
    ),
    "S10 ": (
        *GOOD,
        ("p", "read/invoke", {"id": "a"}),
        ("p", "read/fail", {"id": "a", "error": "StreamBroken"}),
    ),
    "L2  ": (*GOOD, ("p", "read/invoke", {"id": "a"})),
    "L1": (*GOOD[:7], GOOD[9], *((("x", "fault", {}),) * 9), GOOD[7]),
    "L2": (*GOOD[:8], GOOD[9]),
    "L2 ": (*GOOD[:8], ("p", "await/fail", {"id": "a/1", "error": "TaskLost"}), GOOD[9]),
    "L3": (("store", "left", {"queue": "q", "held": [("L", "a:1")], "foreign": []}),),
    "L4": (("p", "probe", {"what": "a task", "took": 2.0}),),
    "X": (("w", "crashed", {"what": "KeyError"}),),
}


def test_a_good_story_breaks_no_rule() -> None:
    """The story is the same one after it was written down and read."""
    assert broken_rules(story(*GOOD)) == []
    again = read(story(*GOOD).lines().splitlines())
    assert again == story(*GOOD)
    assert again.digest() == story(*GOOD).digest() != story(*GOOD[1:]).digest()


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_is_noticed_when_it_is_broken(rule: str) -> None:
    """One change to a good story, and the rule that forbids it."""
    found = broken_rules(story(*BAD[rule]))
    assert rule.strip() in {text.split()[0] for text in found}, found
