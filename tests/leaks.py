"""Leftovers of a test in its own process: threads, descriptors, children, asyncio tasks.

`conftest.py` looks at them before and after every test. Leftovers that take a moment to end get one. Keys in the store
are looked at by the fixtures of the stores. A store's server may outlive a test, since most are of the session; those
are looked for when the session ends.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing.forkserver as forkserver
import multiprocessing.resource_tracker as resource_tracker
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pq.loops import loop_factory

PATIENCE = 10.0
"""Seconds that leftovers have to end by themselves."""

_FDS = Path("/proc/self/fd")
_THREADS = Path("/proc/self/task")

left_tasks: list[str] = []
"""Asyncio tasks that were pending still when the loop of a test was closed."""


@dataclass
class Look:
    """The existing ones. Empty where `/proc` is missing."""

    threads: set[threading.Thread]
    descriptors: dict[int, str]
    children: set[int]


def look() -> Look:
    """Return what exists now. Costs about a millisecond."""
    return Look(set(threading.enumerate()), _descriptors(), _children())


def left_since(before: Look) -> list[str]:
    """Return what is new, a line each; wait a while for it to go away. A store's server may stay."""
    deadline = time.monotonic() + PATIENCE
    collected = False
    while True:
        found = _more(before)
        if not found or time.monotonic() > deadline:
            break
        if not collected:  # an object in a cycle of references is not left, it is not gone yet
            collected = True
            gc.collect()
        time.sleep(0.01)
    found += [f"asyncio task {text}" for text in left_tasks]
    left_tasks.clear()
    return found


def _more(before: Look) -> list[str]:
    found = [f"thread {thread.name}" for thread in threading.enumerate() if thread not in before.threads]
    helpers = {fd for fd in _fds_of_helpers() if fd is not None}
    found += [
        f"descriptor {fd} {what}"
        for fd, what in _descriptors().items()
        if before.descriptors.get(fd) != what and fd not in helpers
    ]
    children = {pid: _named(pid) for pid in _children() - before.children if not _is_helper(pid)}
    found += [f"child {pid} {name[:80]}" for pid, name in children.items() if not _is_store(name)]
    return found


def stores_left() -> list[str]:
    """Servers of stores that run still; for the end of all tests."""
    return [f"{pid} {name[:80]}" for pid in _children() if _is_store(name := _named(pid))]


def _fds_of_helpers() -> Iterable[int | None]:
    """Return the descriptors of the two processes that `multiprocessing` keeps while this one lives."""
    yield resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
    yield forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]


def _is_helper(pid: int) -> bool:
    return pid in (
        resource_tracker._resource_tracker._pid,  # type: ignore[attr-defined]
        forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]
    )


def _descriptors() -> dict[int, str]:
    found = {}
    try:
        names = os.listdir(_FDS)
    except OSError:
        return {}
    for name in names:
        try:
            found[int(name)] = os.readlink(_FDS / name)
        except OSError:
            pass  # the one that the directory was read with
    return found


def _children() -> set[int]:
    found: set[int] = set()
    try:
        for thread in os.listdir(_THREADS):
            try:
                found.update(map(int, (_THREADS / thread / "children").read_text().split()))
            except OSError:
                pass  # the thread has ended, or the kernel does not show it
    except OSError:
        pass
    return found


def _named(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "?"


def _is_store(name: str) -> bool:
    return "valkey-server" in name or "redis-server" in name or "unixsocket:" in name


def warm_up() -> None:
    """Make the things that a process makes once, at its first loop, before the first test."""
    loop = loop_factory()()
    loop.run_until_complete(asyncio.sleep(0))
    loop.add_signal_handler(signal.SIGUSR2, int)
    loop.remove_signal_handler(signal.SIGUSR2)
    loop.close()


def watch_loops() -> None:
    """Note which tasks a loop is closed over. `asyncio.Runner` cancels them without a report."""
    runners = asyncio.runners
    cancel_all = runners._cancel_all_tasks  # type: ignore[attr-defined]

    def noted(loop: asyncio.AbstractEventLoop) -> None:
        left_tasks.extend(repr(task)[:200] for task in asyncio.all_tasks(loop))
        cancel_all(loop)

    runners._cancel_all_tasks = noted  # type: ignore[attr-defined]
