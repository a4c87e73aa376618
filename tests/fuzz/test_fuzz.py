"""Bad input of every kind: an answer or an error of ours, and never long.

`PQ_FUZZ=1000000 ./run test tests/fuzz` feeds N inputs; `PQ_FUZZ_SEED` begins elsewhere. Inputs that once failed are kept in
`test_kept.py`, and is fed each time.
"""

from __future__ import annotations

import faulthandler
import os
import time

import pytest
from fuzz_targets import TARGETS, Chance, shown

TOTAL = int(os.environ.get("PQ_FUZZ", "0"))
FIRST = int(os.environ.get("PQ_FUZZ_SEED", "0"))
EACH = max(1, TOTAL // len(TARGETS)) if TOTAL else 400
LONGEST = 1.0 if TOTAL else 20.0
"""Seconds for one input. In the short run this only finds hangs: a busy machine may stand still for a while."""


@pytest.mark.timeout(0 if TOTAL else 120)
@pytest.mark.parametrize("name", TARGETS)
def test_bad_input(name: str) -> None:
    feed = TARGETS[name]
    longest = (0.0, 0)
    for seed in range(FIRST, FIRST + EACH):
        rng = Chance(seed)
        began = time.process_time()
        if seed % 1000 == 0:
            faulthandler.dump_traceback_later(60, exit=False)
        try:
            feed(rng)
        except BaseException as exc:
            raise AssertionError(
                f"{name}, seed {seed}: {type(exc).__name__}: {exc}; fed with {shown(rng.fed)}"
            ) from exc
        took = time.process_time() - began
        longest = max(longest, (took, seed))
        assert took < LONGEST, f"{name}, seed {seed}: {took:.1f} s for {shown(rng.fed)}"
    faulthandler.cancel_dump_traceback_later()
    if TOTAL:
        print(f"{name}: {EACH:,} inputs, the longest {longest[0] * 1000:.0f} ms (seed {longest[1]})")
