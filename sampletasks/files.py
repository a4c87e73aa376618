"""A thread job: for code that blocks while it waits for a disk or a network."""

from pathlib import Path

from pq import api


@api.job(concurrency=api.THREAD_IO, timeout=30)
def count_lines(self: api.Job, path: str) -> int:
    """Count the lines of a file. If the file is missing, the task is a FAILURE with its name."""
    with Path(path).open("rb") as file:
        return sum(1 for _ in file)
