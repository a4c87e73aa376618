"""Events of tasks and consumers: subscriptions, and the calls of users' callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from ..broker import records
from ..broker.keys import Keys
from ..errors import UnreadableMessage
from ..model.events import Callback, Listeners
from ..model.states import STARTED
from ..model.task import Task
from .connections import Connections, resolved
from .future import LoopFuture

RunCallback = Callable[..., None]


class Delivery:
    """Turns raw events into calls of the callbacks that asked for them. Whatever comes, it never raises."""

    def __init__(self, keys: Keys) -> None:
        self.listeners = Listeners()
        self._keys = keys

    def deliver(self, run_callback: RunCallback, channel: str, payload: bytes) -> None:
        """An event came on a channel."""
        if channel == self._keys.consumer_channel:
            self._deliver_consumer(run_callback, payload)
        else:
            self._deliver_task(run_callback, payload)

    def _deliver_consumer(self, run_callback: RunCallback, payload: bytes) -> None:
        try:
            facts = msgpack.unpackb(payload)
            event = facts.pop("event", "status")
        except (
            ValueError, msgpack.UnpackException, AttributeError, TypeError, LookupError, RecursionError,
        ):  # fmt: skip
            return  # not from a worker of ours
        if type(event) is not str:
            return
        for callback in self.listeners.wanted("consumer", event):
            run_callback(callback, "consumer", event, dict(facts))

    def _deliver_task(self, run_callback: RunCallback, payload: bytes) -> None:
        head, _, body = payload.partition(b"\n")
        words = head.decode("utf-8", "replace").split(" ")
        callbacks = self.listeners.wanted("task", words[0])
        if not callbacks:
            return
        for _, record in records.parcels(body):
            try:
                task = Task.from_wire(records.message(record))
            except UnreadableMessage:
                continue
            _note_start(task, words)
            for callback in callbacks:
                run_callback(callback, "task", words[0], task)


def _note_start(task: Task[Any], words: list[str]) -> None:
    """Write the facts of event `started` into its task, whose record is older."""
    if words[0] == "started" and len(words) >= 4 and words[1].isdecimal() and len(words[1]) < 18:
        task.status, task.time_started = STARTED, int(words[1]) / 1000
        task.worker, task.node = words[2], words[3]


class Events:
    """The subscriptions of one producer."""

    def __init__(self, connections: Connections, delivery: Delivery, keys: Keys) -> None:
        self._connections = connections
        self._listeners = delivery.listeners
        self._keys = keys

    def on(self, channel: str, pattern: str, callback: Callback) -> LoopFuture[None]:
        """Register a callback; the future resolves once the subscription stands. Raises `InvalidValue`."""
        self._listeners.add(channel, pattern, callback)
        return self._connections.call(self._subscribe(channel))

    def remove(self, channel: str, pattern: str, callback: Callback) -> LoopFuture[None]:
        """Remove a callback, at once; harmless when it was never registered."""
        self._listeners.remove(channel, pattern, callback)
        return resolved(None, self._connections.background_loop)

    async def _subscribe(self, channel: str) -> None:
        engine = self._connections.engine()
        await engine.open()
        await engine.listen_to(self._keys.task_channel if channel == "task" else self._keys.consumer_channel)
