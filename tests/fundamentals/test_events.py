"""Events: of all tasks, and of the consumers."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Manager, Producer


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pq.job()
async def counts(self: Job) -> None:
    for step in range(3):
        self.progress(step + 1, 3, f"step {step + 1}")
        await asyncio.sleep(0)


@pq.job()
async def queues_another(self: Job) -> str:
    task = await self.queue("addition", a=1, b=1)
    return f"{task.meta['from_task'] == self.task.id} {task.get()}"


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_task_events_bring_the_task(serving: Producer, make_app: Any) -> None:
    """Another program hears queued, started and done, each with the task as it then is."""
    heard: list[tuple[str, str, str, Any]] = []
    async with make_app().api() as listener:
        await listener.on_events("task", "*", lambda c, e, t: heard.append((c, e, t.status_string, t.result)))
        await serving.tasks.queue("addition", a=1, b=2)
        await until(lambda: len(heard) == 3)
    assert heard == [
        ("task", "queued", "QUEUED", None),
        ("task", "started", "STARTED", None),
        ("task", "done", "SUCCESS", 3),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("done", {"done"}),
        ("queued|done", {"queued", "done"}),
        ("*", {"queued", "started", "done"}),
        ("st*", {"started"}),
    ],
)
async def test_patterns(serving: Producer, pattern: str, expected: set[str]) -> None:
    """A word, words with `|`, `*` for anything."""
    heard: list[str] = []
    everything: list[str] = []
    await serving.on_events("task", pattern, lambda c, e, t: heard.append(e))
    await serving.on_events("task", "*", lambda c, e, t: everything.append(e))
    await serving.tasks.queue("addition")
    await until(lambda: "done" in everything)
    assert set(heard) == expected


async def test_a_callback_may_be_a_coroutine_and_may_raise(
    serving: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of a callback is logged, and the next callback is called."""
    heard: list[str] = []

    async def slow(channel: str, event: str, task: Any) -> None:
        await asyncio.sleep(0)
        heard.append("slow")

    async def broken_later(channel: str, event: str, task: Any) -> None:
        raise ValueError("later")

    def broken(channel: str, event: str, task: Any) -> None:
        raise ValueError("now")

    with caplog.at_level(logging.ERROR, logger="pq.producer"):
        for callback in (broken, broken_later, slow):
            serving.on_events("task", "done", callback)
        await serving.on_events("task", "done", lambda *_: heard.append("plain"))
        await serving.tasks.queue("addition")
        await until(lambda: len(heard) == 2)
    assert sorted(heard) == ["plain", "slow"]
    assert caplog.text.count("an event callback raised") == 2


async def test_calls_of_a_slow_callback_do_not_pile_up(
    api: Producer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most N calls run at once; missed events are counted and logged, and no other listener misses any."""
    monkeypatch.setattr("pq.producer.callbacks.MOST", 50)
    gate = asyncio.Event()
    slow: list[str] = []
    plain: list[str] = []

    async def waits(channel: str, event: str, task: Any) -> None:
        slow.append(task.id)
        await gate.wait()

    await api.on_events("task", "queued", waits)
    await api.on_events("task", "queued", lambda _, event, task: plain.append(task.id))
    with caplog.at_level(logging.WARNING, logger="pq.producer"):
        tasks = [
            future.task.id for future in api.tasks.queue_many([("addition", [], {})] * 200, callback=False)
        ]
        await until(lambda: len(plain) == 200)
        await until(lambda: len(slow) == 50)
        assert plain == tasks
        assert slow == tasks[:50]
        assert caplog.text.count("are under way: what comes now passes it by") == 1
        gate.set()
        await until(lambda: "150 events have passed it by" in caplog.text)
        later = await api.tasks.queue("addition", callback=False)
        await until(lambda: len(plain) == 201)
        await until(lambda: slow[50:] == [later.id])
    await api.tasks.flush_queues("default")


async def test_a_callback_is_taken_away(serving: Producer) -> None:
    """After `remove_event_callback` nothing comes any more; removing twice is harmless."""
    heard: list[str] = []
    later: list[str] = []

    def callback(channel: str, event: str, task: Any) -> None:
        heard.append(event)

    await serving.on_events("task", "done", callback)
    await serving.tasks.queue("addition")
    await until(lambda: heard)
    serving.remove_event_callback("task", "done", callback)
    serving.remove_event_callback("task", "done", callback)
    await serving.on_events("task", "done", lambda *_: later.append("x"))
    await serving.tasks.queue("addition")
    await until(lambda: later)
    assert heard == ["done"]


async def test_wrong_channels_and_patterns_are_refused(api: Producer) -> None:
    """The error names the channels there are."""
    with pytest.raises(pq.InvalidValue, match="no 'tusk' events"):
        api.on_events("tusk", "*", print)
    with pytest.raises(pq.InvalidValue):
        api.on_events("task", "x" * 10_000, print)
    with pytest.raises(pq.InvalidValue):
        api.on_events("task", "done", "not callable")  # type: ignore[arg-type]


async def test_progress_is_published_and_kept(serving: Producer) -> None:
    """`self.progress` is an event for listeners, and its last word stays with the task."""
    heard: list[Any] = []
    await serving.on_events("task", "progress", lambda c, e, task: heard.append(task.run_info["progress"]))
    task = await serving.tasks.queue("counts")
    assert task.run_info["progress"] == {"done": 3, "total": 3, "message": "step 3"}


async def test_consumers_say_that_they_live(app: pq.PulsarQueue, api: Producer, start_worker: Any) -> None:
    """A heartbeat names the worker, its node, its queues and its counts."""
    heard: list[Any] = []
    await api.on_events("consumer", "status", lambda c, e, facts: heard.append(facts))
    await start_worker(app)
    await until(lambda: heard)
    facts = heard[0]
    assert (facts["worker"], facts["node"], facts["queues"]) == ("w1", "here", ["here", "default"])
    assert (facts["concurrency"], facts["processed"]) == (100, 0)
    assert facts["cores"] >= 1


async def test_a_job_queues_another(serving: Producer) -> None:
    """`self.queue` notes which task it came from."""
    assert (await serving.tasks.queue("queues.another")).get() == "True 2"


class Diary(Manager):
    """Hooks of an application."""

    lines: list[tuple[str, str]] = []  # noqa: RUF012  shared by the instances on purpose

    async def store_message(self, message: Any) -> None:
        self.lines.append((message.type, message.status_string))
        if message.status_string == "STARTED":
            raise ValueError("hooks stop nothing")

    def queues(self) -> list[str]:
        return [*super().queues(), "extra"]


async def test_the_manager_is_notified_and_asked(
    make_app: Any, start_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`store_message` sees a task queued, started and finished; `queues()` decides which queues are consumed."""
    Diary.lines.clear()
    app = make_app(manager=Diary)
    await start_worker(app)
    async with app.api() as api:
        assert api.tasks.queues() == ["here", "default", "extra"]
        await api.tasks.queue("addition", queue="extra")
        await until(lambda: len(Diary.lines) == 3)
    assert sorted(Diary.lines) == [("task", "QUEUED"), ("task", "STARTED"), ("task", "SUCCESS")]
    assert "Manager.store_message raised" in caplog.text
