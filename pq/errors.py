"""Every error that `pq` raises, as one tree.

    PqError
    ├── ConfigError                     the program is set up wrongly
    │   ├── UnknownSetting              a setting of that name does not exist
    │   ├── BadSetting                  its value does not fit
    │   │   └── BadCron                 a cron line that is not valid
    │   ├── AppNotFound                 no such module, or no application in it
    │   ├── ImportFailed                a module of `task_paths` cannot be imported
    │   ├── DuplicateJob                two jobs of one name
    │   └── PortInUse                   another program listens there
    ├── StoreError                      the store cannot do what was asked
    │   ├── StoreUnavailable            it does not answer (yet)
    │   ├── StoreRefused                it answered and refused: login, rights, configuration
    │   ├── StoreEvicts                 it deletes keys, tasks too, when it is full
    │   ├── NoStore                     no URL is set and no embedded server is installed
    │   ├── NotDurable                  a replica, or the disk, did not confirm in time
    │   └── QueueFull                   no room for another task; nothing was queued
    ├── QueueingError                   a task was not queued; nothing of it was kept
    │   ├── TaskNotAvailable            no job has that name
    │   │   └── NotImportable           a function that workers cannot import
    │   ├── BadArguments                the arguments do not fit the job's signature (a TypeError too)
    │   ├── InvalidValue                a name, an option or a number is out of its range (a ValueError too)
    │   ├── NotSerializable             an argument cannot be sent (a TypeError too)
    │   ├── PayloadTooLarge             a message is larger than the limit (a ValueError too)
    │   └── NoApi                       no api was named, and not exactly one is open
    ├── LockTimeout                     a lock was not free in time (a TimeoutError too)
    ├── StreamRestarted                 the parts read so far do not count; the stream starts again
    ├── StreamBroken                    parts of a stream are missing for good
    ├── WaitInLoop                      `.wait()` was called where only `await` works (a RuntimeError too)
    ├── UnreadableMessage               bytes in the store are not a message of pq
    │   └── PayloadMissing              its file in `large_dir` cannot be read here
    ├── ExtraNeeded                     an optional dependency is missing (an ImportError too)
    ├── ShellError                      a command of `Job.shell` failed
    └── TaskError                       a task did not succeed; raised by `Task.get()`
        ├── TaskTimeout                 it ran longer than its time-out
        ├── TaskRevoked                 it was cancelled, or expired before it started
        ├── TaskCrashed                 the process that ran it died
        ├── TaskLost                    the store no longer knows it
        │   └── ResultExpired           and it was queued longer ago than results are kept
        ├── ResultNotSerializable       it ran, and its result cannot be stored
        └── TooManyTasksForJob          the limit of its job was reached

The message is one sentence: what was expected, what came, with the values. The hint says what to type next; it is a
note of the exception (PEP 678), so a plain traceback shows it too. `slug` names the error for the documentation and
for `pq explain`.
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
    """A cron line is not valid; the message has the field, its value and its range."""

    slug = "bad-cron"


class AppNotFound(ConfigError):
    """The named module or application does not exist."""

    slug = "app-not-found"


class ImportFailed(ConfigError):
    """A module listed in `task_paths` cannot be imported."""

    slug = "import-failed"


class DuplicateJob(ConfigError):
    """Two jobs have the same name; both places are given."""

    slug = "duplicate-job"


class PortInUse(ConfigError):
    """Another program listens on the address."""

    slug = "port-in-use"


class StoreError(PqError):
    """The store (Redis or Valkey) cannot do what was asked."""

    slug = "store"


class StoreUnavailable(StoreError):
    """The store does not answer. Every operation may be repeated: all are idempotent."""

    slug = "store-unreachable"


class StoreRefused(StoreError):
    """The store answered and refused: wrong password, missing right, unsuitable configuration."""

    slug = "store-refused"


class StoreEvicts(StoreError):
    """The store deletes keys, tasks too, when its memory is full. No server starts on it.

    Set `maxmemory-policy` to `noeviction`, or accept the loss with the setting `allow_eviction`.
    """

    slug = "store-evicts"


class NoStore(StoreError):
    """No store is configured and the embedded server is not installed."""

    slug = "no-store"


class NotDurable(StoreError):
    """A replica, or the disk, did not confirm a task in time. It may be queued nevertheless."""

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
    """Workers cannot find a function: they import a module and take the function by its name."""

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
    """A message is larger than `max_message_size`."""

    slug = "payload-too-large"


class NoApi(QueueingError):
    """A job was queued without an api, and none is open, or those of several applications are."""

    slug = "no-api"


class LockTimeout(PqError, TimeoutError):
    """A lock was not free within the given time."""

    slug = "lock-timeout"


class StreamRestarted(PqError):
    """The parts read so far are of an attempt that failed or crashed; reading continues with the next attempt."""

    slug = "stream-restarted"


class StreamBroken(PqError):
    """Parts of a stream are missing for good."""

    slug = "stream-broken"


class WaitInLoop(PqError, RuntimeError):
    """`.wait()` inside a running event loop would block it forever: write `await`."""

    slug = "wait-in-loop"


class UnreadableMessage(PqError):
    """Bytes found in the store are not a message: truncated, foreign, or of a newer version."""

    slug = "unreadable-message"


class PayloadMissing(UnreadableMessage):
    """A large message was stored as a file in `large_dir` and cannot be read from there."""

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
    """The hint, where the caller gives none."""

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

    slug = "worker-lost"
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


FORMER_SLUGS = {
    "broker-unreachable": "store-unreachable",
    "broker-auth": "store-refused",
    "broker-evicts": "store-evicts",
    "no-broker": "no-store",
    "no-consumer": "no-worker",
    "consumer-lost": "worker-lost",
}
"""Slugs of version 0.1.0, by which stored records and notes of people may still name an error."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the hint for a misspelt `word`, or None without a similar known word."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    if not near:
        return None
    return "did you mean " + " or ".join(repr(name) for name in near) + "?"
