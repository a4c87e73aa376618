"""Arguments are fitted to the signature of a job: before it is queued, and where its call failed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from pq.api import Secret
from pq.errors import BadArguments, NotSerializable, PayloadTooLarge
from pq.model import arguments
from pq.model.arguments import Shape


def add(a: int, b: int = 0) -> None: ...
def only(*, url: str, depth: int = 1) -> None: ...
def many(first: int, *rest: int, **more: int) -> None: ...
def fixed(a: int, /, b: int) -> None: ...
def nothing() -> None: ...


def signed(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@pytest.mark.parametrize(
    ("function", "secrets", "known", "required"),
    [
        (add, (), {"a", "b"}, {"a"}),
        (only, (), {"url", "depth"}, {"url"}),
        (nothing, (), set(), set()),
        (many, (), set(), {"first", "rest", "more"}),
        (fixed, (), set(), {"a", "b"}),
        (add, ("b",), set(), {"a"}),
    ],
)
def test_a_shape_has_the_names_where_names_are_enough(
    function: Callable[..., Any], secrets: tuple[str, ...], known: set[str], required: set[str]
) -> None:
    """With secrets, positional-only or variable parameters there is nothing to compare with."""
    assert arguments.shape_of(signed(function), secrets) == Shape(frozenset(known), frozenset(required))


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "fits"),
    [
        (add, (), {"a": 1}, True),
        (add, (), {"a": 1, "b": 2}, True),
        (add, (), {"b": 2}, False),
        (add, (), {"a": 1, "c": 2}, False),
        (add, (1,), {}, False),
        (nothing, (), {}, True),
        (nothing, (), {"a": 1}, False),
        (many, (), {}, False),
        (fixed, (), {"b": 1}, False),
    ],
)
def test_what_plainly_fits_needs_no_binding(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], fits: bool
) -> None:
    """Never True for a call that would fail; False only means that it has to be bound."""
    assert arguments.plainly_fits(arguments.shape_of(signed(function), ()), args, kwargs) is fits
    if fits:
        signed(function).bind(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "says"),
    [
        (add, (), {}, "needs the argument 'a'"),
        (add, (1, 2, 3), {}, "got too many positional arguments"),
        (add, (1,), {"c": 3}, "got an unexpected keyword argument 'c'"),
        (add, (1,), {"a": 3}, "multiple values for argument 'a'"),
        (only, ("u",), {}, "too many positional arguments"),
    ],
)
def test_arguments_are_held_against_the_signature(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    """Before anything is queued, with the signature in the message; it is a `TypeError` too."""
    with pytest.raises(BadArguments, match=says) as caught:
        arguments.check_arguments("shop.it", signed(function), args, kwargs)
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith(f"shop.it{signed(function)} ")
    assert str(caught.value).endswith("; nothing was queued")


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [(add, (1,), {"b": 2}), (many, (1, 2, 3), {"x": 5}), (only, (), {"url": "u"}), (fixed, (1,), {"b": 2})],
)
def test_arguments_that_fit_pass(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Whatever the form of the signature, when they are queued and when they arrive."""
    arguments.check_arguments("it", signed(function), args, kwargs)
    assert arguments.misfit("it", signed(function), args, kwargs) is None


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "was sent 0 positional arguments: missing a required argument: 'a'"),
        (("secret",) * 3, {}, "was sent 3 positional arguments: too many"),
        (("secret",), {"c": "secret", "d": 1}, "was sent 1 positional argument and the keywords c, d: got"),
        ((), {"c": 1}, "was sent the keywords c: "),
    ],
)
def test_a_misfit_names_what_came_and_shows_no_value(
    args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    """Values may be secret, and the text is stored and logged."""
    found = arguments.misfit("it", signed(add), args, kwargs)
    assert found is not None
    assert says in str(found)
    assert "'secret'" not in str(found)
    assert "another version of the job" in str(found.hint)


def test_arguments_are_bound_by_name() -> None:
    """Defaults among them, and those of `**more` beside the others."""
    assert arguments.bind(signed(add), (1,), {}) == {"a": 1, "b": 0}
    assert arguments.bind(signed(many), (1, 2), {"x": 3}) == {"first": 1, "rest": (2,), "x": 3}
    with pytest.raises(BadArguments, match="missing a required argument"):
        arguments.bind(signed(add), (), {})


def test_arguments_of_an_unknown_job_are_named_by_their_place() -> None:
    """A producer by name alone has no signature."""
    assert arguments.bind(None, (7, 8), {"x": 9}) == {"0": 7, "1": 8, "x": 9}


def test_changes_take_the_place_of_what_was_sent() -> None:
    """A positional argument stays positional; without a signature all changes go by keyword."""
    assert arguments.replace(signed(add), (1, 2), {}, {"b": 5}) == ([1, 5], {})
    assert arguments.replace(signed(add), (1,), {"b": 2}, {"b": 5, "a": 4}) == ([4], {"b": 5})
    assert arguments.replace(None, (1,), {"b": 2}, {"a": 4}) == ([1], {"b": 2, "a": 4})


def test_the_arguments_that_were_given_are_left_as_they_are() -> None:
    args, kwargs = [1], {"b": 2}
    arguments.replace(signed(add), args, kwargs, {"a": 3, "b": 4})
    assert (args, kwargs) == ([1], {"b": 2})


@pytest.mark.parametrize(
    ("secrets", "args", "kwargs", "hidden"),
    [
        ({"first"}, (1, 2), {"x": 3}, [1]),
        ({"rest"}, (1, 2, 3), {}, [2, 3]),
        ({"more"}, (1,), {"x": 3, "y": 4}, [3, 4]),
        ({"first"}, (), {"first": 1, "x": 2}, [1]),
        (set(), (1, 2), {"x": 3}, []),
    ],
)
def test_secret_parameters_get_secrets(
    secrets: set[str], args: tuple[Any, ...], kwargs: dict[str, Any], hidden: list[int]
) -> None:
    """Parameters that are annotated so get secrets, and so do all values of a variable one."""
    new_args, new_kwargs = arguments.with_secrets(signed(many), secrets, args, kwargs)
    found = [one.reveal() for one in (*new_args, *new_kwargs.values()) if isinstance(one, Secret)]
    assert found == hidden
    assert new_kwargs.keys() == kwargs.keys()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("[1]['file']", "argument 'file' of upload is a set"),
        ("[1]['file'][3]", "argument 'file' at [3] of upload is a set"),
        ("[0][2]", "argument 3 of upload is a set"),
        ("[0][0]['x']", "argument 1 at ['x'] of upload is a set"),
        ("", "the arguments is a set"),
    ],
)
def test_an_argument_that_cannot_be_sent_is_named(path: str, says: str) -> None:
    """The error has the form that the caller wrote, not its place in the message."""
    text = f"{path} in the arguments is a set" if path else "the arguments is a set"
    found = arguments.about_arguments(NotSerializable(text, hint="h", path=path), "upload")
    assert isinstance(found, NotSerializable)
    assert (str(found.message), found.hint, found.path) == (f"{says}; nothing was queued", "h", path)


def test_arguments_that_are_too_large_are_named() -> None:
    """With the job that they are for."""
    found = arguments.about_arguments(PayloadTooLarge("the arguments take 9 bytes", hint="h"), "upload")
    assert (type(found), found.message) == (PayloadTooLarge, "the arguments of upload take 9 bytes")


@pytest.mark.parametrize(("wrong", "nearest"), [("aa", "'a'"), ("dely", "'delay'"), ("zzz", None)])
def test_a_misspelt_argument_suggests_the_nearest_name(wrong: str, nearest: str | None) -> None:
    """Of the parameters of the job, and of the options of `tasks.queue`."""
    with pytest.raises(BadArguments) as caught:
        arguments.check_arguments("add", inspect.signature(add), (), {"a": 1, wrong: 1})
    assert caught.value.hint == (None if nearest is None else f"did you mean {nearest}?")
