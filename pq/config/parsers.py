"""Parsers of settings: one for each kind of value.

A parser takes what a person wrote, a Python value in a program or a config file, or text in a variable
or on the command line, and returns the value in its one canonical form. What does not fit is a
`ValueError` whose text completes the sentence "the value is not …", so every mistake can say what would
have fitted. A parser leaves its own results unchanged: settings may be parsed again and again.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from ..model import partitions as parts
from ..model.keyring import key_bytes
from ..model.names import NAME
from .hosts import kind_of, parse_hosts

Parser = Callable[[object], object]

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "valkey",
    "valkeys",
    "embedded",
    "memory",
)
ALIASES = {
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+sentinel": "redis+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
    "valkey+cluster": "redis+cluster",
    "valkeys+cluster": "rediss+cluster",
}

_SCHEME = re.compile(r"['\"]?[A-Za-z][A-Za-z0-9+.-]*:*://")
_SECRET_PARAMETER = re.compile(r"(?i)([?&;][^=&#]*(?:passw|pwd|secret|token|key(?!file))[^=&#]*=)[^&#]*")


def whole(least: int, most: int | None = None) -> Parser:
    """A whole number within bounds. `True` is none, although Python counts it as 1."""
    fits = f"a whole number of {least} or more" if most is None else f"a whole number, {least} to {most}"

    def parse(value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise ValueError(fits) from None
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(fits)
        if value < least or (most is not None and value > most):
            raise ValueError(fits)
        return value

    return parse


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """A number of workers that follows the demand, from `least` to `most`. Its text is `1..8`."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}..{self.most}"


MOST_WORKERS = 1024
_RANGE = re.compile(r"\s*(-?[0-9]{1,9})\s*\.\.\s*(-?[0-9]{1,9})\s*")


def workers(value: object) -> int | WorkerRange:
    """A number of workers, or a range of it such as `1..8`. A range of one number is that number."""
    if isinstance(value, WorkerRange):
        value = str(value)
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        try:
            number = whole(1, MOST_WORKERS)(value)
        except ValueError as mistake:
            raise ValueError(f"{mistake}, or a range of it such as 1..8") from None
        assert isinstance(number, int)
        return number
    least, most = int(found[1]), int(found[2])
    low, high = (min(max(1, end), MOST_WORKERS) for end in sorted((least, most)))
    if least > most:
        raise ValueError(f"a range with its smaller number first; write {low}..{high}")
    if (least, most) != (low, high):
        raise ValueError(f"a range within 1..{MOST_WORKERS}; write {low}..{high}")
    return low if low == high else WorkerRange(low, high)


def seconds(least: float) -> Parser:
    """A finite number of seconds, or a `timedelta`."""
    fits = f"a number of seconds, {least:g} or more"

    def parse(value: object) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(fits)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError(fits) from None
        # Infinity would reach the store as a deadline; NaN passes every comparison with a bound.
        if not math.isfinite(number) or number < least:
            raise ValueError(fits)
        return number

    return parse


def switch(value: object) -> bool:
    """On or off. Text is read, because `bool("off")` is true."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE or word in FALSE:
            return word in TRUE
    elif isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise ValueError("one of 1/true/yes/on or 0/false/no/off")


def choice(*words: str) -> Parser:
    """One of a few words, in any case."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise ValueError("one of " + ", ".join(words))

    return parse


def name(value: object) -> str:
    """A name that is safe within keys of the store, log lines and web pages."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise ValueError("a name of up to 128 letters, digits, '.', '_' and '-', a letter or digit first")


def names(value: object) -> tuple[str, ...]:
    """One or more names, in order of preference and each once; text is separated by commas."""
    found = _words(value, "a list of names")
    if not found:
        raise ValueError("a list of at least one name")
    return tuple(dict.fromkeys(name(word) for word in found))


def weights(value: object) -> tuple[str, ...]:
    """Weights of names, as `name:weight` each: a list, text with commas, or a mapping."""
    fits = "a list of queues with their weights from 1 to 1000, such as high:6,low:1"
    if isinstance(value, Mapping):
        value = [f"{name}:{weight}" for name, weight in value.items()]
    found = {}
    for word in _words(value, fits):
        queue, _, weight = word.partition(":")
        if not weight.isascii() or not weight.isdigit() or not 1 <= int(weight) <= 1000:
            raise ValueError(fits)
        found[name(queue)] = f"{queue}:{int(weight)}"
    return tuple(found.values())


def partitions(value: object) -> tuple[str, ...]:
    """Queues and into how many they are cut, as `name=number` each: a list, text with commas, or a mapping."""
    fits = f"a list of queues with their number of partitions from {parts.LEAST} to {parts.MOST}, such as orders=8"
    if isinstance(value, Mapping):
        value = [f"{name}={count}" for name, count in value.items()]
    found: dict[str, str] = {}
    for word in _words(value, fits):
        queue, _, count = word.partition("=")
        if not re.fullmatch(r"[0-9]{1,9}", count) or not parts.LEAST <= int(count) <= parts.MOST:
            raise ValueError(fits)
        if not parts.may_have_partitions(name(queue)):
            raise ValueError(f"{fits}; the name of a queue that is cut may have 123 characters")
        if queue in found:
            raise ValueError(f"{fits}; {queue} comes twice")
        found[queue] = f"{queue}={int(count)}"
    return tuple(found.values())


def module_paths(value: object) -> tuple[str, ...]:
    """Dotted paths of modules; `pkg.*` stands for every module of a package."""
    fits = "a list of dotted module paths, such as 'shop.jobs' or 'shop.*'"
    found = _words(value, fits)
    for path in found:
        if not all(part.isidentifier() for part in path.removesuffix(".*").split(".")):
            raise ValueError(fits)
    return tuple(dict.fromkeys(found))


def optional(parse: Parser) -> Parser:
    """The same, or None for "decided elsewhere"."""

    def parse_or_none(value: object) -> object:
        return None if value is None or value == "" else parse(value)

    return parse_or_none


def store_url(value: object) -> str:
    """The URL of a store; empty text and None mean the embedded server.

    The aliases `valkey://` and `valkeys://` leave here as `redis://` and `rediss://`, so no other module has
    to know them.
    """
    if value is None or value == "":
        return ""
    fits = "a store URL; its scheme is one of " + ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if not isinstance(value, str):
        raise ValueError(fits)
    scheme, separator, rest = value.strip().partition("://")
    scheme = scheme.lower()
    if not separator or (scheme not in SCHEMES and scheme not in ALIASES):
        raise ValueError(fits)
    url = f"{ALIASES.get(scheme, scheme)}://{rest}"
    if kind_of(url) is not None:
        parse_hosts(url)  # several hosts are no URL that the standard library could check
    if scheme in ("redis", "rediss", "valkey", "valkeys"):
        try:
            _ = urlsplit(f"redis://{rest}").port
        except ValueError:
            raise ValueError(
                "a store URL whose host and port are right; write @ : / # in a password as %40 %3A %2F %23"
            ) from None
    if scheme == "unix" and not urlsplit(f"unix://{rest}").path:
        raise ValueError("a store URL with the path of a socket, such as unix:///run/valkey.sock")
    return url


def url(*schemes: str) -> Parser:
    """A URL of one of these schemes, with a host."""
    fits = "a URL of the form " + " or ".join(f"{scheme}://host" for scheme in schemes)

    def parse(value: object) -> str:
        if not isinstance(value, str) or not value.isprintable() or " " in value:
            raise ValueError(fits)
        try:
            parts = urlsplit(value)
            known = parts.scheme in schemes and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"{fits}; write @ : / # in a password as %40 %3A %2F %23")
        return value

    return parse


def path(value: object) -> str:
    """A path, which leaves here absolute: as seen from the current directory, `~` being the user's home."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("a path")
    return os.path.abspath(os.path.expanduser(value))


_ADDRESS = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+")


def address(value: object) -> str:
    """A mail address, without a name."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError("a mail address like ann@example.org")
    return value


def addresses(value: object) -> tuple[str, ...]:
    """Mail addresses: a list, or text with commas."""
    fits = "a list of mail addresses like ann@example.org"
    found = _words(value, fits)
    if not all(_ADDRESS.fullmatch(word) for word in found):
        raise ValueError(fits)
    return tuple(dict.fromkeys(found))


LEAST_SECRET = 16
"""Characters of the shortest secret that is taken."""


def keys(*, exact: bool) -> Parser:
    """Keys, as `id:secret` each: a list, text with commas or lines, or `@file` for a file that has them.

    `exact`: the secret has 32 bytes in base64, else it is any text that is long enough.
    """
    made = "pq key makes one" if exact else f"{LEAST_SECRET} characters or more; pq key makes one"
    fits = f"a list of keys, each id:secret ({made}), or @ and the path of a file that has them"

    def parse(value: object) -> tuple[str, ...]:
        found: dict[str, str] = {}
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
        for word in _words([from_file(part) for part in parts], fits):
            id, colon, secret = word.partition(":")
            if not colon or not NAME.fullmatch(id) or len(secret) < LEAST_SECRET or not secret.isprintable():
                raise ValueError(fits)
            if exact:
                try:
                    key_bytes(secret)
                except ValueError:
                    raise ValueError(fits) from None
            if id in found:
                raise ValueError(f"a list of keys with an id of its own for each; {id} comes twice")
            found[id] = word
        return tuple(found.values())

    return parse


def from_file(value: object) -> object:
    """Return the content of a file for `@` and its path; lines that begin with # are left out."""
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    path = os.path.expanduser(value[1:])
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(65_536).splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ValueError(f"the path of a file that can be read: {path}: {why}") from None
    return ",".join(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def mask_key(text: str) -> str:
    """A key with `***` for its secret; of anything else, nothing."""
    id, colon, _ = text.partition(":")
    return f"{id}:***" if colon and NAME.fullmatch(id) else "***"


def redact_path(url: str) -> str:
    """`url` without what comes after its host: the path of a web hook is its password."""
    scheme, separator, rest = redact(url).partition("://")
    host, slash, _ = rest.partition("/")
    return f"{scheme}{separator}{host.partition('?')[0]}{slash and '/***'}"


def redact(url: str) -> str:
    """`url` with `***` for its passwords, fit to be shown.

    This works on the text and not on a parsed URL, because the URLs that get printed are often the wrong
    ones: a raw '@' or '/' in a password, a missing scheme. Where it errs, it hides too much.
    """
    login, at, place = url.rpartition("@")
    if at:
        scheme = _SCHEME.match(login)  # a password may have :// too
        start = scheme.end() if scheme else 0
        user, colon, _ = login[start:].partition(":")
        if colon:
            login = f"{login[:start]}{user}:***"
    return _SECRET_PARAMETER.sub(r"\1***", f"{login}{at}{place}")


def _words(value: object, fits: str) -> list[str]:
    """The words of comma separated text, or of a list of such texts (a flag may be given repeatedly)."""
    parts: Iterable[object] = (
        [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [None]
    )
    found: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise ValueError(fits)
        found += [word.strip() for word in part.split(",") if word.strip()]
    return found
