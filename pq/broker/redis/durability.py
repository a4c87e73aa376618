"""Queueing that returns when a replica has the tasks, or the disk."""

from __future__ import annotations

from typing import Any

from ...errors import NotDurable, StoreError, StoreRefused
from .calls import BLOCK_MARGIN, Calls
from .link import Command

DURABLE_WITHIN = 5.0
"""Seconds that a replica, or the disk, gets to have a task."""
FIRST_WITH_WAITAOF = (7, 2)


async def send_durably(calls: Calls, command: Command, durability: str) -> Any:
    """Call, and wait on the same connection until a replica has it, or the disk. A repeated call waits again.

    Returns the reply to `command`. Raises `NotDurable`; `StoreRefused` where the server cannot tell.
    """
    if durability == "fsync" and calls.version < FIRST_WITH_WAITAOF:
        raise StoreRefused(
            f"{calls.where} is Redis {'.'.join(map(str, calls.version))}, which cannot tell when its disk has a task",
            hint='durability="replica", or Redis or Valkey 7.2 and later',
        )
    ms = int(DURABLE_WITHIN * 1000)
    wait: Command = ("WAITAOF", 1, 0, ms) if durability == "fsync" else ("WAIT", 1, ms)
    found: Any
    try:
        reply, found = await calls.repeat(
            calls.links.firm, [command, wait], timeout=DURABLE_WITHIN + BLOCK_MARGIN
        )
    except StoreError as exc:
        if "WAITAOF cannot be used" not in exc.message:
            raise
        reply, found = None, None
    copies = 0 if found is None else int(found[0] if durability == "fsync" else found)
    if copies < 1:
        place, hint = (
            ("its disk", "CONFIG SET appendonly yes, and appendfsync always")
            if durability == "fsync"
            else ("a replica", "INFO replication says whether one is connected")
        )
        raise NotDurable(
            f"{calls.where} did not say within {DURABLE_WITHIN:g} s that {place} has the task; "
            "it may be queued nevertheless",
            hint=f"{hint}; the same id may be queued again",
        )
    return reply
