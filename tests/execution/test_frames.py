"""Frames: the messages between worker and child."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq.errors import UnreadableMessage
from pq.execution.frames import DONE, FrameReader, frame

fields = st.lists(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), max_size=5)


@given(st.lists(fields, max_size=5), st.data())
def test_frames_arrive_however_the_stream_is_cut(messages, data):
    """Any stream of frames, cut anywhere, gives the same frames again."""
    stream = b"".join(frame(DONE, *message) for message in messages)
    splits = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader(1_000_000)
    pieces = [stream[start:end] for start, end in zip([0, *splits], [*splits, len(stream)], strict=True)]
    got = [found for piece in pieces for found in reader.feed(piece)]
    assert got == [[DONE, *message] for message in messages]


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\1\x90", b"\0\0\0\1\x01", b"\0\0\0\0"]
)
def test_nonsense_is_refused(data):
    """A frame that is too large, unreadable, or not a list that begins with a word."""
    with pytest.raises(UnreadableMessage):
        list(FrameReader(1_000).feed(data))
