"""Which node has which slot of a cluster, and the connections to the nodes.

A queue is in one slot, by the braces in the names of its keys. `ClusterLink` looks like one connection and is
one to each node: it sends each command to the node that has its key, those of one node in one write, and
gives the replies back in their order.

A node that does not have the slot says which one has it (MOVED). Then the map is fetched again and the call is
repeated, all of it, since every call may be. A slot that is being moved is left alone (ASK, TRYAGAIN):
half of a queue is at one node then and half at the other, and no script could see it whole. So its queues
rest until the slot has arrived, which takes as long as their data take, and the others go on.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis.exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot

from ...errors import StoreError, StoreRefused, StoreUnavailable
from .failures import translate
from .link import Command, Link

Address = tuple[str, int]
ASK_NODE = 3.0
"""Seconds that one node gets to show its map."""

_ANYWHERE = frozenset({"PUBLISH", "INFO", "TIME", "PING", "CONFIG", "WAIT", "WAITAOF"})
_EVERYWHERE = frozenset({"SCRIPT"})
_REDIRECTED = (redis_errors.MovedError, redis_errors.AskError, redis_errors.TryAgainError)


@functools.lru_cache(maxsize=4096)
def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return key_slot(key.encode("utf-8"))


def key_of(command: Command) -> str | None:
    """Return the key that decides where a command goes; None: any node will do."""
    word = command[0]
    if word == "EVALSHA":
        return str(command[3])
    return None if word in _ANYWHERE or word in _EVERYWHERE else str(command[1])


class Slots:
    """The map of a cluster, shared by all connections of a broker."""

    def __init__(
        self,
        seeds: Sequence[Address],
        make: Callable[[Address], AbstractConnection],
        *,
        where: str,
        stated: str | None,
    ) -> None:
        self._seeds = tuple(seeds)
        self._make = make
        self._where = where
        self._stated = stated
        self._nodes: list[Address | None] = [None] * 16384
        self._known: tuple[Address, ...] = ()
        self._said: Address | None = None
        self._loaded_at: float | None = None
        self._loading = asyncio.Lock()
        self.stale = True

    @property
    def masters(self) -> tuple[Address, ...]:
        """Those that have slots."""
        return self._known

    def any_master(self) -> Address:
        """Return one of them."""
        return random.choice(self._known)  # noqa: S311  no secret

    def node(self, slot: int) -> Address | None:
        """Return the node that has a slot; None when none has."""
        return self._nodes[slot]

    def moved(self, host: str, port: int) -> None:
        """Note that a node named another one for a slot: that one is asked for its map first."""
        self._said = (host, port)

    async def fresh(self) -> None:
        """Fetch the map again where it was found wrong since."""
        if not self.stale:
            return
        asked_at = asyncio.get_running_loop().time()
        async with self._loading:
            if not self.stale or (self._loaded_at is not None and self._loaded_at > asked_at):
                return
            await self._load()
            self._loaded_at = asyncio.get_running_loop().time()

    async def _load(self) -> None:
        said, self._said = self._said, None
        others = [node for node in {*self._known, *self._seeds} if node != said]
        random.shuffle(others)  # a node that is cut off from the rest must not be asked every time
        error: StoreError | None = None
        for address in [said, *others] if said is not None else others:
            try:
                async with asyncio.timeout(ASK_NODE):
                    found = await self._ask(address)
            except (redis_errors.RedisError, OSError, TimeoutError) as exc:
                failure = translate(exc, f"{address[0]}:{address[1]}", self._stated)
                if "cluster support disabled" in str(exc):
                    failure = StoreRefused(
                        f"{address[0]}:{address[1]} is not a node of a cluster",
                        hint="name it as redis://host:port",
                    )
                elif isinstance(exc, redis_errors.NoPermissionError):
                    failure = StoreRefused(
                        failure.message,
                        hint="ACL SETUSER <user> +cluster|info +cluster|slots, on each node; "
                        "docs/how-to/security.md has the whole line",
                    )
                # A refusal says more than no answer.
                error = error if isinstance(error, StoreRefused) else failure
                continue
            if found is None:
                error = error or StoreUnavailable(
                    f"the cluster at {self._where} is down for {address[0]}:{address[1]}",
                    hint="CLUSTER INFO and CLUSTER NODES of its nodes say why",
                )
                continue
            self._nodes = found
            self._known = tuple(sorted({node for node in found if node is not None}))
            self.stale = False
            return
        assert error is not None
        raise error

    async def _ask(self, address: Address) -> list[Address | None] | None:
        """Return the map that a node has; None when the cluster is down for it."""
        connection = self._make(address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("CLUSTER", "INFO")
            info = await connection.read_response()
            if b"cluster_state:ok" not in info:
                return None
            await connection.send_command("CLUSTER", "SLOTS")
            ranges = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        nodes: list[Address | None] = [None] * 16384
        for first, last, master, *_ in ranges:
            host, port = master[0], int(master[1])
            # An empty name is that of the node that was asked.
            name = host.decode() if host and host != b"?" else address[0]
            nodes[first : last + 1] = [(name, port)] * (last - first + 1)
        return nodes


class ClusterLink:
    """One connection to each node, which looks like one connection. Calls to one node take turns."""

    def __init__(self, slots: Slots, make_link: Callable[[Address], Link], *, where: str) -> None:
        self._slots = slots
        self._make_link = make_link
        self._where = where
        self._links: dict[Address, Link] = {}
        self.failures = 0

    def stands_since(self, keys: Iterable[str]) -> float | None:
        """See `Caller.stands_since`."""
        since: float | None = None
        for node in {self._slots.node(slot_of(key)) for key in keys}:
            link = self._links.get(node) if node is not None else None
            stood = link.connected_since if link is not None else None
            if stood is None:
                return None
            since = stood if since is None else max(since, stood)
        return since

    async def call(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send each command to the node that has its key; return the replies in the order of the commands.

        Raises `StoreUnavailable` when a node cannot be reached or does not have the slot: then any of them may
        have been applied, and all may be repeated.
        """
        await self._slots.fresh()
        await self._close_former()
        if commands[0][0] in _EVERYWHERE:
            calls = [self._call(node, commands, timeout) for node in self._slots.masters]
            return (await asyncio.gather(*calls))[0]
        parts: dict[Address, list[int]] = {}
        for at, node in enumerate(self._places(commands)):
            parts.setdefault(node, []).append(at)
        if len(parts) == 1:
            (node,) = parts
            return await self._call(node, commands, timeout)
        calls = [self._call(node, [commands[at] for at in ats], timeout) for node, ats in parts.items()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        replies: list[Any] = [None] * len(commands)
        for ats, answer in zip(parts.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            for at, reply in zip(ats, answer, strict=True):
                replies[at] = reply
        return replies

    def _places(self, commands: Sequence[Command]) -> list[Address]:
        """Return the node of each command. Those without a key go where the others of their call go."""
        keys = [key_of(command) for command in commands]
        homes = [None if key is None else self._home(key) for key in keys]
        anywhere = next((home for home in homes if home is not None), None)
        if anywhere is None:
            # One that we are connected with already, if there is one; any but one that is away.
            stand = (node for node, link in self._links.items() if link.connected_since is not None)
            anywhere = next(stand, None) or self._slots.any_master()
        return [home or anywhere for home in homes]

    def _home(self, key: str) -> Address:
        node = self._slots.node(slot_of(key))
        if node is None:
            self._slots.stale = True
            raise StoreUnavailable(
                f"no node of the cluster at {self._where} has the slot of {key}",
                hint="CLUSTER INFO says which slots have none",
            )
        return node

    async def _call(self, node: Address, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = self._make_link(node)
        try:
            replies = await link.call(commands, timeout=timeout)
        except StoreUnavailable:
            self._slots.stale = True
            raise
        for reply in replies:
            if isinstance(reply, Exception):
                self._redirect(reply, node)
        return replies

    def _redirect(self, reply: Exception, node: Address) -> None:
        """Raise where the error says that the slot is elsewhere, or on its way."""
        moved: Any = reply if isinstance(reply, redis_errors.MovedError) else None
        if moved is not None:
            self._slots.moved(moved.host or node[0], moved.port)
        if isinstance(reply, _REDIRECTED):
            self._slots.stale = True
            raise StoreUnavailable(
                f"{node[0]}:{node[1]} does not have the whole slot: {reply}",
                hint="it is repeated until it is found",
            )
        if isinstance(reply, (redis_errors.ClusterDownError, redis_errors.ReadOnlyError)):
            self._slots.stale = True

    async def at(self, node: Address, command: Command) -> Any:
        """Return the reply of one node to a command."""
        (reply,) = await self._call(node, [command], None)
        return reply

    async def _close_former(self) -> None:
        """Close the connections to nodes that have no slot any more."""
        masters = self._slots.masters
        for node in [node for node in self._links if node not in masters]:
            await self._links.pop(node).close()

    async def reset(self) -> None:
        """Have the next call fetch the map again."""
        self._slots.stale = True

    def abandon(self, why: str) -> None:
        """See `Caller.abandon`."""
        for link in self._links.values():
            link.abandon(why)

    async def close(self) -> None:
        """See `Caller.close`."""
        for link in list(self._links.values()):
            await link.close()
