"""Count the events of finished tasks until standard input ends: `python listener.py`.

It prints `listening` after its subscription, and the number of events at the end.
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
        while before != heard:  # events that are still on their way
            before = heard
            await asyncio.sleep(0.1)
    print(heard, flush=True)


if __name__ == "__main__":
    run(main())
