"""Applications and workers for the tests on fleets."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pq.api import PulsarQueue

MakeApp = Callable[..., PulsarQueue]


@pytest.fixture
def make_app(request: pytest.FixtureRequest) -> MakeApp:
    """Make an application with the jobs of the test's module."""
    module: ModuleType = request.module

    def make(url: str, **settings: Any) -> PulsarQueue:
        defaults = {"data_store": url, "task_paths": [module.__name__], "node_name": "here", "lease": 5.0}
        return PulsarQueue(**{**defaults, **settings})

    return make
