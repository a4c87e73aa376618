"""The log of a server's process: standard error, and a file of its own where `log_dir` is set.

Each process writes to a file that no other writes to, so lines never mix and nobody waits for a lock:

    pq-supervisor-4120.log       the supervisor
    pq-worker-1-4123.log         a worker, and what its children print and log
    pq-worker-1-child-4130.log   what one child prints and logs, and the ends of its tasks

A child's lines are written by its worker, which has them all: also what is printed past Python's logging, the
last words of a child that died, and the end of the task that killed it. Its file is made with its first line.

Files are appended to. One that is moved away or removed (logrotate does that) is made anew by the next line.
What cannot be written is lost here and still on standard error: a log never hurts what it tells of.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TextIO

from ..config import Settings
from ..errors import BadSetting
from .formatters import ConsoleFormatter, HarmlessHandler, JsonFormatter, SafeHandler, configure

logger = logging.getLogger("pq.server")

MOST_OPEN = 16
"""Files of children that one worker keeps open; the one that was used least lately is closed first."""


def set_up(cfg: Settings, who: str, role: str, *, needed: bool = False) -> None:
    """Set up the log of this process, or set it up anew, under the name `who`.

    `role` is the part of the file's name that tells what the process is. Where the file cannot be made,
    that is a `BadSetting` if it is `needed`, and nothing was changed; else a warning.
    """
    files: list[HarmlessHandler] = []
    failure: str | None = None
    if cfg.log_dir is not None:
        stem = Path(cfg.log_dir, f"{cfg.name}-{role}")
        try:
            own = LogFile(Path(f"{stem}-{os.getpid()}.log"))
        except OSError as exc:
            failure = _why(cfg.log_dir, exc)
        else:
            own.setFormatter(_formatter(cfg, who))
            files = [ChildFiles(f"{stem}-child", cfg), own]
    if failure is not None and needed:
        source = cfg.sources.get("log_dir", "Settings")
        raise BadSetting(
            f"log_dir: {cfg.log_dir!r} ({source}) cannot be written: {failure}",
            hint="name a directory that this user may write to, or one that can be made: --log-dir logs",
        )
    configure(cfg.log_level, cfg.log_format, who, also=files)
    if failure is not None:
        logger.warning("this process has no log file: %s cannot be written: %s", cfg.log_dir, failure)


class LogFile(SafeHandler):
    """A file that lines are appended to. Raises `OSError` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._is_there():
                old, self.stream = self.stream, self._open()
                old.close()
        except OSError:
            pass  # what was moved away is better than nothing
        super().emit(record)

    def close(self) -> None:
        super().close()
        try:
            self.stream.close()
        except OSError:
            pass  # its last lines did not fit on the disk

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def _is_there(self) -> bool:
        """Whether the path still leads to the file that is open: a call of the system for each line."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self.stream.fileno()))
        except FileNotFoundError:
            return False


class ChildFiles(HarmlessHandler):
    """Hands each record that is a child's to the file of that child."""

    def __init__(self, stem: str, cfg: Settings) -> None:
        super().__init__()
        self._stem = stem
        self._cfg = cfg
        self._files: dict[int, LogFile] = {}

    def emit(self, record: logging.LogRecord) -> None:
        pid = getattr(record, "child", None)
        if not isinstance(pid, int):
            return
        try:
            # Taken out and put back: a dictionary keeps the order, so the first one is the least lately used.
            file = self._files.pop(pid, None) or self._made(pid)
            self._files[pid] = file
            file.emit(record)
            if len(self._files) > MOST_OPEN:
                self._files.pop(next(iter(self._files))).close()
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        super().close()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _made(self, pid: int) -> LogFile:
        file = LogFile(Path(f"{self._stem}-{pid}.log"))
        file.setFormatter(_formatter(self._cfg, str(pid)))
        return file


def _formatter(cfg: Settings, who: str) -> logging.Formatter:
    return JsonFormatter(who) if cfg.log_format == "json" else ConsoleFormatter(who, dated=True)


def _why(directory: str, exc: OSError) -> str:
    """What is wrong with the directory, in a few words."""
    if isinstance(exc, FileExistsError) or (
        exc.filename == directory and isinstance(exc, NotADirectoryError)
    ):
        return "Not a directory"
    place = "" if exc.filename in (None, directory) else f" ({exc.filename})"
    return f"{exc.strerror or exc}{place}"
