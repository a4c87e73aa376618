"""The round trips of a consumer to its store: one call settles what has ended, and reserves.

A call that reserves has a number, its batch. A call that failed is made again under the same number, so the store
hands out the same tasks: what it handed out meanwhile, with a lost answer, comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

from ..broker.contract.values import Exchange, ReserveCall
from ..errors import PqError, StoreUnavailable
from ..model import partitions
from . import weights
from .context import Context
from .settling import Settlements, Settling

logger = logging.getLogger("pq.worker")


class RoundTrips:
    """The calls of one consumer.

    Attributes:
        batch: the number of the last call that reserved.
    """

    def __init__(self, context: Context, settling: Settling) -> None:
        cfg = context.cfg
        self.batch = 0
        self._context = context
        self._settling = settling
        self._stable_for = int(cfg.lease * 1000)
        self._worker_name = f"{context.name} {context.node}"
        self._weights = cfg.weights
        self._partitions = cfg.queue_partitions.groups(context.queues) if cfg.queue_partitions else {}
        self._outage = False

    def call(
        self, settlements: Settlements, want: int, *, idle: bool, block: float = 0.0
    ) -> Coroutine[Any, Any, Exchange]:
        """Return the call of a round trip. `idle`: nothing runs; `block`: seconds to wait for a task."""
        context = self._context
        queues: Sequence[str] = context.queues
        if want:
            self.batch += 1
            queues = self._order()
        return context.broker.work.exchange(
            ReserveCall(
                context.lease,
                queues,
                want,
                self.batch,
                idle=idle,
                stable_for=self._stable_for,
                worker_name=self._worker_name,
                block=block,
            ),
            settlements,
        )

    def _order(self) -> Sequence[str]:
        """Return the queues in the order of the next call: by weight, and the partitions of each by chance."""
        context = self._context
        order: Sequence[str] = list(self._partitions) or context.queues
        if self._weights:
            order = weights.order(order, self._weights, context.clock.random)
        if self._partitions:
            return partitions.shuffled(order, self._partitions, context.clock.random)
        return list(order)

    async def exchange(self, want: int, *, idle: bool) -> Exchange | None:
        """Make one round trip; None where the store could not be reached: then all of it is tried again."""
        settlements = self._settling.take()
        # A task's end must not reach the store before the tasks that its job has queued: a worker that dies in
        # between would lose them.
        if settlements and (sending := self._context.sending()) is not None:
            try:
                await sending
            except BaseException:
                self._settling.put_back(settlements)
                raise
        return await self.answer(self.call(settlements, want, idle=idle), settlements, reserved=want > 0)

    async def answer(
        self, exchange: Awaitable[Exchange], settlements: Settlements, *, reserved: bool
    ) -> Exchange | None:
        """Await the answer of a round trip, and note what it says of the settlements; None where it failed."""
        try:
            answer = await exchange
        except asyncio.CancelledError:
            self._failed(settlements, reserved)
            raise
        except PqError as exc:
            self._failed(settlements, reserved)
            if not isinstance(exc, StoreUnavailable):
                logger.error("the store refused to settle or reserve: %s", exc)
            elif not self._outage:
                self._outage = True
                logger.warning("%s; running tasks go on, their results are settled when it is back", exc)
            await asyncio.sleep(0.25 + 0.5 * self._context.clock.random())  # not all workers at once
            return None
        if self._outage:
            self._outage = False
            logger.warning("the store is back; work goes on")
        if answer.refused:
            self._settling.refused(answer.refused, settlements)
        if answer.vanished:
            self._context.counts.vanished += answer.vanished
            logger.warning(
                "%d queued tasks had no record: deleted by hand, or evicted by the store", answer.vanished
            )
        return answer

    def _failed(self, settlements: Settlements, reserved: bool) -> None:
        self._settling.put_back(settlements)
        if reserved:
            self.batch -= 1  # the same number again

    async def withdraw(self) -> None:
        """After a reservation was given up: release what it had brought at this very moment."""
        context = self._context
        try:
            answer = await context.broker.work.exchange(
                ReserveCall(context.lease, context.queues, 1, self.batch), {}
            )
        except PqError:
            return  # the lease is handed back at the end, with all that it holds
        for reserved in answer.tasks:
            self._settling.release(reserved.queue, reserved.id, reserved.batch)

    async def last(self) -> None:
        """Settle what has ended and hand the lease back, with all that is held under it."""
        context = self._context
        settlements = self._settling.take()
        if settlements and (sending := context.sending()) is not None:
            await sending
        if settlements:
            call = ReserveCall(context.lease, context.queues, 0, self.batch)
            await context.broker.work.exchange(call, settlements)
        await context.broker.work.hand_back(context.lease, context.queues, crashed=False)
