"""The canceller: receives requests to stop a running task, so that they take effect at once.

The store keeps a request too (`cancelling`), and the renewal of the lease brings it: a lost message costs
seconds, never the request.
"""

from __future__ import annotations

from collections.abc import Callable

from ..broker.contract.channels import Subscription
from .context import Context
from .service import Service


class Canceller(Service):
    """A service that subscribes to the control channel; `cancel` is called with the ids of the tasks to stop."""

    name = "canceller"

    def __init__(self, context: Context, cancel: Callable[[frozenset[str]], None]) -> None:
        super().__init__()
        self._context = context
        self._cancel = cancel
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        if self._subscription is None:
            self._subscription = await self._context.broker.channels.subscription()
        await super().start()
        await self._subscription.subscribe(self._context.keys.control_channel)

    async def run(self) -> None:
        assert self._subscription is not None
        async for message in self._subscription:
            words = message.payload.decode("utf-8", "replace").split()
            if len(words) == 2 and words[0] == "cancel":
                self._cancel(frozenset(words[1:]))

    async def stop(self) -> None:
        subscription, self._subscription = self._subscription, None
        await super().stop()
        if subscription is not None:
            await subscription.close()
