"""A hundred workers and twenty-five producers, with some 450 connections, lose their store at one moment, and it comes back: when who comes to it.

    stampede.py AWAY     prints when each attempt to connect was made, seconds from the store's end, as JSON

All of it in virtual time, in a process of its own; the workers and producers are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import simulated_world  # noqa: E402
from simulated_jobs import oracle  # noqa: E402
from simulated_loop import Program  # noqa: E402
from simulated_store import Connection, SimulatedStore, SimulatedWire  # noqa: E402
from simulated_world import ProgramStore, World, simulated  # noqa: E402
from stores import Server  # noqa: E402

from pq.broker.embedded import find_binary  # noqa: E402
from pq.producer.producer import Producer  # noqa: E402

WORKERS, PRODUCERS = 100, 25
SETTLED = 5.0
"""Virtual seconds that they get to begin, and to find the store again."""


class CountingStore(SimulatedStore):
    """Records each attempt to connect: its time and its client."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.attempts: list[tuple[float, str]] = []

    async def connect(self, program: Program, wire: SimulatedWire) -> Connection:
        self.attempts.append((self.loop.time(), program.name))
        return await super().connect(program, wire)


async def ask(api: Producer) -> None:
    """Queue a task, and have its result."""
    async with asyncio.timeout(60):
        await api.tasks.queue("work", seconds=0.0)


async def stampede(world: World, away: float) -> dict[str, Any]:
    store = world.store
    assert isinstance(store, CountingStore)
    for handle in world.handles:
        world.fill(handle)
    apis = []
    for n in range(PRODUCERS):
        program = world.program(f"p{n}")
        place = ProgramStore(world.settings, store, program)
        api = Producer(world.settings, place, lambda: world.registry, "here", clock=program)
        await program.spawn(ask(api))
        apis.append((program, api))
    await asyncio.sleep(SETTLED)
    store.attempts.clear()
    ended = world.loop.time()
    store.stop()
    await asyncio.sleep(away)
    store.start()
    await asyncio.sleep(SETTLED)
    attempts = list(store.attempts)
    await asyncio.gather(*(program.spawn(ask(api)) for program, api in apis))
    world.over = True
    return {
        "attempts": [(round(at - ended, 4), name) for at, name in attempts],
        "troubles": world.loop.troubles,
    }


def main(away: float) -> None:
    server = Server(find_binary())
    try:
        with mock.patch.object(simulated_world, "SimulatedStore", CountingStore):
            force = {
                "handles": WORKERS,
                "faults": (),
                "settings": {"lease": 30.0, "max_requests": 0, "schedule_periodic": False},
            }
            world = World(1, str(server.socket), force)
        world.store.on_call = None
        with simulated(world):
            oracle.reset(world.history, world._deadly)
            told: dict[str, Any] = {}

            async def whole() -> None:
                told.update(await stampede(world, away))

            asyncio.set_event_loop(None)
            try:
                world.loop.run_until_complete(world.loop.world.spawn(whole()))
            finally:
                world.over = True
                world.loop.throw_away()
        print(json.dumps(told))
    finally:
        server.close()


if __name__ == "__main__":
    main(float(sys.argv[1]))
