"""Limits of a job: how many tasks may run at once, how often, and which count as one and the same.

Here they are only stated, checked and encoded for the header of a record (`pq.broker.records`). The store enforces
them, in the scripts that reserve and settle tasks. A limit is that of one queue.

A *key* makes one limit into many, one for each value: `key="tenant"` names an argument of the job,
`key=("tenant", "region")` several, and a function is called with all arguments as keywords.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadArguments, BadSetting, did_you_mean
from .arguments import bind
from .names import LIMITS, NAME
from .secret import Secret

Key = str | Sequence[str] | Callable[..., Any]

WAIT, REVOKE = "wait", "revoke"
FIRST, LAST, REPLACE = "first", "last", "replace"

MOST_LIMITS = 4
"""Limits of one job; all of them travel in the header of each task."""
LONGEST_GATE = 170

_PLAIN = re.compile(r"[A-Za-z_@+][A-Za-z0-9_.@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `most` tasks at once, over all workers.

    Args:
        most: how many.
        key: one limit for each value of it; None: one for the whole job.
        name: jobs of one queue that state the same name share the limit.
    """

    most: int
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _whole("Concurrency: most", self.most)
        _check_key("Concurrency", self.key, self.name)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `most` tasks started within `per` seconds, over all workers, evenly spaced.

    Args:
        most: how many.
        per: seconds, or a `timedelta`.
        burst: how many may start at once after a pause; they are made up for afterwards. The store's clock
            counts milliseconds: above some hundred a second say 2 or more, or the rate comes out lower.
        key, name: as for `Concurrency`.
    """

    most: int
    per: float | dt.timedelta = 1.0
    burst: int = 1
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _whole("Rate: most", self.most)
        _whole("Rate: burst", self.burst, 100_000)
        seconds = _seconds("Rate: per", self.per)
        if not 1 <= round(seconds / self.most * 1_000_000) <= 366 * 86_400 * 1_000_000:
            raise BadSetting(
                f"Rate: {self.most} per {seconds:g} s is faster than a µs, or slower than a year"
            )
        _check_key("Rate", self.key, self.name)

    @property
    def interval(self) -> int:
        """µs from one task to the next."""
        return round(_seconds("Rate: per", self.per) / self.most * 1_000_000)


@dataclass(frozen=True, slots=True)
class Unique:
    """One task alone for each value of the key.

    Args:
        key: None: all arguments.
        keep: what happens to a second one while there is a first:
            `'first'`: it is not queued; its caller gets the first one's task. Until the first has ended.
            `'last'`: the first one is REVOKED and the second is queued. Until the first has started.
            `'replace'`: the first one gets the arguments of the second, and keeps its id and its place.
            Until the first has started.
    """

    key: Key | None = None
    keep: str = FIRST

    def __post_init__(self) -> None:
        if self.keep not in (FIRST, LAST, REPLACE):
            raise BadSetting(f"Unique: keep is {self.keep!r:.60}", hint="use 'first', 'last' or 'replace'")
        _check_key("Unique", self.key, None)


@dataclass(frozen=True, slots=True)
class Debounce:
    """Run once things are quiet: each further call with the same key delays the task by `wait` seconds.

    It runs with the arguments of the last call.

    Args:
        wait: seconds without a call, or a `timedelta`.
        key: None: all arguments; `()`: the whole job.
        max_wait: seconds after the first call past which it is not delayed further; None: no end.
    """

    wait: float | dt.timedelta
    key: Key | None = None
    max_wait: float | dt.timedelta | None = None

    def __post_init__(self) -> None:
        wait = _seconds("Debounce: wait", self.wait)
        if self.max_wait is not None and _seconds("Debounce: max_wait", self.max_wait) < wait:
            raise BadSetting("Debounce: max_wait is shorter than wait")
        _check_key("Debounce", self.key, None)

    @property
    def seconds(self) -> float:
        """`wait` as a number."""
        return _seconds("", self.wait)

    @property
    def longest(self) -> float | None:
        """`max_wait` as a number."""
        return None if self.max_wait is None else _seconds("", self.max_wait)


Limit = Concurrency | Rate


@dataclass(frozen=True, slots=True)
class Flow:
    """All limits of a job, checked."""

    limits: tuple[Limit, ...]
    unique: Unique | Debounce | None
    revoke: bool

    def limits_text(
        self,
        name: str,
        signature: inspect.Signature | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        most: int | None = None,
        *,
        unique: bool = True,
    ) -> str:
        """Return the limits of a task of the job `name` with these arguments, encoded for its header.

        `most` takes the place of the job's `max_concurrency`. Raises `BadArguments` where a key cannot be
        computed.
        """
        arguments = bind(signature, args, kwargs)
        limits = self.limits
        if most is not None:
            limits = (Concurrency(most), *(limit for limit in limits if not _is_plain(limit)))
        words = []
        for limit in limits:
            full = _full_name(limit, name, arguments)
            if isinstance(limit, Concurrency):
                words.append(f"c{limit.most}:{full}")
            else:
                words.append(f"r{limit.interval}.{limit.burst}:~{full}")
        if unique and self.unique is not None:
            way = REPLACE if isinstance(self.unique, Debounce) else self.unique.keep
            key = self.unique.key
            value = _digest(arguments) if key is None else _value(key, name, arguments)
            words.append(f"u{way[0]}:{_fit(name, value)}")
        if self.revoke and limits:
            words.append("x")
        return ",".join(words)


NO_FLOW = Flow((), None, False)
"""The limits of a job that states none."""


def flow_of(
    name: str,
    signature: inspect.Signature,
    max_concurrency: int | None,
    limits: Any,
    on_limit: str,
    unique: Any,
    debounce: Any,
) -> Flow | None:
    """Make the `Flow` of the options of a job; None where they state no limit. Raises `BadSetting`."""
    if isinstance(limits, (Concurrency, Rate)):
        limits = (limits,)
    if not isinstance(limits, (tuple, list)) or not all(isinstance(limit, Limit) for limit in limits):
        raise BadSetting(
            f"limits is {limits!r:.60}",
            hint="it is a list of api.Concurrency(…) and api.Rate(…)",
        )
    stated: list[Limit] = list(limits)
    if max_concurrency is not None:
        stated.insert(0, Concurrency(max_concurrency))
    if len(stated) > MOST_LIMITS:
        raise BadSetting(f"{len(stated)} limits, and a job may have {MOST_LIMITS}")
    if on_limit not in (WAIT, REVOKE):
        raise BadSetting(f"on_limit is {on_limit!r:.60}", hint="use 'wait' or 'revoke'")
    if unique is True:
        unique = Unique()
    elif unique is not None and unique is not False and not isinstance(unique, Unique):
        raise BadSetting(f"unique is {unique!r:.60}", hint="use True, or api.Unique(key=…, keep=…)")
    if debounce is not None and not isinstance(debounce, Debounce):
        debounce = Debounce(debounce)
    if unique and debounce is not None:
        raise BadSetting(
            "unique and debounce are both stated", hint="a debounced job is unique by its own key"
        )
    once: Unique | Debounce | None = debounce if debounce is not None else (unique or None)
    for one in (*stated, *([once] if once is not None else [])):
        _check_arguments(name, one.key, signature)
    if not stated and once is None:
        return None
    return Flow(tuple(stated), once, on_limit == REVOKE)


def check_partition_key(name: str, key: Any, signature: inspect.Signature) -> None:
    """Refuse a value that cannot be the `partition_key` of a job. Raises `BadSetting`."""
    _check_key("partition_key", key, None)
    if isinstance(key, (tuple, list)) and not key:
        raise BadSetting("partition_key names no argument", hint="name one, or leave partition_key out")
    _check_arguments(name, key, signature)


def partition_key_of(
    key: Key, job: str, signature: inspect.Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Return the partition key of a task, as its job states it; None where the value is None. Raises `BadArguments`."""
    arguments = bind(signature, args, kwargs)
    if isinstance(key, str):
        return partition_key_text(arguments.get(key))
    if callable(key):
        return partition_key_text(_called(key, job, arguments))
    return partition_key_text([arguments.get(one) for one in key])


def partition_key_text(value: Any) -> str | None:
    """Return a partition key as text: text and whole numbers as they are, a digest of anything else, None for None."""
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    shown: Any = type(value).__repr__
    if shown is object.__repr__:
        raise BadArguments(
            f"the partition key is {value!r:.60}, and no other program can compute the same one",
            hint="use a text or a number, or several in a list",
        )
    return _digest(value)


# ------------------------------------------------------------------------------------ small helpers
def _whole(what: str, value: Any, high: int = 1_000_000) -> None:
    if type(value) is not int or not 1 <= value <= high:
        raise BadSetting(f"{what} is {value!r:.60}, and must be a whole number from 1 to {high:,}")


def _seconds(what: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if type(seconds) not in (int, float) or not 0.001 <= seconds <= LIMITS.delay:
        raise BadSetting(
            f"{what} is {value!r:.60}, and must be seconds from 0.001 to {LIMITS.delay:g}, or a timedelta"
        )
    return float(seconds)


def _check_key(what: str, key: Any, name: str | None) -> None:
    names = isinstance(key, (tuple, list)) and all(isinstance(one, str) for one in key)
    if key is not None and not isinstance(key, str) and not names and not callable(key):
        raise BadSetting(
            f"{what}: key is {key!r:.60}",
            hint="it is the name of an argument, several names, or a function of all arguments",
        )
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise BadSetting(f"{what}: name is {name!r:.60}", hint="use letters, digits, '.', '_' and '-'")


def _check_arguments(job: str, key: Key | None, signature: inspect.Signature) -> None:
    if key is None or callable(key):
        return
    parameters = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for one in _names(key):
        if one not in parameters:
            raise BadSetting(
                f"the key {one!r} is not an argument of {job}{signature}",
                hint=did_you_mean(one, parameters) or "name one of its arguments",
            )


def _names(key: str | Sequence[str]) -> Sequence[str]:
    return (key,) if isinstance(key, str) else key


def _is_plain(limit: Limit) -> bool:
    """Return True for the limit that `max_concurrency` states."""
    return isinstance(limit, Concurrency) and limit.key is None and limit.name is None


def _full_name(limit: Limit, job: str, arguments: Mapping[str, Any]) -> str:
    base = f"@{limit.name}" if limit.name is not None else job
    return base if limit.key is None else _fit(base, _value(limit.key, job, arguments))


def _value(key: Key, job: str, arguments: Mapping[str, Any]) -> str:
    """Return the value of a key as text, readable where possible."""
    if callable(key):
        return _text(_called(key, job, arguments))
    missing = [one for one in _names(key) if one not in arguments]
    if missing:
        raise BadArguments(
            f"{job} has a limit by {missing[0]!r}, and was called without it; nothing was queued"
        )
    return "&".join(f"{one}={_text(arguments[one])}" for one in _names(key))


def _called(key: Callable[..., Any], job: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return key(**arguments)
    except Exception as exc:
        raise BadArguments(
            f"the key of {job} cannot be computed: {type(exc).__name__}: {exc}; nothing was queued",
            hint="its function is called with all arguments of the job, as keywords",
        ) from exc


def _text(value: Any) -> str:
    """Return a value as a part of a name: as it is where that is plain and unambiguous, else a digest."""
    if type(value) is int and abs(value) < 10**18:
        return str(value)
    if type(value) is str and _PLAIN.fullmatch(value):
        return value
    return _digest(value)


def _digest(value: Any) -> str:
    return hashlib.blake2b(
        repr(_canonical(value)).encode("utf-8", "backslashreplace"), digest_size=16
    ).hexdigest()


def _canonical(value: Any) -> Any:
    """Return the same for equal values: mappings and sets in order, tuples as lists."""
    if isinstance(value, Secret):
        return {"secret": _canonical(value.reveal())}  # its own text is the same for all
    if isinstance(value, Mapping):
        return {"d": sorted((repr(_canonical(k)), _canonical(v)) for k, v in value.items())}
    if isinstance(value, (set, frozenset)):
        return {"s": sorted(repr(_canonical(one)) for one in value)}
    if isinstance(value, (list, tuple)):
        return [_canonical(one) for one in value]
    return value


def _fit(base: str, value: str) -> str:
    """Return the name of a limit; a value that is too long for it becomes a digest."""
    name = f"{base}/{value}"
    return name if len(name) <= LONGEST_GATE else f"{base}/{_digest(value)}"
