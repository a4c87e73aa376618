"""The measured application. Variables (`PQ_…`) name the store and the namespace of a server."""

from __future__ import annotations

from typing import Any

from pq.api import PulsarQueue


def app(**settings: Any) -> PulsarQueue:
    """Return an application with default settings, except for those here and in flags and variables."""
    return PulsarQueue(**{"task_paths": ["jobs"], **settings})


if __name__ == "__main__":
    app().start()
