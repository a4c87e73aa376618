"""Keys: their text, and how a new one is made. `pq.model.seal` uses them."""

from __future__ import annotations

import base64
import os
from typing import NamedTuple


class Key(NamedTuple):
    """A key by its id. Its secret is never shown."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"{self.id}:***"


def new_key() -> str:
    """Return the text of a new key: 256 random bits."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def key_bytes(text: str) -> bytes:
    """Return the key in a text that `new_key` made. Raises `ValueError`."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, UnicodeError):
        key = b""
    if len(key) != 32:
        raise ValueError("not a key of 32 bytes in base64")
    return key
