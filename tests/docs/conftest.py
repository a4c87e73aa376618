"""One project with the files of all pages, and one server of it, for all tests of the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from docs_blocks import PAGES, ROOT, Block, blocks
from docs_project import Project

ENTRANCE = ("manage.py", "config.py")
"""Files that each page may have its own of; they are tested by themselves."""

MANAGE = """\
from pq.api import PulsarQueue

task_paths = ["sampletasks.*", "shop.*", "pq.jobs"]

def app():
    return PulsarQueue(config=__file__)

if __name__ == "__main__":
    app().start()
"""


@pytest.fixture(scope="session")
def all_blocks() -> list[Block]:
    """Every code block there is."""
    return [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="session")
def docs_project(tmp_path_factory: pytest.TempPathFactory, all_blocks: list[Block]) -> Iterator[Project]:
    """The project that the pages talk about, with a server of two workers."""
    project = Project(tmp_path_factory.mktemp("docs"))
    shutil.copytree(ROOT / "sampletasks", project.directory / "sampletasks")
    project.write("manage.py", MANAGE)
    project.write("shop/__init__.py", "")
    written: dict[str, Block] = {}
    for block in all_blocks:
        if block.file is None or block.file in ENTRANCE:
            continue
        before = written.setdefault(block.file, block)
        assert before.source == block.source, f"{before.place} and {block.place} differ"
        if block.file.startswith("shop/"):
            project.write(block.file, block.source)
    with project.server("-w", "2"):
        project.wait_for("ready ·", times=2)
        yield project
