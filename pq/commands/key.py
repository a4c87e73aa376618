"""The verb `key`: a new key for `signing_keys` or `encryption_keys`."""

from __future__ import annotations

import time

from ..cli import Command, UsageError, VerbParser
from ..model.keyring import new_key
from ..model.names import NAME
from .terminal import note, say


def run(command: Command) -> int:
    """`pq key`, or `pq key ID`."""
    parser = VerbParser(command, "create a key (id:secret, 256 random bits) on standard output")
    parser.add_argument("id", nargs="?", default=None, help="id of the key (default: k and the date)")
    wanted = parser.parse(command.argv)
    id = time.strftime("k%Y%m%d") if wanted.id is None else wanted.id
    if not NAME.fullmatch(id):
        raise UsageError(f"{id!r:.40} is not a valid key id", hint="use letters, digits, '.', '_' and '-'")
    say(f"{id}:{new_key()}")
    note("keep it in a file that only the servers can read, and name that: signing_keys = '@/run/secrets/pq'")
    return 0
