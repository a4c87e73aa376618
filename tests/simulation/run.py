"""Run seeds of the simulation in this process: `run.py FIRST COUNT [BREAKAGE]`, an answer a line.

It runs with a fixed hash seed, and starts itself anew where that is not so: the order of a set of texts must not
depend on the process.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from breakages import BREAKAGES
from simulated_world import simulate
from stores import Server

from pq.broker.embedded import find_binary

LISTS = [
    word
    for kind in ("set", "zset", "hash")
    for word in (f"--{kind}-max-listpack-entries", "100000")
]  # small collections keep the order of insertion; the order of a hash table is the server's chance


def main(first: int, count: int, breakage: str = "", verbose: str = "") -> int:
    logging.disable(logging.CRITICAL if not verbose else logging.DEBUG - 1)
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="        %(name)s %(message)s", stream=sys.stderr)
    if breakage:
        BREAKAGES[breakage]()
    server = Server(find_binary(), *LISTS)
    failed = 0
    gc.disable()
    try:
        for seed in range(first, first + count):
            began = time.perf_counter()
            history, found = simulate(seed, str(server.socket))
            gc.collect()
            answer = {
                "seed": seed, "digest": history.digest(), "events": len(history), "broken": found,
                "seconds": round(time.perf_counter() - began, 3),
            }  # fmt: skip
            print(json.dumps(answer), flush=True)
            if verbose:
                print(history.lines())
            failed += bool(found)
    finally:
        server.close()
    return 1 if failed else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]), int(words[1]), *words[2:]))
