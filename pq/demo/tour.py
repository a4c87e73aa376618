"""The steps of the tour, in the order in which a newcomer asks: how fast, how many, how heavy, how safe, when.

Every wait has an end. A step that does not get its answer in time says so, with the last lines of the
server's log, and the tour ends with exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .. import __version__
from ..cli import Command
from ..config import SETTINGS
from ..loops import loop_factory, run
from ..model.states import SUCCESS
from ..model.task import Task
from ..producer.producer import Producer
from .screen import Screen
from .server import TourFailed, TourServer

WORKERS = 2
START_TIME = 20.0
STEP_TIME = 20.0
"""Seconds; a step takes one or two on a machine that has nothing else to do."""
MANY = 1_000
SLEEPS, PAUSE = 100, 0.1
CHAPTERS = 100
DELAY = 1.0


def tour(command: Command) -> int:
    """Run the tour; the exit code."""
    # It shows the defaults, whatever the shell has set; it uses a store of its own, since it
    # kills a worker there.
    for setting in SETTINGS.values():
        os.environ.pop(setting.variable, None)
    screen = Screen()
    server = TourServer(workers=WORKERS, verbose=command.verbose)
    try:
        run(Tour(server, screen).run())
        screen.line()
        screen.line(_what_next(command))
    except KeyboardInterrupt:
        screen.line("stopped")
        return 130
    finally:
        server.close()
    return 0


class Tour:
    """One tour: the server, the screen, and the events of the tasks."""

    def __init__(self, server: TourServer, screen: Screen) -> None:
        self._server = server
        self._screen = screen
        self._workers: dict[int, str] = {}
        self._news = asyncio.Event()
        self._progress: dict[str, dict[str, Any]] = {}
        self._walked: list[tuple[float, int]] = []
        self._done = 0

    async def run(self) -> None:
        """All steps, one after the other."""
        began = time.perf_counter()
        app = self._server.app()
        async with app.api() as api:
            await api.on_events("consumer", "status", self._heard_of_worker)
            await api.on_events("task", "progress", self._heard_of_task)
            self._introduce(app.store.server)
            async with self._server:
                await self._workers_are_up()
                up = time.perf_counter() - began
                jobs = len(api.tasks.job_list())
                self._screen.line(f"{WORKERS} workers up in {up:.2f} s · {jobs} jobs of pq.demo.jobs")
                self._screen.line()
                for step in (self._quick, self._at_once, self._heavy, self._killed, self._delayed):
                    await step(api)
                stopping = time.perf_counter()
            stopped = time.perf_counter() - stopping
        self._screen.line()
        self._screen.line(
            f"{self._done:,} tasks done, none lost, 1 worker killed on the way · "
            f"server stopped in {stopped:.2f} s, its data removed"
        )

    # ----------------------------------------------------------------------------------- steps
    async def _quick(self, api: Producer) -> None:
        """One task there and back; then many, queued in one call."""
        async with self._step("addition"):
            began = time.perf_counter()
            task = self._succeeded(await api.tasks.queue("addition", a=4, b=6))
            self._screen.step(1, "addition(a=4, b=6)", str(task.result), time.perf_counter() - began)
            began = time.perf_counter()
            tasks = await api.tasks.map("addition", range(MANY))
            took = time.perf_counter() - began
            right = sum(self._succeeded(task).result == i for i, task in enumerate(tasks))
            if right != MANY:
                raise TourFailed(f"{MANY - right} of {MANY} additions came back wrong")
            self._screen.step(None, f"{MANY:,} additions, queued in one call", "all right, in order", took)

    async def _at_once(self, api: Producer) -> None:
        """Tasks that wait do not wait for each other."""
        async with self._step("pause"):
            began = time.perf_counter()
            futures = api.tasks.queue_many([("pause", {"seconds": PAUSE})] * SLEEPS)
            for future in futures:
                self._succeeded(await future)
            took = time.perf_counter() - began
            alone = f"({SLEEPS * PAUSE:g} s one by one)"
            self._screen.step(2, f"{SLEEPS} × asyncio.sleep({PAUSE}) at once", alone, took)

    async def _heavy(self, api: Producer) -> None:
        """A long computation in a process of its own, with its progress."""
        what = f"count_words(chapters={CHAPTERS}), a process job"
        async with self._step("count_words"):
            began = time.perf_counter()
            future = api.tasks.queue("count.words", chapters=CHAPTERS)
            while not future.done():
                facts = self._progress.get(future.id)
                if facts:
                    self._screen.bar(3, what, facts["done"] / facts["total"])
                await self._something_new(future)
            found: dict[str, Any] = self._succeeded(await future).get()
            self._screen.step(3, what, f"{found['words']:,} words", time.perf_counter() - began)

    async def _killed(self, api: Producer) -> None:
        """kill -9 on a worker in the middle of a task: another one takes the task over."""
        async with self._step("walk"):
            began = time.perf_counter()
            future = api.tasks.queue("walk")
            while len(self._walked) < 5:
                await self._something_new(future)
            victim = self._walked[-1][1]
            if victim not in self._workers:
                raise TourFailed(
                    f"process {victim} reports that it runs the task, and is not a worker of the tour"
                )
            killed = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            name = self._workers[victim]
            self._screen.step(4, f"walk(), and kill -9 on its worker {name}", f"killed pid {victim}")
            while not (again := [at for at, pid in self._walked if pid != victim]):
                await self._something_new(future)
            task = self._succeeded(await future)
            if task.result == victim:
                raise TourFailed(f"the task ended in process {victim}, which was killed")
            back = again[0] - killed
            self._screen.step(None, "the task went on in another worker", f"pid {task.result}", back)
            crashes = task.run_info.get("crashes")
            self._screen.step(
                None, f"and ended: {task.status_string}", f"attempt {task.retry}, crashes {crashes}",
                time.perf_counter() - began,
            )  # fmt: skip

    async def _delayed(self, api: Producer) -> None:
        """A delayed task starts at its time."""
        async with self._step("addition"):
            task = self._succeeded(await api.tasks.queue("addition", a=1, b=1, delay=DELAY))
            waited = (task.time_started or 0.0) - (task.time_queued or 0.0)
            if waited < DELAY:
                raise TourFailed(f"a task that was to wait {DELAY:g} s started after {waited:.3f} s")
            late = f"started {(waited - DELAY) * 1000:.0f} ms late"
            self._screen.step(5, f"addition(a=1, b=1), delay={DELAY:g}", late, waited)

    # ------------------------------------------------------------------------------------ events
    def _heard_of_worker(self, channel: str, event: str, facts: dict[str, Any]) -> None:
        self._workers[facts["pid"]] = facts["worker"]
        self._news.set()

    def _heard_of_task(self, channel: str, event: str, task: Task[Any]) -> None:
        facts = self._progress[task.id] = task.run_info["progress"]
        if task.name == "walk":
            self._walked.append((time.perf_counter(), int(facts["message"])))
        self._news.set()

    async def _something_new(self, future: asyncio.Future[Any]) -> None:
        """Wait for an event, or for the end of `future`. A server that is gone is an error."""
        if not future.done():
            future.add_done_callback(self._ended)
            await self._hear(1.0)
            future.remove_done_callback(self._ended)

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self._news.set()

    async def _hear(self, seconds: float) -> None:
        """Wait for any news, but not for long; then see whether the server still stands."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            self._server.check()
        self._news.clear()

    async def _workers_are_up(self) -> None:
        try:
            async with asyncio.timeout(START_TIME):
                while len(self._workers) < WORKERS:
                    await self._hear(0.2)
        except TimeoutError:
            raise TourFailed(
                f"the workers were not up after {START_TIME:g} s", hint=self._server.last_lines()
            ) from None

    # ----------------------------------------------------------------------------------- words
    def _introduce(self, server: Any) -> None:
        loop = "asyncio" if loop_factory() is asyncio.new_event_loop else "uvloop"
        self._screen.line(
            f"pq {__version__} · python {platform.python_version()} · {loop} · "
            f"{server.product} {server.version} embedded, in a temporary directory"
        )

    def _succeeded(self, task: Task[Any]) -> Task[Any]:
        """`task`, which must have succeeded."""
        if task.status != SUCCESS:
            raise TourFailed(f"{task.info()}: {task.exception}", hint=self._server.last_lines())
        self._done += 1
        return task

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        """A step: it has an end."""
        try:
            async with asyncio.timeout(STEP_TIME):
                yield
        except TimeoutError:
            raise TourFailed(
                f"{name} had no answer within {STEP_TIME:g} s", hint=self._server.last_lines()
            ) from None


def _what_next(command: Command) -> str:
    """Return the commands to type next, in this directory."""
    if command.program != "manage.py":
        return "next: write your own jobs, docs/tutorial.md shows how; `pq --help` has the verbs"
    python = "./run python" if os.path.exists("run") else "python"
    return (
        "the jobs above are pq/demo/jobs.py; the tutorial is docs/tutorial.md\n"
        f"next: {python} manage.py -w 2, and in another terminal: {python}"
    )
