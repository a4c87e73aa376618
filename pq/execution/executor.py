"""The contract of the four ways to run an attempt."""

from __future__ import annotations

from typing import Protocol

from .attempt import Attempt


class Executor(Protocol):
    """One way to run attempts. All of it is used on the event loop, from one thread."""

    @property
    def leaked(self) -> int:
        """Attempts that were stopped and whose code still runs: a worker with many should be replaced."""
        ...

    async def start(self) -> None:
        """Make ready what is better ready before the first attempt."""

    async def stop(self) -> None:
        """Release what still runs (outcome RELEASED) and all resources, within seconds."""

    def capacity(self) -> int | None:
        """Return how many more attempts could start at once now; None: any number."""
        ...

    def start_attempt(self, attempt: Attempt) -> None:
        """Run it. Returns at once and never raises: the outcome says what happened.

        More attempts than `capacity()` wait for their turn; their time-out does not run meanwhile.
        """
