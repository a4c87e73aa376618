"""Who waits for the token of one queue of a cluster, and can be told to stop without losing his connection.

A blocking read that is given up takes its connection with it, since its answer is still to come. So it is
answered instead: besides the token it waits for a *bell*, a list that nobody else knows of, and `poke` rings
it. Each wait has a bell of its own. One that was rung in vain, since the token had come first, disturbs no
later wait, and goes by its time to live.

A bell is rung in the write that looks at its queue, before the look. So a token that the wait has taken was
taken before that look, which leaves it anew where tasks are left. A wait that arrives late finds its bell
rung, and leaves the token alone: the bell is the first that it asks for.
"""

from __future__ import annotations

import asyncio
import secrets

from ...errors import StoreUnavailable
from ..keys import Keys
from .calls import BLOCK_MARGIN
from .link import Caller, Command, checked
from .scripts import script

RUNG = 2.0
"""Seconds that a wait whose bell was rung gets for its answer; then its connection counts as dead."""


class QueueWait:
    """Waits at one queue, over a connection of its own."""

    def __init__(self, link: Caller, keys: Keys, queue: str, *, where: str, stated: str | None) -> None:
        self._link = link
        self._keys = keys
        self._queue = queue
        self._where = where
        self._stated = stated
        self._name = secrets.token_hex(6)
        self._count = 0
        self._bell = ""
        self._seconds = 0.0
        self._before: asyncio.Task[bool] | None = None
        self._wait: asyncio.Task[bool] | None = None

    def listen(self, seconds: float) -> asyncio.Task[bool]:
        """Wait for a token, which is taken; False when none came in time, or the bell was rung."""
        self._count += 1
        self._bell = f"{self._name}.{self._count}"
        self._seconds = seconds
        before = self._before = self._wait
        hearing = self._hear(before, self._bell, seconds)
        self._wait = asyncio.get_running_loop().create_task(hearing)
        return self._wait

    def ring(self) -> list[Command]:
        """What ends the wait, to be sent to the queue's node; nothing when it has ended."""
        if self._wait is None or self._wait.done():
            return []
        # As long as it may take to connect, and then to wait: the bell must be there when the wait arrives.
        ttl = int(2000 * (self._seconds + BLOCK_MARGIN))
        prefix = self._keys.prefix(self._queue)
        return [("EVALSHA", script("poke").digest, 1, prefix, self._bell, ttl)]

    async def stop(self) -> None:
        """End the wait at once, with its connection."""
        waits = [wait for wait in (self._before, self._wait) if wait is not None]
        self._before = self._wait = None
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        await self.stop()
        await self._link.close()

    async def _hear(self, before: asyncio.Task[bool] | None, bell: str, seconds: float) -> bool:
        wake = self._keys.wake(self._queue)
        if before is not None:
            try:
                await asyncio.wait([before], timeout=RUNG)  # its answer is on the way
            finally:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)
        try:
            command: Command = ("BLPOP", self._keys.bell(self._queue, bell), wake, f"{seconds:.3f}")
            (reply,) = await self._link.call([command], timeout=seconds + BLOCK_MARGIN)
            answer = checked(reply, self._where, self._stated)
            return answer is not None and answer[0] == wake.encode()
        except StoreUnavailable:
            await self._link.reset()
            return True  # whatever it was, it is time to look
