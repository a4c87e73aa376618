"""The states of a task, as one table.

*Status* says what a task **is** (below, and on the wire); its *place* says where the broker keeps it
(ready, prio, delayed, held, dead). The two are different words on purpose: a task whose attempt failed
and which waits for the next one has status RETRY and place `delayed`.

    QUEUED ──reserve──▶ STARTED ──┬─▶ SUCCESS
      ▲                    │      ├─▶ FAILURE   (dead set)
      │                    │      └─▶ REVOKED   (cancelled, timed out, expired)
      └──── RETRY ◀────────┘
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Statuses of a task. The numbers travel on the wire and never change."""

    SUCCESS = 1
    FAILURE = 2
    REVOKED = 3
    RETRY = 4
    STARTED = 5
    QUEUED = 6


# Plain integers: comparing them on the path of a task costs nothing, and they go on the wire as they are.
SUCCESS = 1
FAILURE = 2
REVOKED = 3
RETRY = 4
STARTED = 5
QUEUED = 6

FULL_RUN_STATES = frozenset({FAILURE, SUCCESS})
"""Statuses of a task that has run to its end."""

READY_STATES = frozenset({REVOKED, FAILURE, SUCCESS})
"""Statuses of a task that is finished: nothing more will happen to it."""

_NAMES = {int(status): status.name for status in Status}


def status_string(status: object) -> str:
    """Return the name of a status number, `'UNKNOWN'` for anything else."""
    return _NAMES.get(status, "UNKNOWN") if isinstance(status, int) else "UNKNOWN"
