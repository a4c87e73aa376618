"""The big run: `./run chaos [--tasks N] [--kills N] [--store-kills N] [--seed N] [--appendfsync always]`.

Prints a report. Exit code 1 when anything was lost, settled twice, left hanging or left behind.

`./run chaos --failovers 200` replaces N primaries under load instead, of Sentinels and of a cluster each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from chaos import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run chaos", description="Kill everything, and see that nothing is lost."
    )
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=2000, help="workers killed")
    parser.add_argument("--store-kills", type=int, default=100, help="the store killed and started again")
    parser.add_argument(
        "--host-kills", type=int, default=10, help="a server with all its workers, at one moment"
    )
    parser.add_argument("--freezes", type=int, default=40, help="a worker stopped for longer than its lease")
    parser.add_argument("--child-kills", type=int, default=40)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3, help="of each host")
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--pause", type=float, default=0.4, help="seconds between two blows, on average")
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="everysec")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--failovers", type=int, help="of Sentinels and of a cluster each, and nothing else")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.failovers:
        tests = [
            "test_sentinel.py::test_failovers_under_load",
            "test_cluster.py::test_masters_fail_over_under_load",
        ]
        os.environ["PQ_FAILOVERS"] = str(args.failovers)
        return int(
            pytest.main(["-q", "-s", *(str(Path(__file__).parents[1] / "ha" / test) for test in tests)])
        )
    plan = Plan(
        tasks=args.tasks,
        worker_kills=args.kills,
        child_kills=args.child_kills,
        freezes=args.freezes,
        host_kills=args.host_kills,
        store_kills=args.store_kills,
        hosts=args.hosts,
        workers=args.workers,
        lease=args.lease,
        pause=args.pause,
        appendfsync=args.appendfsync,
        seed=args.seed,
    )
    with tempfile.TemporaryDirectory(prefix="pq-chaos-") as directory:
        report = run(plan, Path(directory))
    print(json.dumps(asdict(report)) if args.json else report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
