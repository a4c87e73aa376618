"""Fixtures of these tests; what they are made of is in `servers`."""

from __future__ import annotations

from servers import api, project, serve

__all__ = ["api", "project", "serve"]
