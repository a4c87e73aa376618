"""The envelope of a message: told apart by its first byte, read as a flat list.

A message is a list in one of the two formats, or it is *sealed* (`pq.model.seal`): compressed, signed, encrypted, or
offloaded into a file. What takes no key is opened here; for the rest the error says which setting is missing.
"""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import PayloadMissing, UnreadableMessage
from .names import LIMITS
from .serializers import READ_ERRORS, Serializer, detect

SEALED = b"\xc1"
"""The first byte of a sealed message (`pq.model.seal`); no message in either format begins so."""
OFFLOADED = SEALED + b"\x08"
"""The first bytes of what stands for an offloaded message (`pq.broker.layers.large_payloads`)."""


def unpack_envelope(body: bytes) -> tuple[Serializer, list[Any]]:
    """Return the format of a message and its fields. Raises `UnreadableMessage`."""
    fmt = detect(body)
    try:
        fields = fmt.unpack(body)
    except READ_ERRORS as exc:
        if body[:1] == SEALED:  # looked at here, where it costs plain messages nothing
            return unpack_envelope(_without_keys(body))
        raise UnreadableMessage(
            f"{len(body)} bytes that are not a message: {type(exc).__name__}: {exc}"
        ) from None
    if type(fields) is not list:
        raise UnreadableMessage(f"a message is a list, and this is a {type(fields).__name__}")
    return fmt, fields


_most_inflated = [4 * LIMITS.size + 2**20]


def allow_size(most: int) -> None:
    """Let compressed messages become at least `most` bytes long, where no seal says how long."""
    _most_inflated[0] = max(_most_inflated[0], most)


def inflate(data: bytes, most: int) -> bytes:
    """Decompress, up to `most` bytes. Raises `UnreadableMessage`."""
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
    """Return the message in a sealed one that needs no key: one that is only compressed. Raises for any other."""
    layers = body[1] if len(body) > 3 else 0
    if layers == OFFLOADED[1]:
        ref, stub = read_offloaded(body)
        raise PayloadMissing(
            f"its message is large and was stored as {ref}, which cannot be read here",
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


def is_offloaded(message: bytes) -> bool:
    """Return True for what stands for an offloaded message, and is whole."""
    return message[:2] == OFFLOADED and len(message) > 2 and len(message) > 2 + message[2]


def read_offloaded(message: bytes) -> tuple[str, bytes]:
    """Return the name of the file of an offloaded message, and the beginning of that message."""
    end = len(OFFLOADED) + 1 + (message[len(OFFLOADED)] if len(message) > len(OFFLOADED) else 0)
    return message[len(OFFLOADED) + 1 : end].decode("ascii", "replace"), message[end:]
