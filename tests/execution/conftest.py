"""Fixtures of the tests of `pq.execution`; this file also puts its folder on the path, for `execution_jobs`."""

from __future__ import annotations

import execution_jobs as jobs
import pytest
from execution_bench import Bench, ExecutionMode, until


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
async def executor(bench, mode: ExecutionMode):
    """A started executor of `mode`: a fixture or a parameter of the test module."""
    jobs.released.clear()
    executor = mode.make(bench)
    await executor.start()
    yield executor
    jobs.released.set()
    await executor.stop()
    await until(lambda: executor.leaked == 0, "the end of what a test left running")
    await until(lambda: not mode.threads(), "the end of the threads")
