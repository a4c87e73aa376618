"""The layers between us and a store: no verb of the contract goes past them with a record."""

from __future__ import annotations

import inspect
import re

import pytest

from pq.broker.contract.work import Broker
from pq.broker.layers.large_payloads import ClaimsBroker
from pq.broker.layers.layer import Layer
from pq.broker.layers.sealing import SealedBroker

CARRIES = re.compile(r"\b(Entry|Settlement|Tick|bytes)\b")
"""What in the type of a parameter may hold a record, or another payload."""
OWN = {"keep_lines", "keep_progress", "keep_parts", "change_schedule", "publish"}
"""Verbs with payloads that are no records: sealed, each in its way, and never put aside."""
CLEAR = {"beat"}
"""What a worker says of itself, and of no task."""


def carriers() -> list[str]:
    """Verbs of the contract that take a payload."""
    return [
        name
        for name, verb in inspect.getmembers(Broker, inspect.isfunction)
        if not name.startswith("_")
        and any(CARRIES.search(str(p.annotation)) for p in inspect.signature(verb).parameters.values())
    ]


def test_the_contract_has_such_verbs() -> None:
    """The look itself finds what is known to carry a record."""
    assert {"enqueue", "exchange", "cancel", "tick", "replace", "displace", "retry_dead"} <= set(carriers())


@pytest.mark.parametrize("verb", sorted(set(carriers()) - CLEAR))
def test_no_verb_with_a_payload_is_handed_on_as_it_is(verb: str) -> None:
    """`__getattr__` hands on what a layer does not have: a forgotten verb would write in the clear."""
    layer = SealedBroker if verb in OWN else Layer
    assert verb in vars(layer), f"{layer.__name__} hands {verb} on as it is"
    assert all(issubclass(each, Layer) for each in (SealedBroker, ClaimsBroker))
