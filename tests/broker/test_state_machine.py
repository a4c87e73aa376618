"""The Lua scripts against the reference model: the same random calls to both, compared after each.

`PQ_STEPS=20000 pytest tests/broker/test_state_machine.py` runs longer, with other calls each time.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from operator import attrgetter
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stores import Hand, QueueDump, broken_invariants, dump_memory, dump_server

from pq.broker import records
from pq.broker.contract.values import (
    CHANGE,
    CODE,
    DROP,
    FORGET,
    PAUSE,
    RESUME,
    UNDO,
    Entry,
    Exchange,
    ReserveCall,
    Reserved,
    Settlement,
    Tick,
)
from pq.broker.memory.broker import MemoryBroker
from pq.broker.memory.store import MemoryStore
from pq.broker.redis.broker import RedisBroker
from pq.model.operations import ACK, CRASH, FAIL, RELEASE, RETRY, REVOKE

STEPS = int(os.environ.get("PQ_STEPS", "6000"))
PER_EXAMPLE = 60  # and some rules make several
FOREVER = 10 * 365 * 86_400.0  # TTLs are the server's own, and its clock is not moved here

QUEUES = ("one", "two")
LEASES = ("L0", "L1", "L2")
queues = st.sampled_from(QUEUES)
leases = st.sampled_from(LEASES)
picks = st.integers(0, 5)  # counted back from the youngest task
priorities = st.sampled_from([0, 0, 0, 0, 1, 5, -3])
delays = st.sampled_from([None, None, None, None, 0, 1, 10, 1000])
orders = st.sampled_from([("one", "two"), ("two", "one"), ("one",), ("two",)])
often = st.sampled_from([False, False, True])
DEMANDS = (
    *("", "", "", "", "", "c1:a", "c2:a", "c2:b", "c1:a,c2:b", "c1:b,r5000000.1:r", "r2000000.2:r"),
    *("c1:a,x", "uf:k", "ul:k", "ur:k,c2:b", "uf:j,c1:a", "r1000000.1:r,r9000000.3:s", "c2:a,x,uf:k"),
)
limits_text = st.sampled_from(DEMANDS)
operations = st.sampled_from([ACK, FAIL, REVOKE, RETRY, RELEASE, CRASH])


class Machine(RuleBasedStateMachine):
    """Two brokers, one clock."""

    url = ""
    loop: asyncio.AbstractEventLoop
    client: redis.Redis
    on_redis: RedisBroker
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.hand = Hand()
        self.store = MemoryStore(self.hand)  # type: ignore[arg-type]
        self.model = MemoryBroker(self.store, result_ttl=FOREVER, dead_ttl=FOREVER)
        self.on_redis.time_override = self.hand
        self.serial = 0
        self.known: dict[str, list[str]] = {queue: [] for queue in QUEUES}
        self.limits_text: dict[str, str] = {}
        self.batch = 0
        self.taken: list[tuple[str, Reserved]] = []  # all tasks that were ever dispatched, the last first
        self.deleted: set[str] = set()
        self.last: dict[str, tuple[ReserveCall, dict[str, list[Settlement]]]] = {}
        self.before = dump_server(self.client)[0]

    # ------------------------------------------------------------------------------ the two sides
    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    def both(self, verb: str, *args: Any, **options: Any) -> Any:
        """Call a verb (`work.enqueue`) of both; their answers and their contents have to be equal."""
        theirs = self.run(attrgetter(verb)(self.on_redis)(*args, **options))
        ours = self.run(attrgetter(verb)(self.model)(*args, **options))
        assert plain(theirs) == plain(ours), verb
        self.compare()
        return theirs

    def compare(self) -> None:
        type(self).steps += 1
        theirs, strangers = dump_server(self.client)
        ours = dump_memory(self.store)
        assert not strangers
        for name in QUEUES:
            there, here = theirs.get(name), ours.get(name)
            if there is None or here is None:
                assert (there or QueueDump()) == (here or QueueDump()), name
                continue
            assert there == here, name
            assert broken_invariants(there, deleted=self.deleted) == []
            # With no worker blocked on it, a token lies wherever there is something to dispatch.
            if (there.ready or there.prio) and not there.paused:
                assert there.wake == 1, f"no worker would wake for the ready tasks of {name}"
        self.before = theirs

    def unchanged(self, verb: str, *args: Any, **options: Any) -> Any:
        """The same once more, blindly: nothing changes."""
        before = self.before
        answer = self.both(verb, *args, **options)
        assert self.before == before, f"{verb} repeated changed something"
        return answer

    def live(self, id: str, priority: int, token: str = "") -> bytes:
        self.serial += 1
        header = records.live_header(priority, token, self.limits_text.get(id, ""))
        return header + f"{id} #{self.serial}".encode()

    def finished(self, id: str, token: str) -> bytes:
        self.serial += 1
        return records.finished_header(1, token) + f"{id} #{self.serial}".encode()

    # -------------------------------------------------------------------------------------- rules
    @initialize()
    def begin(self) -> None:
        for lease in LEASES[:2]:
            self.both("work.open_lease", lease, QUEUES, 30_000)

    def pick(self, queue: str, which: int) -> str:
        """Return one of the youngest tasks of that queue; an unknown id if there is none."""
        known = self.known[queue]
        return known[-1 - which] if which < len(known) else "unheard.of"

    def live_one(self, queue: str, which: int) -> str:
        """One of those that run or are first to wait, or, rather often, any."""
        dump = self.before.get(queue, QueueDump())
        held = sorted(member.rpartition(":")[0] for members in dump.held.values() for member in members)
        some = [*held[:2], *dump.parked[:2], *dump.prio[:1], *dump.delayed, *dump.ready]
        return some[which] if which < min(5, len(some)) else self.pick(queue, which)

    def new_one(self, queue: str, wants: str) -> str:
        """The id of a task that is to come."""
        id = f"{queue}{len(self.known[queue]):02}"
        self.known[queue].append(id)
        self.limits_text[id] = wants
        return id

    @rule(
        queue=queues,
        items=st.lists(st.tuples(st.integers(0, 9), delays, priorities, limits_text), min_size=1, max_size=6),
        twice=often,
    )
    def enqueues(self, queue: str, items: list[tuple[int, int | None, int, str]], twice: bool) -> None:
        entries = []
        for old, delay, priority, wants in items:
            id = self.pick(queue, old)
            if old > 1 or id == "unheard.of" or id in self.deleted:
                id = self.new_one(queue, wants)
            unique = "u" in self.limits_text[id]
            entries.append(Entry(id, self.live(id, priority), delay, priority, unique))
        self.both("work.enqueue", queue, entries)
        if twice:
            again = self.unchanged("work.enqueue", queue, entries)
            assert again.known | again.conflicts.keys() == {entry.id for entry in entries}

    @rule(
        queue=queues,
        wants=st.sampled_from(["ul:k", "ur:k,c2:b"]),
        delay=delays,
        replace=st.booleans(),
        twice=often,
    )
    def takes_a_key(self, queue: str, wants: str, delay: int | None, replace: bool, twice: bool) -> None:
        """Do what a producer does when the key is taken: the other's record is replaced, or it is ended."""
        id = self.new_one(queue, wants)
        entry = Entry(id, self.live(id, 0), delay, 0, True)
        conflict = self.both("work.enqueue", queue, [entry]).conflicts.get(id)
        if conflict is None:
            return
        old = conflict.id
        if replace:
            wanted, self.limits_text[old] = self.limits_text[old], wants
            call: tuple[Any, ...] = ("work.replace", queue, old, self.live(old, 0), delay)
            if not self.both(*call):
                self.limits_text[old] = wanted
        else:
            call = ("work.displace", queue, (old, self.finished(old, "displaced:0"), ""), entry)
            self.both(*call)
        if twice:
            self.unchanged(*call)

    enqueues_too = enqueues

    @rule(
        queue=queues,
        ticks=st.lists(
            st.tuples(st.sampled_from("st"), st.integers(-20, 5), st.booleans(), priorities),
            min_size=1,
            max_size=4,
        ),
        twice=often,
    )
    def ticks(self, queue: str, ticks: list[tuple[str, int, bool, int]], twice: bool) -> None:
        claims = []
        for schedule, shift, old, priority in ticks:
            id = self.pick(queue, 0) if old else "unheard.of"
            if id == "unheard.of" or id in self.deleted:
                id = self.new_one(queue, DEMANDS[(self.serial + shift) % len(DEMANDS)])
            claims.append(Tick(schedule, self.hand.ms + shift, id, self.live(id, priority)))
        self.both("work.tick", queue, claims)
        if twice:
            assert 1 not in self.unchanged("work.tick", queue, claims)
            self.both("schedules.last_ticks", queue, ["s", "t"])

    @rule(
        verb=st.sampled_from([CODE, CODE, CHANGE, CHANGE, FORGET, UNDO, DROP, PAUSE, RESUME]),
        name=st.sampled_from("stu"),
        text=st.sampled_from([b"60\nx", b"60\ny", b"5\nx"]),
    )
    def changes_schedule(self, verb: str, name: str, text: bytes) -> None:
        self.both("schedules.change", verb, name, text, most=2)
        stored = self.both("schedules.stored")
        assert self.both("schedules.change", verb, name, text, most=2) in (0, -1, -2)
        assert self.both("schedules.stored") == stored

    @rule(lease=leases, order=orders, ttl=st.sampled_from([5, 1000, 30_000]), twice=often)
    def opens_lease(self, lease: str, order: tuple[str, ...], ttl: int, twice: bool) -> None:
        self.both("work.open_lease", lease, order, ttl)
        if twice:
            self.unchanged("work.open_lease", lease, order, ttl)

    @rule(
        lease=leases,
        order=orders,
        want=st.integers(0, 5),
        ends=st.lists(
            st.tuples(
                st.integers(0, 3), operations, st.integers(0, 9), priorities, st.sampled_from([0, 0, 5, 2000])
            ),
            max_size=4,
        ),
        idle=st.booleans(),
        stable_for=st.sampled_from([None, None, 0, 0, 1000]),
        twice=often,
        bare=st.integers(0, 4),
    )
    def exchanges(
        self,
        lease: str,
        order: tuple[str, ...],
        want: int,
        ends: list[tuple[int, str, int, int, int]],
        idle: bool,
        stable_for: int | None,
        twice: bool,
        bare: int,
    ) -> None:
        if bare and any(lease not in self.before[queue].leases for queue in order if queue in self.before):
            self.both("work.open_lease", lease, order, 1000)
        settlements: dict[str, list[Settlement]] = {}
        for which, op, wrong, priority, wait in ends:
            # Mostly its own, recent batch; at times a wrong batch, or another's lease.
            mine = [task for owner, task in self.taken if owner == lease or wrong == 0]
            if not mine:
                continue
            task = mine[which % len(mine)]
            batch = task.batch + (1000 if wrong == 1 else 0)
            token = f"{lease}:{batch}"
            record = self.live(task.id, priority, token) if op == RETRY else self.finished(task.id, token)
            settlements.setdefault(task.queue, []).append(
                Settlement(
                    op, task.id, batch, record, "", wait if op == RETRY else 0, task.record[:1] == b"g"
                )
            )
        self.batch += 1
        call = ReserveCall(lease, order, want, self.batch, idle=idle, stable_for=stable_for)
        self.last[lease] = call, settlements
        answer = self.both("work.exchange", call, settlements)
        self.note(lease, answer)
        if twice:
            # Housekeeping goes on with each call, and a call that got nothing asks again.
            repeat = self.both if stable_for is not None else self.unchanged
            again = repeat("work.exchange", call, settlements)
            if answer.tasks:
                assert sorted(again.tasks) == sorted(answer.tasks)
            self.note(lease, again)

    # More often than the rest: brokers mostly make this call.
    exchanges_too = exchanges
    exchanges_again = exchanges

    @rule(lease=leases, queue=queues, want=st.integers(1, 3), times=st.integers(1, 3))
    def dies(self, lease: str, queue: str, want: int, times: int) -> None:
        """A worker takes some tasks and dies with them; another process noticed it. So do others, maybe."""
        for _ in range(times):
            self.batch += 1
            self.both("work.open_lease", lease, [queue], 1000)
            self.both("work.exchange", ReserveCall(lease, [queue], want, self.batch, idle=True), {})
            self.both("work.hand_back", lease, [queue], crashed=True)

    @rule(seed=st.integers(0, 2**32))
    def burst(self, seed: int) -> None:
        """Draw a dozen calls evenly: values that are drawn one by one keep to small and equal ones."""
        r = random.Random(seed)
        for _ in range(12):
            self.any_call(r)

    def any_call(self, r: random.Random) -> None:
        def often() -> bool:
            return r.random() < 0.3

        def order() -> tuple[str, ...]:
            return r.choice(
                [("one", "two"), ("two", "one"), ("one", "two"), ("two", "one"), ("one",), ("two",)]
            )

        def priority() -> int:
            return r.choice([0, 0, 0, 0, 1, 5, -3])

        queue, lease, which = r.choice(QUEUES), r.choice(LEASES), r.randrange(6)
        kind = r.choices(range(12), [3, 8, 1.5, 1, 2, 1.5, 0.5, 0.5, 1, 1, 2, 1])[0]
        if kind == 0:
            items = [
                (r.randrange(10), r.choice([None, None, None, 0, 10, 1000]), priority(), r.choice(DEMANDS))
                for _ in range(r.randint(1, 5))
            ]
            self.enqueues(queue, items, often())
        elif kind == 1:
            ends = [
                (r.randrange(4), r.choice("afvtlc"), r.randrange(10), priority(), r.choice([0, 0, 5, 2000]))
                for _ in range(r.randrange(4))
            ]
            self.exchanges(
                lease,
                order(),
                r.randrange(7),
                ends,
                r.random() < 0.6,
                r.choice([None, None, 0, 1000]),
                often(),
                r.randrange(5),
            )
        elif kind == 2:
            self.dies(lease, queue, r.randint(1, 3), r.randint(1, 3))
        elif kind == 3:
            self.hands_back(lease, order(), often(), often(), 0)
        elif kind == 4:
            self.cancels(queue, r.sample(range(6), r.randint(1, 3)), often(), often())
        elif kind == 5:
            self.retries_dead(queue, which, priority(), often())
        elif kind == 6:
            self.pause_queue(queue, r.random() < 0.3, often(), 0)
        elif kind == 7:
            self.vanishes(queue, which, 0)
        elif kind == 8:
            self.time_passes(r.choice([1, 10, 1000, 1000, 40_000, 40_000, -3000]))
        elif kind == 9:
            self.renews(lease, order(), r.choice([5, 30_000]), often())
        elif kind == 11:
            self.takes_a_key(queue, r.choice(["ul:k", "ur:k,c2:b"]), r.choice([None, 10]), often(), often())
        elif lease in self.last:
            if often():
                self.enqueues(queue, [(9, None, priority(), r.choice(DEMANDS))], False)
            self.repeat_exchange_later(lease, r.choice([0, 0, 1]))

    @precondition(lambda self: self.last)
    @rule(lease=leases, late=st.sampled_from([0, 0, 1]))
    def repeat_exchange_later(self, lease: str, late: int) -> None:
        """The reply was lost, and the world went on before the call is repeated. Or an earlier one comes late."""
        if lease in self.last:
            call, settlements = self.last[lease]
            self.note(lease, self.both("work.exchange", call._replace(batch=call.batch - late), settlements))

    def note(self, lease: str, answer: Exchange) -> None:
        for task in answer.tasks:
            if (lease, task) not in self.taken:
                self.taken.insert(0, (lease, task))
        del self.taken[40:]

    @rule(lease=leases, order=orders, ttl=st.sampled_from([5, 30_000]), twice=often)
    def renews(self, lease: str, order: tuple[str, ...], ttl: int, twice: bool) -> None:
        answer = self.both("work.renew", lease, order, ttl)
        if twice:
            assert self.unchanged("work.renew", lease, order, ttl) == answer

    @rule(lease=leases, order=orders, crashed=st.booleans(), twice=often, really=st.integers(0, 2))
    def hands_back(self, lease: str, order: tuple[str, ...], crashed: bool, twice: bool, really: int) -> None:
        if really:
            return
        self.both("work.hand_back", lease, order, crashed=crashed)
        if twice:
            assert self.unchanged("work.hand_back", lease, order, crashed=crashed) == 0

    @rule(ms=st.sampled_from([1, 10, 1000, 40_000, -3000]))
    def time_passes(self, ms: int) -> None:
        self.hand.advance(ms)

    @rule(
        queue=queues, which=st.lists(picks, min_size=1, max_size=3, unique=True), at_front=often, twice=often
    )
    def cancels(self, queue: str, which: list[int], at_front: bool, twice: bool) -> None:
        ids = dict.fromkeys(self.live_one(queue, n) for n in which)
        items = [(id, self.finished(id, "cancel:0"), "") for id in ids]
        answers = self.both("work.cancel", queue, items, at_front=at_front)
        if twice:
            assert self.unchanged("work.cancel", queue, items, at_front=at_front) == answers

    @rule(queue=queues, really=st.integers(0, 3))
    def purges(self, queue: str, really: int) -> None:
        if really:
            return
        first = self.both("looks.peek", queue, 100)
        items = [(id, self.finished(id, "purge:0"), "") for id in first]
        self.both("work.cancel", queue, items, at_front=True)
        if first and not self.deleted:
            assert self.run(self.model.looks.peek(queue, 100)) == []

    @rule(queue=queues, which=picks, priority=priorities, twice=often)
    def retries_dead(self, queue: str, which: int, priority: int, twice: bool) -> None:
        ended = sorted(self.before.get(queue, QueueDump()).expiring)
        id = ended[which % len(ended)] if ended and which else self.pick(queue, which)
        if id in self.deleted:
            return
        entry = Entry(id, self.live(id, priority))
        self.both("work.retry_dead", queue, entry)
        if twice:
            assert self.unchanged("work.retry_dead", queue, entry) is False

    @rule(queue=queues, paused=st.sampled_from([False, False, True]), twice=often, really=st.integers(0, 2))
    def pause_queue(self, queue: str, paused: bool, twice: bool, really: int) -> None:
        if really and not self.before.get(queue, QueueDump()).paused and not twice:
            return
        self.both("work.pause", queue, paused)
        if twice:
            self.unchanged("work.pause", queue, paused)

    @rule(queue=queues, which=picks, really=st.integers(0, 2))
    def vanishes(self, queue: str, which: int, really: int) -> None:
        """A record is deleted by hand, or the store evicts it."""
        name = self.live_one(queue, which)
        if really == 0 and self.client.delete(self.on_redis.keys.record(queue, name)):
            data = self.store.queue(queue)
            data.task.pop(name)
            data.expires.pop(name, None)
            self.deleted.add(name)
            self.compare()

    @rule(queue=queues, count=st.integers(1, 8), really=st.integers(0, 2))
    def looks(self, queue: str, count: int, really: int) -> None:
        if really:
            return
        self.both("looks.state", queue)
        self.both("looks.peek", queue, count)
        self.both("looks.dead", queue, count)


def plain(answer: Any) -> Any:
    """Return an answer in comparable form. Tasks that are dispatched again come out of a set, in no order."""
    if isinstance(answer, Exchange):
        tasks = answer.tasks
        if len({task.batch for task in tasks}) == 1 and answer.tasks != sorted(answer.tasks):
            tasks = sorted(tasks)
        return (
            sorted(tasks),
            answer.refused,
            answer.lost_lease,
            answer.next_due,
            answer.more_ready,
            answer.blocked,
            answer.solo,
            answer.vanished,
        )
    return answer


def _run(url: str, client: redis.Redis) -> None:
    loop = asyncio.new_event_loop()
    broker = RedisBroker(url, result_ttl=FOREVER, dead_ttl=FOREVER)
    kind = type(
        "Both", (Machine,), {"url": url, "loop": loop, "client": client, "on_redis": broker, "steps": 0}
    )
    long = "PQ_STEPS" in os.environ
    profile = settings(
        max_examples=max(1, STEPS // (3 * PER_EXAMPLE)),
        stateful_step_count=PER_EXAMPLE,
        derandomize=not long,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # shrinking takes minutes, and the last calls show the failing ones
    )
    try:
        loop.run_until_complete(broker.open())
        while True:
            run_state_machine_as_test(kind, settings=profile)
            if not long or kind.steps >= STEPS:
                break
    finally:
        loop.run_until_complete(broker.close())
        loop.close()
    print(f"{kind.steps} steps compared")
    assert kind.steps >= min(STEPS, 1000)


@pytest.mark.timeout(3600)
def test_valkey_does_what_the_model_does(valkey: Any) -> None:
    """Random calls, some repeated: the same answers from Valkey and from `MemoryBroker`, the same contents."""
    _run(valkey.url, valkey.client)
    valkey.client.flushdb()


@pytest.mark.timeout(3600)
def test_redis62_does_what_the_model_does(redis62: Any) -> None:
    """The same on Redis 6.2."""
    _run(redis62.url, redis62.client)
    redis62.client.flushdb()
