"""Calls to a store: repeated while that makes sense, with the scripts loaded where they are missing.

Four connections per process, each with one duty, so that none waits for another: `main` (settle and
reserve; queueing), `side` (looks, cancels, heartbeats), `block` (the blocking read of an idle worker)
and one for each subscription. The lease is renewed over yet another, by a thread (`pq.broker.redis.renewer`).

A call that failed in a way that may pass is repeated here, with backoff and jitter, for `patience`
seconds; that is safe because every script is idempotent under blind repetition (see the contract).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from ...clock import Clock
from ...errors import StoreUnavailable
from ..keys import Keys
from .backoff import pause
from .codec import evalsha, read_time
from .failures import ScriptMissing, checked
from .link import Caller, Command
from .scripts import NAMES, script

BLOCK_MARGIN = 5.0
"""Seconds by which the time-out of a connection exceeds the blocking read on it."""


class Links(NamedTuple):
    """The connections of a broker, by their duties."""

    main: Caller
    side: Caller
    block: Caller
    firm: Caller
    """Of its own: a call that waits for a replica holds up no other one."""


class Calls:
    """Calls of the ports to the store. `patience`: seconds for which a failing call is repeated."""

    def __init__(
        self,
        links: Links,
        keys: Keys,
        *,
        where: str,
        stated: str | None,
        patience: float,
        clock: Clock,
        always: str = "",
        on_unreachable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.links = links
        self.keys = keys
        self.where = where
        self.patience = patience
        self.clock = clock
        self.always = always
        """See `Server.always`."""
        self.time_override: Callable[[], int | str] | None = None
        """The time, in ms, that scripts are to take for the store's; for tests."""
        self.version: tuple[int, ...] = (0, 0)
        """The version of the Redis whose commands the server has."""
        self.stated = stated
        self._on_unreachable = on_unreachable
        self._known_queues: set[str] = set()

    def given_time(self) -> int | str:
        """Return the time that scripts are to take for the store's; '' is its own."""
        return "" if self.time_override is None else self.time_override()

    async def repeat(
        self, link: Caller, commands: Sequence[Command], *, timeout: float | None = None, once: int = 0
    ) -> list[Any]:
        """Call until it succeeds or patience ends. Every command of the protocol may be repeated.

        But for the first `once` of them: these only wait, and a repeated call has waited.
        """
        started = self.clock.monotonic()
        failures, forgotten = link.failures, 0
        while True:
            try:
                try:
                    replies = await link.call(commands, timeout=timeout)
                    found = [checked(reply, self.where, self.stated) for reply in replies]
                    link.failures = 0
                    return found
                except ScriptMissing:
                    forgotten += 1
                    await self._load_scripts(link, forgotten)
                    commands, once = commands[once:], 0
                    continue
            except StoreUnavailable:
                commands, once = commands[once:], 0
                failures += 1
                if self.clock.monotonic() - started >= self.patience:
                    link.failures = max(link.failures, failures)
                    raise
                # A server that answers "not now" may be the wrong one by now: look it up again. And the right one
                # may not know what the old one knew.
                await link.reset()
                self._known_queues.clear()
                if self._on_unreachable is not None:
                    await self._on_unreachable()
            await asyncio.sleep(pause(failures, self.clock.random()))

    async def _load_scripts(self, link: Caller, forgotten: int) -> None:
        loaded = await link.call([("SCRIPT", "LOAD", script(name).source) for name in NAMES])
        for reply in loaded:
            checked(reply, self.where)
        if forgotten > 1:  # once is normal: the server was started again
            raise StoreUnavailable(
                f"{self.where} does not keep our scripts: it took them {forgotten} times, and did not know "
                "them a moment later",
                hint="is it several servers behind one address? Name those, redis+sentinel:// or "
                "redis+cluster://. Or another program runs SCRIPT FLUSH again and again",
            ) from None

    async def run_script(self, name: str, key: str, *args: Any, link: Caller | None = None) -> Any:
        """Run a script of one queue (or lock); return its reply."""
        return (await self.repeat(link or self.links.side, [evalsha(name, [key], *args)]))[0]

    async def run(self, *command: Any) -> Any:
        """Run one command that may be repeated, over `side`; return its reply."""
        return (await self.repeat(self.links.side, [command]))[0]

    async def run_all(self, *commands: Command) -> list[Any]:
        """Run such commands in one round trip; the first that is refused raises."""
        return await self.repeat(self.links.side, commands)

    async def now(self) -> int:
        """Return the store's clock in ms, or the time that is given in its place."""
        return self.store_time(await self.run("TIME"))

    def store_time(self, reply: Sequence[bytes]) -> int:
        """Return the time in a reply to TIME in ms, or the time that is given in its place."""
        return int(self.given_time() or read_time(reply))

    def is_known(self, queue: str) -> bool:
        """Return whether the store is known to know a queue."""
        return queue in self._known_queues

    async def make_known(self, queue: str) -> None:
        """Add a queue to the known ones, if that was not done yet.

        By itself and first: a store may take this and refuse what follows, which then was not queued.
        """
        if queue not in self._known_queues:
            await self.repeat(self.links.main, [("SADD", self.keys.queues, queue)])
            self._known_queues.add(queue)

    async def close(self) -> None:
        """Close all connections. Twice is harmless."""
        for link in self.links:
            await link.close()

    def abandon(self, why: str) -> None:
        """Have each next call make a new connection, and those that are under way fail."""
        for link in self.links:
            link.abandon(why)
