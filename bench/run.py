"""Run the benchmark: `./run bench`, or `python bench/run.py --help`.

It prints a table of figures with their ratios to a comparison, and the facts about the machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a clone that is not installed

import machine
from measures import MEASURES, QUICK, Figure, Scale
from redis.exceptions import RedisError
from stage import BenchError, Stage

from pq.errors import PqError

NOISY = 0.1
"""Share of the cores that other programs may use before the figures are marked as disturbed."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure pq on this machine.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to FILE")
    parser.add_argument(
        "--quick", action="store_true", help="small amounts of work: check that it runs, not how fast"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds for each figure (default {Scale.rounds})")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=MEASURES, help=f"of {', '.join(MEASURES)}"
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help="measure on this server (default: a new Valkey, not on disk)",
    )
    return parser.parse_args(argv)


def number(value: float) -> str:
    """Format a number with its significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 100 else 2 if value >= 1 else 3}f}"


def compared(figure: Figure) -> str:
    """Format a ratio: in percent if more is better, as a multiple if less is better."""
    if figure.ratio is None:
        return ""
    if figure.unit == "tasks/s":
        return f"{figure.ratio:.0%} of {figure.against}"
    return f"{figure.ratio:.2f} x {figure.against}"


def spread(figure: Figure) -> str:
    """Format the range from the smallest to the largest round."""
    if len(figure.rounds) < 2:
        return ""
    return f"{number(min(figure.rounds))} … {number(max(figure.rounds))}"


def table(figures: list[Figure]) -> str:
    """Format the figures, one a line."""
    rows = [("", "median", "", "compared", "goal", "rounds")]
    rows += [
        (f.about, number(f.value), f.unit, compared(f), f.goal, spread(f)) for f in figures
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = row[1].rjust(widths[1])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def heading(facts: dict[str, Any], stage: Stage) -> str:
    """Format the facts about the machine."""
    words = [f"{name} {facts[name]}" for name in ("pq", "uvloop", "redis", "hiredis", "msgpack")]
    store = (
        "started here, Unix socket, not on disk (the embedded server writes an append-only file: see its figure)"
        if stage.has_own_store
        else "as given"
    )
    return "\n".join(
        (
            f"{facts['date']} · {facts['cores']} cores, {facts['cpu']} · {facts['system']}",
            f"Python {facts['python']} · {' · '.join(words)}",
            f"{facts['server']}, {store}",
        )
    )


def stop(number: int, frame: object) -> None:
    """Make SIGTERM end the benchmark like Ctrl-C: with a clean-up."""
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    words = parse(argv)
    scale = QUICK if words.quick else Scale()
    if words.rounds:
        scale = Scale(**{**vars(scale), "rounds": words.rounds})
    signal.signal(signal.SIGTERM, stop)
    facts = machine.facts()
    figures: list[Figure] = []
    began = time.monotonic()
    try:
        stage = Stage(words.redis_url)
        try:
            facts["server"] = stage.store.product
            facts["own_server"] = stage.has_own_store
            print(heading(facts, stage), flush=True)
            for name in words.only or MEASURES:
                print(f"… {name}", file=sys.stderr, flush=True)
                figures += MEASURES[name](stage, scale)
        finally:
            stage.close()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (BenchError, PqError, RedisError, OSError, subprocess.SubprocessError) as exc:
        print(f"error: {str(exc) or type(exc).__name__}", file=sys.stderr)
        return 1
    print(f"\n{table(figures)}\n\n{len(figures)} figures in {time.monotonic() - began:.0f} s")
    facts["busy_after"] = machine.busy()
    others = max(facts["busy_before"] or 0.0, facts["busy_after"] or 0.0)
    if others > NOISY:
        print(f"other programs had {others:.0%} of the cores before or after: an idle machine is faster")
    if words.quick:
        print("--quick: these figures show that it runs, not how fast it is")
    if words.json:
        told = {**facts, "quick": words.quick, "figures": {f.name: f.plain() for f in figures}}
        words.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
