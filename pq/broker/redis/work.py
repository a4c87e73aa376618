"""The port that moves tasks, on one server: each verb is one script call."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from ...errors import QueueFull
from ..contract.values import Entry, Exchange, Queued, Renewal, ReserveCall, Settlement, Tick
from .calls import BLOCK_MARGIN, Calls
from .codec import (
    enqueue_command,
    evalsha,
    read_queued,
    read_refused,
    read_renewal,
    read_reserve,
    read_time,
    reserve_command,
    settle_command,
)
from .durability import send_durably
from .link import Command

BACK_AT_ONCE = 500
"""Tasks that one call hands back at most: the server does nothing else meanwhile."""


class RedisWork:
    """Keeps `Work` on one server. `ttl` and `dead_ttl`: ms for which finished records are kept."""

    def __init__(self, calls: Calls, *, ttl: int, dead_ttl: int) -> None:
        self._calls = calls
        self._keys = calls.keys
        self._ttl = str(ttl)
        self._dead_ttl = str(dead_ttl)
        self.serving: Sequence[str] = ()
        """The prefixes of the queues that a lease was opened for last."""

    # -------------------------------------------------------------------------------- queueing
    async def enqueue(self, queue: str, entries: Sequence[Entry], durability: str = "") -> Queued:
        """See `Work.enqueue`."""
        calls = self._calls
        command = enqueue_command(
            self._keys.prefix(queue),
            entries,
            time=calls.given_time(),
            channel=self._keys.task_channel,
            always=calls.always,
        )
        await calls.make_known(queue)
        try:
            if durability:
                reply = await send_durably(calls, command, durability)
            else:
                (reply,) = await calls.repeat(calls.links.main, [command])
        except QueueFull as exc:
            raise QueueFull(f"queue {queue!r}: {exc.message}", hint=exc.hint) from None
        if not calls.is_known(queue):  # the store was away meanwhile, and may have come back without it
            with contextlib.suppress(QueueFull):  # the tasks are in it, so this is not a refusal
                await calls.make_known(queue)
        return read_queued(reply)

    async def replace(self, queue: str, id: str, record: bytes, delay: int | None = None) -> bool:
        """See `Work.replace`."""
        calls = self._calls
        args = (calls.given_time(), id, record, "" if delay is None else delay)
        return bool(await calls.run_script("replace", self._keys.prefix(queue), *args))

    async def displace(self, queue: str, old: tuple[str, bytes, str], entry: Entry) -> bool:
        """See `Work.displace`."""
        calls = self._calls
        delay = "" if entry.delay is None else entry.delay
        done = await calls.run_script(
            "displace", self._keys.prefix(queue),
            calls.given_time(), self._keys.task_channel, calls.always, self._ttl,
            *old, entry.id, entry.record, delay, entry.priority,
        )  # fmt: skip
        return bool(done)

    async def tick(self, queue: str, ticks: Sequence[Tick]) -> list[int]:
        """See `Work.tick`."""
        calls = self._calls
        await calls.make_known(queue)
        flat = [part for tick in ticks for part in tick]
        args = (calls.given_time(), self._keys.task_channel, calls.always, *flat)
        answers: list[int] = await calls.run_script(
            "tick", self._keys.prefix(queue), *args, link=calls.links.main
        )
        return answers

    # ------------------------------------------------------------------------ leases and settling
    async def open_lease(self, lease: str, queues: Sequence[str], ttl: int) -> None:
        """See `Work.open_lease`."""
        calls = self._calls
        prefixes = [self._keys.prefix(queue) for queue in queues]
        await calls.repeat(calls.links.main, self._over("open_lease", prefixes, lease, ttl))
        self.serving = prefixes
        with contextlib.suppress(QueueFull):  # a full store is drained under this lease
            await calls.repeat(calls.links.main, [("SADD", self._keys.queues, *queues)])

    def _over(self, name: str, prefixes: Sequence[str], *args: object) -> list[Command]:
        """Return the calls of a script over several queues: one here, one for each queue in a cluster."""
        return [evalsha(name, prefixes, self._calls.given_time(), *args)]

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        """See `Work.exchange`."""
        calls, queues, block = self._calls, call.queues, call.block
        settled = [queue for queue, ended in settlements.items() if ended]
        commands = [self.settle_command(call.lease, queue, settlements[queue]) for queue in settled]
        link, timeout = calls.links.main, None
        if block > 0:
            # The server holds this connection at BLPOP until there is a token, and then goes on with the
            # reserve behind it: a round trip less than to wait first and to ask then.
            link, timeout = calls.links.block, block + BLOCK_MARGIN
            commands.append(("BLPOP", *[self._keys.wake(queue) for queue in queues], f"{block:.3f}"))
        if call.want > 0:
            commands.append(self.reserve_command(queues, call))
        answer = Exchange()
        if not commands:
            return answer
        replies = await calls.repeat(link, commands, timeout=timeout, once=1 if block > 0 else 0)
        read_refused(answer, settled, replies)
        if call.want > 0:
            for queue, reply in zip(queues, replies[-1], strict=True):
                read_reserve(answer, queue, call.batch, reply)
        return answer

    def reserve_command(self, queues: Sequence[str], call: ReserveCall) -> Command:
        """Return the call that reserves from `queues`."""
        calls = self._calls
        return reserve_command(
            [self._keys.prefix(queue) for queue in queues],
            call,
            time=calls.given_time(),
            channel=self._keys.task_channel,
            always=calls.always,
        )

    def settle_command(self, lease: str, queue: str, ended: Sequence[Settlement]) -> Command:
        """Return the call that settles tasks of one queue."""
        calls = self._calls
        return settle_command(
            self._keys.prefix(queue),
            lease,
            ended,
            time=calls.given_time(),
            ttl=self._ttl,
            dead_ttl=self._dead_ttl,
            channel=self._keys.task_channel,
            always=calls.always,
        )

    async def poke(self, queue: str) -> None:
        """See `Work.poke`."""
        await self._calls.run_script("poke", self._keys.prefix(queue))

    async def renew(self, lease: str, queues: Sequence[str], ttl: int) -> Renewal:
        """See `Work.renew`."""
        return (await self.renew_and_tell(lease, queues, ttl))[0]

    async def renew_and_tell(self, lease: str, queues: Sequence[str], ttl: int) -> tuple[Renewal, int]:
        """Renew; return the store's clock in ms too, in one round trip."""
        renewing = self._over("renew", [self._keys.prefix(queue) for queue in queues], lease, ttl)
        time, *replies = await self._calls.run_all(("TIME",), *renewing)
        return read_renewal([answer for reply in replies for answer in reply]), read_time(time)

    async def hand_back(self, lease: str, queues: Sequence[str], *, crashed: bool) -> int:
        """See `Work.hand_back`."""
        calls, total = self._calls, 0
        for queue in queues:
            while True:
                args = (calls.given_time(), lease, int(crashed), BACK_AT_ONCE)
                n = await calls.run_script("hand_back", self._keys.prefix(queue), *args)
                total += n
                if n < BACK_AT_ONCE:
                    break
        return total

    # ----------------------------------------------------------------------------- cancel, forget
    async def cancel(
        self, queue: str, items: Sequence[tuple[str, bytes, str]], *, at_front: bool = False
    ) -> list[str]:
        """See `Work.cancel`."""
        calls = self._calls
        flat = [part for item in items for part in item]
        answers = await calls.run_script(
            "cancel", self._keys.prefix(queue),
            calls.given_time(), self._keys.task_channel, calls.always, self._ttl, int(at_front), *flat,
        )  # fmt: skip
        return [answer.decode() for answer in answers]

    async def retry_dead(self, queue: str, entry: Entry) -> bool:
        """See `Work.retry_dead`."""
        args = (self._keys.task_channel, self._calls.always, entry.id, entry.record)
        return bool(await self._calls.run_script("retry_dead", self._keys.prefix(queue), *args))

    async def forget(self, queue: str, ids: Sequence[str]) -> int:
        """See `Work.forget`."""
        if not ids:
            return 0
        removed: int = await self._calls.run_script("forget", self._keys.prefix(queue), *ids)
        return removed

    # ------------------------------------------------------------------------------------ switches
    async def pause(self, queue: str, paused: bool) -> None:
        """See `Work.pause`."""
        await self._calls.run_script("pause", self._keys.prefix(queue), int(paused))

    async def limit(self, queue: str, most: int | None) -> None:
        """See `Work.limit`."""
        await self._calls.run_script("limit", self._keys.prefix(queue), "" if most is None else most)
