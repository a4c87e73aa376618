"""Values and messages as bytes: they arrive unchanged, and nothing unreadable breaks a reader."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import fractions
import ipaddress
import json
import math
import types
import uuid
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.errors import ConfigError, NotSerializable, PayloadTooLarge, UnreadableMessage
from pq.model.envelopes import unpack_envelope
from pq.model.names import LIMITS
from pq.model.payloads import dump_payload, load_payload
from pq.model.serializers import JSON, MSGPACK, Serializer, detect, serializer

FORMATS = pytest.mark.parametrize("fmt", [MSGPACK, JSON], ids=["msgpack", "json"])
FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None)

offsets = st.timedeltas(min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)).map(
    lambda d: dt.timezone(dt.timedelta(minutes=d // dt.timedelta(minutes=1)))
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hashable = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(allow_nan=False)
)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(
            texts | st.integers() | st.tuples(st.integers(), texts) | st.just("$pq"), inner, max_size=4
        )
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            any(same(k, other_k) and same(one[k], other[other_k]) for other_k in other) for k in one
        )
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(item, o) for o in other) for item in one)
    return bool(one == other)


@FORMATS
@FEW
@given(value=values)
def test_what_arrives_is_what_was_sent(fmt: Serializer, value: Any) -> None:
    """All supported types, nested in each other, in both formats."""
    assert same(load_payload(fmt, dump_payload(fmt, value, what="value")), value)


@FORMATS
def test_special_numbers_arrive(fmt: Serializer) -> None:
    """Infinities, not-a-number, negative zero, and integers around and beyond 64 bits."""
    numbers = [
        math.inf,
        -math.inf,
        -0.0,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        10**3000,
        Decimal("-Infinity"),
    ]
    there = load_payload(fmt, dump_payload(fmt, [*numbers, math.nan], what="value"))
    assert there[:-1] == numbers
    assert math.isnan(there[-1])
    assert math.copysign(1, there[2]) == -1


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


Point = collections.namedtuple("Point", "x y")


class Where(enum.Enum):
    HERE = Point(1, 2)


@FORMATS
@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Point(1, 2), (1, 2)),
        (Where.HERE, (1, 2)),
        (type("Number", (int,), {})(2**70), 2**70),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (type("Text", (str,), {})("x"), "x"),
        (type("Number", (int,), {})(5), 5),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        ({"$pq": [9, "no uuid"]}, {"$pq": [9, "no uuid"]}),
        ({"$pq": [0, []], "other": 1}, {"$pq": [0, []], "other": 1}),
        ({"type": "task", "$pq": {"$pq": 1}}, {"type": "task", "$pq": {"$pq": 1}}),
        ({1: "a", None: "b", (1, 2): "c"}, {1: "a", None: "b", (1, 2): "c"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_type_of_its_own_arrives_as_its_base(fmt: Serializer, sent: Any, arrives: Any) -> None:
    """A subclass as its base, an enumeration as its value; a user's "$pq" is data like any other."""
    assert same(load_payload(fmt, dump_payload(fmt, [sent], what="value")), [arrives])


# ----------------------------------------------------------------------------------------- refusals
@dataclass
class Data:
    x: int = 1


class Array:
    def tolist(self) -> list[int]:
        return [1]


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@FORMATS
@pytest.mark.parametrize(
    ("value", "says", "path"),
    [
        ({"a": [1, object()]}, r"a\[1\] in the arguments is a object and cannot be sent", "a[1]"),
        (object(), "the arguments is a object and cannot be sent", ""),
        ({"job": print}, "job in the arguments is a builtin_function_or_method", "job"),
        (
            [{"k": {"deeper": Array()}}],
            r"\[0\]\['k'\]\['deeper'\] in the arguments is a Array",
            "[0]['k']['deeper']",
        ),
        ({"text": "\ud800"}, "text in the arguments is text with a lone surrogate", "text"),
        (endless(), "nested too deeply, or contain themselves", ""),
        (deep(2000), "nested too deeply, or contain themselves", ""),
        (deep(100), "nested more than 64 deep", ""),
    ],
    ids=["inside", "itself", "function", "array", "surrogate", "endless", "very-deep", "deep"],
)
def test_refusals_name_the_culprit(fmt: Serializer, value: Any, says: str, path: str) -> None:
    """A value that cannot be sent is refused at once, with its path in Python's notation."""
    with pytest.raises(NotSerializable, match=says) as caught:
        dump_payload(fmt, value, what="arguments")
    assert caught.value.path == path
    assert caught.value.hint


class Money(Decimal):
    def __str__(self) -> str:
        return f"{super().__str__()} EUR"


class Span(dt.timedelta):
    @property
    def seconds(self) -> int:  # pendulum's Duration shows other fields, too
        return -1


def kin(base: type) -> type:
    return type("Kin", (base,), {})


class NotATime(dt.datetime):
    """As pandas' NaT is: a datetime by its class, equal to nothing."""

    __hash__ = dt.datetime.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@FORMATS
@pytest.mark.parametrize(
    ("sent", "base"),
    [
        (kin(uuid.UUID)(int=5), uuid.UUID(int=5)),
        (Money("1.50"), Decimal("1.50")),
        (kin(Decimal)("NaN"), Decimal("NaN")),
        (kin(dt.datetime)(2026, 1, 2, 3), dt.datetime(2026, 1, 2, 3)),
        (kin(dt.date)(2026, 1, 2), dt.date(2026, 1, 2)),
        (kin(dt.time)(1, 2), dt.time(1, 2)),
        (Span(days=-1, seconds=5, microseconds=3), dt.timedelta(days=-1, seconds=5, microseconds=3)),
        (kin(set)({1}), {1}),
        (kin(frozenset)({1}), frozenset({1})),
        (kin(complex)(1, 2), 1 + 2j),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_travels_as_its_base(fmt: Serializer, sent: Any, base: Any) -> None:
    """Values of asyncpg, pandas and pendulum travel, by themselves and inside others."""
    for value, expected in ((sent, base), ({"rows": [sent]}, {"rows": [base]})):
        got = load_payload(fmt, dump_payload(fmt, value, what="result"))
        assert same(got, expected) or repr(got) == repr(expected)  # NaN is equal to nothing


def test_a_time_that_is_missing_is_refused() -> None:
    """And not sent as the first day of the calendar."""
    with pytest.raises(NotSerializable) as caught:
        dump_payload(MSGPACK, NotATime(1, 1, 1), what="result")
    assert caught.value.hint == "pass None for a time that is missing"


@FORMATS
@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
        dt.datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),  # in the gap
        dt.time(1, 2, tzinfo=BERLIN),
        BERLIN,
    ],
    ids=str,
)
def test_a_zone_stays_a_zone(fmt: Serializer, value: Any) -> None:
    """By its name; a time with a fixed offset would be wrong after the next change of clocks."""
    got = load_payload(fmt, dump_payload(fmt, value, what="result"))
    assert got == value
    assert getattr(got, "tzinfo", BERLIN) is BERLIN
    assert getattr(got, "fold", 0) == getattr(value, "fold", 0)


@FORMATS
@pytest.mark.parametrize("key", ["No/Where", "../../etc/passwd", "Europe", "", "a\0b", "x" * 300])
def test_a_zone_that_is_not_known_here(fmt: Serializer, key: str) -> None:
    """A time keeps its instant with a fixed offset; what needs the zone cannot be read."""
    here = dump_payload(fmt, dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN), what="result")
    value = dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    packed = [value.isoformat(), key, 0]
    if fmt is JSON:
        sent, zone = {"$pq": [13, packed]}, {"$pq": [15, key]}
        data, bare = (json.dumps(each).encode() for each in (sent, zone))
    else:
        data, bare = (
            msgpack.packb(msgpack.ExtType(code, msgpack.packb(body)))
            for code, body in ((13, packed), (15, key))
        )
    assert same(load_payload(fmt, data), value)
    assert load_payload(fmt, here) == value
    with pytest.raises(UnreadableMessage):
        load_payload(fmt, bare)


def test_a_time_without_a_zone_is_written_as_ever() -> None:
    """Code 4 and code 6, which older versions read."""
    for value in (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.time(1)):
        sent = msgpack.unpackb(dump_payload(MSGPACK, value, what="result"))
        assert (sent.code, msgpack.unpackb(sent.data)) == (
            4 + 2 * isinstance(value, dt.time),
            value.isoformat(),
        )


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Path("/x"), "pass str(it)"),
        (ipaddress.ip_address("127.0.0.1"), "pass str(it)"),
        (fractions.Fraction(1, 3), "pass str(it)"),
        (collections.deque([1]), "pass list(it)"),
        (range(3), "pass list(it)"),
        ({"a": 1}.values(), "pass list(it)"),
        ({"a": 1}.keys(), "pass list(it)"),
        ((n for n in [1]), "pass list(it)"),
        (types.MappingProxyType({"a": 1}), "pass dict(it)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hints_for_common_values(value: Any, hint: str) -> None:
    """The error says what to write."""
    with pytest.raises(NotSerializable) as caught:
        dump_payload(MSGPACK, {"x": value}, what="arguments")
    assert caught.value.hint == hint


@FORMATS
def test_hints_say_what_to_pass_instead(fmt: Serializer, tmp_path: Path) -> None:
    """An open file, a dataclass, an array: each with its own advice."""
    (tmp_path / "f").write_text("x")
    with (tmp_path / "f").open() as file:
        for value, hint in (
            (file, "its path"),
            (Data(), "asdict"),
            (Array(), "tolist"),
            (object(), "plain data"),
        ):
            with pytest.raises(NotSerializable) as caught:
                dump_payload(fmt, {"value": value}, what="arguments")
            assert hint in str(caught.value.hint)


@FORMATS
def test_depth_up_to_the_limit_is_fine(fmt: Serializer) -> None:
    """Sixty-four levels arrive."""
    assert load_payload(fmt, dump_payload(fmt, deep(LIMITS.depth), what="value")) == deep(LIMITS.depth)


@FORMATS
def test_depth_counts_all_containers(fmt: Serializer) -> None:
    """Mappings, their keys' values, tuples and sets too."""
    value: Any = 1
    for n in range(100):
        value = {"k": value} if n % 2 else (value,)
    with pytest.raises(NotSerializable, match="nested"):
        dump_payload(fmt, value, what="value")


@FORMATS
def test_too_large_is_refused_with_both_sizes(fmt: Serializer) -> None:
    """The limit itself passes."""
    with pytest.raises(PayloadTooLarge, match=r"take 1,0\d\d bytes, and 1,000 are allowed") as caught:
        dump_payload(fmt, "x" * 1000, what="result", limit=1000)
    assert caught.value.hint
    assert len(dump_payload(fmt, "x" * 997, what="result", limit=1000)) <= 1000


@FORMATS
def test_an_endless_integer_is_refused(fmt: Serializer) -> None:
    """Python itself would not read its text again."""
    with pytest.raises(NotSerializable):
        dump_payload(fmt, [1 << 50_000], what="value")


# --------------------------------------------------------------------------------------- unreadable
@FORMATS
@settings(FEW, max_examples=400)
@given(data=st.binary(max_size=200))
def test_no_bytes_break_a_reader(fmt: Serializer, data: bytes) -> None:
    """Whatever lies in the store: a value, or `UnreadableMessage`, and nothing else."""
    for read in (lambda: load_payload(fmt, data), lambda: unpack_envelope(data)):
        try:
            read()
        except UnreadableMessage:
            pass


@FORMATS
@settings(FEW, max_examples=200)
@given(value=values, cut=st.integers(0, 300), flip=st.integers(0, 300), bit=st.integers(0, 7))
def test_no_damage_breaks_a_reader(fmt: Serializer, value: Any, cut: int, flip: int, bit: int) -> None:
    """Truncated and with bits turned: the same."""
    data = bytearray(dump_payload(fmt, value, what="value"))
    if data:
        data[flip % len(data)] ^= 1 << bit
    for damaged in (bytes(data), bytes(data[: cut % (len(data) + 1)])):
        try:
            load_payload(fmt, damaged)
        except UnreadableMessage:
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5000, b"\x81\xc0" * 3000,
        msgpack.packb(msgpack.ExtType(77, b"")), msgpack.packb(msgpack.ExtType(4, msgpack.packb("no date"))),
        msgpack.packb(msgpack.ExtType(7, msgpack.packb(["x"]))), msgpack.packb(msgpack.ExtType(8, msgpack.packb("x"))),
        msgpack.packb(msgpack.ExtType(2, msgpack.packb([[]]))), msgpack.packb({b"\xff": 1}) + b"x", b"\xa1\xff",
        msgpack.packb(msgpack.ExtType(10, msgpack.packb("9" * 5000))),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(msgpack.ExtType(1, b"\xc1")))),
        msgpack.packb(msgpack.ExtType(11, msgpack.packb([1e308, "x"]))), b"\x81\x90\x01",
    ],
)  # fmt: skip
def test_msgpack_that_makes_no_sense(data: bytes) -> None:
    """Empty, truncated, too deep, unknown and misused extension types, trailing bytes."""
    with pytest.raises(UnreadableMessage):
        load_payload(MSGPACK, data)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[" * 100_000, b"nul", b"\xff", b'{"$pq":[]}', b'{"$pq":[1]}', b'{"$pq":7}', b'{"$pq":[99,1]}',
        b'{"$pq":[0,[[[],1]]]}', b'{"$pq":[-1,"*"]}', b'{"$pq":["x",1]}', b'{"$pq":[[],1]}', b'{"$pq":[4,5]}', b'{"$pq":[7,[1e308,0,0]]}',
        b'{"$pq":[10,"x"]}', b"1" * 5000, b'{"$pq":[2,[[1]]]}', b'{"$pq":null}', b'{"$pq":[-1,null]}',
    ],
)  # fmt: skip
def test_json_that_makes_no_sense(data: bytes) -> None:
    """The same for text."""
    with pytest.raises(UnreadableMessage):
        load_payload(JSON, data)


def test_formats_differ_in_their_first_byte() -> None:
    """Every reader takes both."""
    for fmt in (MSGPACK, JSON):
        found, fields = unpack_envelope(fmt.pack([1, "id", None]))
        assert found is fmt is detect(fmt.pack([1]))
        assert fields == [1, "id", None]


def test_an_envelope_is_a_list() -> None:
    """A mapping, a number or text is not a message."""
    for body in (msgpack.packb({}), msgpack.packb(1), b'{"a":1}', b"7"):
        with pytest.raises(UnreadableMessage):
            unpack_envelope(body)


def test_serializers_have_names() -> None:
    """An unknown one is refused with the nearest."""
    assert (serializer("msgpack"), serializer("json")) == (MSGPACK, JSON)
    with pytest.raises(ConfigError, match="'jsn'") as caught:
        serializer("jsn")
    assert caught.value.hint == "did you mean 'json'?"
    with pytest.raises(ConfigError):
        serializer("pickle")


def test_uuid_of_any_kind_arrives() -> None:
    """Bytes that look like one do not become one."""
    value = {"id": uuid.UUID(int=5), "text": str(uuid.UUID(int=5))}
    assert same(load_payload(MSGPACK, dump_payload(MSGPACK, value, what="value")), value)


def test_a_uuid_of_something_else_is_unreadable() -> None:
    """`uuid.UUID(5)` raises an AttributeError; a reader knows only `UnreadableMessage`."""
    damaged = msgpack.packb(msgpack.ExtType(9, msgpack.packb(5)))
    with pytest.raises(UnreadableMessage):
        load_payload(MSGPACK, damaged)
