"""Fixtures of these tests; their parts are in `servers`."""

from __future__ import annotations

from servers import api, project, serve

__all__ = ["api", "project", "serve"]
