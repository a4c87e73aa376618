"""The tour: `./run demo`, `python manage.py demo`, `pq demo`.

It starts a real server with two workers on a store of its own, in a temporary directory, and does with it
what the documentation says can be done: quick tasks, a hundred at once, a long computation with its
progress, a worker killed in the middle of a task, a delayed task. Nothing is staged: each line is an
answer of the public api, each time was measured just now. At the end all of it is stopped and removed.

    tour.py     the steps
    server.py   the server of the tour: started, watched, stopped
    screen.py   lines and bars, on a terminal or in a file
    app.py      the application that the server runs
    jobs.py     its jobs
"""

from __future__ import annotations

from ..cli import Command, VerbParser


def run(command: Command) -> int:
    """The verb `demo`. 0 when every step did what it should."""
    VerbParser(command, "a tour: a server, workers and a few tasks").parse(command.argv)
    from .tour import tour  # asyncio and all that: not for `demo --help`

    return tour(command)
