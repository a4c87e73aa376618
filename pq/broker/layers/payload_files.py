"""The files of offloaded payloads on their disk. Every function here blocks: call it in a thread."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence

from ...errors import BadSetting

SWEPT_EVERY = 600.0
"""Seconds between two sweeps of one directory, whichever program sweeps."""


def make_place(directory: str, store: str) -> None:
    """Make the directory of a store in `large_dir`.

    Raises `BadSetting` where `large_dir` itself is missing: it may be a disk that is not mounted.
    """
    place = os.path.join(directory, store)
    try:
        if not os.path.isdir(directory):
            raise BadSetting(
                f"large_dir: {directory} is not there", hint="make it, on a disk that all programs share"
            )
        os.makedirs(place, 0o700, exist_ok=True)
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as exc:
        raise BadSetting(
            f"large_dir: {place} cannot be used: {exc.strerror}",
            hint="every program of this application reads and writes there, as the same user",
        ) from None


def write(path: str, data: bytes) -> None:
    """Write a file that is whole and on the disk when this returns, or missing. Raises `OSError`."""
    shard = os.path.dirname(path)
    os.makedirs(shard, 0o700, exist_ok=True)
    part = path + ".part"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    entries = os.open(shard, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def remove(paths: Sequence[str]) -> int:
    """Remove files; return how many there were."""
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
            removed += 1
    return removed


def begin_sweep(place: str) -> float | None:
    """Return the time by the clock of the disk; None when the directory was swept recently."""
    mark = os.path.join(place, "swept")
    before = os.stat(mark).st_mtime if os.path.exists(mark) else 0.0
    probe = f"{mark}.{os.urandom(8).hex()}"
    with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"):
        now = os.stat(probe).st_mtime
    if now - before < SWEPT_EVERY:
        os.unlink(probe)
        return None
    os.rename(probe, mark)
    return now


def old_files(shard: str, before: float) -> list[tuple[str, str, str]]:
    """Return (path, queue, id) of files that are older; of those that were never finished without a queue."""
    old: list[tuple[str, str, str]] = []
    with os.scandir(shard) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # gone meanwhile
                if not entry.is_file(follow_symlinks=False):
                    continue
                if entry.stat(follow_symlinks=False).st_mtime >= before:
                    continue
                if re.fullmatch(r"[0-9a-f]{32}\.part", entry.name):
                    old.append((entry.path, "", ""))
                elif re.fullmatch("[0-9a-f]{32}", entry.name):
                    with open(entry.path, "rb") as file:
                        try:
                            queue, id = json.loads(file.readline(4096))
                        except ValueError:
                            continue  # not one of ours
                    old.append((entry.path, str(queue), str(id)))
    return old
