"""Where settings come from: defaults < keywords < config file < variables < command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pq
from pq.config import load
from pq.errors import BadSetting, ImportFailed, UnknownSetting


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(project: Path, text: str) -> str:
    """Write `config.py` and return its name."""
    (project / "config.py").write_text(text)
    return "config.py"


def test_the_later_source_wins_and_is_remembered(project: Path) -> None:
    """Each source covers the ones before it; `sources` says which one it was."""
    path = config(project, "lease = 3\nmax_crashes = 3\nworkers = 3\n")
    settings = load(
        {"namespace": "kw", "lease": 2, "max_crashes": 2, "workers": 2},
        path,
        {"PQ_MAX_CRASHES": "4", "PQ_WORKERS": "4"},
        {"workers": "5"},
    )
    assert settings.dead_ttl == 7 * 86_400
    assert (settings.namespace, settings.lease, settings.max_crashes, settings.workers) == ("kw", 3.0, 4, 5)
    assert settings.sources == {
        "namespace": "keyword",
        "lease": "config.py, line 1",
        "max_crashes": "variable PQ_MAX_CRASHES",
        "workers": "flag --workers",
    }


def test_nothing_at_all_gives_the_defaults() -> None:
    """No source, no `sources`."""
    assert load(environ={}).sources == {}


def test_a_misspelt_keyword_is_an_error_with_the_right_name() -> None:
    """`PulsarQueue(concurent_tasks=…)`."""
    with pytest.raises(UnknownSetting, match="keyword: unknown setting 'concurent_tasks'") as caught:
        load({"concurent_tasks": 1}, environ={})
    assert "'concurrent_tasks'" in str(caught.value.hint)


def test_a_name_like_no_other_gets_a_hint_as_well() -> None:
    """There is nothing near to suggest, but a list to look at."""
    with pytest.raises(UnknownSetting) as caught:
        load({"zzz": 1}, environ={})
    assert "pq config" in str(caught.value.hint)


def test_a_misspelt_name_in_a_file_is_an_error_with_its_line(project: Path) -> None:
    """The hint has the right name, and how to keep an own value."""
    path = config(project, "'''Ours.'''\n\nif True:\n    concurent_tasks = 5\n")
    with pytest.raises(
        UnknownSetting, match=r"config\.py, line 4: unknown setting 'concurent_tasks'"
    ) as caught:
        load(config=path, environ={})
    assert "'concurrent_tasks'" in str(caught.value.hint)
    assert "_concurent_tasks, with an underscore" in str(caught.value.hint)


def test_names_of_a_file_that_are_not_settings_are_ignored(project: Path) -> None:
    """Imports, functions, classes, private and CAPITAL names, objects: a config file is a program."""
    path = config(
        project,
        "from __future__ import annotations\n"
        "import logging, os.path\n"
        "from pathlib import Path\n"
        "from functools import partial\n"
        "DEBUG = True\nHOME2 = 1\n_private = 1\n"
        "logger = logging.getLogger()\nhere = Path()\nhalf = partial(int)\n"
        "def app(): return None\n"
        "class Thing: number = 1\n"
        "def lease(): return 1\n"
        "squares = None\ndel squares\n"
        "workers = 1 if DEBUG else 2\n",
    )
    settings = load(config=path, environ={})
    assert settings.sources == {"workers": "config.py, line 16"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lease = 0\nlease = 5\n", 2),
        ("lease: float = 5\n", 1),
        ("\n(lease, workers) = 5, 1\n", 2),
        ("for lease in (4, 5): pass\n", 1),
        ("from own import lease\n", 1),
        ("def f():\n    lease = 1\nlease = 5\nclass C:\n    lease = 1\n", 3),
    ],
)
def test_the_line_is_that_of_the_last_binding(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int
) -> None:
    """However a name gets its value."""
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (project / "own.py").write_text("lease = 5\n")
    settings = load(config=config(project, text), environ={})
    assert settings.lease == 5
    assert settings.sources["lease"] == f"config.py, line {line}"


def test_a_bad_value_in_a_file_is_an_error_with_its_line(project: Path) -> None:
    """A later source that covers it changes nothing: the value would take effect without that source."""
    path = config(project, "\nworkers = 'many'\n")
    with pytest.raises(BadSetting, match=r"workers: 'many' \(config\.py, line 2\) is not a whole number"):
        load(config=path, environ={"PQ_WORKERS": "2"})


def test_a_file_elsewhere_is_shown_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name alone would not be found."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "config.py").write_text("lease = 5\n")
    settings = load(config=str(tmp_path / "config.py"), environ={})
    assert settings.sources["lease"] == f"{(tmp_path / 'config.py').resolve()}, line 1"


def test_a_missing_file_is_an_error(project: Path) -> None:
    """A config that is silently not read is the worst of them."""
    with pytest.raises(BadSetting, match=r"no readable file 'confg\.py'"):
        load(config="confg.py", environ={})


@pytest.mark.parametrize("text", ["1 / 0\n", "lease = \n", "import no_such_module\n"])
def test_a_file_that_fails_is_an_error(project: Path, text: str) -> None:
    """Whatever goes wrong in it, its name is in the message and the cause in the chain."""
    with pytest.raises(ImportFailed, match=r"config\.py could not be read") as caught:
        load(config=config(project, text), environ={})
    assert caught.value.__cause__ is not None


def test_a_file_is_run_once_and_not_as_main(project: Path) -> None:
    """Each app() reads its settings; the file's side effects happen once, and its program does not start."""
    path = config(
        project,
        "with open('runs', 'a') as _file: _file.write('x')\n"
        "if __name__ == '__main__': raise SystemExit('started')\n"
        "lease = 5\n",
    )
    assert load(config=path, environ={}).lease == load(config=path, environ={}).lease == 5
    assert (project / "runs").read_text() == "x"


@pytest.mark.parametrize("start", [["manage.py"], ["-c", "import manage"], ["-m", "manage"]])
def test_a_program_may_be_its_own_config_file(project: Path, start: list[str]) -> None:
    """`config=__file__` reads the globals of the running module, under any name, and runs nothing twice."""
    (project / "manage.py").write_text(
        "import pq.config\n"
        "print('run')\n"
        "lease = 7\n"
        "def app(): return pq.config.load(config=__file__, environ={})\n"
        "print(app().lease, app().sources)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(pq.__file__).parent.parent)}
    done = subprocess.run([sys.executable, *start], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "run\n7.0 {'lease': 'manage.py, line 3'}\n"


def test_variables_are_parsed_by_the_type_of_their_setting() -> None:
    """`bool('off')` is true; the setting knows better."""
    settings = load(
        environ={
            "PQ_SCHEDULE_PERIODIC": "off",
            "PQ_LEASE": "1.5",
            "PQ_TASK_QUEUES": "a,b",
            "PQ_DATA_STORE": "memory://",
        }
    )
    assert settings.schedule_periodic is False
    assert settings.lease == 1.5
    assert settings.task_queues == ("a", "b")
    assert settings.data_store == "memory://"


def test_an_empty_variable_counts_as_not_set() -> None:
    """`PQ_WORKERS=${WORKERS}` of a compose file, without WORKERS."""
    assert load({"workers": 7}, environ={"PQ_WORKERS": ""}).workers == 7


@pytest.mark.parametrize("variable", ["PQ_WORKER", "PQ_DATASTORE", "PQ_TASK_QUEUE", "PQ_LEASES"])
def test_a_misspelt_variable_is_an_error(variable: str) -> None:
    """A mistake without a visible effect: the variable is set, and no setting reads it."""
    with pytest.raises(UnknownSetting, match=f"environment: unknown setting '{variable}'") as caught:
        load(environ={variable: "1"})
    assert "did you mean 'PQ_" in str(caught.value.hint)


@pytest.mark.parametrize(
    "variable", ["PQ_ENV", "PQ_SIM_SEED", "PQ_LOG_FILE", "PQ_SECRET", "PQWORKERS", "HOME"]
)
def test_other_variables_are_not_ours_to_judge(variable: str) -> None:
    """A name that is not near to a setting may belong to another program."""
    assert load(environ={variable: "1"}).sources == {}


def test_an_unknown_flag_of_a_program_is_an_error() -> None:
    """The command line's own parser comes first; this is for programs that call `load`."""
    with pytest.raises(UnknownSetting, match="command line"):
        load(environ={}, cli={"worker": "1"})


def test_a_bad_variable_says_so_without_the_password() -> None:
    """Logs are read by more people than environments."""
    with pytest.raises(BadSetting) as caught:
        load(environ={"PQ_DATA_STORE": "http://app:secret@h"})
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert "variable PQ_DATA_STORE" in str(caught.value)
