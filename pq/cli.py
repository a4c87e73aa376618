"""The command line: `python manage.py [flags] [verb] …`, and the same as the console script `pq`.

The flags are made from the declared settings; the verbs are a table of names. A verb's module is imported when the
verb runs, the application's when a verb needs it: `--help` stays instant, and a broken application cannot break it.
A test of `sys.modules` keeps it so.

A command line is parsed in two steps. First the flags of settings are taken out, wherever they stand; the first
word left is the verb, the rest are the verb's arguments. Values stay text here: `pq.config` checks them.

A mistake of the user gets a few lines that say what to type instead. A traceback is shown with `-v`, and for faults
of this library, which are never hidden.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from . import __version__
from .config.settings import SETTINGS, Setting
from .errors import AppNotFound, ImportFailed, PqError, did_you_mean
from .server.application import Application

MOST_LINES = 6
"""Lines of the explanation of a mistake, at most, however long its text is."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line. `target` is the `module:function` that runs it."""

    target: str
    about: str
    needs_app: bool = True


VERBS: Mapping[str, Verb] = {
    "serve": Verb("pq.cli:serve", "run the server (default)"),
    "queue": Verb("pq.commands.queue:queue", "queue a task: JOB a=1 --wait"),
    "wait": Verb("pq.commands.queue:wait", "watch a task until it is done"),
    "top": Verb("pq.commands.top:run", "watch queues, workers, running tasks and failures"),
    "tasks": Verb("pq.commands.tasks:tasks", "list tasks, by status, job, age or text"),
    "status": Verb("pq.commands.tasks:status", "show a task: times, attempts, result, log"),
    "logs": Verb("pq.commands.tasks:logs", "show the log of a task, or of all tasks (-f)"),
    "retry": Verb("pq.commands.tasks:retry", "run finished tasks again"),
    "cancel": Verb("pq.commands.tasks:cancel", "cancel tasks, queued or running"),
    "queues": Verb("pq.commands.queues:queues", "list queues"),
    "pause": Verb("pq.commands.queues:pause", "stop dispatching from a queue"),
    "resume": Verb("pq.commands.queues:resume", "start dispatching again"),
    "purge": Verb("pq.commands.queues:purge", "revoke all waiting tasks of a queue"),
    "jobs": Verb("pq.commands.jobs:jobs", "list the jobs"),
    "workers": Verb("pq.commands.jobs:workers", "list live workers"),
    "schedule": Verb("pq.commands.jobs:schedule", "list schedules; pause, resume or run one"),
    "shell": Verb("pq.commands.shell:run", "open a Python prompt with app, api, tasks and all jobs"),
    "web": Verb("pq.commands.web:run", "serve the api over HTTP and JSON-RPC"),
    "doctor": Verb("pq.commands.health:doctor", "check store, workers, queues and jobs"),
    "check": Verb("pq.commands.health:check", "exit with 0 when every queue is served (health check)"),
    "explain": Verb("pq.commands.explain:run", "explain the slug of a message", needs_app=False),
    "new": Verb("pq.commands.new:run", "create a small project", needs_app=False),
    "key": Verb("pq.commands.key:run", "create a key for signing_keys or encryption_keys", needs_app=False),
    "config": Verb("pq.commands.config:run", "show settings, their values and sources"),
    "demo": Verb("pq.demo:run", "run a tour: a server, workers, a few tasks", needs_app=False),
}
DEFAULT_VERB = "serve"
ALIASES: Mapping[str, str] = {"consumers": "workers"}
"""Other names of verbs; `--help` does not show them."""


@dataclass(frozen=True, slots=True)
class Command:
    """One parsed command line, as a verb gets it."""

    verb: str
    argv: Sequence[str]  # the words after the verb
    flags: Mapping[str, object]  # settings given as flags, unchecked
    app: Application | None  # None only for a verb with needs_app=False, where no application was found
    program: str = "pq"
    verbose: bool = False

    @property
    def application(self) -> Application:
        """The application, for a verb with `needs_app`."""
        assert self.app is not None, f"the verb {self.verb} ran without its application"
        return self.app


class UsageError(PqError):
    """A command line is not valid. It ends with exit code 2 and never leaves this module."""

    slug = "usage"


class _Parser(argparse.ArgumentParser):
    """An `argparse` parser whose mistakes are exceptions with a hint, not a printed usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help lists what there is")

    def flags(self) -> list[str]:
        """Return all flags of this parser."""
        return [flag for action in self._actions for flag in action.option_strings]


class VerbParser(_Parser):
    """The parser of a verb's own arguments: `VerbParser(command, about)`."""

    def __init__(self, command: Command, about: str) -> None:
        super().__init__(prog=f"{command.program} {command.verb}", description=about, allow_abbrev=False)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return `words` parsed. Raises `UsageError` for a word too many."""
        parsed, rest = self.parse_known_args(words)
        if rest:
            raise _unknown_word(rest[0], self.flags(), self.prog)
        return parsed


def run(app: Application, argv: Sequence[str] | None = None) -> int:
    """Run the command line of `app` with `argv` and return the exit code.

    0 is success, 1 a mistake that `pq` can explain, 2 a command line that is not valid.
    """
    program = os.path.basename(sys.argv[0]) or "pq"
    return _guarded(program, sys.argv[1:] if argv is None else argv, lambda _: app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script `pq`, for the application that `-a module[:attribute]` names."""
    return _guarded("pq", sys.argv[1:] if argv is None else argv, find_app)


def serve(command: Command) -> int:
    """Run the server until it stops (the verb `serve`)."""
    VerbParser(command, "run the server").parse(command.argv)
    return command.application.serve()


def find_app(name: str | None) -> Application:
    """Return the application `name`: `module` or `module:attribute`, by default `manage:app`.

    The attribute is an application, or a function that returns one. A console script does not have the current
    directory on `sys.path`, where `manage.py` usually is: it is put there. Raises `AppNotFound`, `ImportFailed`.
    """
    import importlib

    module_name, _, attribute = (name or "manage").partition(":")
    attribute = attribute or "app"
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only when the module itself is missing; a module that imports a missing one is broken.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            near = did_you_mean(module_name, _modules_in(here))
            raise AppNotFound(
                f"no module {module_name!r}{' (from -a)' if name else ''} in the current directory, {here}",
                hint=near
                or "go to the directory of manage.py, name the application (pq -a module:attribute), or create one: pq new DIR",
            ) from error
        raise _import_failed(module_name, error) from error
    except Exception as error:
        raise _import_failed(module_name, error) from error
    try:
        found = getattr(module, attribute)
    except AttributeError:
        near = did_you_mean(attribute, [word for word in vars(module) if not word.startswith("_")])
        raise AppNotFound(
            f"module {module_name!r} has no {attribute!r}",
            hint=near or "write `def app(): return PulsarQueue(config=__file__)` in it",
        ) from None
    if not hasattr(found, "serve") and callable(found):
        found = found()
    if not hasattr(found, "serve") or not hasattr(found, "configure"):
        raise AppNotFound(
            f"{module_name}:{attribute} is of type {type(found).__name__}, which is not an application",
            hint="it must be a PulsarQueue, or a function that returns one",
        )
    return cast("Application", found)


def _guarded(program: str, argv: Sequence[str], get_app: Callable[[str | None], Application]) -> int:
    """Run a command line; explain a mistake in a few lines."""
    _open_standard_streams()
    try:
        code = _dispatch(program, argv, get_app)
        sys.stdout.flush()  # here, where BrokenPipeError is handled
        return code
    except PqError as error:
        if _is_verbose(argv):
            import traceback

            traceback.print_exception(error)
        sys.stderr.write(explained(error))
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130  # as a shell reports a program that SIGINT ended
    except BrokenPipeError:
        # The reader (`| head`) has ended. Python flushes stdout at exit and would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _open_standard_streams() -> None:
    """Open the standard streams that are closed, on the null device.

    A service manager may start a program without them. The next file or socket would get such a descriptor, and a child
    process, whose standard input and output these are, would read or close it. Python has None for such a stream.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, so this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for as long as the program runs


def _dispatch(program: str, argv: Sequence[str], get_app: Callable[[str | None], Application]) -> int:
    """Parse the words, find the verb, run it."""
    parser = _parser(program, with_app=get_app is find_app)
    known, rest = parser.parse_known_args(list(argv))
    given = vars(known)
    verbose, wants_help, app_name = given.pop("verbose"), given.pop("help"), given.pop("app", None)
    if given.pop("version"):
        sys.stdout.write(f"pq {__version__}\n")
        return 0
    if rest and rest[0].startswith("-"):
        raise _unknown_word(rest[0], parser.flags(), program)
    if wants_help and not rest:
        parser.print_help()
        return 0
    name, words = (rest[0], rest[1:]) if rest else (DEFAULT_VERB, [])
    name = ALIASES.get(name, name)
    if name not in VERBS:
        raise UsageError(
            f"unknown verb {name!r}",
            hint=did_you_mean(name, VERBS)
            or f"the verbs are {', '.join(VERBS)}; {program} --help describes them",
        )
    flags = {setting: value for setting, value in given.items() if value is not None}
    if verbose:
        flags.setdefault("log_level", "debug")
    app: Application | None = None
    if wants_help:
        words = ["--help"]  # a verb shows its help without an application, also where that is broken
    else:
        try:
            app = get_app(app_name)
            app.configure(flags)
        except AppNotFound:
            # A verb that needs no application runs without one, unless -a named it.
            if VERBS[name].needs_app or app_name:
                raise
    do = _load(VERBS[name].target)
    return do(Command(name, words, flags, app, program, verbose))


def _load(target: str) -> Callable[[Command], int]:
    """Return the function that `module:function` names."""
    import importlib

    module, _, function = target.partition(":")
    return cast("Callable[[Command], int]", getattr(importlib.import_module(module), function))


def _parser(program: str, *, with_app: bool) -> _Parser:
    """Return the parser of the flags that may stand before, between and after the words of a verb."""
    verbs = "\n".join(f"  {name:<10}{verb.about}" for name, verb in VERBS.items())
    parser = _Parser(
        prog=program,
        usage=f"{program} [flags] [verb] [arguments of the verb]",
        description=f"A task server for Python on Redis or Valkey.\n\nverbs:\n{verbs}",
        epilog=f"Each setting is also a variable (PQ_WORKERS) and a name in a config file.\n"
        f"`{program} config` shows every value and its source; `{program} VERB --help` describes a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # `VERB --help` is the verb's, so `--help` is parsed here. An abbreviated flag (`--work`) is refused: a new
        # setting with the same first letters would change its meaning.
        add_help=False,
        allow_abbrev=False,
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="store_true", help="show this text, or the help of a verb")
    general.add_argument("-V", "--version", action="store_true", help="show the version")
    general.add_argument("-v", "--verbose", action="store_true", help="log at level debug, show tracebacks")
    if with_app:
        general.add_argument(
            "-a", "--app", metavar="MODULE[:ATTR]", help="the application (default manage:app)"
        )
    groups: dict[str, Any] = {}
    for setting in SETTINGS.values():
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        _add_flag(groups[setting.group], setting)
    return parser


def _add_flag(group: Any, setting: Setting) -> None:
    """Add the flag of `setting`. Its value stays text; without the flag it is absent."""
    default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
    if isinstance(default, float):
        default = f"{default:g}"
    about = setting.about if default in (None, "") else f"{setting.about} (default {default})"
    if isinstance(setting.default, bool):
        group.add_argument(
            *setting.flags, action=argparse.BooleanOptionalAction, default=None, help=setting.about
        )
        return
    group.add_argument(
        *setting.flags,
        dest=setting.name,
        action="append" if isinstance(setting.default, tuple) else "store",
        metavar={"s": "SECONDS", "bytes": "BYTES"}.get(
            setting.unit, "N" if isinstance(default, int) else "VALUE"
        ),
        help=about.replace("%", "%%"),
    )


def explained(error: PqError) -> str:
    """Return a mistake in at most six lines: what happened, its slug, what to type."""
    from .logs.formatters import escape

    message = error.message.splitlines() or [""]
    hint = (error.hint or "").splitlines()
    message = message[: MOST_LINES - min(len(hint), 2)]
    lines = [f"error: {message[0]}", *message[1:]]
    lines[-1] += f" [{error.slug}]"
    if hint:
        lines += [f"hint: {hint[0]}", *hint[1:]]
    return "".join(escape(line) + "\n" for line in lines[:MOST_LINES])


def _unknown_word(word: str, flags: Sequence[str], program: str) -> UsageError:
    """Return the error for an unknown flag or a word too many."""
    flag = word.partition("=")[0]
    what = "flag" if word.startswith("-") else "word"
    return UsageError(
        f"unknown {what} {flag!r}", hint=did_you_mean(flag, flags) or f"{program} --help lists what there is"
    )


def _import_failed(module: str, error: Exception) -> ImportFailed:
    """Return the error for a module that exists and cannot be imported; it names the user's line."""
    import traceback

    place = ""
    if isinstance(error, SyntaxError):
        place = f" ({os.path.basename(error.filename or '?')}, line {error.lineno})"
    elif frames := [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]:
        place = f" ({os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno})"
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    named = reason if isinstance(error, ImportError) else f"{type(error).__name__}: {reason}"
    missing = isinstance(error, ModuleNotFoundError)
    return ImportFailed(
        f"{module} could not be imported: {named}{place}",
        hint="install it here, or remove the import" if missing else "-v shows the whole traceback",
    )


def _modules_in(directory: str) -> list[str]:
    """Return the modules and packages in `directory`."""
    with os.scandir(directory) as entries:
        return [
            entry.name.removesuffix(".py")
            for entry in entries
            if entry.name.endswith(".py") or entry.is_dir()
        ]


def _is_verbose(argv: Sequence[str]) -> bool:
    """Return True if `-v` is given, also on a command line that does not parse."""
    return any(word == "--verbose" or (word[:1] == "-" and word[1:2] == "v") for word in argv)
