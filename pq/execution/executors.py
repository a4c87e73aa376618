"""The executors of a worker, by the mode of the job.

Most applications use one mode. An executor is made, and its modules are imported, at the first attempt of its mode;
only that of the event loop exists from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import Settings
from ..model.backend import Backend
from ..model.names import LIMITS
from ..model.options import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO
from .async_io import AsyncIo
from .attempt import Attempt
from .executor import Executor


def make_executors(
    *,
    backend: Backend,
    task_paths: Iterable[str],
    app_name: str,
    settings: Mapping[str, Any],
    threads: int,
    processes: int,
    warm: int = 0,
    max_tasks_per_child: int | None = None,
    idle_time: float = 30.0,
    limit: int = LIMITS.size,
) -> dict[str, Executor]:
    """Return one executor for each mode of `pq.model.options.CONCURRENCY`.

    Args:
        task_paths, app_name, settings: what child processes need; `settings` is plain values.
        threads, processes: the most threads of THREAD_IO and the most children of CPUBOUND.
        warm: children to start at once, for an application that has CPUBOUND jobs.
        max_tasks_per_child: tasks after which a child is replaced; None is never.
        idle_time: seconds after which a child that is not needed ends.
        limit: bytes of the largest result.
    """

    def thread_io() -> Executor:
        from .thread_io import ThreadIo

        return ThreadIo(size=threads)

    def green_io() -> Executor:
        from .green_io import GreenIo

        return GreenIo()

    def cpu_bound() -> Executor:
        from .cpu_bound import CpuBound

        return CpuBound(
            task_paths=task_paths,
            app_name=app_name,
            settings=settings,
            backend=backend,
            size=processes,
            warm=warm,
            max_tasks_per_child=max_tasks_per_child,
            idle_time=idle_time,
            limit=limit,
        )

    return {
        ASYNC_IO: AsyncIo(),
        THREAD_IO: Lazy(thread_io, size=threads),
        GREEN_IO: Lazy(green_io, size=None),
        CPUBOUND: Lazy(cpu_bound, size=processes, eager=warm > 0),
    }


def executors_of(cfg: Settings, backend: Backend, *, warm: int = 0) -> dict[str, Executor]:
    """Return the executors that the settings of an application ask for, by mode; `warm` children start at once."""
    return make_executors(
        backend=backend,
        task_paths=cfg.task_paths,
        app_name=cfg.name,
        settings=cfg.to_dict(),
        threads=cfg.concurrent_tasks,
        processes=cfg.cpu_processes,
        warm=warm,
        idle_time=cfg.idle_timeout,
        limit=cfg.largest_message,
    )


class Lazy:
    """An executor that is made at the first attempt; `eager` makes it at `start`."""

    def __init__(self, make: Callable[[], Executor], *, size: int | None, eager: bool = False) -> None:
        self._make = make
        self._size = size
        self._eager = eager
        self._made: Executor | None = None

    @property
    def leaked(self) -> int:
        return self._made.leaked if self._made is not None else 0

    async def start(self) -> None:
        if self._eager:
            self._made = self._made or self._make()
        if self._made is not None:
            await self._made.start()

    async def stop(self) -> None:
        if self._made is not None:
            await self._made.stop()

    def capacity(self) -> int | None:
        return self._made.capacity() if self._made is not None else self._size

    def start_attempt(self, attempt: Attempt) -> None:
        # Every executor starts by itself at its first attempt, so there is nothing to await here.
        if self._made is None:
            self._made = self._make()
        self._made.start_attempt(attempt)
