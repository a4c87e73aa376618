"""Run seeds of the simulation in this process, an answer a line.

    run.py FIRST COUNT [-v]       these seeds; with -v each history, and what pq logs
    run.py FIRST COUNT --streams  the same with tasks that stream, and their readers
    run.py --notice               each breakage against the seeds that are known to meet it
    run.py --hunt [WORD [MOST]]   which seeds those are

It runs with a fixed hash seed, and starts itself again where that is not so: the order of a set of texts must not
depend on the process.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from breakages import BREAKAGES, STREAMS  # noqa: E402
from simulated_world import simulate  # noqa: E402
from stores import Server  # noqa: E402

from pq.broker.embedded import find_binary  # noqa: E402

LISTS = [
    word for kind in ("set", "zset", "hash") for word in (f"--{kind}-max-listpack-entries", "100000")
]  # small collections keep the order of insertion; the order of a hash table is the server's chance


def hunt(socket: str, only: str, most: int) -> None:
    """The first seeds that notice each breakage, and how many of them do."""
    for name, breakage in BREAKAGES.items():
        if only and only not in name:
            continue
        found: dict[int, str] = {}
        tried = 0
        for seed in range(1, most):
            tried = seed
            with breakage.apply():
                try:
                    broken = simulate(seed, socket, breakage.force)[1]
                except Exception as exc:
                    broken = [f"! {exc!r}"]
            if any(text.split()[0] in breakage.rules.split() for text in broken):
                found[seed] = broken[0][:70]
            if len(found) >= 3:
                break
        print(f"{name}: {found} of {tried}", flush=True)


def notice(socket: str) -> int:
    """Each breakage against the seeds that are known to meet it."""
    missed = 0
    for name, breakage in BREAKAGES.items():
        broken: list[str] = []
        for seed in breakage.seeds:
            with breakage.apply():
                broken += simulate(seed, socket, breakage.force)[1]
            gc.collect()
        noticed = [text for text in broken if text.split()[0] in breakage.rules.split()]
        missed += not noticed
        print(json.dumps({"breakage": name, "noticed": noticed[:1]}), flush=True)
    return 1 if missed else 0


def seeds(socket: str, first: int, count: int, verbose: bool, force: dict[str, Any] | None) -> int:
    failed = 0
    for seed in range(first, first + count):
        began = time.perf_counter()
        history, found = simulate(seed, socket, force)
        gc.collect()
        answer = {
            "seed": seed, "digest": history.digest(), "events": len(history), "broken": found,
            "seconds": round(time.perf_counter() - began, 3),
        }  # fmt: skip
        print(json.dumps(answer), flush=True)
        if verbose:
            print(history.lines())
        failed += bool(found)
    return 1 if failed else 0


def main(words: list[str]) -> int:
    verbose = "-v" in words
    force = STREAMS if "--streams" in words else None
    warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that a killed program had begun
    logging.disable(logging.NOTSET if verbose else logging.CRITICAL)
    if verbose:
        words.remove("-v")
        logging.basicConfig(level=logging.DEBUG, format="        %(name)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server goes with us
    server = Server(find_binary(), *LISTS)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if words[0] == "--notice":
            return notice(str(server.socket))
        if words[0] == "--hunt":
            hunt(
                str(server.socket),
                words[1] if len(words) > 1 else "",
                int(words[2]) if len(words) > 2 else 300,
            )
            return 0
        return seeds(str(server.socket), int(words[0]), int(words[1]), verbose, force)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
