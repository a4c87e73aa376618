"""`docs/how-to/testing.md` from a clean directory: its project, and its tests run by a pytest of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_blocks import ROOT, blocks
from docs_project import Project

from pq.broker.embedded import find_binary
from pq.errors import NoStore

EDITABLE = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""The warning of an editable install, whose import hook pytest cannot rewrite: no user has that."""
PAGE = blocks(ROOT / "docs/how-to/testing.md")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The files of the page in a project."""
    try:
        find_binary()
    except NoStore as error:
        pytest.skip(f"no Valkey program here: {error}")
    project = Project(tmp_path)
    for block in PAGE:
        if block.file is not None:
            project.write(block.file, block.source)
    return project


def test_every_test_of_the_page_passes(project: Project) -> None:
    """All of them run, none warns."""
    done = project.python(
        "-m", "pytest", "-p", "pq.testing", "-p", "no:cacheprovider", "-W", "error", *EDITABLE
    )
    written = sum(block.source.count("def test_") for block in PAGE)
    assert re.search(rf"\b{written} passed in", done.stdout), done.stdout + done.stderr
    assert done.returncode == 0


def test_the_tests_of_the_page_can_fail(project: Project) -> None:
    """A job that does nothing is found out."""
    project.write("letters.py", (project.directory / "letters.py").read_text().replace("sent.append(to)", ""))
    done = project.python(
        "-m", "pytest", "-p", "pq.testing", "-p", "no:cacheprovider", "-k", "letter or sent"
    )
    assert done.returncode == 1
    assert "test_it_is_sent" in done.stdout
