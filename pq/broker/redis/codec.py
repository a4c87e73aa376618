"""Commands and replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..contract.values import Exchange, Renewal, Reserved


def table(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def read_reserve(answer: Exchange, queue: str, batch: int, reply: list[Any]) -> None:
    """Add what one queue's `reserve` said to the answer."""
    alive, next_due, vanished, left, flags, noted = reply[:6]
    if not alive:
        answer.lost_lease = True
        return
    if next_due >= 0 and (answer.next_due is None or next_due < answer.next_due):
        answer.next_due = next_due
    answer.vanished += vanished
    answer.more_ready = answer.more_ready or left > 0
    answer.solo = answer.solo or bool(flags & 1)
    answer.blocked = answer.blocked or bool(flags & 2)
    crashes: dict[bytes, int] = {}
    closed: dict[bytes, str] = {}
    for i in range(0, len(noted), 2):
        if isinstance(noted[i + 1], int):
            crashes[noted[i]] = noted[i + 1]
        else:
            closed[noted[i]] = noted[i + 1].decode()
    tasks = answer.tasks
    for i in range(6, len(reply), 2):
        id = reply[i]
        tasks.append(
            Reserved(
                queue,
                id.decode("ascii", "replace"),
                batch,
                reply[i + 1],
                crashes.get(id, 0) if crashes else 0,
                closed.get(id, "") if closed else "",
            )
        )


def read_renewal(replies: list[Any]) -> Renewal:
    """The answer of the script `renew` over all queues."""
    alive = all(reply[0] for reply in replies)
    return Renewal(alive, frozenset(id.decode() for reply in replies for id in reply[1:]))
