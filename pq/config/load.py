"""Settings from their five sources; the later wins.

    defaults  <  PulsarQueue(**keywords)  <  config file  <  PQ_* variables  <  command line

The duties: take each source apart into name, value and place; refuse a name that is misspelt, wherever
it stands; and hand all of it to `Settings`, which checks the values. A mistake names its place, down to
the line of the config file: the reader need not search five places.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import ModuleType
from typing import NamedTuple

from ..errors import BadSetting, ImportFailed, UnknownSetting, did_you_mean
from .settings import SETTINGS, Settings, unknown

KNOWN_VARIABLES = frozenset({"PQ_ENV"})
"""Variables that are ours and no settings."""

NEAR = 0.75
"""Similarity from which a name is a misspelt setting: PQ_WORKER is PQ_WORKERS, PQ_LOG_FILE is the user's own."""

_PLAIN = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset, timedelta)

_executed: dict[tuple[str, int], Mapping[str, object]] = {}


class Found(NamedTuple):
    """A value of a setting, and where it was found."""

    name: str
    value: object
    source: str


def load(
    keywords: Mapping[str, object] | None = None,
    config: str | None = None,
    environ: Mapping[str, str] | None = None,
    cli: Mapping[str, object] | None = None,
    *,
    again: bool = False,
) -> Settings:
    """The settings of an application, checked.

    `keywords` are those of the application object, `config` is the path of a config file (a program may
    name itself: `config=__file__`), `environ` stands in for `os.environ`, and `cli` has what flags said,
    as text. `again`: run the config file again where it has been. Raises `UnknownSetting` or `BadSetting`; a config file that cannot be run is `ImportFailed`.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for each in _found(keywords or {}, config, os.environ if environ is None else environ, cli or {}, again):
        # Checked here as well as in Settings: a bad value that a later source covers is still a mistake.
        values[each.name] = SETTINGS[each.name].check(each.value, each.source)
        sources[each.name] = each.source
    return Settings.from_dict({**values, "sources": sources})


def _found(
    keywords: Mapping[str, object],
    config: str | None,
    environ: Mapping[str, str],
    cli: Mapping[str, object],
    again: bool,
) -> Iterator[Found]:
    """Yield the settings of each source, the weakest source first."""
    yield from _from_keywords(keywords)
    if config is not None:
        yield from _from_file(config, again)
    yield from _from_environ(environ)
    for name, value in cli.items():
        if name not in SETTINGS:
            raise unknown(name, "command line")
        flag = SETTINGS[name].flags[-1]
        words = value if isinstance(value, (list, tuple)) else [value]
        if SETTINGS[name].secret and not all(str(word).startswith("@") for word in words):
            raise BadSetting(
                f"{name}: a secret on the command line is there for every user of this machine to see",
                hint=f"write it into a file: {flag} @/path/of/the/file; or set {SETTINGS[name].variable}",
            )
        yield Found(name, value, f"flag {flag}")


def _from_keywords(keywords: Mapping[str, object]) -> Iterator[Found]:
    for name, value in keywords.items():
        if name not in SETTINGS:
            raise unknown(name, "keyword")
        yield Found(name, value, "keyword")


def _from_environ(environ: Mapping[str, str]) -> Iterator[Found]:
    """The `PQ_*` variables. One that is set to nothing counts as not set, as `X=${X}` means it to."""
    variables = {setting.variable: name for name, setting in SETTINGS.items()}
    for variable, text in environ.items():
        if not variable.startswith("PQ_") or variable in KNOWN_VARIABLES:
            continue
        if variable not in variables:
            # Others may have variables that begin alike; only what looks like a slip is refused.
            stem = variable.removeprefix("PQ_")
            stems = [known.removeprefix("PQ_") for known in variables]
            if near := difflib.get_close_matches(stem, stems, n=1, cutoff=NEAR):
                raise UnknownSetting(
                    f"environment: unknown setting {variable!r}",
                    hint=did_you_mean("PQ_" + near[0], variables),
                )
        elif text != "":
            yield Found(variables[variable], text, f"variable {variable}")


def _from_file(config: str, again: bool) -> Iterator[Found]:
    """The top-level names of a config file that are values; a program's other names are its own."""
    path = os.path.realpath(config)
    shown = _shown(path)
    lines: Mapping[str, int] | None = None
    for name, value in _globals_of(path, config, again).items():
        if name.startswith("_") or name.isupper() or _is_furniture(value):
            continue
        if name not in SETTINGS and not isinstance(value, _PLAIN):
            continue  # an object of the program's own: a logger, a web application
        lines = _lines(path) if lines is None else lines
        place = f"{shown}, line {lines[name]}" if name in lines else shown
        if name not in SETTINGS:
            raise unknown(
                name, place, f"a value of your own is called _{name}, with an underscore, or in CAPITALS"
            )
        yield Found(name, value, place)


def _is_furniture(value: object) -> bool:
    """Return True for a `value` that is not a setting: an import, or something that can be called."""
    # `from __future__ import annotations` leaves a value behind that is neither.
    return isinstance(value, ModuleType) or callable(value) or type(value).__module__ == "__future__"


def _globals_of(path: str, config: str, again: bool) -> Mapping[str, object]:
    """The names of the module that has the file `path`.

    A program that names itself as its config file is being run already, as `__main__` or under its own
    name; to run it again would repeat what it does at import. A file that is not imported yet is run once,
    under a name that is not `__main__`, so a program does not start while its settings are read. With `again`
    so is the program's own script, which each of its child processes runs in that way too; a module of a package
    is not, as it may import its neighbours.
    """
    for module in list(sys.modules.values()):
        # Some entries are no modules, and some modules answer every attribute: look, do not ask.
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or os.path.basename(file) != os.path.basename(path):
            continue
        if os.path.realpath(file) == path and not (again and not module.__package__):
            return dict(module.__dict__)
    try:
        stamp = os.stat(path).st_mtime_ns
    except OSError as error:
        raise BadSetting(
            f"config: there is no readable file {config!r} in {os.getcwd()}: {error.strerror}",
            hint="config takes the path of a Python file; config=__file__ is the module itself",
        ) from None
    if (path, stamp) not in _executed:
        import runpy

        try:
            _executed[path, stamp] = runpy.run_path(path, run_name="__pq_config__")
        except Exception as error:
            raise ImportFailed(
                f"{_shown(path)} could not be read: {type(error).__name__}: {error}",
                hint="a config file is Python; run it alone to see the whole traceback",
            ) from error
    return _executed[path, stamp]


def _lines(path: str) -> Mapping[str, int]:
    """The line where each top-level name was last bound. Empty when the source cannot be had."""
    import ast

    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    lines: dict[str, int] = {}
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = max(node.lineno, lines.get(node.id, 0))
        elif isinstance(node, ast.alias):
            lines[node.asname or node.name] = node.lineno
        # The names within a function, a class or a comprehension are not the module's.
        waiting += [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(
                child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)
            )
        ]
    return lines


def _shown(path: str) -> str:
    """`path` as a person would write it here: short where it is below the current directory."""
    here = os.path.realpath(os.curdir) + os.sep
    return path.removeprefix(here)
