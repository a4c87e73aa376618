"""Quarantine: a task that may kill its worker runs alone, so that it takes no other task with it.

The store hands such a suspect only to a worker that runs nothing, and says that it is blocked to all others. Two
waits are bounded by one lease each, because a suspect, or what runs beside it, may wait for a task that only this
worker can run: a suspect that ran that long has killed nothing and is trusted; one that has waited that long runs
beside others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Quarantine:
    """The quarantine of one worker; `wake` has its consumer look again.

    Attributes:
        task: id of the suspect that runs alone here, or None: nothing may be reserved beside it.
    """

    __slots__ = ("_blocked_since", "_lease", "_wake", "task")

    def __init__(self, lease: float, wake: Callable[[], None]) -> None:
        self.task: str | None = None
        self._lease = lease
        self._wake = wake
        self._blocked_since: float | None = None

    def begin(self, suspect: str) -> None:
        """A suspect has started here."""
        self.task = suspect
        asyncio.get_running_loop().call_later(self._lease, self._trust, suspect)

    def _trust(self, suspect: str) -> None:
        if self.task == suspect:
            self.end()
            self._wake()

    def end(self) -> None:
        """The suspect has ended, or is trusted."""
        self.task = None

    def blocked(self) -> None:
        """The next task is a suspect, and waits for this worker to be idle."""
        if self._blocked_since is None:
            loop = asyncio.get_running_loop()
            self._blocked_since = loop.time()
            loop.call_later(self._lease, self._wake)

    def unblocked(self) -> None:
        """No suspect is next."""
        self._blocked_since = None

    def blocked_long(self) -> bool:
        """Return whether a suspect has waited a whole lease for this worker to be idle."""
        since = self._blocked_since
        return since is not None and asyncio.get_running_loop().time() >= since + self._lease

    def clear(self) -> None:
        """Forget all of it, because the lease is lost."""
        self.task = self._blocked_since = None
