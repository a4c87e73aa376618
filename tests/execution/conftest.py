"""Fixtures of the tests of `pq.execution`; this file also puts its folder on the path, for `execution_jobs`."""

from __future__ import annotations

import pytest
from execution_bench import Bench


@pytest.fixture
def bench():
    return Bench()
