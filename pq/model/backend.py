"""The requests of a job to the program that runs it.

A job queues other jobs, reports progress, reads settings. Producer, worker and child process implement the
protocol; the job knows only the protocol, so imports keep pointing down.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol


class NoWait:
    """An awaitable with nothing to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


NO_WAIT = NoWait()


class TasksApi(Protocol):
    """The part of `api.tasks` that jobs use."""

    @property
    def node_name(self) -> str: ...

    def queue(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...

    def queue_local(self, job: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...

    def queue_call(
        self, job: Any, args: Sequence[Any], kwargs: dict[str, Any], **options: Any
    ) -> Awaitable[Any]:
        """`queue`, with the options apart from the arguments, which may have any name then."""
        ...


class HeldLock(Protocol):
    """A lock on the store."""

    fence: int

    @property
    def lost(self) -> bool: ...

    async def acquire(self) -> int: ...

    async def release(self) -> bool: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...


class Backend(Protocol):
    """The program around a running task."""

    closed: bool
    """True when nothing can be queued through it any longer."""

    @property
    def tasks(self) -> TasksApi:
        """The tasks producer."""
        ...

    @property
    def cfg(self) -> Any:
        """The frozen settings."""
        ...

    @property
    def node_name(self) -> str:
        """The name of this server, and of its local queue."""
        ...

    def progress(self, task: Any, done: float, total: float | None, message: str | None) -> None:
        """Publish how far `task` is. Never blocks, never raises; may be called from any thread."""

    def stream(
        self, task: Any, part: bytes, block: Callable[[Awaitable[Any]], Any] | None = None
    ) -> Awaitable[None]:
        """Send a packed part of what `task` streams. May be called from any thread.

        In a loop the awaitable that it returns waits until more may be sent; elsewhere the call itself waits. `block`
        is how a job in a greenlet waits. Raises `InvalidValue` when far too much waits to be sent, or the task has
        ended, and `QueueFull` when the store is full.
        """
        ...

    def lock(
        self,
        name: str,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        block: Callable[[Awaitable[Any]], Any] | None = None,
    ) -> HeldLock:
        """A lock on the store; `block` is how a job in a greenlet waits."""
        ...

    def http(self, blocking: bool, /) -> Any:
        """The HTTP client of jobs, of that kind."""
        ...

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any], /
    ) -> Awaitable[str]:
        """Run a command and return its standard output, as `Job.shell` says."""
        ...


current_backend: ContextVar[Backend | None] = ContextVar("pq_current_backend", default=None)
"""The program around the running code: of the job that runs, or of an `async with api:`. None elsewhere."""
