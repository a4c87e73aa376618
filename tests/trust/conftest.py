"""Applications with keys on the test's own store, workers in the test's own loop, and real servers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from servers import project, serve

from pq.api import PulsarQueue

__all__ = ["project", "serve"]

MakeApp = Callable[..., PulsarQueue]


@pytest.fixture
def make_app(valkey: Any, request: pytest.FixtureRequest) -> MakeApp:
    """Make an application on the test's own empty store, with the jobs of the test's module."""
    module: ModuleType = request.module

    def make(**settings: Any) -> PulsarQueue:
        defaults = {"data_store": valkey.url, "task_paths": [module.__name__], "node_name": "here"}
        return PulsarQueue(**{**defaults, **settings})

    return make
