"""Headers and parcels: the fields that the scripts read, and those of an event."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.broker import records
from pq.broker.keys import Keys
from pq.errors import UnreadableMessage

FEW = settings(max_examples=150, derandomize=True, deadline=None, database=None)


@pytest.mark.parametrize(
    ("record", "priority", "token"),
    [
        (records.live_header(), 0, ""),
        (records.live_header(0), 0, ""),
        (records.live_header(5), 5, ""),
        (records.live_header(-1000, "L:7"), -1000, "L:7"),
        (records.live_header(None, "L:7"), 0, "L:7"),
    ],
)
def test_a_live_header(record: bytes, priority: int, token: str) -> None:
    """Its priority and its token come out as they went in; the usual one is two bytes."""
    record += b"message\nwith lines"
    assert records.is_live(record)
    assert not records.is_finished(record)
    assert (records.priority(record), records.token(record)) == (priority, token)
    assert records.message(record) == b"message\nwith lines"
    assert records.live_header() == b"q\n"


def test_a_finished_header() -> None:
    """Status and token."""
    record = records.finished_header(2, "L:7") + b"x"
    assert record == b"d2 L:7\nx"
    assert records.is_finished(record)
    assert not records.is_live(record)
    assert (records.token(record), records.message(record)) == ("L:7", b"x")


@pytest.mark.parametrize("record", [b"", b"q", b"no header", b"q" + b"x" * 1100 + b"\n", b"\xff\xfe"])
def test_bytes_without_a_header(record: bytes) -> None:
    """Foreign bytes are not a message, and break no reader."""
    with pytest.raises(UnreadableMessage):
        records.message(record)
    assert (records.priority(record), records.token(record)) == (0, "")


@FEW
@given(st.lists(st.tuples(st.text("abc.019", min_size=1, max_size=128), st.binary(max_size=300)), max_size=8))
def test_parcels_come_out_as_they_went_in(items: list[tuple[str, bytes]]) -> None:
    """Whatever the records hold, separators included."""
    assert list(records.parcels(b"".join(records.parcel(*item) for item in items))) == items


@FEW
@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"a", b" ", b":", b"1", b"-", b"99"])).map(b"".join)
)
def test_no_bytes_break_the_reader_of_parcels(data: bytes) -> None:
    """It stops where they make no sense."""
    for id, record in records.parcels(data):
        assert isinstance(id, str)
        assert record in data


def test_all_keys_of_a_queue_share_its_hash_tag() -> None:
    """Each queue lives whole in one slot of a cluster; another namespace has keys of its own."""
    keys = Keys("other")
    for key in (keys.prefix("q"), keys.record("q", "i"), keys.wake("q")):
        assert key.startswith("other:{q}:")
    for key in (keys.queues, keys.task_channel, keys.consumer("c"), keys.reply("p")):
        assert key.startswith("other:")
        assert "{" not in key


def test_a_foreign_header_comes_back_as_it_was() -> None:
    """A worker that could not write it would end with the first task of that kind that it releases."""
    header = b"g  c1:\xff\xfe,x\n"
    assert records.live_header(0, "", records.limits_text(header)) == header
