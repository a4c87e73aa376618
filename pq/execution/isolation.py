"""Isolation of a child process: it depends on its parent alone, and dies with it.

*Loose*: a session and process group of its own, so that Ctrl-C in the terminal reaches the server
alone. SIGINT and SIGTERM have no effect, because a service manager signals every process of a service and a
running task may finish while its server drains; what the job starts reacts to them as usual. Standard output
and error become pipes to the parent, at the level of descriptors, so that C libraries and programs that a job
starts write there too.

*Dies with it*: a parent that is killed cannot end its children, and a child that goes on computing would work
beside the second attempt of its own task. So the child holds the read end of a pipe whose write end
only the parent has (multiprocessing makes it for every process). On Linux the kernel is asked to send
SIGKILL to the child's whole group when that pipe closes, which works even while C code holds the
interpreter; elsewhere, and besides, a thread waits for the end of the pipe.
"""

from __future__ import annotations

import faulthandler
import fcntl
import multiprocessing.process
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import TextIO

from .signals import disregard


def isolate(stdout: Connection, stderr: Connection) -> None:
    """Do all of it. Called first in the child."""
    os.setsid()
    _die_with_parent()
    _reset_signals()
    sys.stdout = _redirect(1, stdout)
    sys.stderr = _redirect(2, stderr)
    # A child that segfaults says where; the parent finds these last words in the pipe.
    faulthandler.enable(all_threads=False)


def leave_removed_directory() -> str | None:
    """Go to the directory that the program started in, where the current one was removed; return it then.

    multiprocessing starts no process without a current directory, and a job in a warm child would have none either.
    """
    try:
        os.getcwd()
    except OSError:
        home = getattr(multiprocessing.process, "ORIGINAL_DIR", None)
        if home is None or not os.path.isdir(home):
            home = os.sep
        os.chdir(home)
        return str(home)
    return None


def _redirect(descriptor: int, pipe: Connection) -> TextIO:
    os.dup2(pipe.fileno(), descriptor)
    pipe.close()
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # A handler that a Python program installed came along in the fork, and belongs to the parent.
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    disregard(signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process started by multiprocessing has a parent to die with"
    pipe = parent.sentinel
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    # Started after the kernel was asked: a parent that was gone before is noticed here.
    threading.Thread(target=_watch, args=(pipe,), name="pq-parent-watch", daemon=True).start()


def _watch(pipe: int) -> None:
    try:
        os.read(pipe, 1)
    finally:
        os.killpg(0, signal.SIGKILL)
