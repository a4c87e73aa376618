"""Watch the source files of an application while its developer works on them (`--reload`).

Once a second a thread looks at the times and sizes of the Python files of the project, of the packages in
`task_paths` that lie elsewhere, and of the config file. It polls, because notifications of the system do not
work on every file system (a container's mounts). A change counts when no file has changed for a moment: an
editor writes twice, and a checkout writes hundreds of files.

Hidden directories (`.venv`, `.pq`, `.git`), `__pycache__`, virtual environments of any name, `site-packages`
and this library itself are left out: a server does not take new code of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

EVERY = 1.0
"""Seconds between two looks."""
STILL = 0.2
"""Seconds without another change after which a change counts."""
LONGEST = 5.0
"""Seconds after which a change counts even when files still change."""
SHOWN = 3
"""Changed files that a log line names; the rest is counted."""

Seen = dict[str, tuple[int, int]]
"""Paths, with the time (ns) and the size of each file."""

_OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_PYTHONS = sysconfig.get_path("stdlib") + os.sep
_SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})


class Sources:
    """The source files of an application.

    Args:
        config: its config file, whose directory is the project's; None: the current directory is.
        task_paths: called at each look, because a reload may change them.
    """

    def __init__(self, config: str | None, task_paths: Callable[[], Iterable[str]]) -> None:
        self._config = None if config is None else os.path.realpath(config)
        self._project = os.path.realpath(os.curdir if self._config is None else os.path.dirname(self._config))
        self._task_paths = task_paths

    async def changes(self) -> AsyncIterator[list[str]]:
        """Yield the paths that were changed, added or removed, each time that some were."""
        before, pause = await asyncio.to_thread(self.look), EVERY
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            now = await asyncio.to_thread(self.look)
            # A project of very many files is looked at less often: looking takes at most a tenth of the time.
            pause = max(EVERY, 10 * (time.monotonic() - began))
            if now == before:
                continue
            now = await self._still(now)
            changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
            before = now
            if changed:  # else the change was undone
                yield changed

    async def _still(self, seen: Seen) -> Seen:
        """Return the files as they are once no more of them change."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            await asyncio.sleep(STILL)
            now = await asyncio.to_thread(self.look)
            if now == seen:
                break
            seen = now
        return seen

    def look(self) -> Seen:
        """Return all files as they are now, without those that cannot be read."""
        seen: Seen = {}
        for root in self._roots():
            for path in _python_files(root) if os.path.isdir(root) else (root,):
                with contextlib.suppress(OSError):
                    facts = os.stat(path)
                    seen[path] = facts.st_mtime_ns, facts.st_size
        return seen

    def _roots(self) -> set[str]:
        """Return the directories and single files to look at."""
        roots = {self._project}
        if self._config is not None:
            roots.add(self._config)
        inside = self._project + os.sep
        for name in {path.partition(".")[0] for path in self._task_paths()}:
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError):  # not a module, or the program's script
                continue
            if spec is None:
                continue
            for place in spec.submodule_search_locations or [spec.origin or ""]:
                real = os.path.realpath(place)
                if not real.startswith((inside, _OURS, _PYTHONS)) and not _SKIPPED & set(Path(real).parts):
                    roots.add(real)
        return roots


def _python_files(directory: str) -> Iterator[str]:
    """Yield the Python files below `directory` that belong to the project."""
    for place, directories, files in os.walk(directory):
        directories[:] = [
            name
            for name in directories
            if not name.startswith(".")
            and name not in _SKIPPED
            and os.path.join(place, name) != _OURS
            and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        yield from (os.path.join(place, name) for name in files if name.endswith(".py") and name[0] != ".")


def named(paths: list[str]) -> str:
    """Return paths for a log line: `jobs/mail.py`, as seen from the current directory; of many the first few."""
    near = [os.path.relpath(path) for path in paths]
    shown = [short if not short.startswith("..") else path for short, path in zip(near, paths, strict=True)]
    more = len(shown) - SHOWN
    return ", ".join(shown[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def forget(paths: Iterable[str]) -> None:
    """Remove the compiled files of these sources.

    Python knows a compiled file by the source's size and whole second, so it would miss a second edit of the same
    length within one second.
    """
    for path in paths:
        with contextlib.suppress(OSError, NotImplementedError):
            os.unlink(importlib.util.cache_from_source(path))
