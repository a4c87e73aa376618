"""Checks at the definition of a job: options that do not fit, alone or together.

Each function takes what a job states and returns what is worked out of it once, so that no task pays for it. Each
raises `BadSetting` with the name of the job.
"""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import BadSetting, InvalidValue
from .limits import Flow, check_partition_key, flow_of
from .names import check_name
from .options import check_job_options
from .retry import Backoff
from .schedule import Schedule, check_catch_up, make_schedule

Raised = type[BaseException]
Kinds = tuple[Raised, ...] | None


def check_options(job: type, name: str) -> None:
    """Check the name of a job class, and each of its options by itself."""
    try:
        check_name("job name", name)
        check_job_options(job)
    except InvalidValue as exc:
        raise _named(f"job {job.__name__}", exc) from None


def checked_retries(
    where: str, backoff: Any, retry_delay: float | None, retry_on: Any, no_retry_on: Any
) -> tuple[Kinds, Kinds]:
    """Check what a job says about further attempts; return `retry_on` and `no_retry_on` as tuples."""
    if backoff is not None:
        if not isinstance(backoff, Backoff) and not callable(backoff):
            raise BadSetting(
                f"{where}: backoff is {backoff!r:.60}",
                hint="use api.Backoff(base=1, factor=2, cap=600), or a function attempt -> seconds",
            )
        if retry_delay is not None:
            raise BadSetting(f"{where} has both retry_delay and backoff", hint="one says how long to wait")
    return _kinds(where, "retry_on", retry_on), _kinds(where, "no_retry_on", no_retry_on)


def _kinds(where: str, option: str, kinds: Any) -> Kinds:
    if kinds is None:
        return None
    if isinstance(kinds, type):
        kinds = (kinds,)
    if not isinstance(kinds, (tuple, list, set, frozenset)) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        raise BadSetting(
            f"{where}: {option} is {kinds!r:.60}",
            hint=f"it is a tuple of exception classes, like {option}=(ConnectionError, TimeoutError)",
        )
    return tuple(kinds)


def checked_flow(
    name: str,
    signature: inspect.Signature,
    *,
    max_concurrency: int | None,
    limits: Any,
    on_limit: str,
    unique: Any,
    debounce: Any,
    partition_key: Any,
) -> Flow | None:
    """Check limits, uniqueness and partition key of a job; return its `Flow`, None where it states none."""
    try:
        flow = flow_of(name, signature, max_concurrency, limits, on_limit, unique, debounce)
        check_partition_key(name, partition_key, signature)
    except BadSetting as exc:
        raise _named(f"job {name}", exc) from None
    return flow


def checked_schedule(
    name: str,
    signature: inspect.Signature,
    *,
    run_every: Any,
    timezone: str | None,
    anchor: Any,
    catch_up: str,
    catch_up_limit: int,
) -> Schedule:
    """Check what a periodic job says about its runs; return its schedule."""
    where = f"job {name}"
    if run_every is None:
        raise BadSetting(f"{where} is a PeriodicJob without run_every", hint="say how often: run_every = 60")
    try:
        schedule = make_schedule(run_every, timezone, anchor)
        check_catch_up(catch_up, catch_up_limit)
        if len(name) > 100:
            raise BadSetting("a periodic job's name may have 100 characters")
        signature.bind()
    except BadSetting as exc:
        raise _named(where, exc) from None
    except TypeError as exc:
        raise BadSetting(
            f"{where}{signature}: {exc}, and a scheduler passes none",
            hint="give it a default; or leave run_every out and say tasks.schedule(job, run_every=…, kwargs={…})",
        ) from None
    return schedule


def _named(where: str, exc: BadSetting | InvalidValue) -> BadSetting:
    """Return the error with the name of the job before its message; a `BadCron` stays one."""
    kind = type(exc) if isinstance(exc, BadSetting) else BadSetting
    return kind(f"{where}: {exc.message}", hint=exc.hint)
