"""Inputs that once made something crash, hang or fall silent. They are fed in each run, whatever the seeds are."""

from __future__ import annotations

import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from fuzz_targets import SEALS, look_at

from pq.api import PulsarQueue
from pq.broker.redis.broker import RedisBroker
from pq.errors import BadSetting, PqError, UnreadableMessage
from pq.execution.log_records import unpack
from pq.model.plan import load_plan
from pq.model.schedule import make_schedule
from pq.model.task import WIRE, Task
from pq.producer import reasons


@pytest.mark.parametrize(
    "value", [[], {}, b"x", "x", True, float("nan"), float("inf"), 10**13, -(10**13)], ids=repr
)
@pytest.mark.parametrize("field", WIRE[5:])
def test_a_field_that_cannot_be(field: str, value: Any) -> None:
    """Such a record in a queue stopped a worker's loop: no code may calculate with a value that is not a number."""
    fields: list[Any] = [1, "i1", "addition", "default", b"", 6, 1, 1.0, None, *(None for _ in WIRE[9:])]
    fields[WIRE.index(field)] = value
    with suppress(UnreadableMessage):
        task = Task.from_wire(msgpack.packb(fields))
        look_at(task)
        for number in (
            task.retry,
            task.delay,
            task.timeout,
            task.expires,
            task.max_retries,
            task.priority,
            task.time_queued,
        ):
            assert number is None or -1e12 < number < 1e12


@pytest.mark.parametrize(
    "payload", [b"\x90", b"\xa1x", b"0", b"\xc1", b"", b"\x81\xa5event\x90", b"\xdd\xff\xff\xff\xff"]
)
def test_an_event_of_no_worker(payload: bytes) -> None:
    """One message on the channel of heartbeats ended the listening of a program for good."""
    api = PulsarQueue(data_store="memory://kept").api()
    heard: list[Any] = []
    api.delivery.listeners.add("consumer", "*", lambda *event: heard.append(event))
    api.delivery.deliver(lambda call, *args: call(*args), api.keys.consumer_channel, payload)
    assert heard == []


def test_a_start_at_no_time() -> None:
    api = PulsarQueue(data_store="memory://kept").api()
    for when in (b"x", b"", b"9" * 400, b"-1"):
        api.delivery.deliver(
            lambda call, *args: call(*args), api.keys.task_channel, b"started " + when + b" w n\n"
        )


@pytest.mark.parametrize(
    "url",
    ["redis://?db=xhost:99999", "redis://:pw@?ssl_ca_certs=/x", "redis://host?foo=1"],
)
def test_a_url_with_a_wrong_parameter(url: str) -> None:
    """It was a ValueError, or a TypeError of another library, at the first call."""
    with pytest.raises(BadSetting, match="data_store") as caught:
        RedisBroker(url).server.maker()()
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize(
    "facts",
    [
        {"queues": True},
        {"jobs": 5},
        {"queues": [[1]]},
        {1: 2},
        {"worker": []},
        {"running": "x"},
        {"time": float("nan")},
    ],
)
async def test_a_heartbeat_of_no_worker(facts: Any) -> None:
    """It broke each list of workers, and each answer to why a task waits."""

    class Channels:
        async def consumers(self) -> list[bytes]:
            return [msgpack.packb(facts), msgpack.packb({"worker": "w1", "queues": ["default"]})]

    living = await reasons.workers(SimpleNamespace(channels=Channels()))  # type: ignore[arg-type]
    assert [each["worker"] for each in living] == ["w1"]


def test_a_log_record_that_is_none() -> None:
    for data in (b"0", b"\x80", b"\x81\xa4name\x01"):
        with pytest.raises(UnreadableMessage):
            unpack(data)


def test_a_seal_of_nothing() -> None:
    for seal in SEALS:
        for data in (
            b"\xc1",
            b"\xc1\x01",
            b"\xc1\x01t",
            b"\xc1\x01t\xff",
            b"\xc1\x08t\x00",
            b"\xc1\x00t\x00",
            b"\xc1\x07t\x00\x00",
        ):
            with pytest.raises(PqError):
                seal.open(data, b"t", None, "i")


@pytest.mark.parametrize(
    "facts",
    [
        {"every": 10**400}, {"every": 0}, {"every": -5}, {"every": 1.5}, {"every": "x"}, {"phase": None}, {"queue": {}}, {"queue": "a b"},
        {"job": 5}, {"catch_up": []}, {"catch_up_limit": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_schedule_that_cannot_be(facts: dict[str, Any]) -> None:
    """It went as far as to a scheduler that made tasks of it."""
    good = {
        "job": "a",
        "queue": "q",
        "kwargs": {},
        "catch_up": "skip",
        "catch_up_limit": 9,
        "defined_at": "",
        "every": 1000,
        "phase": 0,
    }
    assert load_plan("daily", b"rule\n" + json.dumps(good).encode()).queue == "q"
    with pytest.raises(UnreadableMessage):
        load_plan("daily", b"rule\n" + json.dumps(good | facts).encode())


def test_an_interval_beyond_all_numbers() -> None:
    with pytest.raises(BadSetting, match="must be from"):
        make_schedule(10**400)


@pytest.mark.parametrize("meta", [[1], "x", 5, [["a"]]], ids=repr)
async def test_meta_params_that_are_no_mapping(meta: Any) -> None:
    """Over HTTP it was a 500."""
    async with PulsarQueue(data_store="memory://kept").api() as api:
        with pytest.raises(PqError, match="meta_params"):
            await api.tasks.queue("no.job", meta_params=meta)
