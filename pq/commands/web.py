"""The verb `web`: serve the api over HTTP."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from ..cli import Command, UsageError, VerbParser
from ..errors import BadSetting, ExtraNeeded, PortInUse
from .terminal import note

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
        raise UsageError(f"{wanted.port} is not a port", hint="use 1 to 65535, or 0 for any that is free")
    try:
        import uvicorn

        from ..web import asgi
    except ImportError as exc:
        raise ExtraNeeded(f"pq web needs {exc.name}", hint="pip install 'pq-tasks[web]'") from None
    app: Any = asgi(command.application, token=token)
    listening = _listen(wanted.host, wanted.port)
    port = listening.getsockname()[1]
    note(f"http://{wanted.host}:{port}/jobs · JSON-RPC at /rpc · {'with' if token else 'without'} a token")
    server = uvicorn.Server(
        uvicorn.Config(app, host=wanted.host, port=port, log_level="warning", access_log=False)
    )
    with listening:
        server.run(sockets=[listening])
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `PortInUse`, or `BadSetting` for an address of another machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as exc:
        listening.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"another program listens on {host}:{port}", hint=f"use another port: --port {port + 1}"
            ) from None
        raise BadSetting(f"nothing can listen on {host}:{port}: {exc.strerror or exc}") from None
    return listening
