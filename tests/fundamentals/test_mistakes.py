"""A mistake is an error at once, says what to do, and queues nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job, Producer


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


@pytest.mark.parametrize(
    ("call", "error", "says", "hint"),
    [
        (lambda t: t.queue("additon"), pq.TaskNotAvailable, "no job named 'additon' (1 known)", "did you mean 'addition'?"),
        (lambda t: t.queue("zzz"), pq.TaskNotAvailable, "no job named 'zzz'", "known: addition"),
        (lambda t: t.queue(len), pq.TaskNotAvailable, "len is not a job", "decorate it with @api.job()"),
        (lambda t: t.queue("addition", c=1), pq.BadArguments, "unexpected keyword argument 'c'; nothing was queued", None),
        (lambda t: t.queue("addition", 1, 2, 3), pq.BadArguments, "too many positional arguments", None),
        (
            lambda t: t.queue("addition", a=threading.Lock()),
            pq.NotSerializable,
            "argument 'a' of addition is a lock and cannot be sent; nothing was queued",
            "send plain data",
        ),
        (
            lambda t: t.queue("addition", {"rows": [1, object()]}),
            pq.NotSerializable,
            "argument 1 at ['rows'][1] of addition is a object and cannot be sent",
            "send plain data",
        ),
        (lambda t: t.queue("addition", a="x" * 2_000_000), pq.PayloadTooLarge, "arguments of addition take 2,000,", "pass a key"),
        (lambda t: t.queue("addition", delay=-1), pq.InvalidValue, "delay is -1", None),
        (lambda t: t.queue("addition", delay=float("nan")), pq.InvalidValue, "delay is nan", None),
        (lambda t: t.queue("addition", delay="soon"), pq.InvalidValue, "delay is 'soon'", None),
        (lambda t: t.queue("addition", timeout=0), pq.InvalidValue, "timeout is 0", None),
        (lambda t: t.queue("addition", queue="a b"), pq.InvalidValue, "'a b' is not a valid queue name", "letters, digits"),
        (lambda t: t.queue("addition", queue=True), pq.InvalidValue, "queue=True is not a queue", "False to run without"),
        (lambda t: t.queue("addition", meta_params={"max_retries": 1e9}), pq.InvalidValue, "max_retries is", None),
        (lambda t: t.queue("addition", meta_params={"f": open}), pq.NotSerializable, "meta data", None),
        (lambda t: t.queue_many([("addition", 1)]), pq.BadArguments, "queue_many cannot read", "an item is a job"),
        (lambda t: t.queue_many(["addition"], dealy=1), pq.BadArguments, "'dealy' is not an option", "options are callback"),
        (lambda t: t.get("../../etc"), pq.InvalidValue, "is not a valid task id", None),
    ],
)  # fmt: skip
async def test_a_wrong_call_says_what_is_wrong(
    api: Producer, call: Callable[[Any], Any], error: type[Exception], says: str, hint: str | None
) -> None:
    """The error names the job, the argument and the value; the hint says what to type."""
    with pytest.raises(error) as caught:
        call(api.tasks)
    assert says in str(caught.value)
    if hint is not None:
        assert hint in (caught.value.hint or "")  # type: ignore[attr-defined]
        assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]  # type: ignore[attr-defined]
    assert await api.tasks.size("default") == {"default": 0}


async def test_wait_inside_a_loop_says_to_await(api: Producer) -> None:
    """`.wait()` would block the loop that is to resolve it."""
    future = api.tasks.queue("addition")
    with pytest.raises(pq.WaitInLoop) as caught:
        future.wait()
    assert caught.value.hint == "write `await task`"


async def test_a_producer_without_jobs_queues_by_name(make_app: Any) -> None:
    """On a host without the job's code nothing is known, so nothing is checked but the name's form."""
    async with make_app(task_paths=[]).api() as api:
        task = await api.tasks.queue("somewhere.else", 1, x=2, callback=False)
        assert (task.name, task.args, task.kwargs) == ("somewhere.else", [1], {"x": 2})
        with pytest.raises(pq.InvalidValue):
            api.tasks.queue("no spaces")
        await api.tasks.cancel(task.id)


async def test_a_store_that_is_not_there_is_named(make_app: Any) -> None:
    """The error has the address that did not answer, without the password, and what to do."""
    app = make_app(data_store="redis://user:secret@127.0.0.1:1/0")
    api = app.api()
    broker = await app.store.broker(patience=0.0)
    with pytest.raises(pq.StoreUnavailable) as caught:
        await broker.open()
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "data_store (keyword)" in (caught.value.hint or "")
    await api.close()
