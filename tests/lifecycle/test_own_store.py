"""A server on an own store, by flag, by variable and by config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import Serve

from pq.api import Producer, PulsarQueue

pytestmark = pytest.mark.lifecycle

JOBS = """\
from pq import api

@api.job()
def addition(a, b):
    return a + b
"""


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_the_same_program_on_a_store_of_one_s_own(
    project: Path, api: Producer, serve: Serve, valkey: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Nothing is embedded then: no `.pq` is made, and the tasks are in that store."""
    if way == "flag":
        server = serve("-w", "1", "--data-store", valkey.url)
        application = PulsarQueue(config="config.py", data_store=valkey.url)
    elif way == "variable":
        monkeypatch.setenv("PQ_DATA_STORE", valkey.url)
        server = serve("-w", "1", env={"PQ_DATA_STORE": valkey.url})
        application = PulsarQueue(config="config.py")
    else:
        (project / "config.py").write_text(f'task_paths = ["jobs"]\ndata_store = "{valkey.url}"\n')
        server = serve("-w", "1")
        application = PulsarQueue(config="config.py")
    other = application.api()
    task = other.tasks.queue("addition", a=4, b=6).wait(20)
    assert (task.get(), valkey.client.exists(f"pq:{{default}}:task:{task.id}")) == (10, 1)
    other.close()
    assert server.stop() == 0
    assert not (project / ".pq").exists()
