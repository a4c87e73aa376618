"""Applications on the test's own store that put large messages into a directory of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pq.api import PulsarQueue

MakeApp = Callable[..., PulsarQueue]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory that is shared."""
    place = tmp_path / "large"
    place.mkdir()
    return place


@pytest.fixture
def make_app(valkey: Any, place: Path, request: pytest.FixtureRequest) -> MakeApp:
    """Make an application with the jobs of the test's module; `aside=False`: one without the setting."""
    module: ModuleType = request.module

    def make(*, aside: bool = True, **settings: Any) -> PulsarQueue:
        defaults = {"data_store": valkey.url, "task_paths": [module.__name__], "node_name": "here"}
        if aside:
            defaults |= {"large_above": 10_000, "large_dir": str(place)}
        return PulsarQueue(**{**defaults, **settings})

    return make
