"""A seal opens with the right key, at the place that it was made for, and nowhere else."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq.errors import UnreadableMessage
from pq.model.envelopes import unpack_envelope
from pq.model.keyring import Key, key_bytes, new_key
from pq.model.seal import FINISHED, LIVE, SCHEDULE, Seal
from pq.model.serializers import MSGPACK

SIGN = [Key("k1", b"a secret of some length")]
ENCRYPT = [Key("e1", b"e" * 32)]
SEALS = {
    "signed": Seal(SIGN),
    "encrypted": Seal((), ENCRYPT),
    "both": Seal(SIGN, ENCRYPT),
    "all": Seal(SIGN, ENCRYPT, compress_above=10),
}
FEW = settings(max_examples=150, derandomize=True, deadline=None, database=None)
any_seal = pytest.mark.parametrize("seal", SEALS.values(), ids=SEALS)


@any_seal
@FEW
@given(message=st.binary(max_size=300))
def test_what_was_sealed_opens_again(seal: Seal, message: bytes) -> None:
    closed = seal.close(message, LIVE, "mail", "i1")
    assert seal.open(closed, LIVE, "mail", "i1") == message
    assert seal.open(closed, LIVE, None, "i1") == message
    with pytest.raises(UnreadableMessage):
        unpack_envelope(closed)


@any_seal
@pytest.mark.parametrize(
    "place", [(FINISHED, "mail", "i1"), (LIVE, "other", "i1"), (LIVE, "mail", "i2")], ids=str
)
def test_at_another_place_it_does_not(seal: Seal, place: Any) -> None:
    """Another queue or id, or a live task made out to be finished."""
    with pytest.raises(UnreadableMessage):
        seal.open(seal.close(b"x" * 50, LIVE, "mail", "i1"), *place)


@any_seal
def test_no_byte_of_it_can_be_changed(seal: Seal) -> None:
    closed = seal.close(b"x" * 50, LIVE, "mail", "i1")
    for at in range(len(closed)):
        changed = closed[:at] + bytes((closed[at] ^ 1,)) + closed[at + 1 :]
        with pytest.raises(UnreadableMessage):
            seal.open(changed, LIVE, "mail", "i1")
        with pytest.raises(UnreadableMessage):
            seal.open(closed[:at], LIVE, "mail", "i1")
    with pytest.raises(UnreadableMessage):
        seal.open(closed + b"x", LIVE, "mail", "i1")


@any_seal
def test_a_layer_cannot_be_taken_off(seal: Seal) -> None:
    """A message that is plain, or has fewer layers than we have keys for, is refused before it is read."""
    plain = MSGPACK.pack([1, "i1", "job"])
    weaker = [plain, Seal(compress_above=1).close(b"x" * 99, LIVE, "mail", "i1")]
    weaker += [other.close(plain, LIVE, "mail", "i1") for other in (Seal(SIGN), Seal((), ENCRYPT))]
    for message in weaker:
        if seal in (SEALS["both"], SEALS["all"]) or message in weaker[:2]:
            with pytest.raises(UnreadableMessage):
                seal.open(message, LIVE, "mail", "i1")


def test_keys_are_changed_one_step_at_a_time() -> None:
    """The new one to the end of every list, then to the front, then the old one goes."""
    old, new = Key("k1", b"the old secret of ours"), Key("k2", b"the new secret of ours")
    steps = [Seal([old]), Seal([old, new]), Seal([new, old]), Seal([new])]
    for before, after in itertools.pairwise(steps):
        for one, other in ((before, after), (after, before)):
            assert other.open(one.close(b"hello", LIVE, "q", "i"), LIVE, "q", "i") == b"hello"
    with pytest.raises(UnreadableMessage, match="'k1', which is not among signing_keys"):
        steps[3].open(steps[0].close(b"hello", LIVE, "q", "i"), LIVE, "q", "i")


def test_keys_of_encryption_are_changed_likewise() -> None:
    old, new = Key("e1", b"1" * 32), Key("e2", b"2" * 32)
    closed = Seal((), [old]).close(b"hello", LIVE, "q", "i")
    assert Seal((), [new, old]).open(closed, LIVE, "q", "i") == b"hello"
    with pytest.raises(UnreadableMessage, match="'e1', which is not among encryption_keys"):
        Seal((), [new]).open(closed, LIVE, "q", "i")
    with pytest.raises(UnreadableMessage, match="cannot be decrypted"):
        Seal((), [Key("e1", b"2" * 32)]).open(closed, LIVE, "q", "i")


def test_while_keys_are_rolled_out() -> None:
    """`accept_unsealed` accepts messages without a seal, and still none with a wrong one."""
    seal = Seal(SIGN, ENCRYPT, accept_unsealed=True)
    assert seal.open(b"plain", LIVE, "q", "i") == b"plain"
    assert seal.open(Seal(SIGN).close(b"x", LIVE, "q", "i"), LIVE, "q", "i") == b"x"
    with pytest.raises(UnreadableMessage, match="signature is wrong"):
        seal.open(Seal([Key("k1", b"another secret")]).close(b"x", LIVE, "q", "i"), LIVE, "q", "i")


def test_no_nonce_comes_twice() -> None:
    """A process has a salt of its own and counts; after a fork it takes another one."""
    seal = Seal((), ENCRYPT)
    heads = {seal.close(b"x", LIVE, "q", "i")[:40] for _ in range(1000)}
    assert len(heads) == 1000
    assert len({head[8:24] for head in heads}) == 1
    assert seal._own is not None
    seal._own = (-1, *seal._own[1:])  # as if it were the parent's
    assert seal.close(b"x", LIVE, "q", "i")[8:24] not in {head[8:24] for head in heads}


def test_the_same_schedule_looks_the_same() -> None:
    """Two schedulers that state it do not seem to change it; another text has another key."""
    one, other = Seal(SIGN, ENCRYPT), Seal(SIGN, ENCRYPT)
    closed = one.close(b"{}", SCHEDULE, "", "daily")
    assert closed == other.close(b"{}", SCHEDULE, "", "daily")
    assert closed[6:30] != other.close(b"{1}", SCHEDULE, "", "daily")[6:30]
    assert one.open(closed, SCHEDULE, "", "daily") == b"{}"


def test_a_bomb_is_cut_off() -> None:
    """A message that becomes larger than the limit is not held in memory, with keys or without."""
    bomb = b"\xc1\x01t\x01q" + zlib.compress(b"\0" * 20_000_000, 1)
    for read in (lambda: Seal(compress_above=9).open(bomb, LIVE, "q", "i"), lambda: unpack_envelope(bomb)):
        with pytest.raises(UnreadableMessage, match="becomes more than"):
            read()


@FEW
@given(junk=st.binary(max_size=120), sealed=st.booleans())
def test_any_bytes_are_a_message_or_an_error_of_ours(junk: bytes, sealed: bool) -> None:
    junk = b"\xc1" + junk if sealed else junk
    for seal in (*SEALS.values(), Seal(compress_above=9)):
        try:
            seal.open(junk, LIVE, "q", "i")
        except UnreadableMessage:
            pass


def test_no_secret_in_a_repr() -> None:
    assert "secret" not in repr(SIGN) + repr(SEALS["both"])
    assert len(key_bytes(new_key())) == 32
