"""An event loop without time and without chance: what is next, and when, comes from a seed.

All programs of a simulation share it. A handle belongs to the program whose context it was made in; so a program
can be *killed* (its handles are thrown away: it stops at whatever it awaits, and cleans up nothing) and *paused*
(they are put aside until it goes on). Among the programs that have something to do chance picks the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

here: ContextVar[Program | None] = ContextVar("simulated_program", default=None)
"""The program that runs."""

STEP = 0.00002
"""Seconds that one handle takes."""


class Program:
    """One process of the simulation."""

    def __init__(self, loop: SimulatedLoop, name: str, chance: random.Random) -> None:
        self.loop = loop
        self.name = name
        self.chance = chance
        self.alive = True
        self.paused = False
        self.skew = chance.choice((0.0, 0.0, 3600.0, -3600.0))
        self.ready: deque[asyncio.Handle] = deque()
        self.context: Context = copy_context()
        self.context.run(here.set, self)
        self.tasks: list[asyncio.Task[Any]] = []

    # It is its own clock, and a wrong one: nothing may depend on that.
    def time(self) -> float:
        return 1_700_000_000.0 + self.loop.time() + self.skew

    def monotonic(self) -> float:
        return self.loop.time() + 5.0

    def random(self) -> float:
        return self.chance.random()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self.loop.create_task(work, context=self.context.copy())

    def kill(self) -> None:
        self.alive = False
        self.ready.clear()
        self.loop.remove_program(self)

    def pause(self) -> None:
        self.paused = True

    def go_on(self) -> None:
        self.paused = False


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring. `shuffled`: within a program, too, the next handle is any that is ready."""

    def __init__(self, chance: random.Random, *, shuffled: bool) -> None:
        super().__init__()
        self._chance = chance
        self._shuffled = shuffled
        self._now = 1000.0
        self.steps = 0
        self.world = Program(self, "world", random.Random(chance.random()))
        self.world.skew = 0.0
        self._programs: list[Program] = []
        self._gone: list[Program] = []
        self.add_program(self.world)
        self.set_task_factory(self._make_task)
        self.troubles: list[tuple[str, str]] = []
        self.set_exception_handler(self._trouble)
        self._open = True

    def add_program(self, program: Program) -> None:
        self._programs.append(program)

    def remove_program(self, program: Program) -> None:
        if program in self._programs:
            self._programs.remove(program)
            self._gone.append(program)

    def _make_task(self, loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        context = options.get("context")
        program = (context.get(here) if context is not None else here.get()) or self.world
        program.tasks.append(task)
        return task

    def _trouble(self, loop: Any, context: dict[str, Any]) -> None:
        if self._open:
            program = here.get() or self.world
            self.troubles.append((program.name, f"{context.get('message')}: {context.get('exception')!r}"))

    # ------------------------------------------------------------------------------ what a loop is
    def time(self) -> float:
        return self._now

    def _process_events(self, events: Any) -> None: ...

    def _write_to_self(self) -> None: ...

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """There are no threads: it is done now."""
        future = self.create_future()
        try:
            future.set_result(function(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...

    def _sort_in(self) -> None:
        fresh = self._ready  # type: ignore[attr-defined]
        while fresh:
            handle = fresh.popleft()
            if not handle._cancelled:
                program = handle._context.get(here) or self.world
                if program.alive:
                    program.ready.append(handle)

    def _run_once(self) -> None:
        self._sort_in()
        timers = self._scheduled  # type: ignore[attr-defined]
        able = [p for p in self._programs if p.ready and not p.paused]
        if not able and not self._stopping:  # type: ignore[attr-defined]
            while timers and timers[0]._cancelled:
                heapq.heappop(timers)._scheduled = False
            if not timers:
                raise RuntimeError("nothing will ever happen again, and the simulation is not over")
            self._now = max(self._now, timers[0]._when)
        while timers and timers[0]._when <= self._now:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)  # type: ignore[attr-defined]
        self._sort_in()
        able = [p for p in self._programs if p.ready and not p.paused]
        if not able:
            return
        program = able[int(self._chance.random() * len(able))] if len(able) > 1 else able[0]
        ready = program.ready
        if self._shuffled and len(ready) > 1:
            ready.rotate(-int(self._chance.random() * len(ready)))
        handle = ready.popleft()
        if handle._cancelled:
            return
        self.steps += 1
        self._now += STEP
        handle._run()

    def throw_away(self) -> None:
        """The end: all that still waits is released, and nothing of it runs any more."""
        self._open = False
        self.close()
        with contextlib.suppress(RuntimeError):
            asyncio.set_event_loop(None)
        for program in [*self._programs, *self._gone]:
            self.end_tasks(program)
        self._programs.clear()
        self._gone.clear()
        self._scheduled.clear()  # type: ignore[attr-defined]

    def end_tasks(self, program: Program) -> None:
        for task in program.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                for _ in range(20):  # a `finally` that awaits has to be passed by
                    try:
                        task.get_coro().close()  # type: ignore[union-attr]
                        break
                    except BaseException:
                        continue
        program.tasks.clear()
        program.ready.clear()
