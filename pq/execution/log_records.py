"""Log records that cross from a child to its parent, as what they are: with their logger, level and place.

The parent logs a record of its child as if it had been logged in itself: by the logger of that name, with its own
handlers, formatted once. So a child has one handler in place of all others (those that a module sets up when it is
imported are the parent's business) and sends the attributes of a record; the parent makes a record of them again.
A child of a program that lends it its own functions has the levels of the parent's loggers, too, as they were when
its task began.

What is not plain in a record becomes text on the way; nothing is pickled. Messages and tracebacks
are bounded, see `output.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import UnreadableMessage
from ..model.names import LIMITS
from ..model.payloads import load_payload
from ..model.serializers import MSGPACK
from .child_output import shorten

_LEFT = frozenset({"msg", "args", "message", "asctime", "exc_info"})
"""Attributes that others of the packed record stand for."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"msg", "exc_text"}
LARGEST = 524_288
"""Bytes of a packed record with its `extra`; a larger one is sent without."""
_NUMBERS = frozenset({int, float, bool, type(None)})
_formatter = logging.Formatter()


def levels() -> dict[str, int]:
    """The levels that were set in this process, by logger; that of the root is under ''."""
    found = {"": logging.root.level}
    # A copy: other threads make loggers at any time.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


def set_levels(known: Mapping[str, int]) -> None:
    """Set the levels that another process had; loggers whose level it has not any more get none."""
    global _known
    for name in _known.keys() - known.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in known.items():
        if _known.get(name) != level:
            logging.getLogger(name).setLevel(level)
    _known = dict(known)


_known: dict[str, int] = {}


def take_over(handler: logging.Handler) -> None:
    """Let `handler` have every record that this process logs."""

    def call_handlers(_: logging.Logger, record: logging.LogRecord) -> None:
        handler.handle(record)

    # Not a handler of the root: a module that configures logging when it is imported would take it away.
    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign, assignment]


def pack(record: logging.LogRecord) -> bytes:
    """The attributes of `record`, `extra` included, for `unpack` in another process."""
    facts = {name: _plain(value) for name, value in record.__dict__.items() if name not in _LEFT}
    facts["msg"] = shorten(record.getMessage())
    if record.exc_info and not record.exc_text:
        facts["exc_text"] = shorten(_formatter.formatException(record.exc_info), LIMITS.traceback)
    data = MSGPACK.dumps(facts)
    if len(data) > LARGEST:  # its `extra`: the rest is bounded
        data = MSGPACK.dumps({name: facts[name] for name in _STANDARD & facts.keys()})
    return data


def unpack(data: bytes) -> logging.LogRecord:
    """The record again. Raises `UnreadableMessage`."""
    facts = load_payload(MSGPACK, data)
    if type(facts) is not dict or type(facts.get("name")) is not str or type(facts.get("levelno")) is not int:
        raise UnreadableMessage("a log record is a mapping with a name and a level")
    return logging.makeLogRecord(facts)


def _plain(value: Any) -> Any:
    if type(value) in _NUMBERS:
        return value
    if type(value) is str:
        return shorten(value, LIMITS.traceback)
    try:
        MSGPACK.dumps(value)
    except Exception:
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        return shorten(str(value))
    except Exception as exc:
        return f"(its __str__ raised {type(exc).__name__})"
