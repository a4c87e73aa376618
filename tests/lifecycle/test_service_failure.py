"""A service of a worker that ends is the death of the worker: charged, so that its cause is found."""

from __future__ import annotations

import re

import pytest
from servers import Serve

from pq.api import Producer
from pq.errors import TaskCrashed

JOBS = """\
from pq import api
from pq.worker.dispatch import Dispatch

start = Dispatch.start

def raises(self, tasks):
    if any(b"poison" in each.record and each.crashes < 3 for each in tasks):
        raise ZeroDivisionError("a fault of the consumer")
    return start(self, tasks)

Dispatch.start = raises

@api.job()
async def poison(self):
    return "never"

@api.job()
async def fine(self, n):
    return n
"""


@pytest.mark.lifecycle
def test_a_task_that_ends_the_consumer_is_set_aside(api: Producer, serve: Serve) -> None:
    """Three workers die with it, and the tasks beside and behind it run."""
    server = serve("-w", "1").ready(1)
    before = api.tasks.queue("fine", 1)
    assert before.wait(30).get() == 1
    poison = api.tasks.queue("poison")
    behind = api.tasks.queue("fine", 2)
    with pytest.raises(TaskCrashed, match="3 workers died"):
        poison.wait(60).get()
    assert behind.wait(60).get() == 2
    assert len(server.wait_for(r"died: exit code 4")) <= 3
    assert re.search(r"the consumer of w\d+ has ended; the worker process exits", server.log)
    assert server.stop() == 0
