"""The settings of an application: each declared once, here.

One line of `Settings` is the whole truth about a setting: its type, its default, its unit, its flag, the
sentence that explains it and the parser that checks it. The command line, the `PQ_*` variables, the keys
of a config file, `pq config` and the manual are made from it, so they cannot differ.

A `Settings` object is complete, valid and frozen from the moment it exists. Where its
values came from is the business of `load`; it writes that down in `sources`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ..errors import BadSetting, UnknownSetting, did_you_mean
from ..model.names import LIMITS
from ..model.partitions import Partitions
from . import parsers
from .parsers import Parser, WorkerRange, redact

DAY = 86_400.0
LARGE_FACTOR = 64
"""Factor by which an offloaded message may be larger than `max_message_size`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one setting."""

    name: str
    about: str
    parse: Parser
    group: str
    unit: str
    flags: tuple[str, ...]
    default: object
    mask: Callable[[str], str] = redact

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "PQ_" + self.name.upper()

    def shown(self, value: object) -> object:
        """`value` as it may be printed: without the password of a URL."""
        value = _plain(value)
        if self.secret and isinstance(value, tuple):
            return tuple(self.mask(each) for each in value)
        return self.mask(value) if isinstance(value, str) else value

    @property
    def secret(self) -> bool:
        """True for a setting of secrets, which has no flag."""
        return self.mask is parsers.mask_key

    def check(self, value: object, source: str) -> Any:
        """The canonical form of `value`, or a `BadSetting` that names all there is to know."""
        try:
            return self.parse(value)
        except ValueError as mistake:
            shown = self.mask(repr(value))
            if len(shown) > 100:
                shown = shown[:97] + "..."
            # `from None`: the parser's error is this sentence's second half and nothing more.
            raise BadSetting(f"{self.name}: {shown} ({source}) is not {mistake}", hint=self.hint()) from None

    def hint(self) -> str:
        """Where the setting can be set, and what it is for."""
        flag = f"{self.flags[-1]}, " if self.flags else ""
        return f"{self.name} ({flag}{self.variable}) is the {self.about}"


def _setting(
    default: Any,
    parse: Parser,
    about: str,
    *,
    group: str = "server",
    unit: str = "",
    short: str = "",
    mask: Callable[[str], str] = redact,
) -> Any:
    """Declare a field. `default` may be a function, for a default that depends on the machine."""
    known = {"parse": parse, "about": about, "group": group, "unit": unit, "short": short, "mask": mask}
    if callable(default):
        return field(default_factory=default, metadata=known)
    return field(default=default, metadata=known)


def cores() -> int:
    """The cores this process may use, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """One worker a core, and at most 4: more is a decision, since each holds connections and memory."""
    return min(4, cores())


@dataclass(frozen=True, repr=False)
class Settings:
    """All settings of an application. Times are seconds."""

    name: str = _setting("pq", parsers.name, "application's name, the first part of its loggers' names")
    workers: int | WorkerRange = _setting(  # noqa: RUF009  both are immutable
        default_workers,
        parsers.workers,
        "number of worker processes; 1..8 follows the demand",
        short="-w",
    )
    concurrent_tasks: int = _setting(100, parsers.whole(1, 100_000), "number of tasks at once in one worker")
    processes: int = _setting(
        0,
        parsers.whole(0, 1024),
        "number of CPU child processes of one worker; 0 shares the cores out among the workers",
    )
    idle_timeout: float = _setting(
        30.0,
        parsers.seconds(0.1),
        "time after which a worker of a range, or a CPU child process, that is not needed ends",
        unit="s",
    )
    max_requests: int = _setting(
        0, parsers.whole(0), "number of tasks after which a worker restarts; 0 is never"
    )
    graceful_timeout: float = _setting(
        30.0, parsers.seconds(0), "time running tasks get when the server stops", unit="s"
    )
    schedule_periodic: bool = _setting(
        False, parsers.switch, "switch that makes this server start periodic jobs"
    )
    reload: bool = _setting(
        False,
        parsers.switch,
        "switch that restarts workers when a source file changes; for development",
    )
    node_name: str | None = _setting(
        None, parsers.optional(parsers.name), "name of this node and of its own queue; derived when not set"
    )

    data_store: str = _setting(
        "", parsers.store_url, "URL of the store; empty is the embedded server", group="store"
    )
    message_broker: str | None = _setting(
        None,
        lambda value: parsers.store_url(value) or None,
        "URL of a separate store for the queues; data_store when not set",
        group="store",
    )
    allow_eviction: bool = _setting(
        False,
        parsers.switch,
        "switch that lets a server start on a store that deletes keys when it is full, tasks among them",
        group="store",
    )
    message_serializer: str = _setting(
        "msgpack",
        parsers.choice("msgpack", "json"),
        "wire format of new messages; both are read",
        group="store",
    )
    durability: str = _setting(
        "none",
        parsers.choice("none", "replica", "fsync"),
        "confirmation that queueing waits for: none, a replica, or the disk (fsync)",
        group="store",
    )
    namespace: str = _setting("pq", parsers.name, "first part of every key in the store", group="store")

    task_paths: tuple[str, ...] = _setting(
        (), parsers.module_paths, "list of modules that have jobs; 'pkg.*' is all of a package", group="tasks"
    )
    task_queues: tuple[str, ...] = _setting(
        ("default",),
        parsers.names,
        "list of queues consumed, preferred ones first",
        group="tasks",
        short="-q",
    )
    queue_weights: tuple[str, ...] = _setting(
        (),
        parsers.weights,
        "list of weights of queues, like high:6,low:1; preference is strict when not set",
        group="tasks",
    )
    partitions: tuple[str, ...] = _setting(
        (),
        parsers.partitions,
        "list of queues that are split into partitions, like orders=8; order is kept by key",
        group="tasks",
    )
    default_task_queue: str | None = _setting(
        None,
        parsers.optional(parsers.name),
        "queue of tasks that name none; the first of task_queues when not set",
        group="tasks",
    )
    task_pool_timeout: float = _setting(
        2.0, parsers.seconds(0.01), "longest wait of one blocking poll of the queues", group="tasks", unit="s"
    )
    result_ttl: float = _setting(
        3600.0,
        parsers.seconds(0),
        "time a finished task is kept; never less than 60 s, which repeated messages need",
        group="tasks",
        unit="s",
    )
    dead_ttl: float = _setting(
        7 * DAY, parsers.seconds(0), "time a task that failed for good is kept", group="tasks", unit="s"
    )
    max_message_size: int = _setting(
        LIMITS.size,
        parsers.whole(1024, 512 * 1024 * 1024),
        "largest size of one message, arguments and all",
        group="tasks",
        unit="bytes",
    )

    compress_above: int = _setting(
        0,
        parsers.whole(0, 512 * 1024 * 1024),
        "size from which on messages are compressed; 0 is never. Readers need no setting",
        group="tasks",
        unit="bytes",
    )

    large_above: int = _setting(
        0,
        parsers.whole(0, 512 * 1024 * 1024),
        "size from which on messages are stored as files in large_dir; 0 is never",
        group="tasks",
        unit="bytes",
    )
    large_dir: str | None = _setting(
        None,
        parsers.optional(parsers.path),
        "directory of large messages, which all programs share",
        group="tasks",
        mask=str,
    )

    signing_keys: tuple[str, ...] = _setting(
        (),
        parsers.keys(exact=False),
        "list of id:secret that messages are signed with, by the first; @FILE reads it from a file",
        group="security",
        mask=parsers.mask_key,
    )
    encryption_keys: tuple[str, ...] = _setting(
        (),
        parsers.keys(exact=True),
        "list of id:key that messages are encrypted with, by the first; @FILE reads it from a file",
        group="security",
        mask=parsers.mask_key,
    )
    accept_unsealed: bool = _setting(
        False,
        parsers.switch,
        "switch that accepts messages without a signature or encryption too, while keys are rolled out",
        group="security",
    )

    lease: float = _setting(
        30.0,
        parsers.seconds(0.1),
        "time after which a silent worker's tasks are taken over; renewed every third of it",
        group="crashes",
        unit="s",
    )
    max_crashes: int = _setting(
        3, parsers.whole(1), "crashes after which a task fails and goes to the dead set", group="crashes"
    )
    stall_limit: float = _setting(
        300.0,
        parsers.seconds(0.1),
        "time after which a worker with a blocked event loop ends itself",
        group="crashes",
        unit="s",
    )

    report_mail_to: tuple[str, ...] = _setting(
        (), parsers.addresses, "mail addresses that get reports of failures", group="reports"
    )
    report_mail_from: str | None = _setting(
        None,
        parsers.optional(parsers.address),
        "sender of these mails; pq@ this host when not set",
        group="reports",
    )
    smtp_url: str = _setting(
        "smtp://localhost",
        parsers.url("smtp", "smtps", "smtp+starttls"),
        "URL of the mail server that takes them",
        group="reports",
    )
    report_webhook: str | None = _setting(
        None,
        parsers.optional(parsers.url("http", "https")),
        "URL that gets reports of failures, as a POST of JSON",
        group="reports",
        mask=parsers.redact_path,
    )

    log_level: str = _setting(
        "info",
        parsers.choice("debug", "info", "warning", "error", "critical"),
        "least level that is logged; -v is debug",
        group="log",
    )
    log_format: str = _setting(
        "console", parsers.choice("console", "json"), "form of a log line", group="log"
    )
    log_dir: str | None = _setting(
        None,
        parsers.optional(parsers.path),
        "directory of log files, one for each process; none when not set",
        group="log",
        mask=str,
    )

    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value came from; a setting that is not in here has its default."""

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            source = self.sources.get(name, "Settings")
            # The one write after construction: it is how the canonical form gets into a frozen object.
            object.__setattr__(self, name, setting.check(getattr(self, name), source))
        if self.large_above and self.large_dir is None:
            raise BadSetting(
                f"large_above: messages of more than {self.large_above:,} bytes are to be stored as files, and large_dir is not set",
                hint="set large_dir too, to a directory that all programs share",
            )
        stray = self.weights.keys() - set(self.task_queues)
        if stray:
            raise BadSetting(
                f"queue_weights: {min(stray)!r} is not in task_queues ({', '.join(self.task_queues)})",
                hint="name it in task_queues too",
            )
        self._check_partitions()

    def _check_partitions(self) -> None:
        """No queue may have the name of a partition: it would get that one's tasks."""
        partitions = self.queue_partitions
        stated = {
            "partitions": partitions.queues,
            "task_queues": self.task_queues,
            "default_task_queue": (self.default_task_queue,),
            "node_name": (self.node_name,),
        }
        for setting, names in stated.items():
            for name in names:
                queue = None if name is None else partitions.queue_of(name)
                if queue is not None:
                    raise BadSetting(
                        f"{setting}: {name!r} is the name of a partition of {queue!r}",
                        hint=f"say {queue!r}, which is all of its partitions, or give the other queue another name",
                    )

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={setting.shown(getattr(self, name))!r}" for name, setting in SETTINGS.items()
        )
        return f"Settings({shown})"

    @property
    def default_queue(self) -> str:
        """The queue of tasks that name none."""
        return self.default_task_queue or self.task_queues[0]

    @property
    def weights(self) -> dict[str, int]:
        """`queue_weights` as a mapping; a queue that is not named there weighs 1. Empty: strict preference."""
        if not self.queue_weights:
            return {}
        stated = dict(word.split(":") for word in self.queue_weights)
        return {queue: int(stated.pop(queue, 1)) for queue in self.task_queues} | {
            queue: int(weight) for queue, weight in stated.items()
        }

    @property
    def queue_partitions(self) -> Partitions:
        """`partitions` as an object that knows their names."""
        pairs = (word.split("=") for word in self.partitions)
        return Partitions({queue: int(count) for queue, count in pairs})

    @property
    def broker_url(self) -> str:
        """The store of the queues; empty means the embedded server."""
        return self.message_broker if self.message_broker is not None else self.data_store

    @property
    def largest_message(self) -> int:
        """Bytes of arguments, or of a result, that may be sent."""
        return self._put_aside if self.large_above else self.max_message_size

    @property
    def most_readable(self) -> int:
        """The same of others, whose messages are read here."""
        return self._put_aside if self.large_dir is not None else self.max_message_size

    @property
    def _put_aside(self) -> int:
        return max(self.max_message_size, min(LARGE_FACTOR * self.max_message_size, 512 * 1024 * 1024))

    @property
    def kept(self) -> float:
        """Seconds for which the record of a finished task is kept."""
        return max(60.0, self.result_ttl)

    @property
    def min_workers(self) -> int:
        """Worker processes that there always are."""
        return self.workers.least if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def max_workers(self) -> int:
        """The most worker processes; more than `min_workers` where their number follows the demand."""
        return self.workers.most if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def cpu_processes(self) -> int:
        """CPU child processes of one worker, with the default worked out: enough cores for all workers."""
        return self.processes or max(1, cores() // self.max_workers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values (text, numbers, lists) to send to another process. Passwords are among them."""
        plain: dict[str, Any] = {}
        for name in SETTINGS:
            value = _plain(getattr(self, name))
            plain[name] = list(value) if isinstance(value, tuple) else value
        plain["sources"] = dict(self.sources)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`."""
        return cls(**plain)


def _plain(value: object) -> object:
    """`value` in a form that every serializer knows."""
    return str(value) if isinstance(value, WorkerRange) else value


def _declared() -> Iterable[Setting]:
    for each in fields(Settings):
        if not each.metadata:
            continue
        known = dict(each.metadata)
        short: str = known.pop("short")
        flags = ("--" + each.name.replace("_", "-"),)
        default = each.default if each.default is not MISSING else _made(each.default_factory)
        yield Setting(name=each.name, flags=(short, *flags) if short else flags, default=default, **known)


def _made(factory: Any) -> object:
    make: Callable[[], object] = factory
    return make()


SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _declared()}
"""Every setting by name, in the order of their declaration."""


def unknown(name: str, place: str, advice: str = "") -> UnknownSetting:
    """The error for a name that no setting has; `place` is where it was found."""
    hints = [hint for hint in (did_you_mean(name, SETTINGS), advice) if hint]
    return UnknownSetting(
        f"{place}: unknown setting {name!r}",
        hint="; ".join(hints) or f"`pq config` shows all {len(SETTINGS)} settings",
    )
