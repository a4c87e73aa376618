"""Ways to break pq on purpose. The simulation must notice each: what notices nothing shows nothing.

Each has seeds that are known to meet it. Where a change moves the effects of seeds, `run.py --hunt` finds others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import redis.exceptions as redis_errors
import simulated_world

from pq.broker.redis import scripts
from pq.broker.redis.subscription import RedisSubscription
from pq.loops import EternalTask
from pq.producer.awaiting import Awaiting
from pq.producer.loop_tasks import LoopTasks
from pq.producer.streams import TaskStream
from pq.worker.consumer import Consumer
from pq.worker.context import Context
from pq.worker.dispatch import Dispatch
from pq.worker.quarantine import Quarantine
from pq.worker.round_trips import RoundTrips
from pq.worker.streams import Streams


class Breakage(NamedTuple):
    """`apply` breaks it for as long as it is entered; `rules`: those of which one must be found broken."""

    apply: Callable[[], Any]
    rules: str
    seeds: tuple[int, ...]
    force: dict[str, Any] | None = None
    """Options that are not left to chance in these seeds, where else too few would meet the breakage."""


def text(name: str, old: str, new: str) -> Callable[[], Any]:
    """A script with one place of its text changed."""

    @contextlib.contextmanager
    def apply() -> Iterator[None]:
        read = scripts._read

        def changed(wanted: str) -> str:
            whole = read(wanted)
            if wanted != name:
                return whole
            assert whole.count(old) >= 1, f"{name} has no: {old}"
            return whole.replace(old, new, 1)

        scripts.script.cache_clear()
        try:
            with mock.patch.object(scripts, "_read", changed):
                for each in scripts.NAMES:
                    scripts.script(each)
                yield
        finally:
            scripts.script.cache_clear()

    return apply


def put(where: Any, name: str, what: Any) -> Callable[[], Any]:
    """Something else in the place of a method."""
    return lambda: mock.patch.object(where, name, what)


async def _watches_nothing(self: Awaiting) -> None:
    await asyncio.sleep(1e6)


def _attends_once(self: LoopTasks, duty: Callable[[], Any], missed: Callable[[], None]) -> None:
    self.spawn(duty())


async def _reconciles_nothing(self: Consumer) -> None:
    self._reconciled = self._context.broker.connected_since


def both(*breakages: Callable[[], Any]) -> Callable[[], Any]:
    """All of them at once."""

    @contextlib.contextmanager
    def applied() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for breakage in breakages:
                stack.enter_context(breakage())
            yield

    return applied


def _hears_no_refusal(self: RedisSubscription, reply: Any) -> None:
    if not isinstance(reply, redis_errors.ResponseError):
        _heard(self, reply)


def _stays_down(self: EternalTask, task: Any) -> None:
    if not task.cancelled():
        _ended(self, task)


def _batch_goes_on(self: RoundTrips, *args: Any, **options: Any) -> Any:
    batch = self.batch

    async def answer() -> Any:
        try:
            return await _answer(self, *args, **options)
        finally:
            self.batch = max(self.batch, batch)

    return answer()


_heard, _ended, _answer = RedisSubscription._heard, EternalTask._ended, RoundTrips.answer

ALONE = {
    "jobs": ("waiting", "waiting", "deadly", "work"), "faults": ["kill"], "handles": 1,
    "settings": {"concurrent_tasks": 8, "max_requests": 0, "max_crashes": 20},
}  # fmt: skip
"""One worker, which dies so often that those that wait for another task are suspects."""

STREAMS = {"jobs": ("streaming", "streaming", "work")}
"""Tasks that stream, and their readers."""

LATE = {"jobs": ("work",), "faults": [], "days": {"late": 0.15, "longest": 25.0}}
"""Calls that take longer than their callers wait."""

BREAKAGES = {
    "settle has no fence": Breakage(
        text("settle", "if redis.call('SREM', held, member) == 1 then", "redis.call('SREM', held, member) if true then"),
        "S2 S3 S4 X", (203, 292, 308),
    ),
    "reclaim forgets to queue": Breakage(
        text("lib", "if place_front(p, id) and charge then", "if charge then"), "S1 X", (2, 3)
    ),
    "queueing twice makes two": Breakage(
        text("enqueue", "if redis.call('SET', p .. 'task:' .. id, record, 'NX') then", "if redis.call('SET', p .. 'task:' .. id, record) then"),
        "S2 S4 S5 X", (3, 25, 49),
    ),
    "a repeated reserve is not answered with the same": Breakage(
        text("reserve", "if last[i] == batch then", "if false then"), "S1", (29, 32, 58)
    ),
    "a call that was given up takes tasks": Breakage(
        both(
            text("reserve", "is_new_batch = is_new_batch and tonumber(last[i] or -1) < tonumber(batch)",
            "is_new_batch = is_new_batch and last[i] ~= batch"),
            put(Consumer, "_reconcile", _reconciles_nothing),  # which finds most of them as well, on the next connection
        ),
        "S1", (3, 210), LATE,
    ),
    "a call that found nothing is not noted": Breakage(
        text("reserve", "redis.call('HSET', leased .. 'batches', lease, batch)", ""), "S1", (52, 111), {"jobs": ("work",), "faults": ["standstill"]}
    ),
    "what expired is taken over at once": Breakage(
        text("reserve", "if stable_for == 0 then", "if true then"), "S9", (14, 35, 40)
    ),
    "a gap does not count": Breakage(text("lib", "elseif now - seen > ttl / 2 then since = now end", "end"), "S9", (35, 41, 45)),
    "deadlines stay where a wrong clock put them": Breakage(
        text("lib", "if deadline > 0 then\n", "if false then\n"), "S1 L1 L3", (56, 118, 188)
    ),
    "leases are not renewed": Breakage(
        put(simulated_world.SimulatedKeeper, "_is_due", lambda self, now: False), "S9 S1 L1 L3", (2, 4)
    ),
    "futures are not watched": Breakage(put(Awaiting, "_watch", _watches_nothing), "L2", (6, 7, 9)),
    "a job's end does not wait for what it queued": Breakage(
        lambda: mock.patch.object(Context, "sending", property(lambda self: lambda: None, lambda self, value: None)), "S7", (1, 2)
    ),
    "what a job queued is given up in an outage": Breakage(
        lambda: mock.patch.object(LoopTasks, "persistent", property(lambda self: False)), "S7", (4, 59),
        {"jobs": ("parent",), "faults": ["outage"], "settings": {"max_requests": 2}},
    ),
    "a refused subscription is left so": Breakage(put(RedisSubscription, "_heard", _hears_no_refusal), "L4", (21, 133, 170), {"faults": ["cut", "outage"], "days": {"error": 0.1}}),
    "a suspect is never trusted": Breakage(put(Quarantine, "_trust", lambda self, suspect: None), "S1", (17,), ALONE),
    "a suspect blocks forever": Breakage(put(Quarantine, "blocked_long", lambda self: False), "S1", (17,), ALONE),
    "a service that was cancelled stays down": Breakage(put(EternalTask, "_ended", _stays_down), "S1 L4 L2", (1, 3), {"jobs": ("work", "work", "crowd.stopper"), "faults": []}),
    "a producer that was cancelled hears and looks no more": Breakage(
        put(LoopTasks, "attend", _attends_once), "S1 L2", (56, 69, 87),
        {"jobs": ("waiting", "work", "crowd.stopper"), "faults": [], "handles": 1,
         "settings": {"concurrent_tasks": 8, "max_requests": 0}},
    ),
    "a batch that failed is forgotten": Breakage(put(RoundTrips, "answer", _batch_goes_on), "S1", (29, 130, 142)),
    "a task's end overtakes what it streamed": Breakage(
        put(Streams, "__contains__", lambda self, id: False), "S10", (5, 9, 12), STREAMS
    ),
    "who has lost a task streams on": Breakage(
        text("stream", "if redis.call('SISMEMBER', p .. 'held:' .. ARGV[3], id .. ':' .. ARGV[4]) == 0 then return 0 end", ""),
        "S10", (26, 80, 87), {"jobs": ("streaming",), "faults": ["pause", "partition"], "settings": {"lease": 1.5}},
    ),
    "attempts stream into one": Breakage(text("stream", "if newest[2][1] == token then", "if true then"), "S10", (1, 2, 3), STREAMS),
    "a reader takes one attempt for the other": Breakage(
        lambda: mock.patch.object(TaskStream, "_gaps", property(lambda self: True, lambda self, value: None), create=True), "S10", (1, 2), STREAMS
    ),
    "a worker that lost its lease at its limit waits forever": Breakage(
        put(Dispatch, "look_at_limit", lambda self: None), "S1 L1 L3", (1, 12)
    ),
}  # fmt: skip
