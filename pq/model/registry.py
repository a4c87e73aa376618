"""All jobs of an application, by name.

A registry is made for one application from its `task_paths`; nothing is registered by the mere act of
defining it, so there is no hidden global list and two applications can live in one program.

A plain function of these modules is a job as well, under its dotted path (`shop.mails.send`), from the first time it
is asked for. Functions that a module merely imports are not jobs, nor are those whose name begins with `_`: a message
must not be able to call `os.system` because some module imports it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from ..errors import ConfigError, DuplicateJob, ImportFailed, NotImportable, TaskNotAvailable, did_you_mean
from .decorator import DecoratedFunction
from .decorator import job as decorate
from .job import Job
from .names import NAME
from .options import ASYNC_IO, THREAD_IO


class Registry:
    """Names to job classes."""

    def __init__(self, jobs: Iterable[Any] = ()) -> None:
        self._jobs: dict[str, type[Job]] = {}
        self._functions: dict[str, type[Job]] = {}
        self._modules: dict[str, ModuleType] = {}
        for item in jobs:
            self.add(item)

    @classmethod
    def from_paths(cls, paths: Iterable[str]) -> Registry:
        """Import the modules of `task_paths` (`pkg.*`: all in a package) and register their jobs.

        Raises `ImportFailed` with the user's own line where the import broke, `DuplicateJob`, and `BadSetting` or
        another `ConfigError` for a job whose options do not fit.
        """
        registry = cls()
        loggers = _own_loggers()
        try:
            for path in paths:
                for module in _modules(path):
                    registry.add_module(module)
        finally:
            # `dictConfig` in a module disables all loggers that exist, unless the configuration says otherwise.
            for logger in loggers:
                logger.disabled = False
        return registry

    def add(self, item: Any) -> type[Job]:
        """Register a job class or a decorated function. The same one twice is harmless."""
        job = job_class(item)
        if job is None:
            raise ImportFailed(
                f"{item!r} is not a job", hint="decorate it with @api.job(), or subclass api.Job"
            )
        known = self._jobs.get(job.name)
        if known is not None and known is not job and known.defined_at != job.defined_at:
            raise DuplicateJob(
                f"two jobs are named {job.name!r}: {known.defined_at} and {job.defined_at}",
                hint="give one another name: @api.job(name=…)",
            )
        self._jobs[job.name] = job
        return job

    def add_module(self, module: ModuleType) -> None:
        """Register the jobs that are defined in `module` (not those it merely imports)."""
        self._modules[module.__name__] = module
        for item in list(vars(module).values()):
            job = job_class(item)
            if job is not None and job.__module__ == module.__name__:
                self.add(job)

    def get(self, name: str) -> type[Job] | None:
        """Return the job of that name, or the function of that dotted path; else None."""
        return self._jobs.get(name) or self._function(name)

    def _function(self, path: str) -> type[Job] | None:
        """Return the job that a plain function of one of our modules is."""
        made = self._functions.get(path)
        if made is not None:
            return made
        place, _, name = path.rpartition(".")
        module = self._modules.get(place)
        function: Any = (
            getattr(module, name, None) if module is not None and not name.startswith("_") else None
        )
        own = inspect.isfunction(function) and function.__module__ == place and function.__qualname__ == name
        if not own or not NAME.fullmatch(path):
            return None
        # It may block, so it gets a thread; a job that needs another mode has a decorator.
        mode = ASYNC_IO if inspect.iscoroutinefunction(function) else THREAD_IO
        made = self._functions[path] = decorate(path, concurrency=mode)(function).job_class
        return made

    def job_of(self, item: Any) -> type[Job] | None:
        """Return the job of a class, a decorated function or a plain one of our modules; None for anything else.

        Raises `NotImportable` for a plain function that cannot be a job, with the reason.
        """
        if not inspect.isfunction(item):
            return job_class(item)
        path = f"{item.__module__}.{item.__qualname__}"
        found = self.get(path)
        if found is not None:
            return found
        if item.__module__ == "__main__":
            why = "workers find a function by importing its module, and this one is in the program's script"
            hint = "move it to a module of task_paths"
        elif item.__name__ == "<lambda>":
            why = "workers find a function by its name, and a lambda has none"
            hint = "write it as `def` in a module of task_paths"
        elif item.__module__ not in self._modules:
            why = f"its module {item.__module__!r} is not in task_paths"
            hint = "add it there, or decorate the function with @api.job() in a module that is"
        elif "." in item.__qualname__:
            why = (
                "workers find a function by its name in a module, and this one is within a function or class"
            )
            hint = "take it out of there"
        else:
            why, hint = (
                "only a plain public name of its module can be one",
                "give it a name without an underscore, or decorate it with @api.job()",
            )
        raise NotImportable(f"{path} is not a job: {why}", hint=hint)

    def __getitem__(self, name: str) -> type[Job]:
        found = self.get(name)
        if found is None:
            raise self.unknown(name)
        return found

    def unknown(self, name: str) -> TaskNotAvailable:
        """Return the error for a name that no job has, with the nearest names."""
        hint = did_you_mean(name, [*self._jobs, *self._paths()])
        if hint is None:
            known = sorted(self._jobs)
            hint = (
                "known: " + ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
                if known
                else ("no job is registered: list its module in task_paths")
            )
        return TaskNotAvailable(f"no job named {name!r} ({len(self._jobs)} known)", hint=hint)

    def _paths(self) -> list[str]:
        """Return the names of all functions that could be asked for."""
        return [
            f"{place}.{name}"
            for place, module in self._modules.items()
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == place and not name.startswith("_")
        ]

    @property
    def modules(self) -> list[str]:
        """The names of the modules that were looked through."""
        return sorted(self._modules)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[type[Job]]:
        return iter(sorted(self._jobs.values(), key=lambda job: job.name))


def job_class(item: Any) -> type[Job] | None:
    """Return the concrete job class of a class or a decorated function; None for anything else."""
    if isinstance(item, DecoratedFunction):
        item = item.job_class
    if inspect.isclass(item) and issubclass(item, Job) and not item.abstract:
        return item
    return None


def _own_loggers() -> list[logging.Logger]:
    """Return the loggers of this package that are not disabled."""
    known = list(logging.root.manager.loggerDict.items())  # a copy: other threads make loggers at any time
    return [
        logger
        for name, logger in known
        if name.partition(".")[0] == "pq" and isinstance(logger, logging.Logger) and not logger.disabled
    ]


def _modules(path: str) -> Iterator[ModuleType]:
    if not path.endswith(".*"):
        yield _import(path)
        return
    package = _import(path[:-2])
    yield package
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        yield _import(f"{package.__name__}.{info.name}")


def _import(name: str) -> ModuleType:
    if name == "__main__" and "__mp_main__" in sys.modules:
        return sys.modules["__mp_main__"]  # a worker's child sees the program's script under this name
    try:
        return importlib.import_module(name)
    except Exception as exc:
        where = _user_line(exc)
        if isinstance(exc, ConfigError):  # it says everything but where
            raise type(exc)(f"{exc.message}{where}", hint=exc.hint) from exc
        missing = isinstance(exc, ModuleNotFoundError) and exc.name is not None
        if missing and (name == exc.name or name.startswith(f"{exc.name}.")):  # type: ignore[attr-defined]
            raise ImportFailed(
                f"task_paths names {name!r}, and there is no module {exc.name!r}",  # type: ignore[attr-defined]
                hint="module names are dotted paths seen from the project's folder, like 'sampletasks.*'",
            ) from exc
        raise ImportFailed(
            f"{name} could not be imported: {type(exc).__name__}: {exc}{where}",
            hint=f"mend it, install what is missing, or remove {name!r} from task_paths",
        ) from exc


_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep


def _user_line(exc: BaseException) -> str:
    """Return where in the user's files the import failed: the innermost frame outside importlib and `pq`."""
    place = ""
    tb = exc.__traceback__
    while tb is not None:
        code = tb.tb_frame.f_code
        if "importlib" not in code.co_filename and not code.co_filename.startswith(_OURS):
            place = f" ({code.co_filename}, line {tb.tb_lineno})"
        tb = tb.tb_next
    return place
