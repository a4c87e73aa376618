"""The fork server: a helper process that has imported this package already, and forks workers.

A worker that it forks starts in milliseconds, because it imports nothing of this package again. The helper
holds no module of the user: each worker imports those itself, so a reload takes their new code. This module
imports next to nothing, so the helper starts first and imports while the supervisor does the same.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util


def start_method() -> str:
    """Return how this platform starts processes, as `multiprocessing` names it."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def prepare() -> None:
    """Start the helper process; twice is harmless."""
    if start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    # Made here, the directory belongs to the supervisor and its workers share it. A worker that made one of
    # its own and was killed would leave it behind.
    multiprocessing.util.get_temp_dir()
    forkserver.set_forkserver_preload(["pq.execution.preloaded", "pq.server.worker_process"])
    forkserver.ensure_running()
