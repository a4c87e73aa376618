"""The ASGI application: JSON-RPC at `/rpc`, and the same calls as resources.

A request is authorized before its body is read. With a token, the caller has to send it. Without one, only a program
on this machine that asks for this machine by name may call: a web page that is open here could send requests to
127.0.0.1 as well, under a name of its own that points there, or as a form; so the `Host` header must be that
of this machine, and a body must say that it is JSON, which no form can.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import (
    BadArguments,
    InvalidValue,
    PayloadTooLarge,
    PqError,
    QueueFull,
    StoreError,
    TaskNotAvailable,
)
from ..producer.producer import Producer
from . import rpc
from .calls import Calls, NoSuchCall, NoSuchTask

logger = logging.getLogger("pq.web")

HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})

STATUS: tuple[tuple[type[PqError], int], ...] = (
    (NoSuchTask, 404),
    (NoSuchCall, 404),
    (TaskNotAvailable, 404),
    (PayloadTooLarge, 413),
    (BadArguments, 422),
    (InvalidValue, 422),
    (QueueFull, 503),
    (StoreError, 503),
)

Endpoint = Callable[[Request], Awaitable[Response]]


def asgi(app: Any, *, token: str | None = None) -> Starlette:
    """An ASGI application for `app`: a `PulsarQueue`, or an api of one.

    Args:
        token: callers have to send `Authorization: Bearer <token>`; None: calls come from this machine
            alone. Behind a proxy on this machine every call does, so use a token there.

    Raises `InvalidValue` for a token that is too short to be one.
    """
    if token is not None and len(token) < 16:
        raise InvalidValue(
            "a token has 16 characters or more",
            hint="python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    api: Producer = app if isinstance(app, Producer) else app.api()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await api.close()

    calls = Calls(api)
    limit = api.max_message_size

    def resource(name: str, *, body: bool = False) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            arguments: dict[str, Any] = dict(request.path_params)
            arguments.update((key, _number(value)) for key, value in request.query_params.items())
            if body:
                arguments.update(await _object(request, limit))
            return JSONResponse(await calls.call(name, [], arguments), 201 if name == "queue" else 200)

        return endpoint

    async def json_rpc(request: Request) -> Response:
        answered = await rpc.answer(calls, await _body(request, limit))
        return Response(status_code=204) if answered is None else JSONResponse(answered)

    async def health(request: Request) -> Response:
        await api.tasks.store()
        living = len(await api.tasks.workers())
        return JSONResponse({"ok": True, "workers": living, "consumers": living})

    routes = [
        Route("/rpc", json_rpc, methods=["POST"]),
        Route("/health", health),
        Route("/jobs", resource("job_list")),
        Route("/tasks", resource("queue", body=True), methods=["POST"]),
        Route("/tasks", resource("search")),
        Route("/tasks/{id}", resource("get")),
        Route("/tasks/{id}", resource("cancel"), methods=["DELETE"]),
        Route("/tasks/{id}/retry", resource("retry"), methods=["POST"]),
        Route("/tasks/{id}/log", resource("log")),
        Route("/tasks/{id}/why", resource("why")),
        Route("/schedules", resource("schedules")),
        Route("/schedules/next", resource("next_scheduled")),
        Route("/queues", resource("queues")),
        Route("/workers", resource("workers")),
        Route("/consumers", resource("workers")),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={PqError: _explained, 404: _not_found, 405: _not_allowed},
    )


class Guard:
    """Refuse requests that are not authorized, before their body is read."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if self._token is not None:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
                return None
            challenge = {"WWW-Authenticate": "Bearer"}
            return _error(
                401, "unauthorized", "a token is needed", "send Authorization: Bearer <token>", challenge
            )
        client = (scope.get("client") or ("", 0))[0]
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if client not in ("127.0.0.1", "::1", "") or name not in HERE:
            return _error(
                403,
                "forbidden",
                "only this machine may call, as localhost",
                "set a token: asgi(app, token=…)",
            )
        if (
            scope["method"] == "POST"
            and headers.get(b"content-type", b"").split(b";")[0] != b"application/json"
        ):
            return _error(415, "not-json", "a body must be JSON", "send Content-Type: application/json")
        return None


async def _body(request: Request, limit: int) -> bytes:
    """Return the body, if it is not larger than a message may be."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise PayloadTooLarge(
                    f"the body has more than {limit:,} bytes", hint="max_message_size limits it"
                )
            parts.append(part)
    except ClientDisconnect:
        return b""
    return b"".join(parts)


async def _object(request: Request, limit: int) -> dict[str, Any]:
    body = await _body(request, limit)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadArguments(
            "the body is not a JSON object", hint='like {"job": "addition", "kwargs": {"a": 4}}'
        )
    return found


def _number(text: str) -> Any:
    """Return the parameters of a URL; texts such as `count=5` become numbers."""
    try:
        return json.loads(text) if text[:1] in "-0123456789" else text
    except ValueError:
        return text


def _error(
    status: int, slug: str, message: str, hint: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    return JSONResponse({"error": {"slug": slug, "message": message, "hint": hint}}, status, headers)


async def _explained(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, PqError)
    status = next((status for kind, status in STATUS if isinstance(exc, kind)), 400)
    return _error(status, exc.slug, exc.message, exc.hint)


async def _not_found(request: Request, exc: Exception) -> Response:
    return _error(
        404,
        "no-such-page",
        f"there is nothing at {request.url.path}",
        "GET /jobs, POST /tasks, GET /tasks/{id}, POST /rpc",
    )


async def _not_allowed(request: Request, exc: Exception) -> Response:
    return _error(405, "no-such-method", f"{request.method} makes no sense at {request.url.path}")
