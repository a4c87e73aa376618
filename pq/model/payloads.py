"""The user's values in a message: packed, with an error that says what cannot be sent, and read again.

Both ways raise errors of ours alone. Packing raises `NotSerializable` with the path of the culprit, and
`PayloadTooLarge` with both sizes. Reading raises `UnreadableMessage`, whatever the bytes are: they may be foreign.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterator, Mapping, MappingView
from typing import Any

from ..errors import NotSerializable, PayloadTooLarge, UnreadableMessage
from .names import LIMITS
from .secret import Secret
from .serializers import MSGPACK, READ_ERRORS, SCALARS, NotPlain, Serializer


def dump_payload(fmt: Serializer, value: Any, *, what: str, limit: int = LIMITS.size) -> bytes:
    """Pack a user's value.

    `what` names the whole ("arguments of 'addition'") in errors. Raises `NotSerializable` with the
    path of the culprit, `PayloadTooLarge` with both sizes.
    """
    try:
        data = fmt.dumps(value)
    except (NotPlain, *READ_ERRORS, NotSerializable) as exc:
        raise _explain(value, what, exc) from None
    if len(data) > limit:
        raise PayloadTooLarge(
            f"the {what} take {len(data):,} bytes, and {limit:,} are allowed",
            hint="store the data elsewhere and pass a key or a path; or set large_above and large_dir, or raise max_message_size",
        )
    if len(data) > LIMITS.depth:  # a byte a level at least: shorter payloads cannot be deeper
        _check_depth(value, what)
    return data


def load_payload(fmt: Serializer, data: bytes | str) -> Any:
    """Read a user's value. Raises `UnreadableMessage`, whatever the bytes are."""
    if not isinstance(data, (bytes, str)):
        raise UnreadableMessage(f"a payload is bytes or text, and this is a {type(data).__name__}")
    try:
        return fmt.loads(data if isinstance(data, bytes) else data.encode("utf-8"))
    except UnreadableMessage:
        raise
    except READ_ERRORS as exc:
        raise UnreadableMessage(
            f"a payload of {len(data)} bytes cannot be read: {type(exc).__name__}: {exc}"
        ) from None


def _check_depth(value: Any, what: str) -> None:
    """Refuse a value nested so deeply that a reader (or `repr`) could run out of stack."""
    level = [value]
    for _ in range(LIMITS.depth + 2):  # 2: the payload's own list and the mapping of arguments
        below: list[Any] = []
        for container in level:
            items = container.values() if isinstance(container, dict) else container
            if isinstance(items, Secret):
                items = (items.reveal(),)
            below.extend(item for item in items if type(item) not in SCALARS and _is_container(item))
        if not below:
            return
        level = below
    raise NotSerializable(f"the {what} are nested more than {LIMITS.depth} deep", hint="flatten them")


def _is_container(item: Any) -> bool:
    return isinstance(item, (dict, list, tuple, set, frozenset, Secret))


def _explain(value: Any, what: str, exc: BaseException) -> NotSerializable:
    if isinstance(exc, RecursionError) or "recursion limit" in str(exc):
        return NotSerializable(
            f"the {what} are nested too deeply, or contain themselves", hint="flatten them"
        )
    if isinstance(exc, NotSerializable):
        return exc
    path, culprit = _culprit(value)
    if isinstance(exc, UnicodeEncodeError):
        reason = "is text with a lone surrogate, which is not valid Unicode"
        hint = "text.encode('utf-8', 'surrogateescape') makes bytes of it"
    else:
        reason = f"is a {type(culprit).__name__} and cannot be sent"
        hint = _hint_for(culprit)
    where = f"{path} in the {what}" if path else f"the {what}"
    return NotSerializable(f"{where} {reason}", hint=hint, path=path)


def _hint_for(value: object) -> str:
    """Return what to write in place of `value`."""
    if hasattr(value, "read"):
        return "pass its path instead of the open file"
    if isinstance(value, dt.datetime):
        return "pass None for a time that is missing"
    if hasattr(value, "__fspath__") or type(value).__module__ in ("ipaddress", "fractions"):
        return "pass str(it)"
    if isinstance(value, (deque, range, MappingView, Iterator)):
        return "pass list(it)"
    if isinstance(value, Mapping):
        return "pass dict(it)"
    if hasattr(value, "__dataclass_fields__"):
        return "pass dataclasses.asdict(it)"
    for method, arguments in (("tolist", ""), ("model_dump", ""), ("to_dict", "'records'")):
        if hasattr(value, method):
            return f"pass it.{method}({arguments})"
    return "send plain data: numbers, text, bytes, lists, dicts, sets, dates, Decimal, UUID"


def _culprit(value: Any, path: str = "", depth: int = 0) -> tuple[str, Any]:
    """Return the path to the first part of `value` that cannot be sent, as code would write it, and that part."""
    if isinstance(value, Secret):
        return _culprit(value.reveal(), path, depth)
    if depth < LIMITS.depth:
        pairs: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            pairs = [(f"{path}[{key!r}]" if path else str(key), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            pairs = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
        for name, item in pairs:
            try:
                MSGPACK.dumps(item)
            except (NotPlain, *READ_ERRORS, NotSerializable):
                return _culprit(item, name, depth + 1)
    return path, value
