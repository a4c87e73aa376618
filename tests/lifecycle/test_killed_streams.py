"""A stream whose worker is killed in the middle: the reader gets an error, and the next attempt is whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from servers import Serve

from pq.api import Producer
from pq.errors import StreamRestarted

pytestmark = pytest.mark.lifecycle

JOBS = """\
import asyncio, os
from pq import api

@api.job()
async def counts(self):
    for number in range(20):
        await self.stream([number, os.getpid()])
        if number == 9 and not os.path.exists("killed"):
            await asyncio.sleep(3600)
    return "done"
"""


def test_a_stream_of_a_killed_worker_starts_again(serve: Serve, api: Producer) -> None:
    """Parts of the first attempt do not count; the second begins at its beginning, and is whole."""
    serve("-w", "2").ready(2)
    future = api.tasks.queue("counts")
    stream = api.tasks.stream(future)
    first = [next(stream) for _ in range(10)]
    Path("killed").touch()
    os.kill(first[0][1], signal.SIGKILL)
    with pytest.raises(StreamRestarted, match="started again"):
        next(stream)
    second = list(stream)
    task = future.wait(60)
    assert [number for number, _ in second] == list(range(20))
    assert {pid for _, pid in second}.isdisjoint({pid for _, pid in first})
    assert (task.get(), task.run_info["streamed"], stream.attempts) == ("done", 20, 2)
