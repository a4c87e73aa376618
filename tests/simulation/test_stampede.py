"""A store comes back, and all clients that lost it at one moment want it back: they must not come at one moment.

Real workers and producers, in virtual time, in a process of its own (`stampede.py`). The same seed each time, so the
counts are the same each time; the assertions leave a margin for another seed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pq.broker.embedded import find_binary
from pq.broker.redis.backoff import FIRST, LONGEST, pause
from pq.errors import NoStore

RUN = Path(__file__).parent / "stampede.py"
AWAY = 10.0
SLOT = 0.1
"""Seconds of one count."""
PROGRAMS = 125


def test_clients_reconnect_spread_over_time() -> None:
    """While it is away few come, and evenly; when it is back they come within some seconds, and just as evenly."""
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    run = subprocess.run([sys.executable, str(RUN), str(AWAY)], capture_output=True, text=True, timeout=100, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    told = json.loads(run.stdout)
    assert told["troubles"] == []
    attempts = [(float(at), name) for at, name in told["attempts"]]
    slots = Counter(int(at / SLOT) for at, _ in attempts)

    last = [slots[n] for n in range(int((AWAY - 4.0) / SLOT), int(AWAY / SLOT))]
    usual = sum(last) / len(last)
    assert usual / SLOT < 5 * PROGRAMS, "each program asks a few times a second, with all its connections"
    assert max(last) < 2.5 * usual, f"some moments are much fuller than others: {last}"

    back = [(at - AWAY, name) for at, name in attempts if at >= AWAY]
    under_way = {name for at, name in attempts if at >= AWAY - 0.01}  # when it came back, or begun since
    assert len(under_way) == PROGRAMS, "all are back"
    assert len(back) > 2 * PROGRAMS, "with most of its connections"
    after = Counter(int(at / SLOT) for at, _ in back)
    assert max(after.values()) < 2.5 * usual, f"they come all at once: {sorted(after.items())}"
    soon = sum(at < LONGEST + 0.5 for at, _ in back)
    assert soon > 0.85 * len(back), "and they come soon"


def test_a_pause_may_be_anything_up_to_a_span_that_doubles() -> None:
    spans = [pause(failures, 1.0) for failures in range(1, 9)]
    assert spans == [FIRST * 2**n for n in range(6)] + [LONGEST] * 2
    assert pause(10_000, 1.0) == LONGEST, "no overflow"
    assert [pause(3, chance) for chance in (0.0, 0.5)] == [0.0, FIRST * 2]
