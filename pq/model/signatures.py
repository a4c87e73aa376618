"""Facts read once from the function of a job: its signature, whether it is async, and where it is defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from .secret import is_secret


class SourceText:
    """An annotation that is text in the source, shown as it stands there, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Facts(NamedTuple):
    """The facts that a job class takes from its function."""

    is_async: bool
    signature: inspect.Signature
    secrets: frozenset[str]
    defined_at: str


def read_function(function: Callable[..., Any], *, skip_first: bool) -> Facts:
    """Return the facts of the function of a job; `skip_first` leaves out its first parameter (`self`)."""
    function = inspect.unwrap(function)
    parameters = list(inspect.signature(function).parameters.values())[skip_first:]
    return Facts(
        inspect.iscoroutinefunction(function),
        inspect.Signature([_readable(parameter) for parameter in parameters]),
        frozenset(each.name for each in parameters if is_secret(each.annotation)),
        defined_at(function),
    )


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        return parameter.replace(annotation=SourceText(parameter.annotation))
    return parameter


def defined_at(function: Callable[..., Any]) -> str:
    """Return `file:line` of a function; the name of its module where it has no code of its own."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else getattr(function, "__module__", "?")
