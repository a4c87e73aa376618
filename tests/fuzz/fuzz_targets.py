"""The targets of the inputs: one function for each way by which bytes, texts or values come in.

Each takes a source of chance and makes and feeds one input. What may come out is an answer or an error of ours; anything
else that is raised is a fault, and what was fed is kept in `rng.fed` for the report.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
from fuzz_inputs import NASTY_TEXT, mutated, packed, text, value

from pq import api as pq
from pq import cli
from pq.broker import records
from pq.broker.connect import Store, plain_url
from pq.broker.contract.values import Reserved
from pq.broker.redis.broker import RedisBroker
from pq.config import SETTINGS, Settings, load, redact
from pq.errors import PqError, UnreadableMessage
from pq.execution.frames import FrameReader, frame
from pq.execution.log_records import unpack as unpack_log_record
from pq.model.events import event_pattern, log_line, log_lines
from pq.model.keyring import Key
from pq.model.limits import Concurrency
from pq.model.names import check_name
from pq.model.payloads import dump_payload, load_payload
from pq.model.plan import check_schedule_name, load_plan
from pq.model.registry import Registry
from pq.model.schedule import make_schedule, next_runs
from pq.model.seal import EVENT, FINISHED, LIVE, SCHEDULE, Seal
from pq.model.serializers import JSON, MSGPACK
from pq.model.task import WIRE, Task
from pq.producer import reasons
from pq.producer.producer import Producer
from pq.worker.admission import Admission, Refused
from pq.worker.attempts import Attempts
from pq.worker.context import Counts
from pq.worker.settling import Settling


class Chance(random.Random):
    """Chance that remembers its last results."""

    fed: Any = None

    def feed(self, thing: Any) -> Any:
        self.fed = thing
        return thing


Target = Callable[[Chance], None]
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def good_task(rng: random.Random) -> Task[Any]:
    fmt = rng.choice((MSGPACK, JSON))
    task: Task[Any] = Task("i1", "addition", "default", fmt.dumps([[1, (2,)], {"a": {3}}]), time_queued=1.5)
    task.format = fmt
    if rng.random() < 0.5:
        task.status = pq.SUCCESS
        task.result_bytes = fmt.dumps({"x": [1]})
    task.note(log=[b"1.0 INFO x"], progress={"done": 1})
    return task


def bad_message(rng: random.Random) -> bytes:
    """A message that is none: spoilt, of wrong types, or something else altogether."""
    way = rng.randrange(6)
    if way == 0:
        return mutated(rng, good_task(rng).to_wire())
    if way >= 4:  # all is well but for one field
        fields = [1, "i1", "addition", "default", b"", 6, 1, 1.0, None, *(None for _ in WIRE[9:])]
        fields[rng.randrange(1, len(fields))] = rng.choice(
            (value(rng), [], {}, "x", -1, float("nan"), 10**12, b"x", True)
        )
        return packed(rng, fields[:9] if rng.random() < 0.3 else fields)
    if way == 1:
        fields = [1, "i1", "addition", "default", b"", 6, 1, 1.0, None, *(None for _ in WIRE[9:])]
        for _ in range(rng.randrange(1, 4)):
            fields[rng.randrange(len(fields))] = value(rng)
        return packed(rng, fields)
    if way == 2:
        return packed(rng, value(rng))
    return rng.randbytes(rng.randrange(60))


def bad_record(rng: random.Random) -> bytes:
    heads = (
        b"q\n",
        b"q5\n",
        b"d1 w:1\n",
        b"g  c1:x\n",
        b"g9 w:1 r1.1:a,uf:k\n",
        b"",
        b"x\n",
        b"q99999999999999999999\n",
    )
    head = rng.choice(heads)
    return (mutated(rng, head) if rng.random() < 0.3 else head) + bad_message(rng)


def look_at(task: Task[Any]) -> None:
    """All that a page, a verb or a worker may ask of a task."""
    for what in ("args", "kwargs", "result", "meta", "run_info", "expiry", "status_string", "full_name"):
        with contextlib.suppress(PqError):
            getattr(task, what)
    for call in (task.tojson, task.get, task.info, task.done, task.__repr__, task.to_wire):
        with contextlib.suppress(PqError):
            call()
    with contextlib.suppress(PqError):
        log_lines(task)


@target
def wire(rng: Chance) -> None:
    """Bodies of messages."""
    with contextlib.suppress(UnreadableMessage):
        look_at(Task.from_wire(rng.feed(bad_message(rng))))


@target
def headers(rng: Chance) -> None:
    """Records, their headers, and the limits that they state."""
    record = rng.feed(bad_record(rng))
    for read in (records.is_live, records.is_finished, records.priority, records.token, records.limits_text):
        read(record)
    list(records.read_limits(records.limits_text(record)))
    records.unique_key(records.limits_text(record))
    with contextlib.suppress(UnreadableMessage):
        records.message(record)


@pq.job(max_concurrency=2, limits=[pq.Concurrency(1, key="customer")], expires=60)
async def fuzzed(customer: Any = None) -> None: ...


_JOBS = Registry()
_JOBS.add(fuzzed)
_CONFIG: Any = SimpleNamespace(max_crashes=3, largest_message=100_000)


@target
def admissions(rng: Chance) -> None:
    """Reserved records: each becomes an attempt, or a task with an ending that can be settled."""
    record = bad_record(rng)
    if rng.random() < 0.5:
        notes = rng.choice((None, b"\xc1", MSGPACK.dumps({"unknown": rng.choice((1, "x", -5, [])), 1: 2})))
        call = rng.choice((b"\xc1", MSGPACK.dumps([[1], {}]), MSGPACK.dumps([[{"a": [1]}], {"b": 2}])))
        task: Task[Any] = Task(
            "i1", rng.choice(("fuzzed", "nowhere")), "default", call, retry=rng.choice((1, 2))
        )
        task.run_info_bytes = notes
        record = records.live_header(0) + task.to_wire()
    reserved = Reserved("default", "i1", 7, rng.feed(record), rng.choice((0, 0, 2, 3)), rng.choice(("", "g")))
    attempts = Attempts()
    admission = Admission(
        _JOBS, _CONFIG, worker="w1", node="here", backend=SimpleNamespace(), finished=lambda attempt, outcome: None,
        free_children=lambda: 1, time=lambda: 1000.0, chance=lambda: 0.5,
    )  # fmt: skip
    found = admission.admit(reserved)
    if isinstance(found, Refused):
        attempts.held["i1"] = ("default", 7)
        context: Any = SimpleNamespace(lease="L", counts=Counts())
        assert Settling(context, attempts).settle(found.task, found.ending)


@target
def payloads(rng: Chance) -> None:
    """Payloads in both formats."""
    fmt = rng.choice((MSGPACK, JSON))
    data = rng.feed(mutated(rng, packed(rng, value(rng))) if rng.random() < 0.7 else rng.randbytes(30))
    with contextlib.suppress(UnreadableMessage):
        load_payload(fmt, data)


@target
def arguments(rng: Chance) -> None:
    """Values to be sent: they are, or it is said which part cannot be."""
    thing = rng.feed(value(rng))
    fmt = rng.choice((MSGPACK, JSON))
    try:
        data = dump_payload(fmt, [thing], what="arguments", limit=5000)
    except PqError:
        return
    assert repr(load_payload(fmt, data)) == repr([thing])


@target
def parcels(rng: Chance) -> None:
    """Parcels of records."""
    good = records.parcel("i1", b"q\n" + good_task(rng).to_wire())
    data = rng.feed(mutated(rng, good * rng.randrange(1, 4)))
    for id, record in records.parcels(data):
        assert isinstance(id, str)
        assert isinstance(record, bytes)


def _run_callback(callback: Callable[..., Any], *args: Any) -> None:
    callback(*args)


_producer: Producer | None = None


@target
def events(rng: Chance) -> None:
    """Messages on the channels that every process hears."""
    global _producer
    if _producer is None:
        _producer = pq.PulsarQueue(data_store="memory://fuzz").api()
        for channel in ("task", "consumer"):
            _producer.delivery.listeners.add(
                channel, "*", lambda _, event, thing: isinstance(thing, Task) and look_at(thing)
            )
    channel = rng.choice((_producer.keys.task_channel, _producer.keys.consumer_channel))
    if channel == _producer.keys.consumer_channel:
        payload = (
            mutated(rng, packed(rng, {"event": value(rng)}))
            if rng.random() < 0.5
            else packed(rng, value(rng))
        )
    else:
        head = rng.choice(
            (b"done", b"started 1 w n", b"started x w n", b"started 9e9 a b c", b"log", b"", b"\xff")
        )
        payload = head + b"\n" + records.parcel("i1", bad_record(rng))
        if rng.random() < 0.3:
            payload = mutated(rng, payload)
    _producer.delivery.deliver(_run_callback, channel, rng.feed(payload))


SEALS = [Seal([Key("k1", b"k" * 32)]), Seal((), [Key("e1", b"e" * 32)]), Seal(compress_above=5)]
SEALS.append(Seal([Key("k1", b"k" * 32)], [Key("e1", b"e" * 32)], compress_above=5))


@target
def seals(rng: Chance) -> None:
    """Sealed messages that were spoilt, without the key and with it."""
    seal = rng.choice(SEALS)
    kind = rng.choice((LIVE, FINISHED, EVENT, SCHEDULE))
    closed = seal.close(bytes(200) + rng.randbytes(5), kind, "q", "i")
    spoilt = rng.feed(mutated(rng, closed))
    with contextlib.suppress(UnreadableMessage):
        opener = rng.choice(SEALS)
        opened = opener.open(spoilt, kind, rng.choice(("q", None)), "i")
        assert opened == seal.open(closed, kind, "q", "i") or not opener.has_keys
    with contextlib.suppress(UnreadableMessage):
        Task.from_wire(spoilt)


@target
def cron_lines(rng: Chance) -> None:
    """Rules of schedules: lines, seconds, zones, anchors."""
    words = (
        "*",
        "*/5",
        "*/0",
        "1-5",
        "5-1",
        "31",
        "30",
        "2",
        "FEB",
        "SUN",
        "L",
        "5L",
        "#",
        "1#6",
        "W",
        "?",
        "60",
        "-1",
        "*/99999",
        "1,2,3",
        "0",
        "x",
    )
    line: Any = " ".join(rng.choice(words) for _ in range(rng.choice((5, 5, 5, 6, 4, 7))))
    if rng.random() < 0.3:
        line = rng.choice((text(rng), value(rng), "@" + text(rng), "@daily"))
    zone = rng.choice((None, None, "UTC", "UTC", "Europe/Rome", "Asia/Kathmandu", "Europe/Rom", value(rng)))
    rng.feed((line, zone))
    with contextlib.suppress(PqError):
        schedule = make_schedule(line, zone)
        next_runs(schedule, rng.choice((0, 1_700_000_000_000, 4_000_000_000_000)), 2)
        schedule.ticks_between(1_700_000_000_000, 1_700_000_600_000, 10)


@target
def schedules(rng: Chance) -> None:
    """Schedules as they lie in the store."""
    facts = {
        "job": "a", "queue": "q", "kwargs": {}, "catch_up": "skip", "catch_up_limit": 100, "defined_at": "", "cron": "0 0 * * *", "zone": "UTC",
    }  # fmt: skip
    if rng.random() < 0.4:
        del facts["cron"], facts["zone"]
        facts |= {"every": 1000, "phase": 0}
    for _ in range(rng.randrange(3)):
        facts[rng.choice(list(facts))] = value(rng)
    data = b"rule\n" + packed(rng, facts)
    data = rng.feed(mutated(rng, data) if rng.random() < 0.5 else data)
    name = rng.choice(("daily", text(rng)))
    with contextlib.suppress(UnreadableMessage):
        plan = load_plan(name, data)
        plan.schedule.next_after(1_700_000_000_000)
        plan.task_id(5)
        with contextlib.suppress(PqError):
            plan.dump()


@target
def urls(rng: Chance) -> None:
    """URLs of stores, mail servers and web hooks."""
    schemes = (
        "redis",
        "rediss",
        "unix",
        "valkey",
        "memory",
        "embedded",
        "redis+sentinel",
        "redis+cluster",
        "http",
        "smtp",
        "",
    )
    parts = (
        "host",
        "host:1",
        "host:99999",
        "[::1]",
        "[::1",
        "user:pw@host",
        "a@b@c",
        ":pw@",
        "/path",
        "?db=x",
        "?db=1",
        "?timeout=x",
        "?protocol=9",
        "?ssl_ca_certs=/x",
        "#",
        "%",
        "%zz",
        text(rng),
    )
    url = rng.feed(
        f"{rng.choice(schemes)}://" * (rng.random() < 0.9)
        + "".join(rng.choice(parts) for _ in range(rng.randrange(5)))
    )
    redact(url)
    for name in ("data_store", "message_broker", "smtp_url", "report_webhook"):
        try:
            found = load({name: url}, environ={})
        except PqError:
            continue
        if name == "data_store" and found.data_store:
            try:
                store = Store(Settings(data_store=found.data_store), "config.py")
                plain = plain_url(store.url)
                if plain.startswith(("redis", "unix")):
                    RedisBroker(plain).server.maker()()
            except PqError:
                pass


@target
def names(rng: Chance) -> None:
    """Names of jobs, queues, ids, schedules and gates, and patterns of events."""
    name = rng.feed(rng.choice((text(rng), value(rng))))
    for check in (
        lambda: check_name("queue", name),
        lambda: check_schedule_name(name),
        lambda: event_pattern(name),
    ):
        with contextlib.suppress(PqError):
            check()
    with contextlib.suppress(PqError):
        pq.job(name=name)(lambda: None)
    with contextlib.suppress(PqError):
        Concurrency(rng.choice((1, value(rng))), key=name if isinstance(name, str) else None)


@target
def settings(rng: Chance) -> None:
    """Values of settings from programs, variables, flags and files."""
    name = rng.choice([*SETTINGS, text(rng)])
    thing = rng.feed((name, rng.choice((value(rng), text(rng)))))[1]
    for how in (
        {"keywords": {name: thing}},
        {"cli": {name: thing}},
        {"environ": {f"PQ_{name.upper()}": str(thing)}},
    ):
        with contextlib.suppress(PqError):
            found = load(**{"environ": {}, **how})  # type: ignore[arg-type]
            repr(found)
            assert Settings.from_dict(found.to_dict()) == found


class _App:
    kwargs: dict[str, Any] = {}  # noqa: RUF012
    config = None

    def configure(self, flags: Any) -> None:
        load({}, None, {}, flags)

    def serve(self) -> int:
        return 0

    def api(self) -> Any:
        raise PqError("there is no store in this test")


@target
def command_lines(rng: Chance) -> None:
    """Words after `pq`: an exit code and a few lines, whatever they are."""
    verbs = [
        verb for verb in cli.VERBS if verb not in ("shell", "demo", "web", "new", "doctor", "check", "top")
    ]
    flags = [setting.flags[-1] for setting in SETTINGS.values()]
    words = [
        rng.choice(
            [rng.choice(verbs), rng.choice(flags), "--json", "-w", "-v", "--", "-", "--wait", "ID", text(rng)]
        )
        for _ in range(rng.randrange(6))
    ]
    rng.feed(words)
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["pq"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _quiet_stdin():
            code = cli.run(_App(), words)  # type: ignore[arg-type]
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    assert code in (0, 1, 2), code
    assert "-v" in words or "Traceback" not in err.getvalue()


@contextlib.contextmanager
def _quiet_stdin() -> Any:
    before, sys.stdin = sys.stdin, io.StringIO("")
    try:
        yield
    finally:
        sys.stdin = before


@target
def frames(rng: Chance) -> None:
    """The channel between a worker and its children: frames, log records, lines, progress."""
    good = b"".join(frame(rng.randrange(9), "x", b"y", None, 1) for _ in range(rng.randrange(1, 4)))
    data = rng.feed(mutated(rng, good))
    reader = FrameReader(100_000)
    with contextlib.suppress(UnreadableMessage):
        for start in range(0, len(data), 7):
            list(reader.feed(data[start : start + 7]))
    log_line(data)
    with contextlib.suppress(UnreadableMessage):
        unpack_log_record(rng.feed(packed(rng, value(rng))))


class _Beats:
    def __init__(self, beats: list[bytes]) -> None:
        self._beats = beats
        self.channels = self

    async def consumers(self) -> list[bytes]:
        return self._beats


@target
def heartbeats(rng: Chance) -> None:
    """The facts that workers publish about themselves."""
    facts = {
        "worker": "w",
        "node": "n",
        "queues": ["default"],
        "jobs": ["a"],
        "modules": ["m"],
        "leaving": False,
    }
    for _ in range(rng.randrange(3)):
        facts[rng.choice(list(facts))] = value(rng)
    beat = msgpack.packb(facts, default=str) if _packs(facts) else b""
    beats = [
        rng.feed(mutated(rng, beat) if rng.random() < 0.5 else packed(rng, rng.choice((facts, value(rng)))))
    ]
    coroutine = reasons.workers(_Beats(beats))  # type: ignore[arg-type]
    try:
        coroutine.send(None)
    except StopIteration as end:
        living = end.value
        reasons.unserved("default", living)
        reasons.not_served("a", "default", living)


def _packs(thing: Any) -> bool:
    try:
        msgpack.packb(thing, default=str)
    except (ValueError, OverflowError, RecursionError, TypeError):
        return False
    return True


def shown(thing: Any) -> str:
    """An input as it may stand in a report."""
    return repr(thing)[:2000]


__all__ = ["NASTY_TEXT", "TARGETS", "Chance", "bad_message", "bad_record", "json", "os", "shown"]
