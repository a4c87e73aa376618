"""The two wire formats: how values become bytes, and come back as what they were.

Two layers, decoded apart. The *envelope* (`pq.model.task`) is a flat list of numbers, strings and
bytes, read by `pq.model.envelopes`. The *payload* (a task's arguments; its result) is packed by itself
(`pq.model.payloads`) and is opaque bytes in the envelope. So a payload that cannot be read never makes a message unreadable, a worker that settles
a task copies the arguments instead of packing them again, and nothing a user sends can be mistaken
for something of ours.

Two formats, `msgpack` (default) and `json`; every reader takes both, told apart by the first byte. In
both, arguments arrive as they were sent: tuples as tuples, and the types of `_TAGS` below through an
allow-list of extension types. There is no hook by which a message could name a class, and no pickle.

Sources: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgpack

from ..errors import ConfigError, NotSerializable, UnreadableMessage, did_you_mean
from .secret import Secret

# --------------------------------------------------------------------- the types beyond JSON's own
_DATETIME, _ZONED_DATETIME, _ZONED_TIME = 4, 13, 14
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}")


def _zone_key(zone: ZoneInfo) -> str:
    """Return the name of a zone. A zone that was read from a file of the user has none, and cannot be sent."""
    if not zone.key:
        raise NotPlain(zone)
    return zone.key


def _zone(key: str) -> ZoneInfo:
    """Return the zone of that name. Raises `UnreadableMessage` where this host does not know it."""
    try:
        if _ZONE.fullmatch(key):
            return ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        pass
    raise UnreadableMessage(f"time zone {key!r} is not known here", hint="pip install tzdata")


def _zoned_datetime(value: list[Any]) -> dt.datetime:
    """Return a time in its zone, or with its offset where this host does not know the zone."""
    text, key, fold = value
    fixed = dt.datetime.fromisoformat(text)
    try:
        zone = _zone(key)
    except UnreadableMessage:
        return fixed
    zoned = fixed.replace(tzinfo=zone, fold=fold)
    # Where the rules of the zone differ between the hosts, the instant counts.
    return zoned if zoned.utcoffset() == fixed.utcoffset() else fixed.astimezone(zone)


def _zoned_time(value: list[Any]) -> dt.time:
    text, key, fold = value
    return dt.time.fromisoformat(text).replace(tzinfo=_zone(key), fold=fold)


def _days(value: dt.timedelta) -> list[int]:
    """Return the fields of the base type: a subclass may show others under the same names."""
    kind = dt.timedelta
    fields: tuple[Any, ...] = (kind.days, kind.seconds, kind.microseconds)
    return [field.__get__(value) for field in fields]


# code -> (type, to text or list, back). Codes are part of the wire format: never change one.
_TAGS: dict[int, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    1: (tuple, list, tuple),
    2: (set, list, set),
    3: (frozenset, list, frozenset),
    4: (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    5: (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    6: (dt.time, dt.time.isoformat, dt.time.fromisoformat),
    7: (dt.timedelta, _days, lambda v: dt.timedelta(*v)),
    8: (Decimal, Decimal.__str__, Decimal),
    9: (uuid.UUID, uuid.UUID.__str__, uuid.UUID),
    10: (int, str, int),  # beyond 64 bits
    11: (complex, lambda c: [c.real, c.imag], lambda v: complex(*v)),
    12: (Secret, Secret.reveal, Secret),
    15: (ZoneInfo, _zone_key, _zone),
}
# Codes 13 and 14 are times with a zone. Code 4 has the offset alone, and is what every reader knows.
_BACK: dict[int, Callable[[Any], Any]] = {
    **{code: back for code, (_, _, back) in _TAGS.items()},
    _ZONED_DATETIME: _zoned_datetime,
    _ZONED_TIME: _zoned_time,
}
_CODES = {kind: code for code, (kind, _, _) in _TAGS.items() if kind is not int}
# A subclass (asyncpg's UUID, pandas' Timestamp) travels as its base. A datetime is a date, so it comes first.
_TAGGED_BASES = tuple(
    (kind, _CODES[kind])
    for kind in (
        uuid.UUID, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, set, frozenset, complex, ZoneInfo,
    )
)  # fmt: skip
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    # A subclass travels as its base: a Counter arrives as a dict, a namedtuple as a tuple.
    (dict, dict),
    (list, list),
    (tuple, tuple),
    (str, str.__str__),
    (int, int),
    (float, float),
    (bytes, bytes),
    (bytearray, bytes),
    (memoryview, bytes),
)
_BIG_INT_DIGITS = 4_000  # Python itself refuses longer texts (sys.set_int_max_str_digits)
SCALARS = frozenset({int, float, str, bool, bytes, type(None)})
# Everything that msgpack and json were seen to raise on bytes or values that they cannot take.
READ_ERRORS = (
    AttributeError,  # uuid.UUID of something that is not text
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
    MemoryError,
    ArithmeticError,
)


def _plain(value: Any) -> Any:
    """Return what the packer may pack in place of `value`; the packer calls this for a type it does not know."""
    kind = type(value)
    tagged = _tagged(value)
    if tagged is not None:
        return msgpack.ExtType(tagged[0], _pack(tagged[1]))
    if kind is int:
        if value.bit_length() > _BIG_INT_DIGITS * 3:
            raise NotSerializable(f"an integer of {value.bit_length()} bits is too large to send")
        return msgpack.ExtType(10, _pack(str(value)))
    if isinstance(value, Enum):
        return _packable(value.value)
    for base, convert in _BASES:
        if isinstance(value, base):
            return _packable(convert(value))
    raise NotPlain(value)


def _tagged(value: Any) -> tuple[int, Any] | None:
    """Return the code of a value beyond JSON's own types, and what is packed under it; None for other values."""
    code = _CODES.get(type(value))
    if code is None:
        if isinstance(value, Enum):
            return None
        code = next((code for base, code in _TAGGED_BASES if isinstance(value, base)), None)
        if code is None:
            return None
        if code == _DATETIME and value != value:
            raise NotPlain(value)  # pandas' NaT: a datetime by its class, and no time
    inner = _TAGS[code][1](value)
    if isinstance(value, (dt.datetime, dt.time)):
        zone = value.tzinfo
        if isinstance(zone, ZoneInfo) and zone.key:
            code = _ZONED_DATETIME if code == _DATETIME else _ZONED_TIME
            return code, [inner, zone.key, value.fold]
    return code, inner


def _packable(value: Any) -> Any:
    """Return `value`, or what stands for it: the packer asks once only, and takes what it is given then."""
    kind = type(value)
    if kind is dict or kind is list or (kind in SCALARS and kind is not int):
        return value
    return value if kind is int and -(2**63) <= value < 2**64 else _plain(value)


class NotPlain(Exception):
    """The packer met `value`, which cannot be sent; `pq.model.payloads` makes an error of it."""

    def __init__(self, value: object) -> None:
        self.value = value


def _ext(code: int, data: bytes) -> Any:
    back = _BACK.get(code)
    if back is None:
        raise UnreadableMessage(
            f"extension type {code} is not known here", hint="it may come from a newer version of pq"
        )
    return back(_unpack(data))


# One packer for all: making one costs more than packing a small message. It has no hook, so no Python
# code runs while it packs, so no other thread can enter it half way (the GIL is not released).
_PACKER = msgpack.Packer(use_bin_type=True, strict_types=True)


def _pack(value: Any) -> bytes:
    packed: bytes
    try:
        packed = _PACKER.pack(value)
    except (TypeError, OverflowError):  # something that needs `_plain`, which packs within packing
        packed = msgpack.packb(value, use_bin_type=True, strict_types=True, default=_plain)
    return packed


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_ext, strict_map_key=False, raw=False)


# ----------------------------------------------------------------------------------------- formats
class Serializer(Protocol):
    """One wire format. `dumps` and `loads` are for user values, `pack` for our own flat envelopes."""

    name: str

    def dumps(self, value: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...
    def pack(self, envelope: list[Any]) -> bytes: ...
    def unpack(self, data: bytes) -> list[Any]: ...


class MsgPack:
    """Compact and fast, binary-safe; the default."""

    name = "msgpack"

    def dumps(self, value: Any) -> bytes:
        return _pack(value)

    def loads(self, data: bytes) -> Any:
        return _unpack(data)

    def pack(self, envelope: list[Any]) -> bytes:
        packed: bytes = _PACKER.pack(envelope)
        return packed

    def unpack(self, data: bytes) -> list[Any]:
        value: list[Any] = msgpack.unpackb(data)
        return value


class Json:
    """Text that any language reads. Types that JSON lacks are written as `{"$pq": [code, value]}`."""

    name = "json"

    def dumps(self, value: Any) -> bytes:
        return json.dumps(self._out(value), separators=(",", ":")).encode("utf-8")

    def loads(self, data: bytes) -> Any:
        return self._in(json.loads(data))

    def pack(self, envelope: list[Any]) -> bytes:
        flat = [v.decode("utf-8") if type(v) is bytes else v for v in envelope]
        return json.dumps(flat, separators=(",", ":")).encode("utf-8")

    def unpack(self, data: bytes) -> list[Any]:
        value: list[Any] = json.loads(data)
        return value

    def _out(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            value.encode("utf-8")  # lone surrogates would pass json and fail every other reader
            return value
        if value is None or kind is bool or kind is float or kind is int:
            return value
        if kind is list:
            return [self._out(item) for item in value]
        if kind is dict:
            if all(type(key) is str for key in value) and "$pq" not in value:
                return {self._out(key): self._out(item) for key, item in value.items()}
            return {"$pq": [0, [[self._out(k), self._out(v)] for k, v in value.items()]]}
        if kind is bytes:
            return {"$pq": [-1, base64.b64encode(value).decode("ascii")]}
        tagged = _tagged(value)
        if tagged is not None:
            return {"$pq": [tagged[0], self._out(tagged[1])]}
        if isinstance(value, Enum):
            return self._out(value.value)
        for base, convert in _BASES:
            if isinstance(value, base):
                return self._out(convert(value))
        raise NotPlain(value)

    def _in(self, value: Any) -> Any:
        if type(value) is list:
            return [self._in(item) for item in value]
        if type(value) is not dict:
            return value
        if "$pq" not in value:
            return {key: self._in(item) for key, item in value.items()}
        code, inner = value["$pq"]
        if code == 0:
            return {self._in(k): self._in(v) for k, v in inner}
        if code == -1:
            return base64.b64decode(inner, validate=True)
        back = _BACK.get(code)
        if back is None:
            raise UnreadableMessage(f"type code {code!r} is not known here")
        return back(self._in(inner))


MSGPACK = MsgPack()
JSON = Json()
_BY_NAME: dict[str, Serializer] = {"msgpack": MSGPACK, "json": JSON}


def serializer(name: str) -> Serializer:
    """Return the serializer of that name. Raises `ConfigError`."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ConfigError(
            f"no message serializer is named {name!r}",
            hint=did_you_mean(name, _BY_NAME) or "use msgpack or json",
        ) from None


def detect(body: bytes) -> Serializer:
    """Return the serializer that wrote an envelope: JSON lists begin with `[`, msgpack lists never do."""
    return JSON if body[:1] == b"[" else MSGPACK
