"""The tutorial, followed to the letter: its files made, its server started, its lines typed."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from docs_blocks import ROOT, Block, blocks
from docs_project import Project, Prompt
from docs_runner import FLAGS, Checker

ON_TIME = re.compile(r"\('SUCCESS', 2\.[0-3]\)")
"""A task that was to wait two seconds: never less, and somewhat more where the machine is busy with other things."""
TUTORIAL = blocks(ROOT / "docs/tutorial.md")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The files of the tutorial in a project."""
    project = Project(tmp_path)
    for block in TUTORIAL:
        if block.file is not None:
            project.write(block.file, block.source)
    return project


def lines(of: list[Block]) -> list[doctest.Example]:
    """The lines that are typed at the prompt, and the expected output."""
    return [example for block in of for example in doctest.DocTestParser().get_examples(block.source)]


def compare(example: doctest.Example, said: str) -> None:
    checker = Checker()
    if example.exc_msg is not None:
        assert said.startswith("Traceback"), f"typed {example.source}got {said}"
        start = said.find(example.exc_msg.partition(":")[0])
        example.want, said = example.exc_msg, said[start:]
    if not checker.check_output(example.want, said, FLAGS):
        pytest.fail(f"typed {example.source}{checker.output_difference(example, said, FLAGS)}")


def test_the_tutorial_works_to_the_letter(project: Project) -> None:
    """A server in one terminal, a plain `python` in another."""
    commands = [command for block in TUTORIAL if block.kind == "shell" for _, command in block.commands()]
    assert "python manage.py -w 2" in commands
    typed = lines([block for block in TUTORIAL if block.kind == "python"])
    assert len(typed) > 10
    with project.server("-w", "2"):
        project.wait_for("ready ·", times=2)
        prompt = Prompt(project)
        try:
            for example in typed:
                said = prompt.type(example.source.rstrip("\n"))
                compare(example, ON_TIME.sub("('SUCCESS', 2.0)", said))
            assert prompt.close() == 0
        finally:
            prompt.close()


def test_the_shell_may_come_first(project: Project) -> None:
    """A task that is queued while no server runs waits for one; then its future resolves."""
    prompt = Prompt(project)
    try:
        assert prompt.type("from manage import app") == ""
        assert prompt.type("api = app().api()") == ""
        assert prompt.type("task = api.tasks.queue('addition', a=4, b=6)") == ""
        assert prompt.type("api.tasks.size('default').wait(10)") == "{'default': 1}\n"
        assert "pending" in prompt.type("task")
        with project.server("-w", "2"):
            assert prompt.type("task.wait(20).result") == "10\n"
        # The server has left; its store is still ours, and keeps what was done.
        assert prompt.type("api.tasks.get(task.id).wait(10).status_string") == "'SUCCESS'\n"
        assert prompt.close() == 0
    finally:
        prompt.close()
    project.python("-c", "")  # and nothing of it is left
    assert not list((project.directory / ".pq").glob("*.sock"))
