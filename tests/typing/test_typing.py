"""The output of the type checkers for typed calls: right ones have their exact types, wrong ones are refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = [str(HERE / "right_calls.py"), str(HERE / "wrong_calls.py")]
CHECKERS = {
    "mypy": ["--strict", "--config-file", str(ROOT / "pyproject.toml"), *FILES],
    "pyright": ["-p", str(HERE)],
}


def says(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker over this checkout, whatever else is installed."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed here (extra `dev`); `./run check` has it")
    return subprocess.run(
        [sys.executable, "-m", checker, *arguments],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.parametrize("checker", CHECKERS)
def test_typed_calls(checker: str) -> None:
    """Each right call has its type, each wrong one an error where a comment expects it, and there are no others."""
    said = says(checker, *CHECKERS[checker])
    assert said.returncode == 0, said.stdout + said.stderr
