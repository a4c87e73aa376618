"""The layers between us and a store: no verb of the contract goes past them with a record."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from pq.broker.contract.broker import Broker
from pq.broker.contract.channels import Channels
from pq.broker.contract.looks import Looks
from pq.broker.contract.schedules import Schedules
from pq.broker.contract.work import Work
from pq.broker.layers.large_payloads import LargePayloadBroker, LargePayloads
from pq.broker.layers.sealing import sealed
from pq.broker.memory.broker import MemoryBroker
from pq.model.seal import Key, Seal

PORTS: dict[str, Any] = {"work": Work, "looks": Looks, "schedules": Schedules, "channels": Channels}

CARRIES = re.compile(r"\b(Entry|Settlement|Tick|Exchange|Subscription|StoredSchedule|Part|Streamed|bytes)\b")
"""Types of parameters and answers that may hold a record, or another payload."""
CLEAR = {"channels.beat", "channels.consumers"}
"""Payloads about a worker, which hold no task."""
SMALL = {
    f"channels.{verb}"
    for verb in ("publish", "keep_lines", "lines", "keep_progress", "progress", "keep_parts", "parts")
} | {"schedules.change", "schedules.stored"}
"""Payloads that are not records: sealed, each in its way, and never offloaded."""


def verbs() -> list[str]:
    """All verbs of the ports."""
    return [
        f"{port}.{name}"
        for port, protocol in PORTS.items()
        for name, _ in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    ]


def carriers() -> list[str]:
    """Verbs that take or return a payload."""
    found = []
    for verb in verbs():
        port, name = verb.split(".")
        signature = inspect.signature(getattr(PORTS[port], name))
        texts = [
            *(str(p.annotation) for p in signature.parameters.values()),
            str(signature.return_annotation),
        ]
        if any(CARRIES.search(text) for text in texts):
            found.append(verb)
    return found


def own_verb(broker: Broker, verb: str) -> Any:
    port, name = verb.split(".")
    return getattr(getattr(broker, port), name)


def is_handed_on(outer: Broker, inner: Broker, verb: str) -> bool:
    """Return whether the verb of the outer broker is the inner one's own."""
    mine, theirs = own_verb(outer, verb), own_verb(inner, verb)
    return bool(mine.__self__ is theirs.__self__)


@pytest.fixture
def inner() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def seal() -> Seal:
    return Seal([Key("k", b"0" * 32)])


def test_the_contract_has_such_verbs() -> None:
    """The search itself finds the types that are known to carry a record."""
    known = ("enqueue", "exchange", "cancel", "tick", "replace", "displace", "retry_dead")
    assert {f"work.{verb}" for verb in known} | {"looks.records", "channels.subscription"} <= set(carriers())


@pytest.mark.parametrize("verb", sorted(set(carriers()) - CLEAR))
def test_a_verb_with_a_payload_is_sealed(verb: str, inner: MemoryBroker, seal: Seal) -> None:
    """A record that were passed on unchanged would be written in the clear."""
    assert not is_handed_on(sealed(inner, seal, "pq"), inner, verb)


@pytest.mark.parametrize("verb", sorted(set(carriers()) - CLEAR - SMALL))
def test_a_verb_with_a_record_passes_the_offloading(verb: str, inner: MemoryBroker, seal: Seal) -> None:
    """A record that were passed on unchanged would store a large message, or return a claim."""
    payloads = LargePayloads(inner.looks, "/nowhere", "pq", above=1, seal=seal)
    assert not is_handed_on(LargePayloadBroker(inner, "/nowhere", payloads), inner, verb)


@pytest.mark.parametrize("verb", verbs())
def test_both_layers_have_every_verb(verb: str, inner: MemoryBroker, seal: Seal) -> None:
    """Whatever they do to it."""
    payloads = LargePayloads(inner.looks, "/nowhere", "pq", above=1, seal=seal)
    assert callable(own_verb(LargePayloadBroker(sealed(inner, seal, "pq"), "/nowhere", payloads), verb))
