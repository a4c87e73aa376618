"""The tour: `./run demo`, `python manage.py demo`, `pq demo`.

It starts a real server with two workers on a store of its own, in a temporary directory, and shows what the
documentation describes: quick tasks, a hundred at once, a long computation with its progress, a worker killed in the
middle of a task, a delayed task. Each line is an answer of the public api, each time is measured. At the end the server
stops and its data are removed.
"""

from __future__ import annotations

from ..cli import Command, VerbParser


def run(command: Command) -> int:
    """The verb `demo`. 0 when every step did what it should."""
    VerbParser(command, "a tour: a server, workers and a few tasks").parse(command.argv)
    from .tour import tour  # asyncio and all that: not for `demo --help`

    return tour(command)
