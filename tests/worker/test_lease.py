"""The lease keeper: the times of its renewals, and the conditions that it notices."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pq.broker.contract.values import Renewal
from pq.broker.memory.broker import MemoryBroker
from pq.errors import StoreUnavailable
from pq.worker import lease as lease_module
from pq.worker.lease import LeaseKeeper


class HandClock:
    """A clock that is moved by hand; `time` is the store's too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now

    def random(self) -> float:
        return 0.5


class Renewer:
    """The answer of a store to a renewal."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.jump = 0.0
        self.answer: Renewal | Exception = Renewal(True, frozenset())

    def renew(self, lease: str, queues: list[str], ttl: int) -> tuple[Renewal, int]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, int((self.clock.time() + self.jump) * 1000)

    def close(self) -> None:
        pass


class Kept:
    """A keeper with a lease of 30 s, its surroundings, and its messages."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.renewer = Renewer(self.clock)
        self.broker = MemoryBroker()
        self.context: Any = SimpleNamespace(
            name="w1",
            cfg=SimpleNamespace(lease=30.0, stall_limit=300.0),
            clock=self.clock,
            broker=self.broker,
            queues=["q"],
            lease="",
        )
        self.told: list[Any] = []
        self.keeper = LeaseKeeper(
            self.context,
            on_lease=lambda lease: None,
            on_lost=lambda: self.told.append("lost"),
            on_cancel=self.told.append,
            job_of=lambda task: None,
        )
        self.loop_time = 0.0

    async def begin(self) -> None:
        """Do the work of `start`, without the thread: the test makes the calls of the thread."""
        keeper = self.keeper
        keeper._loop = asyncio.get_running_loop()
        await keeper.take_new_lease()

    def renew(self) -> bool:
        return self.keeper._renew(self.renewer)


@pytest.fixture
async def kept() -> Kept:
    kept = Kept()
    await kept.begin()
    return kept


async def test_a_jump_of_the_store_s_clock_is_logged(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """The store itself takes nothing over then, and a person should know why."""
    kept.renew()
    kept.clock.now += 10
    kept.renew()
    assert "clock jumped" not in caplog.text
    kept.renewer.jump = 3600.0
    with caplog.at_level(logging.WARNING, logger="pq.worker"):
        kept.renew()
    assert "clock jumped by 3600.0 s" in caplog.text


async def test_a_renewal_that_failed_is_tried_again_soon(kept: Kept) -> None:
    """A lease is three renewals long, so there is time for some more."""
    keeper = kept.keeper
    for error in (StoreUnavailable("away"), ValueError("whatever it is")):
        kept.renewer.answer = error
        assert not kept.renew()
        assert not keeper._is_due(kept.clock.now + 0.9)
        assert keeper._is_due(kept.clock.now + 1.0)
    kept.renewer.answer = Renewal(True, frozenset())
    assert kept.renew()
    assert not keeper._is_due(kept.clock.now + 9.9)
    assert keeper._is_due(kept.clock.now + 10.0)


async def test_a_lease_is_renewed_every_third_of_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is lost only after more than one renewal that fails."""
    renewed: list[float] = []
    monkeypatch.setattr(kept.keeper, "_answers", lambda: True)
    renew = kept.keeper._renew
    monkeypatch.setattr(
        kept.keeper, "_renew", lambda renewer: renewed.append(kept.clock.now) or renew(renewer)
    )
    start = kept.clock.now

    def second(_: float) -> bool:
        kept.clock.now += 1
        return kept.clock.now - start > 65

    monkeypatch.setattr(kept.keeper._ended, "wait", second)
    kept.keeper._run()
    assert [moment - start for moment in renewed] == [10, 20, 30, 40, 50, 60]


async def test_a_lost_lease_and_requests_to_cancel_are_reported_in_the_loop(kept: Kept) -> None:
    """The thread only passes on the answer of the store; the loop acts."""
    kept.renewer.answer = Renewal(True, frozenset({"a"}))
    kept.renew()
    kept.renewer.answer = Renewal(False, frozenset())
    kept.renew()
    assert kept.told == []
    await asyncio.sleep(0)
    assert kept.told == [frozenset({"a"}), "lost"]


async def test_an_answer_about_an_old_lease_is_not_news(kept: Kept) -> None:
    """The lease was replaced while the renewal was under way."""
    kept.renewer.answer = Renewal(False, frozenset())
    renew = kept.renewer.renew

    def slow(lease: str, queues: list[str], ttl: int) -> tuple[Renewal, int]:
        kept.context.lease = "another"
        return renew(lease, queues, ttl)

    kept.renewer.renew = slow  # type: ignore[method-assign]
    kept.renew()
    await asyncio.sleep(0)
    assert kept.told == []


async def test_a_worker_whose_loop_stands_still_ends_itself(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `stall_limit` another worker should have its tasks."""
    ended: list[int] = []

    class Ended(Exception):
        pass

    def leave(code: int) -> None:
        ended.append(code)
        raise Ended

    monkeypatch.setattr(lease_module.os, "_exit", leave)
    keeper = kept.keeper
    keeper._pings = 1  # asked, and never answered

    class Turns:
        """The thread's sleep: each turn moves the clock on by ten seconds."""

        def wait(self, seconds: float) -> bool:
            kept.clock.now += 10
            return kept.clock.now > 2000

    keeper._ended = Turns()  # type: ignore[assignment]
    with pytest.raises(Ended):
        keeper._run()
    assert ended == [70]
    assert 1300 <= kept.clock.now <= 1320
