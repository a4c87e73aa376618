"""The public names of `pq`: `from pq import api` or `from pq.api import PulsarQueue`."""

from __future__ import annotations

from .app import PulsarQueue
from .app import PulsarQueue as PusarQueue
from .errors import (
    BadArguments,
    ConfigError,
    InvalidValue,
    LockTimeout,
    NoApi,
    NotDurable,
    NotSerializable,
    PayloadMissing,
    PayloadTooLarge,
    PqError,
    QueueFull,
    QueueingError,
    ResultNotSerializable,
    ShellError,
    StoreError,
    StoreUnavailable,
    TaskCrashed,
    TaskError,
    TaskLost,
    TaskNotAvailable,
    TaskRevoked,
    TaskTimeout,
    TooManyTasksForJob,
    WaitInLoop,
)
from .model.events import LogLine, TaskEvent
from .model.job import Job, PeriodicJob
from .model.limits import Concurrency, Debounce, Rate, Unique
from .model.manager import Manager
from .model.options import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO
from .model.plan import ScheduleInfo
from .model.retry import Backoff
from .model.schedule import anchorDate
from .model.secret import Secret
from .model.states import (
    FAILURE,
    FULL_RUN_STATES,
    QUEUED,
    READY_STATES,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    status_string,
)
from .model.task import Task
from .model.verdict import Cancel, Retry, Snooze
from .producer.future import MessageFuture, TaskFuture
from .producer.locks import Lock
from .producer.producer import Producer
from .producer.reasons import Reason
from .producer.typed import JobFunction, Options, job

__all__ = [
    "ASYNC_IO",
    "CPUBOUND",
    "FAILURE",
    "FULL_RUN_STATES",
    "GREEN_IO",
    "QUEUED",
    "READY_STATES",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "THREAD_IO",
    "Backoff",
    "BadArguments",
    "Cancel",
    "Concurrency",
    "ConfigError",
    "Debounce",
    "InvalidValue",
    "Job",
    "JobFunction",
    "Lock",
    "LockTimeout",
    "LogLine",
    "Manager",
    "MessageFuture",
    "NoApi",
    "NotDurable",
    "NotSerializable",
    "Options",
    "PayloadMissing",
    "PayloadTooLarge",
    "PeriodicJob",
    "PqError",
    "Producer",
    "PulsarQueue",
    "PusarQueue",
    "QueueFull",
    "QueueingError",
    "Rate",
    "Reason",
    "ResultNotSerializable",
    "Retry",
    "ScheduleInfo",
    "Secret",
    "ShellError",
    "Snooze",
    "StoreError",
    "StoreUnavailable",
    "Task",
    "TaskCrashed",
    "TaskError",
    "TaskEvent",
    "TaskFuture",
    "TaskLost",
    "TaskNotAvailable",
    "TaskRevoked",
    "TaskTimeout",
    "TooManyTasksForJob",
    "Unique",
    "WaitInLoop",
    "anchorDate",
    "job",
    "status_string",
]
