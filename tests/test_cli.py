"""The command line: verbs, flags, and the errors for mistyped ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pq
from pq import cli
from pq.config import SETTINGS, Settings, load
from pq.errors import PqError, StoreUnavailable


class App:
    """An application that records its calls."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs
        self.config: str | None = None
        self.settings: Settings | None = None
        self.fails_with: BaseException | None = None

    def configure(self, cli: Mapping[str, object]) -> None:
        self.settings = load(self.kwargs, self.config, {}, cli)

    def serve(self) -> int:
        if self.fails_with is not None:
            raise self.fails_with
        return 0


@pytest.fixture
def app() -> App:
    """An application without any setting."""
    return App()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's directory, as the current one; modules imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    here = str(Path(__file__).parents[1])  # which has a manage.py of its own
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", here)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def values(app: App, *names: str) -> tuple[object, ...]:
    """The named settings, as the application got them."""
    return tuple(getattr(app.settings, name) for name in names)


# --- flags and verbs ---


def test_no_verb_is_serve(app: App) -> None:
    """`python manage.py -w 2` starts a server with two workers."""
    assert cli.run(app, ["-w", "2"]) == 0
    assert values(app, "workers") == (2,)
    assert app.settings is not None
    assert app.settings.sources == {"workers": "flag --workers"}


@pytest.mark.parametrize(
    "argv", [["-w", "2", "serve", "-q", "a"], ["serve", "-q", "a", "-w2"], ["--workers=2", "-qa", "serve"]]
)
def test_flags_may_stand_before_and_after_the_verb(app: App, argv: list[str]) -> None:
    """Users do not remember an order."""
    assert cli.run(app, argv) == 0
    assert values(app, "workers", "task_queues") == (2, ("a",))


def test_every_setting_has_its_flag(app: App, tmp_path: Path) -> None:
    """Each declared setting can be given, and arrives."""
    special = {"data_store": "memory://", "message_broker": "memory://", "max_message_size": "5000"}
    special |= {"report_mail_to": "a@example.org", "report_mail_from": "b@example.org"}
    special |= {"queue_weights": "default:5", "partitions": "default=5"}
    special |= {"large_above": "0"}  # more needs another setting
    key = tmp_path / "key"
    key.write_text(f"k1:{'A' * 43}")
    special |= {"signing_keys": f"@{key}", "encryption_keys": f"@{key}"}
    special |= {"smtp_url": "smtps://mail.example.org", "report_webhook": "https://hooks.example.org/x"}
    for setting in SETTINGS.values():
        flag, default = setting.flags[-1], setting.default
        number = isinstance(default, (int, float))
        value = special.get(
            setting.name,
            "5" if number else default if default in ("none", "msgpack", "info", "console") else "name",
        )
        argv = [flag] if isinstance(default, bool) else [flag, str(value)]
        assert cli.run(app, argv) == 0, argv
        assert app.settings is not None
        assert app.settings.sources == {setting.name: f"flag {flag}"}


def test_queues_may_be_listed_or_repeated(app: App) -> None:
    """`-q high,low -q spare`."""
    assert cli.run(app, ["-q", "high,low", "-q", "spare"]) == 0
    assert values(app, "task_queues") == (("high", "low", "spare"),)


def test_a_switch_can_be_turned_off(app: App) -> None:
    """The command line wins over a file that says yes, so it must be able to say no."""
    app.kwargs["schedule_periodic"] = True
    assert cli.run(app, ["--no-schedule-periodic"]) == 0
    assert values(app, "schedule_periodic") == (False,)
    assert cli.run(app, ["--schedule-periodic"]) == 0
    assert values(app, "schedule_periodic") == (True,)


def test_v_is_debug_unless_a_level_is_given(app: App) -> None:
    """-v for people, --log-level for the particular."""
    assert cli.run(app, ["-v"]) == 0
    assert values(app, "log_level") == ("debug",)
    assert cli.run(app, ["-v", "--log-level", "error"]) == 0
    assert values(app, "log_level") == ("error",)


def test_the_words_of_the_program_are_the_default(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """`app().start()` reads `sys.argv`."""
    monkeypatch.setattr(sys, "argv", ["manage.py", "-w", "3"])
    assert cli.run(app) == 0
    assert values(app, "workers") == (3,)


def test_the_exit_code_is_that_of_the_verb(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stopped for a reason says so to systemd."""
    monkeypatch.setattr(app, "serve", lambda: 7)
    assert cli.run(app, []) == 7


def test_a_verb_is_imported_when_it_is_used(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has names; a verb gets its words, the flags and the application."""
    module = ModuleType("pq_test_verb")
    heard: list[cli.Command] = []
    module.run = lambda command: heard.append(command) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pq_test_verb", module)
    monkeypatch.setattr(cli, "VERBS", {**cli.VERBS, "test": cli.Verb("pq_test_verb:run", "test")})
    assert cli.run(app, ["test", "-w", "2", "word", "--flag", "1h", "a=4"]) == 0
    (command,) = heard
    assert command.argv == ["word", "--flag", "1h", "a=4"]
    assert command.flags == {"workers": "2"}
    assert command.application is app


@pytest.mark.parametrize("name", ["serve", "config"])
def test_the_table_of_verbs_names_functions_that_exist(name: str) -> None:
    """A table of strings has no other check."""
    assert callable(cli._load(cli.VERBS[name].target))


# --- config ---


def test_config_shows_each_value_and_its_source(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a setting; passwords are masked."""
    app.kwargs["data_store"] = "redis://app:secret@h"
    assert cli.run(app, ["config", "-w", "3"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert list(lines) == list(SETTINGS)
    assert lines["workers"] == ["3", "flag --workers"]
    assert lines["data_store"] == ["redis://app:***@h", "keyword"]
    assert lines["task_queues"] == ["default", "default"]
    assert lines["node_name"] == ["-", "default"]


def test_config_speaks_json(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs; passwords are masked there too."""
    app.kwargs["data_store"] = "redis://app:secret@h"
    assert cli.run(app, ["config", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data_store"] == {"value": "redis://app:***@h", "source": "keyword"}
    assert told["lease"] == {"value": 30.0, "source": "default"}


# --- help ---


def test_help_shows_verbs_groups_and_flags(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything there is, on one page."""
    assert cli.run(app, ["--help"]) == 0
    out = capsys.readouterr().out
    for word in (
        *cli.VERBS,
        "store:",
        "crashes:",
        "--schedule-periodic, --no-schedule-periodic",
        "(default 100)",
    ):
        assert word in out
    for setting in SETTINGS.values():
        assert setting.flags[-1] in out


def test_a_verb_has_its_own_help_even_without_an_application(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pq config --help` works in an empty directory."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["config", "--help"])
    assert caught.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_version(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for in every bug report."""
    assert cli.run(app, ["--version"]) == 0
    assert capsys.readouterr().out == f"pq {pq.__version__}\n"


def test_help_imports_nothing_slow() -> None:
    """Imports make `--help` slow, and they creep in one at a time."""
    program = (
        # Modules that the environment itself has imported (an editable install has a finder) do not count.
        "import sys; before = set(sys.modules); from pq.cli import main; main(['--help']);"
        "print([n for n in ('redis', 'uvloop', 'asyncio', 'msgpack', 'multiprocessing', 'logging', 'hashlib',"
        " 'runpy', 'socket', 'tempfile', 'textual', 'rich', 'starlette', 'pq.tui', 'pq.api', 'pq.app') if n in sys.modules and n not in before])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- mistakes ---


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        (["serv"], "unknown verb 'serv' [usage]", "did you mean 'serve'?"),
        (["xyzzy"], "unknown verb 'xyzzy' [usage]", "the verbs are serve, queue, wait"),
        (["--wokers", "2"], "unknown flag '--wokers' [usage]", "did you mean '--workers'"),
        (["--work", "2"], "unknown flag '--work' [usage]", "did you mean '--workers'"),
        (["--lese=5"], "unknown flag '--lese' [usage]", "did you mean '--lease'"),
        (["-x"], "unknown flag '-x' [usage]", "--help lists what there is"),
        (["-w"], "argument -w/--workers: expected one argument [usage]", "--help lists what there is"),
        (["serve", "now"], "unknown word 'now' [usage]", "serve --help lists what there is"),
        (["config", "--jsn"], "unknown flag '--jsn' [usage]", "did you mean '--json'?"),
    ],
)
def test_a_senseless_command_line_ends_with_2(
    app: App, capsys: pytest.CaptureFixture[str], argv: list[str], error: str, hint: str
) -> None:
    """Two lines on standard error: the mistake, and a text to type."""
    assert cli.run(app, argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first == f"error: {error}"
    assert second.startswith("hint: ")
    assert hint in second


def test_a_bad_value_ends_with_1(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """The error of a setting has the expected form, and the flag it came from."""
    assert cli.run(app, ["-w", "many"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "error: workers: 'many' (flag --workers) is not a whole number, 1 to 1024, or a range of it such as 1..8"
        " [bad-setting]"
    )
    assert second == (
        "hint: workers (--workers, PQ_WORKERS) is the number of worker processes; 1..8 follows the demand"
    )


def test_an_error_of_the_library_is_explained_without_a_traceback(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event, its slug, what to do."""
    app.fails_with = StoreUnavailable("no Valkey at redis://h", hint="start it")
    assert cli.run(app, []) == 1
    assert capsys.readouterr().err == "error: no Valkey at redis://h [store-unreachable]\nhint: start it\n"


def test_v_adds_the_traceback(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """For a user who wants to see where it was raised."""
    app.fails_with = StoreUnavailable("no Valkey")
    assert cli.run(app, ["-v"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("error: no Valkey [store-unreachable]\n")


def test_a_fault_of_the_library_is_not_dressed_up(app: App) -> None:
    """An error that is a defect of the package keeps its traceback."""
    app.fails_with = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        cli.run(app, [])


def test_ctrl_c_ends_with_130(app: App) -> None:
    """Shells report it so, and there is no traceback."""
    app.fails_with = KeyboardInterrupt()
    assert cli.run(app, []) == 130


def test_an_explanation_has_six_lines_at_most_and_no_control_characters() -> None:
    """A message may quote a server's log; the quoted text cannot take over the terminal."""
    error = PqError("\n".join(f"line {number}\x1b[2J" for number in range(20)), hint="one\ntwo\nthree")
    lines = cli.explained(error).splitlines()
    assert len(lines) == 6
    assert lines[3] == "line 3\\x1b[2J [error]"
    assert lines[4:] == ["hint: one", "two"]


def test_a_reader_that_ends_early_is_not_an_error(project: Path) -> None:
    """`pq config | head -1`."""
    (project / "manage.py").write_text(MANAGE)
    command = f"'{sys.executable}' -c 'import pq.cli, sys; sys.exit(pq.cli.main([\"config\"]))' | true"
    environ = os.environ | {"PYTHONPATH": str(Path(pq.__file__).parent.parent)}
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=environ)
    assert done.stderr == ""


# --- pq -a ---

MANAGE = """
class App:
    kwargs, config = {}, None
    def configure(self, cli): self.flags = cli
    def serve(self): print("serving", self.flags); return 0
def app(): return App()
other = App()
number = 5
"""


@pytest.mark.parametrize("argv", [[], ["-a", "manage"], ["--app", "manage:app"], ["-a", "manage:other"]])
def test_pq_finds_the_application_in_the_current_directory(
    project: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    """`pq` alone is `python manage.py`; another one is named, as a function or as an object."""
    (project / "manage.py").write_text(MANAGE)
    assert cli.main([*argv, "-w", "2"]) == 0
    assert capsys.readouterr().out == "serving {'workers': '2'}\n"


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        (["-a", "manag"], "no module 'manag' (from -a) in the current directory", "did you mean 'manage'"),
        (
            ["-a", "zzz"],
            "no module 'zzz' (from -a) in the current directory",
            "go to the directory of manage.py",
        ),
        ([], "no module 'manage' in the current directory", "pq -a module:attribute"),
        (["-a", "zzz.sub"], "no module 'zzz.sub'", "go to the directory"),
        (["-a", "manage:ap"], "module 'manage' has no 'ap'", "did you mean 'app'?"),
        (["-a", "manage:zzz"], "module 'manage' has no 'zzz'", "def app()"),
        (["-a", "manage:number"], "manage:number is of type int, which is not an application", "PulsarQueue"),
    ],
)
def test_an_application_that_is_not_there(
    project: Path, capsys: pytest.CaptureFixture[str], argv: list[str], error: str, hint: str
) -> None:
    """Which module, which name, and the nearest right one."""
    if argv:
        (project / "manage.py").write_text(MANAGE)
    assert cli.main(argv) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {error}")
    assert first.endswith("[app-not-found]")
    assert hint in second


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("\n\nimport aiosmtplib2\n", "No module named 'aiosmtplib2' (manage.py, line 3)", "install it here"),
        ("\nfrom os import nothing\n", "cannot import name 'nothing' from 'os'", "-v shows"),
        ("\n1 / 0\n", "ZeroDivisionError: division by zero (manage.py, line 2)", "-v shows"),
        ("\n\nx = = 1\n", "SyntaxError: invalid syntax (manage.py, line 3)", "-v shows"),
    ],
)
def test_an_application_that_cannot_be_imported(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, error: str, hint: str
) -> None:
    """The error and the line in the user's file; no frame of ours."""
    (project / "manage.py").write_text(text)
    assert cli.main([]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: manage could not be imported: {error}")
    assert first.endswith("[import-failed]")
    assert hint in second


def test_a_verb_that_needs_no_application_runs_without_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pq demo` in an empty directory; but an application that was named must be there."""
    module = ModuleType("pq_test_verb")
    module.run = lambda command: 0 if command.app is None else 9  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pq_test_verb", module)
    monkeypatch.setattr(cli, "VERBS", {"test": cli.Verb("pq_test_verb:run", "test", needs_app=False)})
    assert cli.main(["test"]) == 0
    assert cli.main(["-a", "zzz", "test"]) == 1
