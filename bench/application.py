"""The application that is measured. A server is told its store and its namespace by variables (`PQ_…`)."""

from __future__ import annotations

from typing import Any

from pq.api import PulsarQueue


def app(**settings: Any) -> PulsarQueue:
    """Default settings, but for what is said here, or by a flag or a variable."""
    return PulsarQueue(**{"task_paths": ["jobs"], **settings})


if __name__ == "__main__":
    app().start()
