"""Try the mutants: each against the suite of the broker, until a test fails. `./run mutants [WORD …]`.

With words, only the mutants whose script or text has one of them. Exit code 1 when one lives that should not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants import EQUIVALENT, MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
STAGES = (
    ["tests/broker/test_scripts.py", "-k", "valkey"],
    ["tests/broker/conformance", "-k", "valkey"],
    ["tests/broker/test_state_machine.py", "-k", "valkey"],
)
"""From the fastest tests to those that see all."""
AT_ONCE = max(1, (os.cpu_count() or 1))


def killed_by(mutant: Mutant) -> str | None:
    """The part of the suite that noticed; None when none did."""
    env = {
        **os.environ,
        "PQ_MUTANT": json.dumps(mutant),
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        ),
    }
    for stage in STAGES:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "plugin",
            "-p",
            "no:cacheprovider",
            *stage,
        ]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
        if done.returncode == 1:
            return stage[0]
        if done.returncode:
            raise SystemExit(f"{mutant}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return None


def main(words: list[str]) -> int:
    tried = [m for m in [*MUTANTS, *EQUIVALENT] if not words or any(w in " ".join(m) for w in words)]
    wrong = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = time.monotonic()
        for mutant, killer in zip(tried, pool.map(killed_by, tried), strict=True):
            ok = (killer is None) == (mutant in EQUIVALENT)
            if not ok:
                wrong.append(mutant)
            first = mutant.old.split("\n")[0]
            print(
                f"{'ok ' if ok else 'BAD'} {killer or 'lived':<38} {mutant.script}: {first[:90]}", flush=True
            )
    print(f"{len(tried)} mutants in {time.monotonic() - started:.0f} s; {len(wrong)} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
