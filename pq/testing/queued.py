"""The fixture `assert_queued`: a task with these arguments was queued."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidValue
from ..model.job import Job
from ..model.task import Task
from .harness import Harness


class AssertQueued:
    """Knows what this process has queued."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    @property
    def tasks(self) -> list[Task[Any]]:
        """All tasks that were queued, in that order, without those that the store refused."""
        return [
            task
            for task, future in self._harness.queued
            if not future.done() or future.cancelled() or future.exception() is None
        ]

    def __call__(self, job: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """The last task of `job` with these arguments; those that are not named may be anything.

        Raises `AssertionError`, which shows what was queued instead, and `TaskNotAvailable`.
        """
        __tracebackhide__ = True
        name, kind = self._harness.api.tasks.resolve(job)
        wanted = _bound(kind, args, kwargs)
        task: Task[Any]
        for task in reversed(self.tasks):
            if task.name == name:
                got = _bound(kind, task.args, task.kwargs, defaults=True)
                if all(key in got and got[key] == value for key, value in wanted.items()):
                    return task
        raise AssertionError(f"no {_call(name, args, kwargs)} was queued{self._instead(name)}")

    def _instead(self, name: str) -> str:
        tasks = self.tasks
        if not tasks:
            return "; nothing was"
        same = [task for task in tasks if task.name == name]
        shown = same or tasks
        lines = [f"  {_call(task.name, task.args, task.kwargs)}" for task in shown[-20:]]
        what = f"; of {name} were" if same else f", and no {name} at all; queued were"
        return f"{what}\n" + "\n".join(lines)


def _bound(
    kind: type[Job] | None, args: Any, kwargs: Mapping[str, Any], *, defaults: bool = False
) -> dict[str, Any]:
    """Arguments by their names, as far as the signature is known."""
    if kind is None:
        return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    try:
        bound = kind.signature.bind_partial(*args, **kwargs)
    except TypeError as exc:
        raise InvalidValue(f"{kind.name}{kind.signature} has no such arguments: {exc}") from None
    if defaults:
        bound.apply_defaults()
    found = dict(bound.arguments)
    for parameter in kind.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(found.pop(parameter.name, {}))
    return found


def _call(name: str, args: Any, kwargs: Mapping[str, Any]) -> str:
    shown = [f"{value!r:.80}" for value in args] + [f"{key}={value!r:.80}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"
