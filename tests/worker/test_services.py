"""The services of a worker: their order, as the documentation has it, and how they start and stop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pq.api import PulsarQueue
from pq.worker.worker import Worker

PAGE = Path(__file__).parents[2] / "docs/contribute/architecture.md"


def documented() -> list[str]:
    """The names in the table of services."""
    _, _, rest = PAGE.read_text("utf-8").partition("| service | duty |")
    table, _, _ = rest.partition("\n\n")
    return re.findall(r"^\| ([a-z ]+) \|", table, re.M)


def worker_of(**settings: Any) -> Worker:
    app = PulsarQueue(data_store="memory://services", **settings)
    return app.worker("w1")


async def test_the_documented_services_are_those_of_a_worker(tmp_path: Path) -> None:
    """All of them, in their order, where the settings ask for all."""
    worker = worker_of(large_dir=str(tmp_path), report_webhook="http://127.0.0.1:9/", schedule_periodic=True)
    await worker.start()
    names = worker.services
    await worker.stop(grace=0.0)
    assert names == documented()


async def test_services_that_the_settings_do_not_ask_for_are_left_out() -> None:
    """No sweeper without a directory, no reporter without a way, no scheduler where nothing is scheduled."""
    worker = worker_of(schedule_periodic=False)
    await worker.start()
    names = worker.services
    await worker.stop(grace=0.0)
    assert names == [name for name in documented() if name not in ("reporter", "sweeper", "scheduler")]


async def test_what_has_started_is_stopped_in_reverse_when_a_service_cannot_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker raises the same error, and leaves nothing running."""
    worker = worker_of(schedule_periodic=False)
    calls: list[str] = []
    make = worker._make_services

    def made(*args: Any) -> Any:
        services = make(*args)
        for service in services:
            watch(service)
        return services

    def watch(service: Any) -> None:
        start, stop = service.start, service.stop

        async def started() -> None:
            if service.name == "canceller":
                raise OSError("no descriptors")
            calls.append(service.name)
            await start()

        async def stopped() -> None:
            calls.append(f"-{service.name}")
            await stop()

        service.start, service.stop = started, stopped

    monkeypatch.setattr(worker, "_make_services", made)
    with pytest.raises(OSError, match="no descriptors"):
        await worker.start()
    names = documented()
    before = [name for name in names[: names.index("canceller")] if name in calls]
    assert calls == [*before, "-canceller", *(f"-{name}" for name in reversed(before))]
    assert worker.context is None
