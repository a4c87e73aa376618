"""Jobs: two ways to write one, and the refusals when it is written."""

from __future__ import annotations

import datetime as dt
import functools
import pickle
from typing import Any

import pytest

from pq.errors import BadSetting, PqError
from pq.model.decorator import DecoratedFunction, job
from pq.model.job import Job, PeriodicJob
from pq.model.options import ASYNC_IO, CONCURRENCY, CPUBOUND, THREAD_IO


@job
def add_numbers(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


@job()
def with_self(self: Job, a: int) -> int:
    return a


@job("named.so", timeout=5, max_retries=2, concurrency=CPUBOUND)
async def coroutine(self: Job, *args: int, **kwargs: int) -> None: ...


def plain(a: int) -> int:
    return a


class ProcessHtml(Job):
    """Class form."""

    timeout = 30

    async def __call__(self, url: str, *, depth: int = 1) -> str:
        return url


def test_a_decorated_function_is_still_that_function() -> None:
    """It can be called as in a unit test, and keeps its name and words."""
    assert isinstance(add_numbers, DecoratedFunction)
    assert add_numbers(1, b=2) == 3
    assert add_numbers.__name__ == "add_numbers"
    assert add_numbers.__doc__ == "Add."
    assert "add.numbers" in repr(add_numbers)
    assert "test_job.py" in repr(add_numbers)


def test_a_job_function_travels_by_its_place() -> None:
    """Pickled for a child process it comes back as the very object."""
    assert pickle.loads(pickle.dumps(add_numbers)) is add_numbers


@pytest.mark.parametrize(
    ("item", "name", "is_async", "signature"),
    [
        (add_numbers.job_class, "add.numbers", False, "(a: int, b: int = 0)"),
        (with_self.job_class, "with.self", False, "(a: int)"),
        (coroutine.job_class, "named.so", True, "(*args: int, **kwargs: int)"),
        (ProcessHtml, "processhtml", True, "(url: str, *, depth: int = 1)"),
    ],
)
def test_all_forms_become_job_classes(item: type[Job], name: str, is_async: bool, signature: str) -> None:
    """Name, kind and signature, the latter without `self`."""
    assert issubclass(item, Job)
    assert not item.abstract
    assert (item.name, item.is_async, str(item.signature)) == (name, is_async, signature)
    assert "test_job.py:" in item.defined_at


def test_options_become_class_attributes() -> None:
    """Options that are not given have their defaults."""
    kind = coroutine.job_class
    assert (kind.timeout, kind.max_retries, kind.concurrency) == (5, 2, CPUBOUND)
    assert (ProcessHtml.timeout, ProcessHtml.concurrency, ProcessHtml.priority) == (30, ASYNC_IO, None)


def test_options_are_kept_without_parentheses() -> None:
    """A decorator of the application, `blocking = partial(job, concurrency=THREAD_IO)`, works as `@blocking` too."""
    blocking: Any = functools.partial(job, concurrency=THREAD_IO, timeout=60)
    assert (blocking(plain).job_class.concurrency, blocking(plain).job_class.timeout) == (THREAD_IO, 60)
    assert blocking("other", timeout=5)(plain).job_class.timeout == 5


def test_an_instance_runs_the_function() -> None:
    """With and without `self`."""
    assert add_numbers.job_class()(2, b=3) == 5
    assert with_self.job_class()(4) == 4
    assert not add_numbers.job_class.takes_self()
    assert with_self.job_class.takes_self()


def test_names_are_slugs() -> None:
    """Underscores part words, and a leading one is nothing."""

    @job()
    def _hidden__name_() -> None: ...

    assert _hidden__name_.name == "hidden.name"


def test_run_every_makes_it_periodic() -> None:
    """Seconds, a `timedelta` or a cron line."""

    @job(run_every=dt.timedelta(minutes=1))
    def tick(self: Job) -> None: ...

    @job("tock", run_every=90, anchor=dt.datetime(2030, 1, 1))
    def other() -> None: ...

    class Every(PeriodicJob):
        run_every = 5

        def __call__(self) -> None: ...

    assert issubclass(tick.job_class, PeriodicJob)
    assert tick.job_class.type == Every.type == "periodic"
    assert add_numbers.job_class.type == "regular"
    assert not Every.abstract
    assert (other.name, other.job_class.anchor) == ("tock", dt.datetime(2030, 1, 1))  # type: ignore[attr-defined]


def test_abstract_is_not_inherited() -> None:
    """A base without `__call__` or marked so is abstract; its children are not."""

    class Base(Job):
        timeout = 7

    class Marked(Job):
        abstract = True

        def __call__(self) -> None: ...

    class Child(Base):
        def __call__(self) -> None: ...

    class Other(Marked):
        pass

    assert (Job.abstract, PeriodicJob.abstract, Base.abstract, Marked.abstract) == (True,) * 4
    assert (Child.abstract, Other.abstract) == (False, False)
    assert (Child.timeout, Child.name, Other.name) == (7, "child", "other")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tiemout": 5}, "no option 'tiemout'"),
        ({"__init__": 5}, "no option '__init__'"),
        ({"backend": 5}, "no option 'backend'"),
        ({"type": "x"}, "no option 'type'"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": 1e12}, "timeout is"),
        ({"max_retries": 2.5}, "max_retries is 2.5"),
        ({"max_retries": 2**31}, "max_retries is 2147483648"),
        ({"retry_delay": -1}, "retry_delay is -1"),
        ({"expires": float("inf")}, "expires is inf"),
        ({"priority": 1001}, "priority is 1001"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"default_queue": "a b"}, "queue name"),
        ({"concurrency": "fork"}, "concurrency is 'fork'"),
        ({"name": "a:b"}, "job name"),
        ({"name": "ü"}, "job name"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    """When the job is written, with a word about which job."""
    with pytest.raises(BadSetting, match=says) as caught:

        @job(**options)
        def some_job() -> None: ...

    assert "some_job" in str(caught.value) or "test_job.py" in str(caught.value)


def test_options_of_a_class_are_checked_too() -> None:
    """The same rules for both forms."""
    with pytest.raises(BadSetting, match="job Bad: timeout is"):

        class Bad(Job):
            timeout = "soon"  # type: ignore[assignment]

            def __call__(self) -> None: ...


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_every_concurrency_can_be_named(concurrency: str) -> None:
    """Four modes."""

    @job(concurrency=concurrency)
    def some() -> None: ...

    assert some.job_class.concurrency == concurrency


def test_waiting_where_nothing_can_wait_is_explained() -> None:
    """Only green jobs wait in plain code."""
    instance = with_self.job_class()
    with pytest.raises(PqError, match="nothing can wait") as caught:
        instance.wait(None)  # type: ignore[arg-type]
    assert "await" in str(caught.value.hint)


def test_a_job_without_a_call_says_so() -> None:
    """Called by hand, as a mistake."""
    with pytest.raises(PqError, match="has no __call__"):
        Job()()
