"""The arguments of a task, fitted to the signature of its job.

Three places ask: the producer before it queues, the worker after a call failed, and the keys of limits and
partitions, which are made of arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import BadArguments, NotSerializable, PayloadTooLarge, did_you_mean
from .secret import Secret


class Shape(NamedTuple):
    """The names of a signature whose parameters can all be given by keyword; empty for any other signature."""

    known: frozenset[str]
    required: frozenset[str]


def shape_of(signature: inspect.Signature, secrets: Collection[str]) -> Shape:
    """Return what `plainly_fits` compares with. Empty where the arguments must be looked at one by one."""
    parameters = signature.parameters.values()
    required = frozenset(p.name for p in parameters if p.default is p.empty)
    if secrets or any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        return Shape(frozenset(), required)
    return Shape(frozenset(signature.parameters), required)


def plainly_fits(shape: Shape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return True when keyword arguments obviously fit; to bind them properly costs five times that."""
    known, required = shape
    return not args and bool(known >= kwargs.keys() and required <= kwargs.keys())


def check_arguments(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuse arguments that do not fit. Raises `BadArguments` with the name and the signature of the job."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise BadArguments(
            f"{name}{signature} {_reword(str(exc))}; nothing was queued", hint=_nearest(signature, kwargs)
        ) from None


def _nearest(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str | None:
    """Return the hint for a misspelt keyword: the nearest parameter of the job, or option of `tasks.queue`."""
    known = signature.parameters
    unknown = next((name for name in kwargs if name not in known), None)
    options = ("callback", "delay", "meta_params", "queue", "timeout")
    return None if unknown is None else did_you_mean(unknown, [*known, *options])


def misfit(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> BadArguments | None:
    """Return the error for arguments that came in a message and do not fit; None when they fit.

    It has names and counts only: values may be secret, and error texts are shown and logged.
    """
    try:
        signature.bind(*args, **kwargs)
    except TypeError as reason:
        count = len(args)
        sent = f"{count} positional argument{'s' * (count != 1)}" if count or not kwargs else ""
        named = ", ".join(str(keyword) for keyword in kwargs)
        sent += (" and " if sent and named else "") + (f"the keywords {named}" if named else "")
        return BadArguments(
            f"{name}{signature} was sent {sent}: {reason}",
            hint="the program that queued it may have another version of the job",
        )
    return None


def bind(
    signature: inspect.Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all arguments by name, defaults among them. Raises `BadArguments`.

    Where the signature is not known, positional arguments are named by their number.
    """
    if signature is None:
        return {**{str(n): value for n, value in enumerate(args)}, **kwargs}
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise BadArguments(str(exc)) from None
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(parameter.name))
    return arguments


def replace(
    signature: inspect.Signature | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> tuple[list[Any], dict[str, Any]]:
    """Return the same arguments with `changes` in their places, positional ones included."""
    new_args, new_kwargs = list(args), dict(kwargs)
    positional = list(signature.parameters)[: len(new_args)] if signature is not None else []
    for name, value in changes.items():
        if name in positional:
            new_args[positional.index(name)] = value
        else:
            new_kwargs[name] = value
    return new_args, new_kwargs


def with_secrets(
    signature: inspect.Signature, secrets: Collection[str], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the same arguments; those of parameters that are annotated as `Secret` are wrapped in one."""
    parameters = list(signature.parameters.values())
    many = [each for each in parameters if each.kind is each.VAR_POSITIONAL]
    known = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    others = any(each.kind is each.VAR_KEYWORD and each.name in secrets for each in parameters)
    wrapped = []
    for number, value in enumerate(args):
        parameter = parameters[number] if number < len(parameters) else many[0]
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):  # it stands after `*rest`
            parameter = many[0]
        wrapped.append(Secret(value) if parameter.name in secrets else value)
    named = {
        name: Secret(value)
        if (name in secrets and name in known) or (others and name not in known)
        else value
        for name, value in kwargs.items()
    }
    return wrapped, named


def about_arguments(exc: NotSerializable | PayloadTooLarge, name: str) -> PayloadTooLarge | NotSerializable:
    """Return the error in the words of the caller: `argument 'file' of upload`, not `[1]['file']`."""
    if isinstance(exc, PayloadTooLarge):
        return PayloadTooLarge(
            exc.message.replace("the arguments", f"the arguments of {name}"), hint=exc.hint
        )
    path = exc.path
    if path.startswith("[1]['"):
        key, _, rest = path[5:].partition("']")
        what = f"argument {key!r}{' at ' + rest if rest else ''} of {name}"
    elif path.startswith("[0]["):
        index, _, rest = path[4:].partition("]")
        what = f"argument {int(index) + 1}{' at ' + rest if rest else ''} of {name}"
    else:
        return NotSerializable(f"{exc.message}; nothing was queued", hint=exc.hint, path=path)
    message = exc.message.replace(f"{path} in the arguments", what)
    return NotSerializable(f"{message}; nothing was queued", hint=exc.hint, path=path)


def _reword(text: str) -> str:
    """Return the reason of `Signature.bind` as the end of a sentence that begins with the signature."""
    if text.startswith("missing a required"):
        return "needs " + text.removeprefix("missing a required ").replace("argument: ", "the argument ", 1)
    return text if text.startswith("got ") else "got " + text
