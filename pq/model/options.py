"""The options of jobs and tasks, each declared once.

`OPTIONS` is the table. From it come the check of every option, the options that `@api.job` takes, those that travel
in `meta_params`, and what `job_list` shows. A type checker needs literal text, so the attributes of `Job`, the keys
of `TaskOptions` and the signature of `addition.options` are written out where they stand;
`tests/model/test_options.py` holds them to the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from ..errors import BadArguments, InvalidValue, did_you_mean
from .names import LIMITS, check_name

ASYNC_IO = "asyncio"
"""In the event loop of the worker: the default of an `async def`."""
THREAD_IO = "thread"
"""In a bounded pool of threads: for blocking input and output."""
CPUBOUND = "process"
"""In a warm child process: for long computations. A time-out or a cancel kills the process."""
GREEN_IO = "green"
"""In a greenlet on the loop: synchronous code may call `self.wait(awaitable)` (extra `green`)."""
CONCURRENCY = (ASYNC_IO, THREAD_IO, CPUBOUND, GREEN_IO)

DURABILITY = ("none", "replica", "fsync")
NONE = DURABILITY[0]
PRIORITIES = range(-1000, 1001)

Check = Callable[[str, Any], None]
"""Called with the name and the value of an option. Raises `InvalidValue`; None always passes."""


def check_number(what: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse anything but a number from `low` to `high`; None passes.

    NaN fails the comparison. `True` is refused too: it is an `int` to Python, and a mistake here.
    """
    if value is None:
        return
    fits = type(value) is int or (type(value) is float and not whole)
    if not fits or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidValue(f"{what} is {value!r}, and must be {kind} from {low:g} to {high:g}")


def check_durability(what: str, value: Any) -> None:
    """Refuse anything but a level of durability; None passes."""
    if value is not None and value not in DURABILITY:
        raise InvalidValue(f"{what} is {value!r:.60}, and must be one of {', '.join(DURABILITY)}")


def _number(low: float, high: float, *, whole: bool = False) -> Check:
    def check(what: str, value: Any) -> None:
        check_number(what, value, low, high, whole=whole)

    return check


def _check_queue(what: str, value: Any) -> None:
    if value is not None:
        check_name("queue name", value)


def _check_queue_or_here(what: str, value: Any) -> None:
    if value is not False:
        _check_queue(what, value)


def _check_bool(what: str, value: Any) -> None:
    if type(value) is not bool:
        raise InvalidValue(f"{what} is {value!r:.60}, and must be True or False")


def _check_concurrency(what: str, value: Any) -> None:
    if value not in CONCURRENCY:
        raise InvalidValue(
            f"{what} is {value!r}",
            hint="use api.ASYNC_IO, api.THREAD_IO, api.CPUBOUND or api.GREEN_IO",
        )


def _check_meta(what: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidValue(f"{what} is {value!r:.60}, and must be a mapping with texts as keys")
    for name in META:
        if name in value:
            raise InvalidValue(f"{what} has {name!r}, which is an option", hint=f"write options({name}=…)")


CALL = "call"
"""An argument of `tasks.queue`."""
FIELD = "field"
"""In `meta_params`, from where it becomes an attribute of the `Task`."""
EXTRA = "extra"
"""In `meta_params`, from where `tasks.queue` reads it; the task has no attribute for it."""


class Option(NamedTuple):
    """One option of a job, of its tasks, or of both.

    Attributes:
        name: the attribute of `Job` and the keyword of `addition.options`.
        sentence: what it means; the docstrings of both begin with it.
        job: its annotation as an attribute of `Job`; None where jobs have no such option.
        task: its annotation as an option of one task; None where tasks have no such option.
        travels: how a task gets it: `CALL`, `FIELD` or `EXTRA`.
        check: refuses a value by itself; None where only several options together can be checked.
        periodic: an option of `PeriodicJob` alone.
        listed: shown by `tasks.job_list`.
    """

    name: str
    sentence: str
    job: str | None = None
    task: str | None = None
    travels: str = ""
    check: Check | None = None
    periodic: bool = False
    listed: bool = False


_SECONDS = "float | None"
_WHOLE = "int | None"
_KINDS = "tuple[Raised, ...] | None"

OPTIONS = (
    # Of one task alone.
    Option("delay", "seconds to wait before it runs", None, _SECONDS, CALL, _number(0, LIMITS.delay)),
    Option(
        "queue",
        "another queue than the job's `default_queue`; False runs it here, without a queue",
        None,
        "str | Literal[False] | None",
        CALL,
        _check_queue_or_here,
    ),
    # Of a job and of one task.
    Option(
        "timeout",
        "seconds one attempt may run",
        _SECONDS,
        _SECONDS,
        CALL,
        _number(0.001, LIMITS.delay),
        listed=True,
    ),
    Option("callback", "False: the future resolves when the task is queued", None, "bool", CALL, _check_bool),
    Option(
        "priority",
        "higher runs first, from -1000 to 1000",
        _WHOLE,
        _WHOLE,
        FIELD,
        _number(PRIORITIES[0], PRIORITIES[-1], whole=True),
        listed=True,
    ),
    Option(
        "expires",
        "seconds after queueing past which a task is not started any more",
        _SECONDS,
        _SECONDS,
        FIELD,
        _number(0, LIMITS.delay),
    ),
    Option(
        "max_retries",
        "attempts that may follow the first",
        _WHOLE,
        _WHOLE,
        FIELD,
        _number(0, LIMITS.retries, whole=True),
        listed=True,
    ),
    Option(
        "retry_delay",
        "seconds between attempts",
        _SECONDS,
        _SECONDS,
        FIELD,
        _number(0, LIMITS.delay),
        listed=True,
    ),
    Option(
        "max_concurrency",
        "tasks of this job that may run at once, over all workers",
        _WHOLE,
        _WHOLE,
        EXTRA,
        _number(1, 1_000_000, whole=True),
        listed=True,
    ),
    Option(
        "durability",
        "where a task has to be before its queueing counts: `'none'`, `'replica'`, `'fsync'`",
        "str | None",
        "str | None",
        EXTRA,
        check_durability,
    ),
    Option(
        "partition_key",
        "tasks with the same key keep their order, where their queue has partitions",
        "Key | None",
        "Any",
        EXTRA,
        listed=True,
    ),
    Option(
        "meta",
        "data of your own about the task, its `task.meta`",
        None,
        "Mapping[str, Any] | None",
        EXTRA,
        _check_meta,
    ),
    # Of a job alone.
    Option("abstract", "an abstract job is not registered", "ClassVar[bool]"),
    Option("concurrency", "the concurrency mode", "str", check=_check_concurrency),
    Option(
        "default_queue",
        "the queue of its tasks where none is named",
        "str | None",
        check=_check_queue,
        listed=True,
    ),
    Option("backoff", "the wait between attempts", "Any"),
    Option("retry_on", "classes of the only exceptions after which another attempt is made", _KINDS),
    Option("no_retry_on", "classes of exceptions after which no other attempt is made", _KINDS),
    Option(
        "limits",
        "further limits, by key or in time: `Concurrency(…)`, `Rate(…)`",
        "Limit | Sequence[Limit]",
        listed=True,
    ),
    Option("on_limit", "the fate of a task at a limit: `'wait'` or `'revoke'`", "str"),
    Option("unique", "queue a task once while an equal one is there", "bool | Unique | None", listed=True),
    Option(
        "debounce",
        "run once no further call came for N seconds",
        "float | dt.timedelta | Debounce | None",
        listed=True,
    ),
    Option("doc_syntax", "the markup of its docstring", "str"),
    Option(
        "run_every",
        "seconds, a `timedelta` or a cron line",
        "float | dt.timedelta | str | None",
        periodic=True,
        listed=True,
    ),
    Option(
        "anchor",
        "a time at which it runs, from which `run_every` counts",
        "dt.datetime | None",
        periodic=True,
    ),
    Option("timezone", "the zone of a cron line, and of an anchor without one", "str | None", periodic=True),
    Option(
        "catch_up",
        "the fate of runs missed while no scheduler was alive: `'skip'`, `'once'` or `'all'`",
        "str",
        periodic=True,
    ),
    Option(
        "catch_up_limit",
        "the largest number of missed runs that are caught up, the last ones",
        "int",
        periodic=True,
    ),
)

OF_JOBS = {option.name: option for option in OPTIONS if option.job is not None}
"""Options of `@api.job` and of subclasses of `Job`."""
PERIODIC = frozenset(option.name for option in OPTIONS if option.periodic)
"""Options of a `PeriodicJob` only."""
OF_TASKS = {option.name: option for option in OPTIONS if option.task is not None}
"""Options of `addition.options`."""
META = tuple(option.name for option in OPTIONS if option.travels in (FIELD, EXTRA) and option.name != "meta")
"""The options of a task that travel in `meta_params`."""
FIELDS = tuple(option.name for option in OPTIONS if option.travels == FIELD)
"""Those of them that are attributes of a `Task`."""

_OF_JOBS_CHECKS = tuple((name, option.check) for name, option in OF_JOBS.items() if option.check is not None)
_FIELD_CHECKS = tuple(
    (name, option.check) for name, option in OF_TASKS.items() if name in (*FIELDS, "timeout") and option.check
)


class TaskOptions(TypedDict, total=False):
    """The options of a task, as `addition.options` has them."""

    delay: float | None
    queue: str | Literal[False] | None
    timeout: float | None
    callback: bool
    priority: int | None
    expires: float | None
    max_retries: int | None
    retry_delay: float | None
    max_concurrency: int | None
    durability: str | None
    partition_key: Any
    meta: Mapping[str, Any] | None


def check_job_options(job: type) -> None:
    """Check each option of a job class by itself. Raises `InvalidValue`."""
    for name, check in _OF_JOBS_CHECKS:
        check(name, getattr(job, name))


def check_task_fields(task: object) -> None:
    """Check the attributes of a task that `tasks.queue` may have set. Raises `InvalidValue`."""
    for name, check in _FIELD_CHECKS:
        value = getattr(task, name)
        if value is not None:
            check(name, value)


def check_meta_params(meta_params: object) -> None:
    """Check what `meta_params` says beside the attributes of a task. Raises `InvalidValue`."""
    if not isinstance(meta_params, Mapping):
        raise InvalidValue(
            f"meta_params is a {type(meta_params).__name__}", hint='give a mapping, like {"max_retries": 3}'
        )
    for name in ("durability", "max_concurrency"):
        check = OF_TASKS[name].check
        assert check is not None
        check(name, meta_params.get(name))


def split_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check what `addition.options` was given; return the arguments of `queue_call`, and its `meta_params`.

    What is None is left out: the job's own counts. Raises `BadArguments` for an option that does not exist,
    `InvalidValue` for a value that does not fit.
    """
    for name in given:
        if name not in OF_TASKS:
            raise BadArguments(
                f"options() has no option {name!r}",
                hint=did_you_mean(name, OF_TASKS) or "options are " + ", ".join(OF_TASKS),
            )
    call: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for name, option in OF_TASKS.items():
        if name not in given:
            continue
        value = given[name]
        if option.check is not None:
            option.check(name, value)
        if value is not None and name != "meta" and (name, value) != ("callback", True):
            (call if option.travels == CALL else meta)[name] = value
    return call, {**(given.get("meta") or {}), **meta}


def describe_options(job: type) -> dict[str, Any]:
    """Return the options that a job states, as `tasks.job_list` shows them."""
    facts = {}
    for option in OPTIONS:
        value = getattr(job, option.name, None) if option.listed else None
        if value not in (None, ()):
            facts[option.name] = value if isinstance(value, (str, int, float)) else str(value)
    return facts
