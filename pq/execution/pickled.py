"""A task that is a pickle: any function of the program itself, run in one of its own children.

Between a program and the children that it started there is a private pipe, and both run the same code;
so its objects may travel as pickles there, as they do in `multiprocessing`. They never reach a store.

For the pool this is a job like any other, `PATH` is its module. Its one argument is the pickled call;
its result tells how that ended, in a list of bytes and texts, of which the parent makes the value or
the exception again. A pickle that cannot be read is an error of its own task, on either side.

What is defined in the script of the program, `__main__`, is found by running that script once in the
child under the name `__mp_main__`, as multiprocessing does; but not before a task needs it. Therefore
only programs whose tasks are in the script itself need `if __name__ == "__main__":` at all, and what
goes wrong in the script is an error of a task, not a child that cannot start.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import multiprocessing
import os
import pickle
import sys
from collections.abc import Coroutine
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any

from ..errors import (
    ConfigError,
    ImportFailed,
    NotSerializable,
    PayloadTooLarge,
    ResultNotSerializable,
    TaskError,
)
from ..model.decorator import job
from ..model.job import Job
from ..model.names import new_id
from ..model.options import CPUBOUND
from ..model.outcome import error_text, stack_text
from ..model.payloads import load_payload
from ..model.serializers import MSGPACK
from ..model.task import Task

PATH = __name__
"""For the `task_paths` of the pool."""
LIMIT = 1 << 30
"""Bytes of the largest call, and of the largest result."""
SLACK = 1024
"""Bytes that a result in its list of texts may have beyond that."""

_NAME = "pq.local"
_MAIN = ("__main__", "__mp_main__")
# Exceptions that mean something else where a future raises them: they would end the program, or be
# taken for the end of an iterator (asyncio's futures refuse that one).
_STAYS = (StopIteration, StopAsyncIteration)

Ended = tuple[Any, BaseException | None]
"""The value, or the exception."""


class RemoteTraceback(Exception):
    """The cause of an exception that came from a child: the text of its traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'in the worker process:\n"""\n{self.text.rstrip()}\n"""'


# ---------------------------------------------------------------------------------- in the parent
def pack_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, what: str) -> Task[Any]:
    """The task of `function(*args, **kwargs)`. Raises `NotSerializable`, `PayloadTooLarge`."""
    try:
        body = pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as exc:  # whatever a __reduce__ raises
        raise NotSerializable(
            f"{what} cannot be sent to a worker process: {error_text(exc)}",
            hint="a task is found by import: define it at the top of a module, and give it data, not open files or locks",
        ) from exc
    if len(body) > LIMIT:
        raise PayloadTooLarge(
            f"{what} takes {len(body):,} bytes with its arguments, and {LIMIT:,} are allowed",
            hint="write the data to a file and pass its path",
        )
    return Task(new_id(), _NAME, None, MSGPACK.dumps([[body], {}]))


def unpack_result(encoded: bytes | None, *, what: str) -> Ended:
    """Return the outcome of a call. Never raises."""
    try:
        value, exc, text, stack = load_payload(MSGPACK, encoded or b"")
        if text is None:
            return pickle.loads(value), None  # noqa: S301
    except BaseException as error:
        return None, ResultNotSerializable(
            f"the result of {what} cannot be read here: {error_text(error)}",
            remote_traceback=stack_text(error),
        )
    return None, _remade(exc, text, stack)


def _remade(pickled: bytes | None, text: str, stack: str) -> BaseException:
    try:
        # Many exceptions can be pickled and not be made again: their __init__ wants more than `args`.
        error = pickle.loads(pickled) if pickled is not None else None  # noqa: S301
    except BaseException:
        error = None
    if not isinstance(error, Exception) or isinstance(error, _STAYS):
        return TaskError(text, remote_traceback=stack)
    error.__cause__ = RemoteTraceback(stack)
    return error


def main_of_program() -> dict[str, str | None]:
    """Where a child finds the program's script: `name` with `python -m name`, `path` of a file, or neither."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else None
    path = getattr(main, "__file__", None)
    if name is not None:
        # A __main__.py is the command of its package, and seldom has a guard.
        return {"name": None if name.rpartition(".")[2] == "__main__" else name, "path": None}
    return {"name": None, "path": os.path.abspath(path) if path and os.path.isfile(path) else None}


# ----------------------------------------------------------------------------------- in the child
@job(_NAME, concurrency=CPUBOUND)
def run_pickled(self: Job, body: bytes) -> Any:
    """Run the call in `body`; how it ended, for `unpack_result`. An async one is run to its end, too."""
    try:
        function, args, kwargs = _read_call(body, self.cfg.main)
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            return _awaited(value)
        return _succeeded(value)
    except BaseException as exc:
        return _failed(exc)


def _read_call(body: bytes, main: dict[str, str | None]) -> Any:
    try:
        return _Unpickler(io.BytesIO(body), main).load()
    except ConfigError:
        raise
    except BaseException as exc:
        raise NotSerializable(
            f"the task cannot be read in the worker process: {error_text(exc)}",
            hint="what a task is made of must be found there by import",
        ) from exc


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
    try:
        return _succeeded(await coroutine)
    except BaseException as exc:
        return _failed(exc)


def _succeeded(value: Any) -> list[Any]:
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        raise ResultNotSerializable(
            f"the result, a {type(value).__name__}, cannot be sent back: {error_text(exc)}",
            hint="return data, not open files, locks or generators",
        ) from exc
    if len(data) > LIMIT:
        raise ResultNotSerializable(
            f"the result takes {len(data):,} bytes, and {LIMIT:,} are allowed",
            hint="write it to a file and return its path",
        )
    return [data, None, None, None]


def _failed(exc: BaseException) -> list[Any]:
    try:
        pickled = pickle.dumps(exc, pickle.HIGHEST_PROTOCOL)
    except Exception:
        pickled = None
    return [None, pickled, error_text(exc), stack_text(exc)]


class _Unpickler(pickle.Unpickler):
    """Finds what is defined in the program's script in that script."""

    def __init__(self, file: io.BytesIO, main: dict[str, str | None]) -> None:
        super().__init__(file)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module in _MAIN:
            _load_script(self._main, name)
            module = "__mp_main__"
        return super().find_class(module, name)


# ------------------------------------------------------------------------- the program's script
_loading = False
_script: ModuleType | ConfigError | None = None
"""The script as a module, or why there is none; None before a task has asked for it."""


def refuse_while_importing(what: str) -> None:
    """Raise `ConfigError` in a child that runs the program's script: there `what` would be made again."""
    if _loading or getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            f"{what} is made while a worker process imports the program's script, and so on without end",
            hint=_GUARD,
        )


_GUARD = 'in the script, put what starts the program under `if __name__ == "__main__":`'


def _load_script(main: dict[str, str | None], wanted: str) -> None:
    """Run the program's script as the module `__mp_main__`, unless that was done."""
    global _loading, _script
    if isinstance(_script, ConfigError):
        raise type(_script)(_script.message, hint=_script.hint)
    if _script is not None:
        return
    module = ModuleType("__mp_main__")
    before = {name: sys.modules[name] for name in _MAIN if name in sys.modules}
    _loading = True
    try:
        code = _code_of_script(main, module, wanted)
        sys.modules.update(dict.fromkeys(_MAIN, module))
        exec(code, module.__dict__)  # noqa: S102
        _script = module
    except BaseException as exc:
        sys.modules.update(before)
        if isinstance(exc, ConfigError):
            _script = exc
            raise
        _script = ImportFailed(
            f"{main['name'] or main['path']} cannot be imported in a worker process: {error_text(exc)}",
            hint=_GUARD,
        )
        raise _script from exc
    finally:
        _loading = False


def _code_of_script(main: dict[str, str | None], module: ModuleType, wanted: str) -> Any:
    name, path = main["name"], main["path"]
    if name is not None:
        spec = importlib.util.find_spec(name)
        if spec is not None and isinstance(spec.loader, InspectLoader):
            module.__spec__, module.__file__, module.__package__ = spec, spec.origin, spec.parent
            return spec.loader.get_code(name)
    elif path is not None:
        module.__file__ = path
        with io.open_code(path) as file:
            return compile(file.read(), path, "exec", dont_inherit=True)
    raise ConfigError(
        f"{wanted!r} is defined where a worker process cannot find it: at a prompt, in a notebook, "
        "in a string or in a __main__.py",
        hint="put it into a module, a .py file, and import it from there",
    )
