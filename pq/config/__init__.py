"""Settings: declared once in `settings`, checked by `parsers`, brought together by `load`."""

from .load import load
from .parsers import WorkerRange, redact
from .settings import SETTINGS, Setting, Settings

__all__ = ["SETTINGS", "Setting", "Settings", "WorkerRange", "load", "redact"]
