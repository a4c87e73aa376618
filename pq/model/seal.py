"""Seals: signed and encrypted messages, which only programs with our keys can write, or read.

A sealed message is, in this order:

    C1                    a byte that no message of ours begins with, in either format
    layers                1 compressed (zlib), 2 encrypted, 4 signed
    kind                  what it is: t a live task, d a finished one, e an event, l a log line, p progress, s a schedule,
                          r a part of a stream
    queue                 each name with its length in a byte before it
    encryption key id, 16 bytes of salt, 8 of a counter         where it is encrypted
    signing key id                                              where it is signed
    body
    32 bytes of HMAC-SHA256                                     where it is signed

The signature covers all before it and the task's id, so a record cannot be moved to another queue or id, nor
pass for a finished one. It is compared before anything is decompressed, decrypted or decoded. With encryption
the same names are the associated data.

AES-256-GCM is broken by a nonce that comes twice under one key, and 96 random bits are too few for the messages of
a busy server. So each process makes a key of its own, by HKDF-SHA256 from the key in the settings and a random salt
of 128 bits, and counts.

Sources: NIST SP 800-38D, RFC 5869 (HKDF), RFC 2104 (HMAC).
"""

from __future__ import annotations

import functools
import hmac
import itertools
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import ExtraNeeded, UnreadableMessage
from .envelopes import OFFLOADED, SEALED, inflate, is_offloaded
from .keyring import Key, key_bytes
from .names import LIMITS

COMPRESSED, ENCRYPTED, SIGNED = 1, 2, 4
LIVE, FINISHED, EVENT, LINE, PROGRESS, SCHEDULE, PART = b"t", b"d", b"e", b"l", b"p", b"s", b"r"

_COMPRESSED = (LIVE, FINISHED, EVENT)
"""The kinds that a program without any of these settings can read compressed (`pq.model.envelopes`)."""
_TAG = 32
_SALT = 16
_COUNTER = 8
_MOST_UNDER_ONE_SALT = 2**32


class Unopened(bytes):
    """Bytes of the store whose seal does not open; `why` is the error to raise where their content is needed."""

    why: UnreadableMessage

    def __new__(cls, stored: bytes, why: UnreadableMessage) -> Unopened:
        self = super().__new__(cls, stored)
        self.why = why
        return self


class Seal:
    """Seals messages and opens them. One for a process; any thread may use it."""

    def __init__(
        self,
        signing: Sequence[Key] = (),
        encryption: Sequence[Key] = (),
        *,
        compress_above: int = 0,
        accept_unsealed: bool = False,
        most: int = LIMITS.size,
    ) -> None:
        self._signing = {key.id: _derived(key.secret, b"pq signing") for key in signing}
        self._first_signing = signing[0].id if signing else None
        self._encryption = {key.id: key.secret for key in encryption}
        self._first_encryption = encryption[0].id if encryption else None
        self._compress_above = compress_above
        self._accept_unsealed = accept_unsealed
        self._most = ceiling(most)
        self._aes = _aes() if encryption else None
        self._own: tuple[int, bytes, Any, itertools.count[int]] | None = None

    def __repr__(self) -> str:
        return f"<Seal signing={list(self._signing)} encryption={list(self._encryption)}>"

    @property
    def has_keys(self) -> bool:
        """True where it signs or encrypts, and does not merely compress."""
        return bool(self._signing or self._encryption)

    # -------------------------------------------------------------------------------- sealing
    def close(self, message: bytes, kind: bytes, queue: str, id: str) -> bytes:
        """Seal a message with the first key of each kind."""
        layers = 0
        large = self._compress_above and len(message) > self._compress_above and kind in _COMPRESSED
        if large and message[:2] != OFFLOADED:  # the offloaded message is compressed already
            smaller = zlib.compress(message, 1)
            if len(smaller) < len(message):
                message, layers = smaller, COMPRESSED
        if self._first_encryption is None and self._first_signing is None and not layers:
            return message
        own = None
        if self._first_encryption is not None:
            layers |= ENCRYPTED
            own = self._own_key() if kind != SCHEDULE else self._key_for(message, id)
        if self._first_signing is not None:
            layers |= SIGNED
        parts = [SEALED, bytes((layers,)), kind, _short(queue)]
        if own is not None and self._first_encryption is not None:
            parts += (_short(self._first_encryption), own[1], own[2])
        if self._first_signing is not None:
            parts.append(_short(self._first_signing))
        head = b"".join(parts)
        if own is not None:
            message = own[0].encrypt(b"\0\0\0\0" + own[2], message, head + id.encode())
        sealed = head + message
        if self._first_signing is not None:
            sealed += _signature(self._signing[self._first_signing], sealed, id)
        return sealed

    def _own_key(self) -> tuple[Any, bytes, bytes]:
        """Return the cipher of this process, its salt, and the next value of its counter."""
        own = self._own
        number = next(own[3]) if own is not None and own[0] == os.getpid() else _MOST_UNDER_ONE_SALT
        # The child of a fork must not continue the count of its parent.
        if own is None or number >= _MOST_UNDER_ONE_SALT:
            salt = os.urandom(_SALT)
            assert self._first_encryption is not None
            cipher = self._cipher(self._encryption[self._first_encryption], salt)
            self._own = own = (os.getpid(), salt, cipher, itertools.count())
            number = next(own[3])
        return own[2], own[1], number.to_bytes(_COUNTER, "big")

    def _key_for(self, message: bytes, id: str) -> tuple[Any, bytes, bytes]:
        """Return the same for a schedule: equal texts must give equal bytes, else each scheduler would seem to change it.

        A salt that is made of the text is another one for each text.
        """
        assert self._first_encryption is not None
        secret = self._encryption[self._first_encryption]
        name = id.encode()
        salt = hmac.digest(_derived(secret, b"pq salt"), b"%d:%s%s" % (len(name), name, message), "sha256")
        return self._cipher(secret, salt[:_SALT]), salt[:_SALT], bytes(_COUNTER)

    def _cipher(self, secret: bytes, salt: bytes) -> Any:
        assert self._aes is not None
        return _cipher(self._aes, secret, salt)

    # -------------------------------------------------------------------------------- opening
    def open(self, sealed: bytes, kinds: bytes, queue: str | None, id: str) -> bytes:
        """Open a sealed message. Raises `UnreadableMessage` unless it was sealed with a key of ours, for this place.

        `kinds`: the kinds that it may be of. `queue` None: any queue.
        """
        if sealed[:1] != SEALED or is_offloaded(sealed):
            if self.has_keys and not self._accept_unsealed:
                raise UnreadableMessage(
                    "it is not signed or encrypted, and this program takes nothing else",
                    hint="set the same signing_keys and encryption_keys in every program that uses this store; "
                    "while they are being rolled out: accept_unsealed",
                )
            return sealed
        signing = encryption = ""
        salt = counter = b""
        try:
            layers, kind = sealed[1], sealed[2:3]
            its_queue, at = _read(sealed, 3)
            if layers & ENCRYPTED:
                encryption, at = _read(sealed, at)
                salt, counter = sealed[at : at + _SALT], sealed[at + _SALT : at + _SALT + _COUNTER]
                at += _SALT + _COUNTER
            if layers & SIGNED:
                signing, at = _read(sealed, at)
        except (IndexError, UnicodeDecodeError):
            raise UnreadableMessage("it is cut short") from None
        if layers > 7 or layers == 0 or at > len(sealed):
            raise UnreadableMessage("it is sealed in a way that is not known here", hint="upgrade pq here")
        if self._signing and not layers & SIGNED and not self._accept_unsealed:
            raise UnreadableMessage(
                "it is not signed, and this program takes nothing else",
                hint="set the same signing_keys in every program that uses this store",
            )
        end = len(sealed)
        if layers & SIGNED and (self._signing or layers & ENCRYPTED == 0):
            secret = self._signing.get(signing)
            if secret is None:
                raise UnreadableMessage(
                    f"it is signed with the key {signing!r:.40}, which is not among signing_keys here",
                    hint="a new key goes to the end of signing_keys in every program first, then to the front",
                )
            end -= _TAG
            if end < at or not hmac.compare_digest(_signature(secret, sealed[:end], id), sealed[end:]):
                raise UnreadableMessage(
                    "its signature is wrong: it was changed, or belongs to another task",
                    hint="another program writes to this store, or two keys have the same id",
                )
        elif layers & SIGNED:
            end -= _TAG  # without a signing key the tag of the cipher is what protects it
        if self._encryption and not layers & ENCRYPTED and not self._accept_unsealed:
            raise UnreadableMessage(
                "it is not encrypted, and this program takes nothing else",
                hint="set the same encryption_keys in every program that uses this store",
            )
        if (layers & (SIGNED | ENCRYPTED)) and (
            kind not in kinds or not kind or (queue is not None and its_queue != queue)
        ):
            raise UnreadableMessage("it was sealed for another place in the store")
        message = sealed[at:end]
        if layers & ENCRYPTED:
            message = self._decrypt(encryption, salt, counter, message, sealed[:at] + id.encode())
        return inflate(message, self._most) if layers & COMPRESSED else message

    def _decrypt(self, key: str, salt: bytes, counter: bytes, message: bytes, about: bytes) -> bytes:
        secret = self._encryption.get(key)
        if secret is None:
            raise UnreadableMessage(
                f"it is encrypted with the key {key!r:.40}, which is not among encryption_keys here",
                hint="a new key goes to the end of encryption_keys in every program first, then to the front",
            )
        assert self._aes is not None
        try:
            opened: bytes = self._cipher(secret, salt).decrypt(b"\0\0\0\0" + counter, message, about)
        except (self._aes.InvalidTag, ValueError):
            raise UnreadableMessage(
                "it cannot be decrypted: it was changed, or belongs to another task",
                hint="another program writes to this store, or two keys have the same id",
            ) from None
        return opened


def seal_of(settings: Any) -> Seal | None:
    """Make the seal that these settings ask for; None where they ask for none.

    Raises `ExtraNeeded` where `encryption_keys` is set and `cryptography` is missing.
    """
    signing: tuple[str, ...] = getattr(settings, "signing_keys", ())
    encryption: tuple[str, ...] = getattr(settings, "encryption_keys", ())
    compress_above: int = getattr(settings, "compress_above", 0)
    if not signing and not encryption and not compress_above:
        return None
    return Seal(
        [Key(id, secret.encode()) for id, _, secret in (text.partition(":") for text in signing)],
        [Key(id, key_bytes(secret)) for id, _, secret in (text.partition(":") for text in encryption)],
        compress_above=compress_above,
        accept_unsealed=settings.accept_unsealed,
        most=getattr(settings, "most_readable", settings.max_message_size),
    )


def ceiling(most: int) -> int:
    """Return how many bytes a compressed message may become: the most that an envelope may hold."""
    return 4 * most + 2**20


def _short(name: str) -> bytes:
    data = name.encode()
    return bytes((len(data),)) + data


def _read(sealed: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + sealed[at]
    if end > len(sealed):
        raise IndexError
    return sealed[at + 1 : end].decode(), end


def _derived(secret: bytes, use: bytes) -> bytes:
    """Return a key for one use, so that one text may serve for both uses."""
    return hmac.digest(secret, use, "sha256")


def _signature(secret: bytes, sealed: bytes, id: str) -> bytes:
    # The id stands behind its length, so nothing of it can pass for a part of the message.
    name = id.encode()
    return hmac.digest(secret, b"%d:%s%s" % (len(name), name, sealed), "sha256")


class _Aes(NamedTuple):
    """The parts of `cryptography` in use."""

    AESGCM: Callable[[bytes], Any]
    InvalidTag: type[Exception]


@functools.cache
def _aes() -> _Aes:
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ExtraNeeded(
            "encryption_keys needs the package cryptography", hint='pip install "pq-tasks[encrypt]"'
        ) from None
    return _Aes(AESGCM, InvalidTag)


@functools.lru_cache(maxsize=4096)
def _cipher(aes: _Aes, secret: bytes, salt: bytes) -> Any:
    """Return the cipher of one process: HKDF-SHA256, of which one block is enough."""
    extracted = hmac.digest(salt, secret, "sha256")
    return aes.AESGCM(hmac.digest(extracted, b"pq encryption\x01", "sha256"))
