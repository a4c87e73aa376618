"""`api.tasks.stream(task)`: what a task streams, part by part, until it has ended.

The parts are in the store. Notifications of new ones come over one channel for all; where they are lost, a look now
and then finds the parts too. The last entry of an attempt is a mark that it has ended, so its task is looked at then.

What is read has to be all of one attempt, the one that counts. Where the task starts again (its worker died, say)
`StreamRestarted` is raised, and reading on begins with the first part of the next attempt. Where parts are not kept
any more `StreamBroken` is raised, each time. `gaps` accepts both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..broker import records
from ..broker.contract.broker import Broker
from ..broker.contract.values import Part
from ..errors import InvalidValue, StreamBroken, StreamRestarted, TaskLost, WaitInLoop
from ..loops import running_loop
from ..model.payloads import load_payload
from ..model.serializers import MSGPACK
from ..model.states import SUCCESS
from ..model.task import Task
from .connections import Connections
from .future import TaskFuture
from .lookup import Lookup

AT_ONCE = 500
"""Parts that are fetched in one call."""
LOOK_AFTER = 1.0
"""Seconds without a notification after which the store is looked at all the same."""
END_AFTER = 0.005
"""Seconds until a task is looked at whose attempt has ended; each further look comes after twice the time."""


class TaskStream:
    """The parts of one task's stream: `async for` in a loop, `for` in a shell or a thread; each part is given once.

    Ends with the task. Raises the task's error where it did not succeed (see `Task.get`), `StreamRestarted`, `StreamBroken`,
    `TaskLost`.
    """

    def __init__(
        self,
        connections: Connections,
        lookup: Lookup,
        id: str,
        *,
        queue: str | None,
        future: TaskFuture[Any] | None,
        gaps: bool,
    ) -> None:
        self._connections = connections
        self._lookup = lookup
        self._id = id
        self._queue = queue
        self._future = future
        self._gaps = gaps
        self._parts: deque[Part] = deque()
        self._after: tuple[int, int] | None = None
        self._token = ""  # of the attempt that streamed the last part given
        self._ended: Task[Any] | None = None
        self._end_token = ""
        self._end_after = 0.0  # where the attempt has ended: when to look for the task's end
        self._missed = 0
        self.number = 0
        """The number of the last part given, in its attempt; the first is 1."""
        self.attempts = 0
        """The number of attempts of which parts were given."""

    @property
    def id(self) -> str:
        """The id of the task."""
        return self._future.task.id if self._future is not None else self._id

    def __repr__(self) -> str:
        return f"<TaskStream of {self.id} at part {self.number}>"

    # --------------------------------------------------------------------------------- iterating
    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while (found := self._next_part()) is None:
            if self._ended is not None:
                raise StopAsyncIteration
            await self._connections.call(self._fetch())
        return load_payload(MSGPACK, found)

    def __iter__(self) -> Iterator[Any]:
        if running_loop() is not None:
            raise WaitInLoop("a plain `for` would block the running event loop", hint="write `async for`")
        return self

    def __next__(self) -> Any:
        while (found := self._next_part()) is None:
            if self._ended is not None:
                raise StopIteration
            self._connections.call(self._fetch()).wait()
        return load_payload(MSGPACK, found)

    def _next_part(self) -> bytes | None:
        """Return the next part that was fetched; None where there is none. Raises what is wrong with the stream."""
        while self._parts:
            if (part := self._take(self._parts.popleft())) is not None:
                return part
        if self._ended is not None:
            self._finish(self._ended)
        return None

    def _take(self, part: Part) -> bytes | None:
        """Return the part to give, or None for a mark. Raises `StreamRestarted`, `StreamBroken`."""
        if part.token != self._token:
            self._token, self.number = part.token, 0
            self.attempts += 1
            if self.attempts > 1 and not self._gaps:
                self._parts.appendleft(part)  # for reading on
                raise self._restarted("the task started again")
        if not part.body:
            return None
        missing = part.number - self.number - 1
        if missing and not self._gaps:
            self._parts.appendleft(part)
            raise self._broken(f"{missing:,} parts before number {part.number:,} are not kept any more")
        self.number = part.number
        return part.body

    def _finish(self, task: Task[Any]) -> None:
        """The task has ended: check that all of its parts were given. Raises its error, or what is wrong with them."""
        if task.status != SUCCESS:
            task.get()
        if self._gaps:
            return
        streamed = task.run_info.get("streamed", 0)
        if self._token not in ("", self._end_token):
            self._token, self.number = self._end_token, 0
            raise self._restarted("the attempt that ended the task streamed nothing")
        if isinstance(streamed, int) and streamed > self.number:
            raise self._broken(f"its last {streamed - self.number:,} parts are not in the store (any more)")

    def _restarted(self, text: str) -> StreamRestarted:
        return StreamRestarted(
            f"the stream of task {self.id}: {text}, and what it had streamed before does not count any more",
            hint="forget what was read, and read on: the next part is the first of the new attempt",
        )

    def _broken(self, text: str) -> StreamBroken:
        return StreamBroken(
            f"the stream of task {self.id}: {text}",
            hint="api.tasks.stream(task, gaps=True) reads what there is; a longer result_ttl, and fewer and larger parts, keep more",
        )

    # ---------------------------------------------------------------------------------- fetching
    async def _fetch(self) -> None:
        """Fetch what is there; where there is nothing, wait a while for a notification."""
        if self._parts or self._ended is not None:
            return
        broker = await self._connections.broker()
        engine = self._connections.engine()
        await engine.listen_to_streams()
        future = self._future
        if future is not None and future.done() and not future.cancelled():
            future.result()  # raises the error of a task that was not queued, or is lost
        queue = await self._queue_of_task(broker)
        with engine.streams.waiting(self.id) as news:
            if await self._fetch_parts(broker, queue):
                return
            (record,) = await broker.looks.records(queue, [self.id])
            if record is not None and records.is_finished(record):
                # Its parts were in the store before its end was: after a look that found none there are none.
                if not await self._fetch_parts(broker, queue):
                    self._end_token = records.token(record)
                    self._ended = Task.from_wire(records.message(record))
                return
            self._missed = self._missed + 1 if record is None else 0
            if self._missed > 1:
                raise TaskLost(
                    f"task {self.id} is not in the store any more",
                    hint="results are kept for result_ttl; for durability see docs/explain/guarantees.md",
                )
            await self._wait(news)

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for a part, for the end of the task where its future is of this loop, or for a while."""
        future = self._future
        if future is not None and (future.done() or future.get_loop() is not asyncio.get_running_loop()):
            future = None

        def done(_: object) -> None:
            news.set()

        if future is not None:
            future.add_done_callback(done)
        try:
            async with asyncio.timeout(min(self._end_after or LOOK_AFTER, LOOK_AFTER)):
                await news.wait()
        except TimeoutError:
            self._end_after *= 2
        finally:
            if future is not None:
                future.remove_done_callback(done)

    async def _fetch_parts(self, broker: Broker, queue: str) -> bool:
        found = await broker.channels.parts(queue, self.id, self._after, AT_ONCE)
        if found:
            self._after = found[-1][:2]
            self._parts.extend(found)
            self._end_after = 0.0 if found[-1].body else END_AFTER
        return bool(found)

    async def _queue_of_task(self, broker: Broker) -> str:
        """Return the queue of the task. Raises `InvalidValue` where there is no such task."""
        if self._future is not None and self._future.task.queue is not None:
            return self._future.task.queue
        if self._queue is None:
            found = await self._lookup.find(broker, self.id)
            if found is None:
                raise InvalidValue(
                    f"there is no task {self.id}",
                    hint="results are kept for result_ttl; api.tasks.search() shows what there is",
                )
            self._queue = found[0]
        return self._queue


def stream_of(
    connections: Connections, lookup: Lookup, task: str | Task[Any] | TaskFuture[Any], *, gaps: bool
) -> TaskStream:
    """Return the stream of a task, by its id, its `Task` or its future."""
    if isinstance(task, TaskFuture):
        if task.task.queue is None:
            raise InvalidValue(
                f"{task!r} is of a task without a queue, which streams nothing", hint="queue it"
            )
        return TaskStream(connections, lookup, task.id, queue=None, future=task, gaps=gaps)
    if isinstance(task, Task):
        return TaskStream(connections, lookup, task.id, queue=task.queue, future=None, gaps=gaps)
    return TaskStream(connections, lookup, task, queue=None, future=None, gaps=gaps)
