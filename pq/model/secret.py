"""A value that is shown nowhere: `api.Secret`.

It travels like any other argument and arrives as a `Secret`. Printed, logged, or put into an error, a page or JSON it
is `***`; only `reveal()` returns the value. So no surface has to know which arguments are secret, and none can
forget it.

A parameter says so in its annotation, `password: Secret[str]`; then a plain value that is queued is wrapped in a
`Secret` on the way.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_origin

T = TypeVar("T")

SHOWN = "***"


class Secret(Generic[T]):
    """Holds a value that must not be shown. In the store it is plain, unless `encryption_keys` is set."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        inner: Any = value
        self._value: T = inner._value if isinstance(inner, Secret) else inner

    def reveal(self) -> T:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return SHOWN

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def is_secret(annotation: Any) -> bool:
    """Return True for the annotation of a secret parameter; annotations may be text."""
    if isinstance(annotation, str):
        return annotation.partition("[")[0].strip().rpartition(".")[2] == "Secret"
    return annotation is Secret or get_origin(annotation) is Secret
