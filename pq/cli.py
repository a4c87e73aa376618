"""The command line: `python manage.py [flags] [verb] …`, and the same as the console script `pq`.

The flags are made from the declared settings; the verbs are a table of names. A verb's module is imported
when the verb is used, and the application's when a verb needs it, so `--help` stays instant and a broken
application cannot break it. A test watches `sys.modules`, since imports creep in one at a time.

The words of a command line are sorted in two steps. First every flag of a setting is taken out, wherever
it stands; what is left begins with the verb, and the rest is the verb's own. Values stay text here:
`pq.config` knows what fits.

A mistake of the person who types is answered in a few lines that say what to type instead. A traceback
is for whoever asks (`-v`), and for faults of this library, which are never hidden.
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
"""A mistake is explained in so many lines, however long its text is."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line. `target` is the `module:function` that does it."""

    target: str
    about: str
    needs_app: bool = True


VERBS: Mapping[str, Verb] = {
    "serve": Verb("pq.cli:serve", "run the server (this is what no verb means)"),
    "queue": Verb("pq.commands.queue:queue", "queue a task: JOB a=1 --wait"),
    "wait": Verb("pq.commands.queue:wait", "watch a task until it is done"),
    "top": Verb("pq.commands.top:run", "watch queues, workers, running tasks and failures"),
    "tasks": Verb("pq.commands.tasks:tasks", "list tasks, by status, job, age or text"),
    "status": Verb("pq.commands.tasks:status", "show all that is known of a task"),
    "logs": Verb("pq.commands.tasks:logs", "show what a task logs, or all tasks (-f)"),
    "retry": Verb("pq.commands.tasks:retry", "run finished tasks again"),
    "cancel": Verb("pq.commands.tasks:cancel", "stop tasks, queued or running"),
    "queues": Verb("pq.commands.queues:queues", "list queues"),
    "pause": Verb("pq.commands.queues:pause", "hand out no tasks of a queue"),
    "resume": Verb("pq.commands.queues:resume", "hand them out again"),
    "purge": Verb("pq.commands.queues:purge", "revoke all that waits in a queue"),
    "jobs": Verb("pq.commands.jobs:jobs", "list the jobs"),
    "consumers": Verb("pq.commands.jobs:consumers", "list the workers that live"),
    "schedule": Verb("pq.commands.jobs:schedule", "list what is scheduled; pause, resume or run it"),
    "shell": Verb("pq.commands.shell:run", "a Python prompt with app, api, tasks and all jobs"),
    "web": Verb("pq.commands.web:run", "serve the api over HTTP and JSON-RPC"),
    "doctor": Verb("pq.commands.health:doctor", "look for what is wrong"),
    "check": Verb("pq.commands.health:check", "exit with 0 when all is served, for health checks"),
    "explain": Verb("pq.commands.explain:run", "explain the word in brackets of a message", needs_app=False),
    "new": Verb("pq.commands.new:run", "write a small project to begin with", needs_app=False),
    "key": Verb("pq.commands.key:run", "make a key for signing_keys or encryption_keys", needs_app=False),
    "config": Verb("pq.commands.config:run", "show each setting, its value and where it came from"),
    "demo": Verb("pq.demo:run", "a tour: a server, workers and a few tasks", needs_app=False),
}
DEFAULT_VERB = "serve"


@dataclass(frozen=True, slots=True)
class Command:
    """One use of the command line, as a verb gets it."""

    verb: str
    argv: Sequence[str]  # the words after the verb
    flags: Mapping[str, object]  # settings given as flags, not yet checked
    app: Application | None  # None only for a verb that needs none, where none was found
    program: str = "pq"
    verbose: bool = False

    @property
    def application(self) -> Application:
        """The application, for a verb that the table says needs it."""
        assert self.app is not None, f"the verb {self.verb} was run without its application"
        return self.app


class UsageError(PqError):
    """The words of a command line make no sense. It ends with exit code 2 and never leaves this module."""

    slug = "usage"


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an exception with a hint instead of a printed usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help shows what there is")

    def flags(self) -> list[str]:
        """All flags this parser knows."""
        return [flag for action in self._actions for flag in action.option_strings]


class VerbParser(_Parser):
    """The parser of a verb's own words: `VerbParser(command, about)`."""

    def __init__(self, command: Command, about: str) -> None:
        super().__init__(prog=f"{command.program} {command.verb}", description=about, allow_abbrev=False)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """`words` parsed; one that is left over is a mistake."""
        parsed, rest = self.parse_known_args(words)
        if rest:
            raise _unknown_word(rest[0], self.flags(), self.prog)
        return parsed


def run(app: Application, argv: Sequence[str] | None = None) -> int:
    """The command line of `app`: do what `argv` says and return the exit code.

    0 is success, 1 a mistake that `pq` can explain, 2 a command line that makes no sense.
    """
    program = os.path.basename(sys.argv[0]) or "pq"
    return _guarded(program, sys.argv[1:] if argv is None else argv, lambda _: app)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script `pq`: the same, for the application that `-a module[:attribute]` names."""
    return _guarded("pq", sys.argv[1:] if argv is None else argv, find_app)


def serve(command: Command) -> int:
    """The verb `serve`: run the server until it is told to stop."""
    VerbParser(command, "run the server").parse(command.argv)
    return command.application.serve()


def find_app(name: str | None) -> Application:
    """The application called `name`: `module` or `module:attribute`; `manage:app` where that is left out.

    The attribute is an application or a function that returns one. A console script does not have the
    current directory on `sys.path`, though that is where everybody keeps `manage.py`: it is put there.
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
        # Only when the module itself is missing; when it imports something that is, it is broken.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            near = did_you_mean(module_name, _modules_in(here))
            raise AppNotFound(
                f"no module {module_name!r}{' (from -a)' if name else ''} in the current directory, {here}",
                hint=near
                or "go to the directory of manage.py, name the application (pq -a module:attribute), or begin one: pq new DIR",
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
            f"{module_name}:{attribute} is of type {type(found).__name__}, which is no application",
            hint="it should be a PulsarQueue, or a function that returns one",
        )
    return cast("Application", found)


def _guarded(program: str, argv: Sequence[str], get_app: Callable[[str | None], Application]) -> int:
    """Do it, and answer every mistake in a few lines."""
    try:
        code = _dispatch(program, argv, get_app)
        sys.stdout.flush()  # here, where a reader that has left can be answered
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
        # The reader (`| head`) left. Python flushes stdout at exit and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(program: str, argv: Sequence[str], get_app: Callable[[str | None], Application]) -> int:
    """Sort the words, find the verb, run it."""
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
    if name not in VERBS:
        raise UsageError(
            f"there is no verb {name!r}",
            hint=did_you_mean(name, VERBS)
            or f"the verbs are {', '.join(VERBS)}; {program} --help explains them",
        )
    flags = {setting: value for setting, value in given.items() if value is not None}
    if verbose:
        flags.setdefault("log_level", "debug")
    app: Application | None = None
    if wants_help:
        words = ["--help"]  # a verb explains itself without an application, also where that is broken
    else:
        try:
            app = get_app(app_name)
            app.configure(flags)
        except AppNotFound:
            # A verb that can do without an application does, unless one was asked for by name.
            if VERBS[name].needs_app or app_name:
                raise
    do = _load(VERBS[name].target)
    return do(Command(name, words, flags, app, program, verbose))


def _load(target: str) -> Callable[[Command], int]:
    """The function that `module:function` names."""
    import importlib

    module, _, function = target.partition(":")
    return cast("Callable[[Command], int]", getattr(importlib.import_module(module), function))


def _parser(program: str, *, with_app: bool) -> _Parser:
    """The parser of all that may stand before, between and after the words of a verb."""
    verbs = "\n".join(f"  {name:<10}{verb.about}" for name, verb in VERBS.items())
    parser = _Parser(
        prog=program,
        usage=f"{program} [flags] [verb] [words of the verb]",
        description=f"A task server for Python on Redis or Valkey.\n\nverbs:\n{verbs}",
        epilog=f"Each setting is also a variable (PQ_WORKERS) and a name in a config file.\n"
        f"`{program} config` shows every value and its source; `{program} VERB --help` explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Help is ours, since `VERB --help` is the verb's. A flag cut short (`--work`) is refused: it would
        # change its meaning on the day another setting begins with the same letters.
        add_help=False,
        allow_abbrev=False,
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="store_true", help="show this, or the help of a verb")
    general.add_argument("-V", "--version", action="store_true", help="show the version")
    general.add_argument(
        "-v", "--verbose", action="store_true", help="log at level debug, show tracebacks of mistakes"
    )
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
    """The flag of `setting`. Its value stays text, and stays absent where the flag is not given."""
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
    """A mistake in at most six lines: what happened, its slug, what to type."""
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
    """The error for a flag, or a word too many, that no parser knows."""
    flag = word.partition("=")[0]
    what = "flag" if word.startswith("-") else "word"
    return UsageError(
        f"unknown {what} {flag!r}", hint=did_you_mean(flag, flags) or f"{program} --help shows what there is"
    )


def _import_failed(module: str, error: Exception) -> ImportFailed:
    """The error for a module that is there and cannot be imported; it names the user's line."""
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
    """The modules and packages that `directory` has."""
    with os.scandir(directory) as entries:
        return [
            entry.name.removesuffix(".py")
            for entry in entries
            if entry.name.endswith(".py") or entry.is_dir()
        ]


def _is_verbose(argv: Sequence[str]) -> bool:
    """Whether `-v` was asked for, on a command line that may not even parse."""
    return any(word == "--verbose" or (word[:1] == "-" and word[1:2] == "v") for word in argv)
