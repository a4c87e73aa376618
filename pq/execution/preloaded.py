"""Imported by a fork server, and by nothing else: it must outlive the signals of a service manager.

systemd signals every process of a service. A fork server that ends at SIGTERM looks to `multiprocessing` like the death
of all its children: workers that drain would be taken for dead, and their tasks run a second time beside them.
"""

from __future__ import annotations

import signal
import sys

from .signals import disregard


def in_fork_server() -> bool:
    """Return True in the process that `multiprocessing` starts to fork others."""
    return any("multiprocessing.forkserver import main" in word for word in sys.orig_argv)


if in_fork_server():
    disregard(signal.SIGTERM)
