"""The port that moves tasks, on a cluster: over several queues it is one call for each, since each is at one node.

Settlements and renewals go out at once, in one write a node; reservations one after the other in the worker's order
of preference, as long as it has slots free. An idle worker of several queues waits at each of them, over a connection
of its own, and looks at all when a token comes from one (`pq.broker.redis.queue_wait`). A worker of one queue costs
the cluster what it costs a single server, a round trip a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..contract.values import Exchange, ReserveCall, Settlement
from .calls import Calls
from .codec import evalsha, read_refused, read_reserve
from .link import Command
from .queue_wait import QueueWaits
from .work import RedisWork


class ClusterWork(RedisWork):
    """Keeps `Work` on a cluster."""

    def __init__(self, calls: Calls, waits: QueueWaits, *, ttl: int, dead_ttl: int) -> None:
        super().__init__(calls, ttl=ttl, dead_ttl=dead_ttl)
        self._waits = waits
        self._last_batch: tuple[str, int] | None = None

    def _over(self, name: str, prefixes: Sequence[str], *args: object) -> list[Command]:
        return [evalsha(name, [prefix], self._calls.given_time(), *args) for prefix in prefixes]

    async def exchange(self, call: ReserveCall, settlements: Mapping[str, Sequence[Settlement]]) -> Exchange:
        """See `Work.exchange`."""
        if call.want <= 0 or len(call.queues) == 1:
            return await super().exchange(call, settlements)
        # A batch that was begun and not ended may have brought something from any queue: that comes first.
        begun, self._last_batch = self._last_batch, (call.lease, call.batch)
        again = begun == self._last_batch
        ended = {queue: some for queue, some in settlements.items() if some}
        if call.block <= 0:
            return await self._look_around(call, ended, again=again)
        try:
            await self._waits.wait_for_token(call.queues, call.block)
            return await self._look_around(call, ended, again=again, woken=True)
        except BaseException:
            await self._waits.stop()  # a token that a wait took now would be lost
            raise

    async def _look_around(
        self,
        call: ReserveCall,
        ended: Mapping[str, Sequence[Settlement]],
        *,
        again: bool,
        woken: bool = False,
    ) -> Exchange:
        """Settle, and look at one queue after the other. `woken`: tokens were taken, and waits may go on."""
        settled = list(ended)
        settling = [self.settle_command(call.lease, queue, ended[queue]) for queue in settled]
        answer = Exchange()
        if again:
            answer = await self._look_again(call, settled, settling, woken=woken)
            if answer.tasks:
                answer.more_ready = True  # the next call finds out
                return answer
            answer, settling = Exchange(refused=answer.refused), []
        for queue in call.queues:
            free = 0 if answer.solo or answer.blocked else call.want - len(answer.tasks)
            # Where tokens were taken all queues are looked at: a look that finds tasks leaves the token again.
            if free <= 0 and not woken:
                answer.more_ready = True
                break
            idle = call.idle and not answer.tasks
            reserving = self.reserve_command([queue], call._replace(want=free, idle=idle))
            interrupting = self._waits.interrupt(queue) if woken else []
            replies = await self._calls.repeat(self._calls.links.main, [*settling, *interrupting, reserving])
            if settling:
                read_refused(answer, settled, replies)
                settling = []
            read_reserve(answer, queue, call.batch, replies[-1][0])
        return answer

    async def _look_again(
        self, call: ReserveCall, settled: Sequence[str], settling: Sequence[Command], *, woken: bool
    ) -> Exchange:
        """Settle, and ask all queues for what this batch was given already."""
        interrupting = (
            [each for queue in call.queues for each in self._waits.interrupt(queue)] if woken else []
        )
        looks = [self.reserve_command([queue], call._replace(want=0)) for queue in call.queues]
        replies = await self._calls.repeat(self._calls.links.main, [*settling, *interrupting, *looks])
        answer = Exchange()
        for queue, reply in zip(call.queues, replies[-len(looks) :], strict=True):
            read_reserve(answer, queue, call.batch, reply[0])
        read_refused(answer, settled, replies)
        return answer
