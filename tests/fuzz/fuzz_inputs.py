"""Bad input by the thousand, the same for the same seed."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import msgpack

NASTY_TEXT = (
    "", " ", "\0", "\n", "\r\n", "{", "}", ":", "{q}:ready", "../..", "%s%n", "*", "\x1b[31m", "é" * 40, "\ud800",
    "a" * 129, "A" * 9000, "1e999", "-1", "NaN", "None", "null", "true", "<script>", "' OR 1=1", "\u202e", "\ufeff", "０",
    "@", "://", "redis://", "$pq", "__class__", "9" * 400, "-0", "0x10", "1_000", "٣", "task.queue", "execute.python",
)  # fmt: skip
NASTY_NUMBERS = (
    0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
    0.1, 1e-320, True, False,
)  # fmt: skip


def text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NASTY_TEXT)
    alphabet = rng.choice(("abc.-_0", "*/,-0123456789 ", ":/@?#[]%&=", "\0\t\n\x7f\x80é中😀"))
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(30)))


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that a careless or a hostile program may send."""
    kind = rng.randrange(9 if depth < 4 else 5)
    if kind == 0:
        return text(rng)
    if kind == 1:
        return rng.choice(NASTY_NUMBERS)
    if kind == 2:
        return None
    if kind == 3:
        return rng.randbytes(rng.randrange(20))
    if kind == 4:
        return rng.randrange(-10, 1000)
    if kind in (5, 6):
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 7:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    nest: Any = rng.choice(([], {}, 0))
    for _ in range(rng.choice((3, 70, 600))):
        nest = [nest] if rng.random() < 0.5 else {"a": nest}
    return nest


def packed(rng: random.Random, thing: Any) -> bytes:
    """`thing` as msgpack or JSON, whatever of it can be."""
    try:
        if rng.random() < 0.6:
            return msgpack.packb(thing, default=str)
        return json.dumps(thing, default=str).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, OverflowError, RecursionError):
        return rng.randbytes(8)


def mutated(rng: random.Random, seed: bytes) -> bytes:
    """`seed`, spoilt in some places."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        way = rng.randrange(8)
        at = rng.randrange(len(data) + 1)
        if way == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif way == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif way == 2:
            del data[at:]
        elif way == 3:
            del data[at : at + rng.randrange(1, 9)]
        elif way == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 6))
        elif way == 5:
            data[at:at] = data[: rng.randrange(len(data) + 1)]
        elif way == 6:
            data[at:at] = rng.choice(
                (
                    b"\xdd\xff\xff\xff\xff",
                    b"\xdf\xff\xff\xff\xff",
                    b"\xc6\xff\xff\xff\xff",
                    b"\xc1",
                    b"\xc7\xff\x05",
                )
            )
        else:
            data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 255, 2**16, 2**31, 2**32 - 1)))
    return bytes(data)
