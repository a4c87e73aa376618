"""Attempts: what a job may say about its own end, which errors are tried again, and how long is waited.

`Retry`, `Snooze` and `Cancel` may be raised or returned, and mean the same in all four modes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pq import api as pq
from pq.api import ASYNC_IO, CPUBOUND, GREEN_IO, THREAD_IO, Backoff, Cancel, Job, Producer, Retry, Snooze
from pq.model.verdict import SNOOZES

MODES = {"asyncio": ASYNC_IO, "thread": THREAD_IO, "process": CPUBOUND, "green": GREEN_IO}
every_mode = pytest.mark.parametrize("mode", list(MODES))


def say(word: str) -> Exception:
    """The values that a job of this page raises or returns."""
    return {
        "retry": Retry(0, "the shop is closed"),
        "snooze": Snooze(0.01),
        "cancel": Cancel("the order was withdrawn"),
    }[word]


def _in_mode(mode: str) -> None:
    """Define the jobs of this page once for each mode."""

    def raises(self: Job, word: str, times: int) -> int:
        if self.task.retry + self.task.run_info.get("snoozes", 0) <= times:
            raise say(word)
        return self.task.retry

    def returns(self: Job, word: str, times: int) -> Any:
        if self.task.retry + self.task.run_info.get("snoozes", 0) <= times:
            return say(word)
        return self.task.retry

    async def raises_async(self: Job, word: str, times: int) -> int:
        await asyncio.sleep(0)
        return raises(self, word, times)

    def picky(self: Job, kind: str) -> None:
        raise {"key": KeyError, "lookup": LookupError, "index": IndexError}[kind](kind)

    for function in (raises, returns, raises_async):
        made = pq.job(
            name=f"{mode}.{function.__name__}", concurrency=MODES[mode], max_retries=2, retry_delay=0
        )(function)
        made.job_class.__module__ = __name__
        globals()[f"job_{mode}_{function.__name__}"] = made
    made = pq.job(
        name=f"{mode}.picky",
        concurrency=MODES[mode],
        max_retries=2,
        retry_delay=0,
        retry_on=(LookupError,),
        no_retry_on=KeyError,
    )(picky)
    made.job_class.__module__ = __name__
    globals()[f"job_{mode}_picky"] = made


for _mode in MODES:
    _in_mode(_mode)


# ------------------------------------------------------------------------------ a job's own word
@every_mode
@pytest.mark.parametrize("how", ["raises", "returns", "raises_async"])
async def test_retry_is_another_attempt(serving: Producer, mode: str, how: str) -> None:
    """Raised or returned: the next attempt comes after its own delay, as long as one is left."""
    task = await serving.tasks.queue(f"{mode}.{how}", "retry", 2)
    assert (task.status_string, task.get(), task.retry) == ("SUCCESS", 3, 3)
    task = await serving.tasks.queue(f"{mode}.{how}", "retry", 99)
    assert (task.status_string, task.retry) == ("FAILURE", 3)
    assert task.exception == "Retry: the shop is closed"
    with pytest.raises(pq.TaskError, match="the shop is closed"):
        task.get()


@every_mode
@pytest.mark.parametrize("how", ["raises", "returns"])
async def test_a_snooze_spends_no_attempt(serving: Producer, mode: str, how: str) -> None:
    """The task comes again, and `retry` stays; how often it did is in `run_info`."""
    task = await serving.tasks.queue(f"{mode}.{how}", "snooze", 5, meta_params={"max_retries": 0})
    assert (task.status_string, task.get(), task.retry) == ("SUCCESS", 1, 1)
    assert task.run_info["snoozes"] == 5


@every_mode
@pytest.mark.parametrize("how", ["raises", "returns"])
async def test_cancel_is_the_end(serving: Producer, mode: str, how: str) -> None:
    """The task is REVOKED with the reason, whatever attempts are left."""
    task = await serving.tasks.queue(f"{mode}.{how}", "cancel", 1)
    assert (task.status_string, task.retry, task.reason) == ("REVOKED", 1, "revoked")
    with pytest.raises(pq.TaskRevoked, match="the order was withdrawn"):
        task.get()


@pq.job()
async def snoozes_for_ever(self: Job) -> None:
    self.task.note(snoozes=max(SNOOZES - 3, self.task.run_info.get("snoozes", 0)))
    raise Snooze(0)


async def test_snoozing_has_an_end(serving: Producer) -> None:
    """A condition that never comes: after a thousand times the task has failed."""
    task = await serving.tasks.queue("snoozes.for.ever")
    assert (task.status_string, task.reason, task.retry) == ("FAILURE", "snoozed", 1)
    assert "snoozed 1,000 times" in (task.exception or "")


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "5", True, 1e12])
def test_a_delay_is_seconds(delay: Any) -> None:
    """Anything else is refused where it is written."""
    with pytest.raises(pq.InvalidValue, match="must be a number of seconds"):
        Snooze(delay)
    with pytest.raises(pq.InvalidValue, match="must be a number of seconds"):
        Retry(delay)


@pq.job(max_retries=2, retry_delay=0)
async def in_a_group(word: str, other: bool = False) -> None:
    async def fails() -> None:
        raise KeyError("another")

    async def says() -> None:
        raise say(word)

    async with asyncio.TaskGroup() as group:
        group.create_task(says())
        if other:
            group.create_task(fails())


async def test_a_word_from_a_task_group_counts(serving: Producer) -> None:
    """The verdict counts as if it were raised alone; beside a real error it is one error of the group."""
    assert (await serving.tasks.queue("in.a.group", "cancel")).status_string == "REVOKED"
    task = await serving.tasks.queue("in.a.group", "retry")
    assert (task.retry, task.exception) == (3, "Retry: the shop is closed")
    task = await serving.tasks.queue("in.a.group", "cancel", other=True)
    assert (task.status_string, task.retry) == ("FAILURE", 3)
    assert (task.exception or "").startswith("ExceptionGroup")


@pq.job(max_retries=2, retry_delay=0, no_retry_on=(KeyError,))
async def group_of_errors(*kinds: str) -> None:
    raise ExceptionGroup("both", [{"key": KeyError, "value": ValueError}[kind]() for kind in kinds])


async def test_a_group_is_judged_by_each_of_its_errors(serving: Producer) -> None:
    """One that is not to be tried again is enough."""
    assert (await serving.tasks.queue("group.of.errors", "value", "value")).retry == 3
    assert (await serving.tasks.queue("group.of.errors", "value", "key")).retry == 1


# ------------------------------------------------------------------------------- by exception
@every_mode
@pytest.mark.parametrize(("kind", "attempts"), [("index", 3), ("lookup", 3), ("key", 1)])
async def test_by_class_of_the_exception(serving: Producer, mode: str, kind: str, attempts: int) -> None:
    """`retry_on` names errors that are retried, `no_retry_on` those that are not; the nearer class decides."""
    task = await serving.tasks.queue(f"{mode}.picky", kind)
    assert (task.status_string, task.retry) == ("FAILURE", attempts)


@pq.job(timeout=0.05, max_retries=3, retry_delay=0, no_retry_on=(pq.TaskTimeout,))
async def late_once() -> None:
    await asyncio.sleep(60)


async def test_a_time_out_counts_as_task_timeout(serving: Producer) -> None:
    """A job can have attempts after errors, and none after a time-out."""
    task = await serving.tasks.queue("late.once")
    assert (task.status_string, task.retry, task.reason) == ("REVOKED", 1, "timed-out")


async def test_without_a_queue_the_same_holds(api: Producer) -> None:
    """`execute` runs the attempts one after the other, by the same rules."""
    assert (await api.tasks.execute("asyncio.raises", "retry", 2)).get() == 3
    assert (await api.tasks.execute("asyncio.raises", "cancel", 1)).status_string == "REVOKED"
    assert (await api.tasks.execute("asyncio.picky", "key")).retry == 1


# ----------------------------------------------------------------------------------- back-off
asked: list[int] = []


def by_hand(attempt: int) -> float:
    asked.append(attempt)
    return 0.01 * attempt


@pq.job(max_retries=2, backoff=by_hand)
def by_function() -> None:
    raise ValueError


@pq.job(max_retries=1, backoff=lambda attempt: "soon")
def by_a_wrong_function() -> None:
    raise ValueError


async def test_a_function_says_how_long(serving: Producer) -> None:
    """It is asked with the number of the attempt that failed."""
    asked.clear()
    assert (await serving.tasks.queue("by.function")).retry == 3
    assert asked == [1, 2]


async def test_a_function_that_fails_costs_no_attempt(serving: Producer) -> None:
    """The usual wait takes its place, and the task says why."""
    task = await serving.tasks.queue("by.a.wrong.function")
    assert task.retry == 2
    assert "must be a number of seconds" in task.run_info["backoff"]


async def test_a_producer_that_does_not_know_the_job(serving: Producer, make_app: Callable[..., Any]) -> None:
    """It queues by name alone, and the job's own `max_retries` counts; its return value counts more."""
    async with make_app(task_paths=[]).api() as stranger:
        task = await stranger.tasks.queue("asyncio.raises", "retry", 1)
        assert (task.status_string, task.result, task.max_retries) == ("SUCCESS", 2, 2)
        task = await stranger.tasks.queue("asyncio.raises", "retry", 1, meta_params={"max_retries": 0})
        assert (task.status_string, task.retry) == ("FAILURE", 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backoff": 5}, "backoff is 5"),
        ({"backoff": Backoff(), "retry_delay": 1}, "both retry_delay and backoff"),
        ({"retry_on": ("KeyError",)}, "retry_on is"),
        ({"no_retry_on": 5}, "no_retry_on is 5"),
    ],
)
def test_options_are_checked_where_they_are_written(options: dict[str, Any], says: str) -> None:
    """When the module is imported, not when the first task fails."""
    with pytest.raises(pq.ConfigError, match=says):
        pq.job("wrong", **options)(by_hand)
    with pytest.raises(pq.ConfigError, match="factor is 0"):
        Backoff(factor=0)


# ------------------------------------------------------------------------------------ retry storms
@pq.job(max_retries=1, backoff=Backoff(base=1000, cap=1000))
async def all_at_once(self: Job) -> None:
    raise OSError("the service is away")


async def test_those_that_fail_together_get_a_chance_each(
    make_app: Any, start_worker: Any, valkey: Any
) -> None:
    """Two thousand fail within a moment; they are due at any time of the upper half of their wait."""
    app = make_app(concurrent_tasks=1000)
    await start_worker(app)
    async with app.api() as api:
        futures = api.tasks.queue_many([("all.at.once", [], {})] * 2000, callback=False)
        for future in futures:
            await future
        async with asyncio.timeout(60):
            while valkey.client.zcard("pq:{default}:delayed") < 2000:
                await asyncio.sleep(0.02)
    due = [at for _, at in valkey.client.zrange("pq:{default}:delayed", 0, -1, withscores=True)]
    first = min(due)
    slots = [sum(first + n * 50_000 <= at < first + (n + 1) * 50_000 for at in due) for n in range(10)]
    assert all(100 < count < 300 for count in slots), slots
