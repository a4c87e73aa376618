"""The table of options: copies elsewhere have the same contents, and each check refuses wrong values."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from pq.errors import BadArguments, InvalidValue
from pq.model import job as job_module
from pq.model import options
from pq.model.decorator import job
from pq.model.job import Job, PeriodicJob
from pq.model.options import CALL, EXTRA, FIELD, META, OF_JOBS, OF_TASKS, OPTIONS, PERIODIC, TaskOptions
from pq.model.task import Task
from pq.producer.tasks import Tasks
from pq.producer.typed import JobFunction

OWN = {"name", "type"}
"""Attributes of a `Job` that a decorator's options do not have."""


def stated(kind: type) -> dict[str, tuple[str, str]]:
    """The annotation and the docstring of each attribute that the source of a class states with a value."""
    tree = ast.parse(Path(job_module.__file__).read_text("utf-8"))
    body = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            doc = (
                after.value.value
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                else ""
            )
            found[node.target.id] = (ast.unparse(node.annotation), " ".join(str(doc).split()))
    return found


def worked_out() -> set[str]:
    """Attributes that `Job` works out by itself."""
    return {"is_async", "defined_at", "function", "function_object", "periodic_schedule", "flow", "secrets"}


def test_each_option_stands_once() -> None:
    """Each is an option of a job, of a task, or of both."""
    names = [option.name for option in OPTIONS]
    assert sorted(names) == sorted(set(names))
    assert all(option.job or option.task for option in OPTIONS)
    assert all((option.travels in (CALL, FIELD, EXTRA)) is (option.task is not None) for option in OPTIONS)


def test_the_attributes_of_job_are_those_of_the_table() -> None:
    """With the annotations of the table; the docstring of each begins with its sentence."""
    found = {**stated(Job), **stated(PeriodicJob)}
    for name in OWN | worked_out():
        found.pop(name)
    assert found.keys() == OF_JOBS.keys()
    assert {name: annotation for name, (annotation, _) in found.items()} == {
        name: option.job for name, option in OF_JOBS.items()
    }
    for name, (_, doc) in found.items():
        assert doc.lower().startswith(OF_JOBS[name].sentence.lower()), name


def test_the_periodic_ones_are_those_of_periodic_job() -> None:
    assert stated(PeriodicJob).keys() == PERIODIC


def test_the_typed_options_are_those_of_the_table() -> None:
    """`TaskOptions` has the same names, order and annotations."""
    annotations = {name: kind.__forward_arg__ for name, kind in TaskOptions.__annotations__.items()}
    assert list(annotations.items()) == [(name, option.task) for name, option in OF_TASKS.items()]


def test_the_signature_of_options_is_that_of_the_table() -> None:
    """`addition.options` has the same names, order, annotations and sentences of its docstring."""
    parameters = list(inspect.signature(JobFunction.options).parameters.values())
    assert [(each.name, each.annotation) for each in parameters[1:-1]] == [
        (name, option.task) for name, option in OF_TASKS.items()
    ]
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters[1:-1])
    doc = JobFunction.options.__doc__ or ""
    written = [line.strip() for line in doc.split("Args:")[1].split("\n\n")[0].strip().splitlines()]
    assert written == [f"{name}: {option.sentence}." for name, option in OF_TASKS.items()]


def test_the_arguments_of_queue_are_those_of_the_table() -> None:
    """An option that travels as an argument is one of `tasks.queue`, which names the rest in `meta_params`."""
    parameters = inspect.signature(Tasks.queue).parameters
    named = {each.name for each in parameters.values() if each.kind is each.KEYWORD_ONLY}
    assert named == {option.name for option in OPTIONS if option.travels == CALL} | {"meta_params"}
    doc = Tasks.queue.__doc__ or ""
    assert all(f"`{name}`" in doc for name in META)


def test_what_becomes_an_attribute_of_a_task_is_one() -> None:
    """`FIELD` options are parameters of `Task`."""
    known = inspect.signature(Task).parameters
    assert all(option.name in known for option in OPTIONS if option.travels == FIELD)


@pytest.mark.parametrize(
    ("given", "call", "meta"),
    [
        ({}, {}, {}),
        ({"delay": 2, "priority": 5}, {"delay": 2}, {"priority": 5}),
        ({"delay": None, "callback": True, "meta": None}, {}, {}),
        ({"queue": False, "callback": False}, {"queue": False, "callback": False}, {}),
        ({"meta": {"order": 1}, "max_concurrency": 3}, {}, {"order": 1, "max_concurrency": 3}),
        ({"durability": "fsync", "partition_key": 0}, {}, {"durability": "fsync", "partition_key": 0}),
        ({"timeout": 0.5, "delay": 0}, {"delay": 0, "timeout": 0.5}, {}),
    ],
)
def test_options_are_split_by_the_way_they_travel(
    given: dict[str, Any], call: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Into the arguments of `queue_call` and its `meta_params`; the order is that of the table."""
    found = options.split_options(given)
    assert found == (call, meta)
    assert [list(part) for part in found] == [list(call), list(meta)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"delay": -1}, "delay is -1"),
        ({"delay": True}, "delay is True"),
        ({"queue": "a b"}, "'a b' is not a valid queue name"),
        ({"queue": True}, "True is not a valid queue name"),
        ({"timeout": 0}, "timeout is 0"),
        ({"callback": None}, "callback is None, and must be True or False"),
        ({"priority": 1001}, "priority is 1001"),
        ({"expires": float("nan")}, "expires is nan"),
        ({"max_retries": 1.0}, "max_retries is 1.0, and must be a whole number"),
        ({"retry_delay": "1"}, "retry_delay is '1'"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"durability": "disk"}, "durability is 'disk', and must be one of none, replica, fsync"),
        ({"meta": {1: 2}}, "must be a mapping with texts as keys"),
        ({"meta": {"priority": 2}}, "meta has 'priority', which is an option"),
    ],
)
def test_options_of_a_task_that_do_not_fit_are_refused(given: dict[str, Any], says: str) -> None:
    """With the name of the option and its value."""
    with pytest.raises(InvalidValue) as caught:
        options.split_options(given)
    assert says in str(caught.value)


def test_an_unknown_option_of_a_task_is_refused() -> None:
    """With the nearest name, or with all of them."""
    with pytest.raises(BadArguments, match="no option 'dealy'") as caught:
        options.split_options({"dealy": 2})
    assert "delay" in str(caught.value.hint)
    with pytest.raises(BadArguments) as caught:
        options.split_options({"zzz": 2})
    assert str(caught.value.hint) == "options are " + ", ".join(OF_TASKS)


def test_the_attributes_of_a_task_are_checked() -> None:
    """Attributes that `meta_params` may set are checked, and the time-out; None is not."""
    task: Task[Any] = Task("i1", "job")
    options.check_task_fields(task)
    for name in (*options.FIELDS, "timeout"):
        task = Task("i1", "job")
        setattr(task, name, "soon")
        with pytest.raises(InvalidValue, match=f"{name} is 'soon'"):
            options.check_task_fields(task)


@pytest.mark.parametrize(
    ("meta_params", "says"),
    [
        ([1], "meta_params is a list"),
        ({"durability": "disk"}, "durability is 'disk'"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
    ],
)
def test_meta_params_that_do_not_fit_are_refused(meta_params: Any, says: str) -> None:
    """An option without an attribute of the task is checked where it is read."""
    with pytest.raises(InvalidValue, match=says):
        options.check_meta_params(meta_params)


def test_a_job_is_described_by_the_options_that_it_states() -> None:
    """Numbers and texts as they are, anything else as text; options that are not stated are left out."""

    @job(timeout=5, run_every=60, default_queue="mail")
    def tick() -> None: ...

    @job()
    def plain() -> None: ...

    assert options.describe_options(tick.job_class) == {
        "timeout": 5,
        "default_queue": "mail",
        "run_every": 60,
    }
    assert options.describe_options(plain.job_class) == {}


@pytest.mark.parametrize(
    ("value", "whole", "fits"),
    [
        (None, False, True),
        (1, False, True),
        (1.5, False, True),
        (1.5, True, False),
        (3, True, True),
        (4, True, False),
        (0.5, False, False),
        (float("nan"), False, False),
        (True, True, False),
        ("2", False, False),
    ],
)
def test_numbers_are_checked(value: Any, whole: bool, fits: bool) -> None:
    """From 1 to 3; a `bool` is not a number here."""
    if fits:
        options.check_number("it", value, 1, 3, whole=whole)
        return
    with pytest.raises(InvalidValue, match=r"it is .*, and must be a .*number from 1 to 3"):
        options.check_number("it", value, 1, 3, whole=whole)
