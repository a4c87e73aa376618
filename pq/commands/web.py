"""The verb `web`: serve the api over HTTP."""

from __future__ import annotations

import os
from typing import Any

from ..cli import Command, UsageError, VerbParser
from ..errors import BadSetting, ExtraNeeded
from .common import note

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(command: Command) -> int:
    """`pq web --port 8080`."""
    parser = VerbParser(
        command, "serve the api over HTTP and JSON-RPC; from this machine alone, unless a token is set"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port (default 8080)")
    wanted = parser.parse(command.argv)
    token = os.environ.get("PQ_WEB_TOKEN") or None
    if wanted.host not in LOOPBACK and token is None:
        raise BadSetting(
            f"{wanted.host} can be reached by others, and no token is set",
            hint="set PQ_WEB_TOKEN, or leave --host out",
        )
    if not 0 <= wanted.port <= 65_535:
        raise UsageError(f"{wanted.port} is no port", hint="use 1 to 65535, or 0 for any that is free")
    try:
        import uvicorn

        from ..web import asgi
    except ImportError as exc:
        raise ExtraNeeded(f"pq web needs {exc.name}", hint="pip install 'pq-tasks[web]'") from None
    app: Any = asgi(command.application, token=token)
    note(
        f"http://{wanted.host}:{wanted.port}/jobs · JSON-RPC at /rpc · {'with' if token else 'without'} a token"
    )
    server = uvicorn.Server(
        uvicorn.Config(app, host=wanted.host, port=wanted.port, log_level="warning", access_log=False)
    )
    try:
        server.run()
    except SystemExit as exc:  # uvicorn's own way to say that it could not start
        raise BadSetting(
            f"nothing can listen on {wanted.host}:{wanted.port}: the address is in use, or not of this machine",
            hint="take another --port",
        ) from exc
    return 0 if server.started else 1
