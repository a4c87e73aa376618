"""Where that goes which tasks log and print: to the handlers of the program, as if logged in it.

A record goes to the logger of its own name, whose level, filters and handlers decide as always. An
application may have handlers at a logger of its own alone (Flask has, at `app.logger`); that one can be
given as the fallback, for all whose own logger finds no handler.

Printed text has no level. It is logged where a handler takes it, and printed
where not, so that a small script shows what its tasks print with no logging set up.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from ..execution import log_records

LOGGER = "pq.local"


class Logs:
    """The way to the program's handlers. `fallback`: for what its own logger has no handlers for."""

    def __init__(self, fallback: logging.Logger | None = None) -> None:
        self._fallback = fallback

    def levels(self) -> dict[str, int]:
        """Return the levels for a child, which need not send records that no handler here takes."""
        known = log_records.levels()
        if self._fallback is not None:
            known[""] = min(known[""], self._fallback.getEffectiveLevel())
        return known

    def say(self, level: int, text: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Log something of the queue's own."""
        taker = self._taker(LOGGER, level)
        if taker is not None:
            info = (type(exc_info), exc_info, exc_info.__traceback__) if exc_info is not None else None
            taker.handle(logging.getLogger(LOGGER).makeRecord(LOGGER, level, __file__, 0, text, args, info))

    def logged(self, data: bytes) -> None:
        """A record that was logged in a child."""
        record = log_records.unpack(data)
        taker = self._taker(record.name, record.levelno)
        if taker is not None:
            taker.handle(record)

    def printed(self, pid: int, level: int, line: str) -> None:
        """A line that was printed there: INFO is standard output, WARNING standard error."""
        name, stream = ("stderr", sys.stderr) if level > logging.INFO else ("stdout", sys.stdout)
        taker = self._taker(f"{LOGGER}.{name}", level)
        if taker is not None and taker.hasHandlers():
            facts = {"name": f"{LOGGER}.{name}", "levelno": level, "levelname": logging.getLevelName(level)}
            taker.handle(logging.makeLogRecord({**facts, "msg": line, "process": pid}))
        elif stream is not None:
            stream.write(f"{line}\n")
            stream.flush()

    def _taker(self, name: str, level: int) -> logging.Logger | None:
        """The logger that has the say about such records; None when it does not want this one."""
        logger = logging.getLogger(name)
        if self._fallback is not None and not logger.hasHandlers():
            logger = self._fallback
        return logger if logger.isEnabledFor(level) else None
