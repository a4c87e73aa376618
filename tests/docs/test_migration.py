"""The pages for users of other task queues: the `pq` program of each, from a clean directory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from docs_blocks import ROOT, blocks
from docs_project import Project

RUNNER = Path(__file__).with_name("docs_runner.py")


@pytest.mark.parametrize("old", ["celery", "rq", "huey", "arq"])
def test_the_program_of_a_page(old: str, tmp_path: Path) -> None:
    """Its files are made, its server is started with its own command, and its lines are typed."""
    page = blocks(ROOT / f"docs/how-to/from-{old}.md")
    project = Project(tmp_path)
    for block in page:
        if block.file is not None:
            project.write(block.file, block.source)
    (command,) = [command for block in page if block.kind == "shell" for _, command in block.commands()]
    assert command.startswith("python manage.py -w 2 ")
    python = [asdict(block) for block in page if block.kind == "python"]
    assert python
    with project.server(*command.split()[2:]):
        project.wait_for("ready ·", times=2)
        done = project.python(str(RUNNER), stdin=json.dumps(python))
        assert (done.returncode, done.stdout) == (0, ""), f"{done.stderr}\nthe server said:\n{project.said()}"
    assert "1 periodic job" in project.said()
