"""The output of a job: whole lines, within bounds."""

from __future__ import annotations

from pq.execution.child_output import Allowance, Lines, shorten


class HandClock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    time = random = monotonic


def make(lines=3, size=1000):
    clock, out = HandClock(), []
    return clock, out, Lines(Allowance(lines=lines, size=size, clock=clock), out.append)


def test_lines_are_put_together_from_pieces():
    """However the bytes come, lines come out; a last one without its end comes with the flush."""
    _, out, lines = make(lines=9)
    for piece in (b"on", b"e\ntw", b"o\r\n\n\nthr", b"ee"):
        lines.feed(piece)
    assert out == ["one", "two"]
    lines.flush()
    assert out == ["one", "two", "three"]


def test_lines_over_the_allowance_are_counted_and_reported():
    """Three lines pass in a second, and the next second reports the number of dropped ones."""
    clock, out, lines = make()
    lines.feed(b"".join(b"%d\n" % n for n in range(10)))
    lines.feed(b"x\n" * 5 + b"rest")
    assert out == ["0", "1", "2"]
    clock.now += 1
    lines.feed(b" of it\nnext\n")
    assert out == ["0", "1", "2", "… 12 lines dropped", "rest of it", "next"]
    lines.flush()
    assert len(out) == 6


def test_the_flush_tells_what_was_dropped():
    """A task that ends in the same second says so before it is done."""
    _, out, lines = make(lines=1)
    lines.feed(b"a\nb\n")
    lines.flush()
    assert out == ["a", "… 1 line dropped"]


def test_size_counts_too():
    """A few large lines are as much as many small ones."""
    _, out, lines = make(lines=100, size=10)
    lines.feed(b"123456\n123456\n123456\n")
    assert len(out) == 2


def test_a_line_has_an_end():
    """Megabytes without an end of line are one line, of bounded length."""
    _, out, lines = make(size=10**6)
    for _ in range(100):
        lines.feed(b"z" * 65_536)
    lines.feed(b"\nnext\n")
    assert len(out) == 2
    assert out[0].startswith("zzz")
    assert out[0].endswith("more bytes)")
    assert len(out[0]) < 9_000


def test_text_becomes_valid_unicode():
    """Lone surrogates cannot be sent, and are shown by their number."""
    assert shorten("a\udc80b") == "a\\udc80b"
