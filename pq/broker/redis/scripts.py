"""The Lua scripts: loaded from `lua/*.lua`, put together with their shared parts, known by digest.

One file is one transition. A script names the parts of `lib.lua` it needs in a line `--@use a b`, and
gets just those, in the order in which `lib.lua` has them. It is called by its SHA-1 digest, so workers
of an old and a new version, whose scripts differ, can live on one server.
"""

from __future__ import annotations

import functools
import hashlib
import re
from importlib import resources
from typing import NamedTuple

NAMES = (
    "enqueue",
    "reserve",
    "settle",
    "open_lease",
    "renew",
    "hand_back",
    "cancel",
    "retry_dead",
    "pause",
    "inspect",
    "poke",
    "limit",
    "lock",
    "unlock",
    "forget",
    "tick",
    "schedule",
    "replace",
    "displace",
    "stream",
)


class Script(NamedTuple):
    """A script as it is sent."""

    name: str
    source: bytes
    digest: bytes


@functools.cache
def script(name: str) -> Script:
    """The script of that name, read once."""
    return assemble(name, _read(name), _read("lib"))


def assemble(name: str, body: str, library: str) -> Script:
    """Put a script together from its text and the library's."""
    used = re.search(r"^--@use (.*)$", body, re.MULTILINE)
    wanted = set(used.group(1).split()) if used else set()
    pieces = re.split(r"^--@part (\w+)\n", library, flags=re.MULTILINE)[1:]
    parts = dict(zip(pieces[::2], pieces[1::2], strict=True))
    missing = wanted - parts.keys()
    if missing:
        raise LookupError(f"{name}.lua uses parts that lib.lua does not have: {', '.join(sorted(missing))}")
    text = "".join(_strip(text) for part, text in parts.items() if part in wanted) + _strip(body)
    source = text.encode("utf-8")
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode("ascii"))


def _strip(text: str) -> str:
    """Without whole-line comments and blank lines: what the server keeps need not carry them."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--"))
    return "\n".join(lines) + "\n"


def _read(name: str) -> str:
    return resources.files("pq.broker").joinpath("lua", f"{name}.lua").read_text("utf-8")
