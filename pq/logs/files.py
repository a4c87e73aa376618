"""Set up the log of a server's process: standard error, and a file of its own where `log_dir` is set.

Each process writes to a file of its own, so lines never mix and no process waits for a lock:

    pq-supervisor-4120.log       the supervisor
    pq-worker-1-4123.log         a worker, and what its children print and log
    pq-worker-1-child-4130.log   what one child prints and logs, and the ends of its tasks

A worker writes the lines of its children, because it has all of them: prints that bypass Python's logging, the
last output of a child that died, and the end of the task that killed it. The file is made with its first line.

Files are appended to. A file that is moved away or removed (by logrotate) is made again by the next line.
A line that cannot be written to its file is still on standard error: logging never harms the server.
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
"""Files of children that one worker keeps open; the least recently used is closed first."""


def set_up(cfg: Settings, who: str, role: str, *, needed: bool = False) -> None:
    """Set up the log of this process under the name `who`; a second call replaces the first.

    `role` is the part of the file's name that says what the process is. Where the file cannot be made and is
    `needed`, raises `BadSetting` and changes nothing; where it is not, logs a warning.
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
            hint="name a directory that this user may write to or create: --log-dir logs",
        )
    configure(cfg.log_level, cfg.log_format, who, also=files)
    if failure is not None:
        logger.warning("this process has no log file: %s cannot be written: %s", cfg.log_dir, failure)


class LogFile(SafeHandler):
    """Append lines to a file. Raises `OSError` when the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._is_there():
                old, self.stream = self.stream, self._open()
                old.close()
        except OSError:
            pass  # the file that was moved away still takes the line
        super().emit(record)

    def close(self) -> None:
        super().close()
        try:
            self.stream.close()
        except OSError:
            pass  # the last lines did not fit on the disk

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def _is_there(self) -> bool:
        """Return whether the path still leads to the open file: a system call for each line."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self.stream.fileno()))
        except FileNotFoundError:
            return False


class ChildFiles(HarmlessHandler):
    """Write the records of each child to the file of that child."""

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
            # Taken out and put back: a dictionary keeps its order, so the first file is the least recently used.
            file = self._files.pop(pid, None) or self._new_file(pid)
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

    def _new_file(self, pid: int) -> LogFile:
        file = LogFile(Path(f"{self._stem}-{pid}.log"))
        file.setFormatter(_formatter(self._cfg, str(pid)))
        return file


def _formatter(cfg: Settings, who: str) -> logging.Formatter:
    return JsonFormatter(who) if cfg.log_format == "json" else ConsoleFormatter(who, dated=True)


def _why(directory: str, exc: OSError) -> str:
    """Return what is wrong with the directory, in a few words."""
    if isinstance(exc, FileExistsError) or (
        exc.filename == directory and isinstance(exc, NotADirectoryError)
    ):
        return "Not a directory"
    place = "" if exc.filename in (None, directory) else f" ({exc.filename})"
    return f"{exc.strerror or exc}{place}"
