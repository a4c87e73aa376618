"""The part of a producer in one event loop: one connection, one subscription, and their tasks.

- `sending` takes what is queued to the store,
- `awaiting` resolves the futures of tasks that are done,
- `locks` and `streams` wake those that wait for a lock or for a part of a stream,
- `tasks` holds the asyncio tasks of all of this.

The subscription brings the records of this engine's own finished tasks. It is confirmed before the first task is
sent, so no event of an own task is missed at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.channels import Subscription
from ..broker.keys import Keys
from ..clock import SYSTEM, Clock
from ..errors import PqError
from .awaiting import Awaiting
from .callbacks import Callbacks
from .loop_tasks import LoopTasks
from .sending import Sending
from .wakeups import LockWaiters, StreamWaiters

Deliver = Callable[[Callable[..., None], str, bytes], None]
"""Called with the way to call a callback in this loop, the channel and the payload of a broadcast event."""


class Engine:
    """The part of a producer that works in one loop. Everything here runs in that loop."""

    def __init__(
        self,
        keys: Keys,
        make_broker: Callable[[], Coroutine[Any, Any, Broker]],
        deliver: Deliver,
        *,
        kept: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.reply_channel = keys.reply(os.urandom(8).hex())
        self.tasks = LoopTasks(self.loop)
        self.awaiting = Awaiting(self.tasks, clock, kept)
        self.sending = Sending(self.tasks, self.awaiting, clock)
        self.locks = LockWaiters()
        self.streams = StreamWaiters()
        self._run_callback = Callbacks(self.tasks.spawn).call
        self._keys = keys
        self._make_broker = make_broker
        self._deliver = deliver
        self._broker: Broker | None = None
        self._subscription: Subscription | None = None
        self._opened: asyncio.Future[Broker] | None = None

    @property
    def ready(self) -> bool:
        """True once it is connected and subscribed to the ends of its own tasks."""
        return self._broker is not None

    async def open(self) -> Broker:
        """Connect and subscribe; once, however many callers ask. Raises `StoreUnavailable`."""
        if self.tasks.closed:
            raise PqError("this api is closed", hint="make a new one: app().api()")
        if self._opened is not None:
            return await asyncio.shield(self._opened)
        self._opened = self.loop.create_future()
        broker: Broker | None = None
        try:
            broker = await self._make_broker()
            await broker.open()
            self._subscription = await broker.channels.subscription()
            self.tasks.attend(self._listen, self.awaiting.look_at_all)
            await self._subscription.subscribe(self.reply_channel)
        except BaseException as exc:
            opened, self._opened = self._opened, None
            if isinstance(exc, Exception):
                opened.set_exception(exc)
                opened.exception()  # seen here; others that await it see it too
            else:
                opened.cancel()
            if broker is not None:
                await broker.close()
            raise
        self._broker = self.sending.broker = self.awaiting.broker = broker
        self._opened.set_result(broker)
        return broker

    async def close(self) -> None:
        """Send what is left, stop, disconnect. Futures that still wait are cancelled."""
        if self.tasks.closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                if self._opened is not None and not self._opened.done():
                    await asyncio.wait([self._opened])
                await self.sending.sent()
        await self.tasks.cancel()
        if self._subscription is not None:
            await self._subscription.close()
        if self._broker is not None:
            await self._broker.close()
        self.awaiting.cancel()

    # --------------------------------------------------------------------------- listening
    async def listen_to(self, channel: str) -> None:
        """Subscribe to a broadcast channel too."""
        if self._subscription is not None:
            await self._subscription.subscribe(channel)

    async def listen_to_locks(self) -> None:
        """Subscribe to the releases of locks."""
        await self.listen_to(self._keys.lock_channel)

    async def listen_to_streams(self) -> None:
        """Subscribe to the notifications about streams."""
        await self.listen_to(self._keys.stream_channel)

    async def _listen(self) -> None:
        subscription, reply_channel = self._subscription, self.reply_channel
        assert subscription is not None
        async for channel, payload in subscription:
            if channel == reply_channel:
                if payload.startswith(b"done\n"):
                    for id, record in records.parcels(payload[5:]):
                        self.awaiting.resolve(id, record)
            elif channel == "":
                # The connection was lost and is back: what was published meanwhile is in the records.
                self.awaiting.look_at_all()
                self.locks.notify(None)
                self.streams.notify(None)
            elif channel == self._keys.lock_channel:
                self.locks.notify(payload.decode("utf-8", "replace"))
            elif channel == self._keys.stream_channel:
                self.streams.notify(payload.decode("utf-8", "replace"))
            else:
                self._deliver(self._run_callback, channel, payload)
