"""`@api.job`: a job made of a function.

The decorator makes a subclass of `Job` whose `__call__` is the function, and leaves a `DecoratedFunction` in its
place, which is still callable as the function was.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..errors import BadSetting
from .job import Job, PeriodicJob
from .names import slug
from .options import OF_JOBS, PERIODIC
from .signatures import defined_at

P = ParamSpec("P")
R = TypeVar("R")


class DecoratedFunction(Generic[P, R]):
    """A decorated function: callable as before, and a job.

    `job_class` is the `Job` subclass that is registered; `name` its name.
    """

    def __init__(self, function: Callable[P, R], job_class: type[Job]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.job_class = job_class
        self.name = job_class.name
        job_class.function_object = self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, as a unit test would; nothing is queued."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __repr__(self) -> str:
        return f"<job {self.name!r} at {self.job_class.defined_at}>"


@overload
def job(name: Callable[P, R], /) -> DecoratedFunction[P, R]: ...


@overload
def job(
    name: str | None = None, run_every: float | dt.timedelta | str | None = None, **options: Any
) -> Callable[[Callable[P, R]], DecoratedFunction[P, R]]: ...


def job(name: Any = None, run_every: float | dt.timedelta | str | None = None, **options: Any) -> Any:
    """Make a job of a function.

        @api.job()
        def addition(self, a=0, b=0):
            return a + b

    A first parameter named `self` receives the `Job` instance; a function without one is a job too.
    Args:
        name: how it is queued; default: the function's name with `_` as `.`.
        run_every: makes it periodic: seconds, a `timedelta`, or a cron line.
        options: any class attribute of `Job`: `concurrency`, `timeout`, `max_retries`, …

    Raises `BadSetting` for an option that does not exist or does not fit.
    """
    if callable(name):  # `@api.job` without parentheses, perhaps of a `partial` with options
        return job(None, run_every, **options)(name)

    def decorate(function: Callable[P, R]) -> DecoratedFunction[P, R]:
        _check_stated(options, run_every is not None, function)
        parameters = list(inspect.signature(function).parameters)
        with_self = bool(parameters) and parameters[0] == "self"
        body: dict[str, Any] = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__call__": function if with_self else staticmethod(function),
            "function": staticmethod(function),
            "name": name or slug(function.__name__),
            **options,
        }
        if run_every is not None:
            body["run_every"] = run_every
        made: Any = type(function.__name__, (Job if run_every is None else PeriodicJob,), body)
        return DecoratedFunction(function, made)

    return decorate


def _check_stated(options: Mapping[str, Any], periodic: bool, function: Callable[..., Any]) -> None:
    """Refuse options that jobs do not have, and those of periodic jobs in any other."""
    for option in options:
        if option not in OF_JOBS:
            raise BadSetting(
                f"jobs have no option {option!r} ({defined_at(function)})",
                hint="options are " + ", ".join(sorted(OF_JOBS)),
            )
    misplaced = sorted(PERIODIC.intersection(options))
    if misplaced and not periodic:
        raise BadSetting(
            f"{misplaced[0]} is for periodic jobs, and this one has no run_every ({defined_at(function)})",
            hint="say how often: @api.job(run_every=60), or a cron line",
        )
