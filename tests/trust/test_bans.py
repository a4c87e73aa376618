"""Calls that the package must not have: those that run foreign data, except at places that are named here."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from audit import audit

import pq

ROOT = Path(pq.__file__).parent

ALLOWED = {
    ("pq.execution.pickled", "pickle"): "local tasks, over a private pipe (docs/decisions/0013)",
    ("pq.execution.pickled", "exec"): "the program's own script, in a child of it",
    ("pq.execution.command", "shell=True"): "Job.shell, where a job's code gives it a command line",
    ("pq.jobs", "exec"): "execute.python, for those who list it in task_paths",
    ("pq.commands.shell", "exec"): "a prompt, of the person who types",
    ("pq.commands.shell", "eval"): "the same",
}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
CALLS = {"eval", "exec", "__import__"}


def banned(source: str) -> set[str]:
    """The banned calls of a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} & MODULES
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.add(node.func.id)
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("system", "popen"):
                found.add(node.func.attr)
            shell = [word for word in node.keywords if word.arg == "shell"]
            if any(
                not (isinstance(word.value, ast.Constant) and word.value.value is False) for word in shell
            ):
                found.add("shell=True")
            if isinstance(node.func, ast.Attribute) and node.func.attr == "create_subprocess_shell":
                found.add("shell=True")
    return found


def test_nothing_runs_what_others_send() -> None:
    found = {}
    for path in ROOT.rglob("*.py"):
        module = ".".join(("pq", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        found |= {(module, what): path for what in banned(path.read_text("utf-8"))}
    assert found.keys() == ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "eval('1')", "exec(x)", "run('ls', shell=True)", "run(x, shell=y)",
        "import yaml", "os.system('ls')", "await asyncio.create_subprocess_shell('ls')", "__import__(name)",
    ],
)  # fmt: skip
def test_it_is_found(source: str) -> None:
    assert banned(source)


def test_the_linter_looks_at_the_package_for_it_too() -> None:
    """The security rules are on, and none that matters is ignored but line by line."""
    lint: dict[str, Any] = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()} == {
        "S101",
        "S603",
    }
    assert not [path for path in lint["per-file-ignores"] if path.startswith("pq")]


NOTHING = '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}]}'
SKIPPED = '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'
FOUND = '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}'


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [
        (f"print({NOTHING!r})", 0, "no known vulnerabilities in 1 packages; 1 were"),
        (f"print({FOUND!r}); exit(1)", 1, "a 1: CVE-1"),
        (f"print({SKIPPED!r})", 0, "NOT DONE (no advisories reachable)"),
        ("import sys; sys.stderr.write('ConnectionError'); exit(1)", 0, "NOT DONE (no advisories reachable)"),
        ("print('[1]')", 0, "NOT DONE"),
        ("import sys; sys.exit('No module named pip_audit')", 0, "NOT DONE (pip-audit is not installed)"),
        ("import time; time.sleep(60)", 0, "NOT DONE (no advisories reachable within"),
    ],
)
def test_the_audit(does: str, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding fails; a service that is away, or knows nothing, does not, and is said."""
    assert audit([sys.executable, "-c", does], patience=1.0 if "sleep" in does else 30.0) == code
    assert said in capsys.readouterr().out
