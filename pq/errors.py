"""Every error that `pq` raises, as one tree.

    PqError
    ├── ConfigError                     the program was set up wrongly
    │   ├── UnknownSetting              a setting of that name does not exist
    │   ├── BadSetting                  its value does not fit
    │   │   └── BadCron                 a cron line that cannot be
    │   ├── AppNotFound                 no module or no application there
    │   ├── ImportFailed                a module of `task_paths` cannot be imported
    │   ├── DuplicateJob                two jobs of one name
    │   └── PortInUse                   somebody else listens there
    ├── StoreError                      the store cannot do what was asked
    │   ├── StoreUnavailable            it does not answer (yet)
    │   ├── StoreRefused                it answered, and said no: login, rights, configuration
    │   ├── NoStore                     no URL is set and no embedded server can be had
    │   └── QueueFull                   no room for another task; nothing was queued
    ├── QueueingError                   a task was not queued, and nothing of it was kept
    │   ├── TaskNotAvailable            no job has that name
    │   │   └── NotImportable           a function that no worker could find
    │   ├── BadArguments                the arguments do not fit the job's signature (a TypeError too)
    │   ├── InvalidValue                a name, an option or a number is out of its range (a ValueError too)
    │   ├── NotSerializable             an argument cannot be sent (a TypeError too)
    │   ├── PayloadTooLarge             it could, but is larger than a message may be
    │   └── NoApi                       nobody said which api to queue to, and none or several are there
    ├── LockTimeout                     a lock was not free in time (a TimeoutError too)
    ├── StreamRestarted                 what was read of a stream does not count any more, and it begins anew
    ├── StreamBroken                    parts of a stream are missing for good
    ├── WaitInLoop                      `.wait()` was called where only `await` works
    ├── UnreadableMessage               bytes in the store are no message of ours
    │   └── PayloadMissing              it was put aside, and its file cannot be read here
    ├── ExtraNeeded                     an optional dependency is missing
    ├── ShellError                      a command of `Job.shell` failed
    └── TaskError                       a task did not succeed; raised by `Task.get()`
        ├── TaskTimeout                 it ran longer than its time-out
        ├── TaskRevoked                 it was cancelled, or expired before it started
        ├── TaskCrashed                 the process that ran it died
        ├── TaskLost                    the store no longer knows it
        │   └── ResultExpired           and it was queued longer ago than results are kept
        ├── ResultNotSerializable       it ran, and its result cannot be stored
        └── TooManyTasksForJob          the limit of its job was reached

An error is written for the person who reads it: one sentence that says what happened with the values
in it, and a hint that says what to type next. The hint travels as a note of the exception (PEP 678),
so a plain traceback shows it too; `slug` names the error for documentation and for the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PqError(Exception):
    """Root of all errors of this library. `message` is one sentence, `hint` says what to do."""

    slug: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    def __str__(self) -> str:
        return self.message


class ConfigError(PqError):
    """The program is set up wrongly; raised before anything runs."""

    slug = "config"


class UnknownSetting(ConfigError):
    """A setting of that name does not exist; the hint has the nearest one."""

    slug = "unknown-setting"


class BadSetting(ConfigError):
    """The value of a setting does not fit its type or range."""

    slug = "bad-setting"


class BadCron(BadSetting):
    """A cron line that cannot be; the message has the field, its value and its range."""

    slug = "bad-cron"


class AppNotFound(ConfigError):
    """The module or the application that was named is not there."""

    slug = "app-not-found"


class ImportFailed(ConfigError):
    """A module listed in `task_paths` cannot be imported."""

    slug = "import-failed"


class DuplicateJob(ConfigError):
    """Two jobs have the same name; both places are given."""

    slug = "duplicate-job"


class PortInUse(ConfigError):
    """Somebody else listens on the address."""

    slug = "port-in-use"


class StoreError(PqError):
    """The store (Redis or Valkey) cannot do what was asked."""

    slug = "store"


class StoreUnavailable(StoreError):
    """The store does not answer. What was asked may be repeated: every operation is idempotent."""

    slug = "broker-unreachable"


class StoreRefused(StoreError):
    """The store answered and refused: wrong password, missing right, unsuitable configuration."""

    slug = "broker-auth"


class StoreEvicts(StoreError):
    """The store deletes keys when its memory is full, tasks like anything else. No server starts on it.

    Set `maxmemory-policy` to `noeviction`, or say that you know (`allow_eviction`).
    """

    slug = "broker-evicts"


class NoStore(StoreError):
    """No store is configured and the embedded server cannot be had."""

    slug = "no-broker"


class NotDurable(StoreError):
    """A task was to be kept by a replica, or on disk, and was not in time. It may be queued nevertheless."""

    slug = "not-durable"


class QueueFull(StoreError):
    """There is no room for another task. Nothing was queued."""

    slug = "queue-full"


class QueueingError(PqError):
    """A task could not be queued; nothing of it was stored."""

    slug = "not-queued"


class TaskNotAvailable(QueueingError):
    """No job has that name; the hint has the nearest ones."""

    slug = "unknown-job"


class NotImportable(TaskNotAvailable):
    """A function that workers cannot find: they import a module and take the function by its name."""

    slug = "not-importable"


class BadArguments(QueueingError, TypeError):
    """The arguments do not fit the signature of the job."""

    slug = "bad-arguments"


class InvalidValue(QueueingError, ValueError):
    """A name, an option or a number is outside what is allowed."""

    slug = "invalid-value"


class NotSerializable(QueueingError, TypeError):
    """A value cannot be sent; `path` says which part of it."""

    slug = "not-serializable"

    def __init__(self, message: str, *, hint: str | None = None, path: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class PayloadTooLarge(QueueingError, ValueError):
    """A message is larger than is allowed."""

    slug = "payload-too-large"


class NoApi(QueueingError):
    """Nobody said which api a job is to be queued to, and there is none, or one of each of several applications."""

    slug = "no-api"


class LockTimeout(PqError, TimeoutError):
    """A lock was not to be had within the time that was given."""

    slug = "lock-timeout"


class StreamRestarted(PqError):
    """What was read of a stream is of an attempt that does not count any more; reading on begins with the next one."""

    slug = "stream-restarted"


class StreamBroken(PqError):
    """Parts of a stream are missing for good."""

    slug = "stream-broken"


class WaitInLoop(PqError, RuntimeError):
    """`.wait()` inside a running event loop would block it for ever: write `await`."""

    slug = "wait-in-loop"


class UnreadableMessage(PqError):
    """Bytes found in the store are not a message: truncated, foreign, or of a newer version."""

    slug = "unreadable-message"


class PayloadMissing(UnreadableMessage):
    """A large message was put aside, into `large_dir`, and cannot be read from there."""

    slug = "payload-missing"

    def __init__(self, message: str, *, hint: str | None = None, stub: bytes = b"") -> None:
        super().__init__(message, hint=hint)
        self.stub = stub
        """The beginning of the message, without arguments."""


class ExtraNeeded(PqError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    slug = "extra-needed"


class ShellError(PqError):
    """A command of `Job.shell` ended with a status other than 0. `stdout` and `stderr` are text."""

    slug = "shell"

    def __init__(self, message: str, *, returncode: int, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class TaskError(PqError):
    """A task did not succeed. `remote_traceback` is the text of the traceback in the worker."""

    slug = "task-failed"
    advice: ClassVar[str | None] = None
    """The hint, where nobody has a better one."""

    def __init__(self, message: str, *, hint: str | None = None, remote_traceback: str | None = None) -> None:
        super().__init__(message, hint=hint or self.advice)
        self.remote_traceback = remote_traceback
        if remote_traceback:
            self.add_note("in the worker:\n" + remote_traceback.rstrip())


class TaskTimeout(TaskError):
    """The task ran longer than its time-out and was stopped (status REVOKED)."""

    slug = "timed-out"
    advice = "give it more time: @api.job(timeout=…), None for no limit"


class TaskRevoked(TaskError):
    """The task was cancelled, or expired before it could start (status REVOKED)."""

    slug = "revoked"


class TaskCrashed(TaskError):
    """The process that ran the task died."""

    slug = "consumer-lost"
    advice = "look at the logs of its workers; when it is mended: pq retry ID"


class TaskLost(TaskError):
    """The store no longer knows the task: deleted, expired, or lost with the store's data."""

    slug = "task-lost"


class ResultExpired(TaskLost):
    """The store no longer knows the task, which was queued longer ago than results are kept."""

    slug = "result-expired"


class ResultNotSerializable(TaskError):
    """The task ran, but what it returned cannot be stored; it is not run again for that."""

    slug = "result-not-serializable"


class TooManyTasksForJob(TaskError):
    """The job's limit of concurrent tasks was reached."""

    slug = "too-many-tasks"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint for a misspelt `word`, or None where nothing known comes near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    if not near:
        return None
    return "did you mean " + " or ".join(repr(name) for name in near) + "?"
