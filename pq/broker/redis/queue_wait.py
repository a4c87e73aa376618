"""Blocking waits on the queues of a cluster that can be interrupted without dropping their connections.

A blocking read that is given up takes its connection with it, since its answer is still to come. So it is
answered instead: besides the token of the queue it waits for an *interrupt key*, a list that no other wait knows, and
the script `poke` pushes to it. Each wait has an interrupt key of its own. One that was pushed in vain, since the token
had come first, disturbs no later wait, and goes by its time to live.

The key is pushed in the write that looks at the queue, before the look. So a token that the wait has taken was
taken before that look, which leaves it again where tasks are left. A wait that arrives late finds its key
pushed, and leaves the token alone: the interrupt key is the first that it asks for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from ...errors import StoreUnavailable
from ..keys import Keys
from .calls import BLOCK_MARGIN, Calls
from .codec import evalsha
from .failures import checked
from .link import Caller, Command

ANSWER_WITHIN = 2.0
"""Seconds that an interrupted wait gets for its answer; then its connection counts as dead."""


class QueueWait:
    """A blocking wait on one cluster queue that can be interrupted without dropping its connection."""

    def __init__(self, link: Caller, keys: Keys, queue: str, *, where: str, stated: str | None) -> None:
        self._link = link
        self._keys = keys
        self._queue = queue
        self._where = where
        self._stated = stated
        self._name = secrets.token_hex(6)
        self._count = 0
        self._interrupt = ""
        self._seconds = 0.0
        self._before: asyncio.Task[bool] | None = None
        self._wait: asyncio.Task[bool] | None = None

    def start(self, seconds: float) -> asyncio.Task[bool]:
        """Wait for a token, which is taken; False when none came in time, or the wait was interrupted."""
        self._count += 1
        self._interrupt = f"{self._name}.{self._count}"
        self._seconds = seconds
        before = self._before = self._wait
        waiting = self._run(before, self._interrupt, seconds)
        self._wait = asyncio.get_running_loop().create_task(waiting)
        return self._wait

    def interrupt(self) -> list[Command]:
        """Return what ends the wait, to be sent to the queue's node; nothing when it has ended."""
        if self._wait is None or self._wait.done():
            return []
        # As long as it may take to connect, and then to wait: the key must be there when the wait arrives.
        ttl = int(2000 * (self._seconds + BLOCK_MARGIN))
        return [evalsha("poke", [self._keys.prefix(self._queue)], self._interrupt, ttl)]

    async def stop(self) -> None:
        """End the wait at once, with its connection."""
        waits = [wait for wait in (self._before, self._wait) if wait is not None]
        self._before = self._wait = None
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        """End the wait and close the connection."""
        await self.stop()
        await self._link.close()

    async def _run(self, before: asyncio.Task[bool] | None, interrupt: str, seconds: float) -> bool:
        wake = self._keys.wake(self._queue)
        if before is not None:
            try:
                await asyncio.wait([before], timeout=ANSWER_WITHIN)  # its answer is on the way
            finally:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)
        try:
            key = self._keys.interrupt(self._queue, interrupt)
            command: Command = ("BLPOP", key, wake, f"{seconds:.3f}")
            (reply,) = await self._link.call([command], timeout=seconds + BLOCK_MARGIN)
            answer = checked(reply, self._where, self._stated)
            return answer is not None and answer[0] == wake.encode()
        except StoreUnavailable:
            await self._link.reset()
            return True  # whatever it was, it is time to look


class QueueWaits:
    """The waits of one worker at its queues. `make_link` makes the connection of one wait."""

    def __init__(self, calls: Calls, make_link: Callable[[], Caller]) -> None:
        self._calls = calls
        self._make_link = make_link
        self._waits: dict[str, QueueWait] = {}

    def _wait_at(self, queue: str) -> QueueWait:
        wait = self._waits.get(queue)
        if wait is None:
            calls = self._calls
            wait = self._waits[queue] = QueueWait(
                self._make_link(), calls.keys, queue, where=calls.where, stated=calls.stated
            )
        return wait

    async def wait_for_token(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait for a token of one of the queues, which is taken; False when none came in time.

        The other waits go on, and may take tokens too: each is to be interrupted, and then its queue looked at.
        """
        waits = [self._wait_at(queue).start(seconds) for queue in queues]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return any(wait.result() for wait in done)

    def interrupt(self, queue: str) -> list[Command]:
        """Return what ends the wait at one queue, to be sent to its node; nothing when it has ended."""
        return self._waits[queue].interrupt()

    async def stop(self) -> None:
        """End all waits at once, with their connections."""
        await asyncio.gather(*(wait.stop() for wait in self._waits.values()))

    async def close(self) -> None:
        """End all waits and close their connections."""
        for wait in self._waits.values():
            await wait.close()
