"""HTTP and JSON-RPC for an application's api (extra `web`): `asgi(app)` is an ASGI application to serve or to mount.

from pq.web import asgi

web = asgi(app(), token="…")          # uvicorn module:web
starlette.mount("/pq", asgi(app()))   # within another application
"""

from __future__ import annotations

from .http import asgi

__all__ = ["asgi"]
