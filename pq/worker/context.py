"""What the services of one worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..broker.contract.broker import Broker
from ..broker.keys import Keys
from ..clock import SYSTEM, Clock
from ..execution.command import run_command
from ..execution.executor import Executor
from ..model.backend import Backend, HeldLock, TasksApi
from ..model.manager import Manager
from ..model.registry import Registry
from ..model.task import Task

if TYPE_CHECKING:
    from .streams import Streams


@dataclass(slots=True)
class Counts:
    """What a worker has done since it began."""

    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    revoked: int = 0
    retried: int = 0
    refused: int = 0
    vanished: int = 0


@dataclass(slots=True)
class Context:
    """The surroundings of a worker: made once by `Worker`, read by its services."""

    name: str
    node: str
    cfg: Any
    broker: Broker
    registry: Registry
    manager: Manager
    backend: Backend
    queues: list[str]
    executors: Mapping[str, Executor] = field(repr=False)
    lease: str = ""
    clock: Clock = SYSTEM
    counts: Counts = field(default_factory=Counts)
    stopping: bool = False
    sending: Callable[[], Awaitable[None] | None] = lambda: None
    """What to wait for until all that jobs have queued is in the store; None when it is."""
    streams: Streams | None = None
    """What jobs stream to; None in a test that has none."""
    report: Callable[[Task[Any]], None] | None = None
    """Tells people of a task that failed for good."""

    @property
    def keys(self) -> Keys:
        return Keys(self.cfg.namespace)


class WorkerBackend:
    """The program around a task, as its job sees it (`self.backend`)."""

    closed = False

    def __init__(
        self,
        cfg: Any,
        tasks: TasksApi,
        report: Callable[[Task[Any], float, float | None, str | None], None],
        stream: Callable[..., Awaitable[None]],
        lock: Callable[..., HeldLock],
        http: Callable[[bool], Any],
    ):
        self.cfg = cfg
        self.lock = lock
        self.stream = stream
        self.http = http
        self._tasks = tasks
        self._report = report

    @property
    def tasks(self) -> TasksApi:
        """The tasks producer of the worker's own program."""
        return self._tasks

    @property
    def node_name(self) -> str:
        """The name of this server, and of its local queue."""
        return self._tasks.node_name

    def progress(self, task: Task[Any], done: float, total: float | None, message: str | None) -> None:
        """Tell whoever listens how far the task is; from any thread."""
        self._report(task, done, total, message)

    def run_command(
        self, command: str | Sequence[str], timeout: float | None, options: Mapping[str, Any]
    ) -> Awaitable[str]:
        """Run a command for a job, in a process group of its own."""
        return run_command(command, timeout, options, own_group=True)
