"""The verb `new`: a project to begin with."""

from __future__ import annotations

from pathlib import Path

from ..cli import Command, VerbParser
from ..errors import InvalidValue
from .terminal import say

FILES = {
    "manage.py": '''\
"""The program: `python manage.py -w 2` starts a server, `python manage.py --help` shows the rest."""

from pq.api import PulsarQueue


def app() -> PulsarQueue:
    return PulsarQueue(config="config.py")


if __name__ == "__main__":
    app().start()
''',
    "config.py": '''\
"""Settings. `python manage.py config` shows all of them, and where each value comes from."""

task_paths = ["jobs.*"]
workers = 2
''',
    "jobs/__init__.py": "",
    "jobs/greetings.py": '''\
"""A first job. Any module in this directory may have more."""

from pq import api


@api.job()
def greet(name: str = "world") -> str:
    return f"Hello, {name}!"


@api.job(max_retries=3, timeout=30)
async def greet_all(self: api.Job, names: list[str]) -> list[str]:
    greetings = []
    for name in self.progress(names):
        task = await self.queue(greet, name)
        greetings.append(task.get())
    return greetings
''',
    "tests/test_greetings.py": '''\
"""Run by `python -m pytest`; no server is needed."""

from jobs.greetings import greet
from pq.api import PulsarQueue


def test_the_function() -> None:
    assert greet("you") == "Hello, you!"


def test_the_task() -> None:
    api = PulsarQueue(data_store="memory://", task_paths=["jobs.*"]).api()
    try:
        assert api.tasks.queue("greet.all", ["Ann", "Bob"]).wait(10).get() == ["Hello, Ann!", "Hello, Bob!"]
    finally:
        api.close()
''',
    ".gitignore": "__pycache__/\n.pq/\n.venv/\n",
}


def run(command: Command) -> int:
    """Write the files; nothing that is there is overwritten."""
    parser = VerbParser(
        command, "write a small project into a directory: a program, settings, two jobs and a test"
    )
    parser.add_argument("directory", metavar="DIR")
    wanted = parser.parse(command.argv)
    directory = Path(wanted.directory)
    there = [name for name in FILES if (directory / name).exists()]
    if there:
        raise InvalidValue(
            f"{directory / there[0]} is there already; nothing was written", hint="name another directory"
        )
    try:
        for name, text in FILES.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as exc:
        raise InvalidValue(f"{exc.filename} cannot be written: {exc.strerror}") from None
    say(f"wrote {len(FILES)} files to {directory}/")
    say(f"\n  cd {directory}\n  python manage.py\n\nand in another terminal\n")
    say("  python manage.py queue greet name=you --wait\n  python -m pytest")
    return 0
