"""How values and messages become bytes, and come back as what they were.

Two layers, decoded apart. The *envelope* (`pq.model.task`) is a flat list of numbers, strings and
bytes. The *payload* (a task's arguments; its result) is packed by itself and lies in the envelope as
opaque bytes. So a payload that cannot be read never makes a message unreadable, a worker that settles
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
import uuid
import zlib
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol

import msgpack

from ..errors import (
    ConfigError,
    NotSerializable,
    PayloadMissing,
    PayloadTooLarge,
    UnreadableMessage,
    did_you_mean,
)
from .names import LIMITS
from .secret import Secret

SEALED = b"\xc1"
"""The first byte of a sealed message (`pq.model.seal`); no message in either format begins so."""
CLAIM = SEALED + b"\x08"
"""The first bytes of a claim: its message was put aside (`pq.broker.layers.large_payloads`)."""

# --------------------------------------------------------------------- the types beyond JSON's own
# code -> (type, to text or list, back). Codes are part of the wire format: never change one.
_TAGS: dict[int, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    1: (tuple, list, tuple),
    2: (set, list, set),
    3: (frozenset, list, frozenset),
    4: (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    5: (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    6: (dt.time, dt.time.isoformat, dt.time.fromisoformat),
    7: (dt.timedelta, lambda d: [d.days, d.seconds, d.microseconds], lambda v: dt.timedelta(*v)),
    8: (Decimal, str, Decimal),
    9: (uuid.UUID, str, uuid.UUID),
    10: (int, str, int),  # beyond 64 bits
    11: (complex, lambda c: [c.real, c.imag], lambda v: complex(*v)),
    12: (Secret, Secret.reveal, Secret),
}
_CODES = {kind: code for code, (kind, _, _) in _TAGS.items() if kind is not int}
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
_SCALARS = frozenset({int, float, str, bool, bytes, type(None)})
# All that msgpack and json were seen to raise on bytes or values that they cannot take.
_READ_ERRORS = (
    AttributeError,  # uuid.UUID of something that is no text
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
    """What the packer may pack in place of `value`; the packer calls this for what it does not know."""
    kind = type(value)
    code = _CODES.get(kind)
    if code is not None:
        return msgpack.ExtType(code, _pack(_TAGS[code][1](value)))
    if kind is int:
        if value.bit_length() > _BIG_INT_DIGITS * 3:
            raise NotSerializable(f"an integer of {value.bit_length()} bits is too large to send")
        return msgpack.ExtType(10, _pack(str(value)))
    if isinstance(value, Enum):
        return _packable(value.value)
    for base, convert in _BASES:
        if isinstance(value, base):
            return _packable(convert(value))
    raise _NotPlain(value)


def _packable(value: Any) -> Any:
    """`value`, or what stands for it: the packer asks once only, and takes what it is given then."""
    kind = type(value)
    if kind is dict or kind is list or (kind in _SCALARS and kind is not int):
        return value
    return value if kind is int and -(2**63) <= value < 2**64 else _plain(value)


class _NotPlain(Exception):
    """Inside this module: the packer met `value`, which cannot be sent."""

    def __init__(self, value: object) -> None:
        self.value = value


def _ext(code: int, data: bytes) -> Any:
    tag = _TAGS.get(code)
    if tag is None:
        raise UnreadableMessage(
            f"extension type {code} is not known here", hint="it may come from a newer version of pq"
        )
    return tag[2](_unpack(data))


# One packer for all: making one costs more than packing a small message. It has no hook, so no Python
# code runs while it packs, so no other thread can enter it half way (the GIL is not let go).
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
        code = _CODES.get(kind)
        if code is not None:
            return {"$pq": [code, self._out(_TAGS[code][1](value))]}
        if isinstance(value, Enum):
            return self._out(value.value)
        for base, convert in _BASES:
            if isinstance(value, base):
                return self._out(convert(value))
        raise _NotPlain(value)

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
        tag = _TAGS.get(code)
        if tag is None:
            raise UnreadableMessage(f"type code {code!r} is not known here")
        return tag[2](self._in(inner))


MSGPACK = MsgPack()
JSON = Json()
_BY_NAME: dict[str, Serializer] = {"msgpack": MSGPACK, "json": JSON}


def serializer(name: str) -> Serializer:
    """The serializer of that name, else a `ConfigError`."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ConfigError(
            f"no message serializer is named {name!r}",
            hint=did_you_mean(name, _BY_NAME) or "use msgpack or json",
        ) from None


def detect(body: bytes) -> Serializer:
    """The serializer that wrote an envelope: JSON lists begin with `[`, msgpack lists never do."""
    return JSON if body[:1] == b"[" else MSGPACK


# ----------------------------------------------------------------------------------------- payloads
def dump_payload(fmt: Serializer, value: Any, *, what: str, limit: int = LIMITS.size) -> bytes:
    """Pack a user's value, or say what in it cannot be sent.

    `what` names the whole ("arguments of 'addition'") in errors. Raises `NotSerializable` with the
    path of the culprit, `PayloadTooLarge` with both sizes.
    """
    try:
        data = fmt.dumps(value)
    except (_NotPlain, *_READ_ERRORS, NotSerializable) as exc:
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
    """The user's value again. Raises `UnreadableMessage`, whatever the bytes are."""
    if not isinstance(data, (bytes, str)):
        raise UnreadableMessage(f"a payload is bytes or text, and this is a {type(data).__name__}")
    try:
        return fmt.loads(data if isinstance(data, bytes) else data.encode("utf-8"))
    except UnreadableMessage:
        raise
    except _READ_ERRORS as exc:
        raise UnreadableMessage(
            f"a payload of {len(data)} bytes cannot be read: {type(exc).__name__}: {exc}"
        ) from None


def unpack_envelope(body: bytes) -> tuple[Serializer, list[Any]]:
    """The flat list of an envelope and the format it came in. Raises `UnreadableMessage`."""
    fmt = detect(body)
    try:
        fields = fmt.unpack(body)
    except _READ_ERRORS as exc:
        if body[:1] == SEALED:  # looked at here, where it costs plain messages nothing
            return unpack_envelope(_without_keys(body))
        raise UnreadableMessage(
            f"{len(body)} bytes that are no message: {type(exc).__name__}: {exc}"
        ) from None
    if type(fields) is not list:
        raise UnreadableMessage(f"a message is a list, and this is a {type(fields).__name__}")
    return fmt, fields


_most_inflated = [4 * LIMITS.size + 2**20]


def allow_size(most: int) -> None:
    """Let compressed messages become so large where no seal says how large."""
    _most_inflated[0] = max(_most_inflated[0], most)


def inflate(data: bytes, most: int) -> bytes:
    """What was compressed, up to `most` bytes. Raises `UnreadableMessage`."""
    whole = zlib.decompressobj()
    try:
        message = whole.decompress(data, most)
    except zlib.error as exc:
        raise UnreadableMessage(f"a compressed message of {len(data)} bytes cannot be read: {exc}") from None
    if not whole.eof or whole.unused_data:
        if len(message) >= most:
            raise UnreadableMessage(
                f"a compressed message of {len(data):,} bytes becomes more than {most:,} bytes",
                hint="if it is one of yours: raise max_message_size here",
            )
        raise UnreadableMessage(f"a compressed message of {len(data)} bytes is cut short")
    return message


def _without_keys(body: bytes) -> bytes:
    """The message in a sealed one that needs no key, as one that is compressed and nothing more."""
    layers = body[1] if len(body) > 3 else 0
    if layers == CLAIM[1]:
        ref, stub = claim_of(body)
        raise PayloadMissing(
            f"its message is large and was put aside as {ref}, which cannot be read here",
            hint="is large_dir the same shared directory in every program of this application?",
            stub=stub,
        )
    if layers == 1:
        message = inflate(body[4 + body[3] :], _most_inflated[0])
        if message[:1] != SEALED:
            return message
    if layers in (2, 3, 6, 7):
        raise UnreadableMessage(
            "it is encrypted, and this program has no key",
            hint="set encryption_keys here as in the program that queued it",
        )
    if layers in (4, 5):
        raise UnreadableMessage(
            "it is signed, and this program has no key to look at the signature",
            hint="set signing_keys here as in the program that queued it",
        )
    raise UnreadableMessage("it is sealed in a way that is not known here", hint="upgrade pq here")


def is_claim(message: bytes) -> bool:
    """Whether it stands for a message that was put aside, and is whole."""
    return message[:2] == CLAIM and len(message) > 2 and len(message) > 2 + message[2]


def claim_of(message: bytes) -> tuple[str, bytes]:
    """What a claim names, and the beginning of the message that it stands for."""
    end = len(CLAIM) + 1 + (message[len(CLAIM)] if len(message) > len(CLAIM) else 0)
    return message[len(CLAIM) + 1 : end].decode("ascii", "replace"), message[end:]


def _check_depth(value: Any, what: str) -> None:
    """Refuse what is nested so deeply that a reader (or `repr`) could run out of stack."""
    level = [value]
    for _ in range(LIMITS.depth + 2):  # 2: the payload's own list and the mapping of arguments
        below: list[Any] = []
        for container in level:
            items = container.values() if isinstance(container, dict) else container
            if isinstance(items, Secret):
                items = (items.reveal(),)
            below.extend(item for item in items if type(item) not in _SCALARS and _is_container(item))
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
        reason = "is text with a lone surrogate, which is no valid Unicode"
        hint = "text.encode('utf-8', 'surrogateescape') makes bytes of it"
    else:
        reason = f"is a {type(culprit).__name__} and cannot be sent"
        hint = _hint_for(culprit)
    where = f"{path} in the {what}" if path else f"the {what}"
    return NotSerializable(f"{where} {reason}", hint=hint, path=path)


def _hint_for(value: object) -> str:
    if hasattr(value, "read"):
        return "pass its path instead of the open file"
    if hasattr(value, "__dataclass_fields__"):
        return "pass dataclasses.asdict(it)"
    if hasattr(value, "tolist"):
        return "pass it.tolist()"
    return "send plain data: numbers, text, bytes, lists, dicts, sets, dates, Decimal, UUID"


def _culprit(value: Any, path: str = "", depth: int = 0) -> tuple[str, Any]:
    """The first part of `value` that cannot be sent, and the way to it, as one would write it."""
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
            except (_NotPlain, *_READ_ERRORS, NotSerializable):
                return _culprit(item, name, depth + 1)
    return path, value
