"""Where worker processes come from: a helper that has imported us already, and forks.

A worker started by it is there in milliseconds, instead of importing everything anew. It holds modules of
ours alone: the user's are imported by each worker, so that a reload takes their new code. This module
imports next to nothing, so that the helper can be started first and get ready while the supervisor is
still importing what it needs itself.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util


def start_method() -> str:
    """How processes are started here."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def prepare() -> None:
    """Start the helper; twice is harmless."""
    if start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    # Made here, this directory is the supervisor's: workers use the same one, and one of them that is
    # killed leaves none behind.
    multiprocessing.util.get_temp_dir()
    forkserver.set_forkserver_preload(["pq.server.actor"])
    forkserver.ensure_running()
