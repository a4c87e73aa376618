"""Loaded with `-p` into a test run: puts one mutant in the place of the package's own line."""

from __future__ import annotations

import json
import os

from pq.broker.redis import scripts

_mutant = json.loads(os.environ["PQ_MUTANT"])
_read = scripts._read


def _mutated(name: str) -> str:
    text = _read(name)
    script, old, new = _mutant
    if name != script:
        return text
    assert text.count(old) == 1, f"{script} has {text.count(old)} times: {old}"
    return text.replace(old, new)


scripts._read = _mutated
