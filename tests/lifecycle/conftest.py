"""Fixtures of these tests; what they are made of is in `servers`."""

from __future__ import annotations

from servers import project, serve

__all__ = ["project", "serve"]
