"""A program that hears of every finished task: `python listener.py`, until its standard input ends.

It says `listening` once its subscription stands, and at the end how many tasks it heard of.
"""

from __future__ import annotations

import asyncio
import sys

from application import app

from pq.loops import run


async def main() -> None:
    heard = 0

    def count(channel: str, event: str, task: object) -> None:
        nonlocal heard
        heard += 1

    async with app().api() as api:
        await api.on_events("task", "done", count)
        print("listening", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        before = -1
        while before != heard:  # what is under way still
            before = heard
            await asyncio.sleep(0.1)
    print(heard, flush=True)


if __name__ == "__main__":
    run(main())
