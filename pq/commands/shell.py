"""The verb `shell`: a Python prompt in the application, with `await`.

Lines run in the main thread without an event loop, so `.wait()` works; a line with an `await` runs in a loop of the
shell. The api works in its background loop, which also runs between two lines: futures resolve and callbacks are
called while the prompt waits.

IPython is used when it is installed.
"""

from __future__ import annotations

import ast
import asyncio
import code
import contextlib
import inspect
import re
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from ..cli import Command, VerbParser
from ..errors import PqError
from ..model.registry import Registry
from ..producer.producer import Producer

_IN_NAME = re.compile(r"""\b(?:queue|queue_local|execute|map)\(\s*["']([\w.-]*)$""")
_IN_ARGUMENTS = re.compile(
    r"""\b(?:queue|queue_local|execute)\(\s*["']?([\w.-]+)["']?\s*,(?:.*,)?\s*(\w*)$"""
)
DELIMITERS = " \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?"


def run(command: Command) -> int:
    """`pq shell`, `pq shell -c CODE`."""
    parser = VerbParser(command, "open a Python prompt with app, api, tasks and all jobs; await works")
    parser.add_argument("-c", dest="code", metavar="CODE", help="run this instead of a prompt")
    parser.add_argument(
        "--plain", action="store_true", help="Python's own prompt, also where IPython is installed"
    )
    wanted = parser.parse(command.argv)
    app = command.application
    api = app.api(background=True)
    registry = api.registry
    names = namespace(app, api, registry)
    try:
        if wanted.code is not None:
            return Console(names).run_once(wanted.code)
        jobs = len(registry)
        banner = f"pq shell: app, api, tasks and {jobs} job{'s' * (jobs != 1)} are here; await works"
        ipython = None if wanted.plain or not sys.stdin.isatty() else _ipython()
        if ipython is not None:
            ipython(argv=["--no-banner"], user_ns=names)
            return 0
        console = Console(names)
        with _completion(Completer(names, registry)):
            console.interact(banner=banner, exitmsg="")
        return 0
    finally:
        api.close()


def _ipython() -> Callable[..., Any] | None:
    try:
        from IPython import start_ipython  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    found: Callable[..., Any] = start_ipython
    return found


def namespace(app: Any, api: Producer, registry: Registry) -> dict[str, Any]:
    """Return the names at the prompt. A job has its name, with `_` for characters that Python names cannot have."""
    names: dict[str, Any] = {re.sub(r"\W", "_", job.name): job.function_object or job for job in registry}
    return {"__name__": "__console__", **names, "app": app, "api": api, "tasks": api.tasks}


class Console(code.InteractiveConsole):
    """Python's prompt with `await` at the top level; errors of pq are shown with slug and hint."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._names = names
        self._runner: asyncio.Runner | None = None
        self._failed = False

    def run_once(self, source: str) -> int:
        """Run a text; return the exit code."""
        try:
            compiled = compile(source, "<pq shell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            self.showsyntaxerror()
            return 1
        self.runcode(compiled)
        return int(self._failed)

    def runcode(self, code: CodeType) -> None:
        self._failed = False
        try:
            if code.co_flags & inspect.CO_COROUTINE:
                if self._runner is None:
                    self._runner = asyncio.Runner()
                self._runner.run(self._await(code))
            else:
                exec(code, self._names)  # noqa: S102
        except SystemExit:
            self._close()
            raise
        except KeyboardInterrupt:
            self.write("\nKeyboardInterrupt\n")
            self._failed = True
        except BaseException as exc:
            self._failed = True
            if isinstance(exc, PqError):
                hint = f"\nhint: {exc.hint}" if exc.hint else ""
                self.write(f"{type(exc).__name__}: {exc.message} [{exc.slug}]{hint}\n")
            else:
                self.showtraceback()

    async def _await(self, code: CodeType) -> None:
        await eval(code, self._names)  # noqa: S307

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        try:
            super().interact(banner, exitmsg)
        finally:
            self._close()

    def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


class Completer:
    """Complete names of jobs within `queue("…`, names of arguments behind it, Python names elsewhere."""

    def __init__(self, names: dict[str, Any], registry: Registry) -> None:
        import rlcompleter

        self._python = rlcompleter.Completer(names)
        self._registry = registry
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """Return candidate number `state`; readline calls this with 0, 1, 2, … until it gets None."""
        import readline

        if state == 0:
            self._found = self.candidates(readline.get_line_buffer()[: readline.get_endidx()], text)
        return self._found[state] if state < len(self._found) else None

    def candidates(self, line: str, text: str) -> list[str]:
        """Return the candidates for `text` at the end of `line`."""
        in_name = _IN_NAME.search(line)
        if in_name is not None:
            cut = len(in_name[1]) - len(text)  # readline takes only what follows the last delimiter
            return [job.name[cut:] for job in self._registry if job.name.startswith(in_name[1])]
        in_arguments = _IN_ARGUMENTS.search(line)
        job = self._registry.get(in_arguments[1]) if in_arguments is not None else None
        if in_arguments is not None and job is not None:
            begun = in_arguments[2]
            options = ("delay", "queue", "timeout", "callback", "meta_params")
            names = [*job.signature.parameters, *options]
            return [f"{name}=" for name in names if name.startswith(begun)]
        found: list[str] = []
        while (one := self._python.complete(text, len(found))) is not None:
            found.append(one)
        return found


@contextlib.contextmanager
def _completion(completer: Completer) -> Any:
    """Complete with Tab, where readline is available."""
    try:
        import readline
    except ImportError:
        yield
        return
    before, delimiters = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(completer.complete)
    readline.set_completer_delims(DELIMITERS)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)
