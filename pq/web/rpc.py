"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification) on the table of calls."""

from __future__ import annotations

import json
import logging
from typing import Any

from ..errors import BadArguments, PqError
from .calls import Calls, NoSuchCall

logger = logging.getLogger("pq.web")

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL, REFUSED = (
    -32700, -32600, -32601, -32602, -32603, -32000,
)  # fmt: skip
MOST = 1000
"""Requests in one batch."""


async def answer(calls: Calls, body: bytes) -> Any:
    """The answer to a body: one, a list of them for a batch, or None where nothing is to be answered."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return error(None, PARSE_ERROR, "the body is not JSON")
    if not isinstance(asked, list):
        return await _one(calls, asked)
    if not 0 < len(asked) <= MOST:
        return error(None, INVALID_REQUEST, f"a batch has 1 to {MOST} requests")
    answers = [await _one(calls, request) for request in asked]
    return [one for one in answers if one is not None] or None


async def _one(calls: Calls, request: Any) -> dict[str, Any] | None:
    """The answer to one request; None to a notification, which has no id."""
    if (
        not isinstance(request, dict)
        or request.get("jsonrpc") != "2.0"
        or type(request.get("method")) is not str
    ):
        id = request.get("id") if isinstance(request, dict) else None
        return error(
            id if isinstance(id, (str, int)) else None,
            INVALID_REQUEST,
            'a request is {"jsonrpc": "2.0", "method": …, "params": …, "id": …}',
        )
    id, params = request.get("id"), request.get("params", {})
    if id is not None and type(id) not in (str, int, float):
        return error(None, INVALID_REQUEST, "the id is a text or a number")
    if not isinstance(params, (list, dict)):
        return error(id, INVALID_PARAMS, "params is a list or an object")
    try:
        args, kwargs = (params, {}) if isinstance(params, list) else ([], params)
        result = await calls.call(request["method"], args, kwargs)
    except PqError as exc:
        code = (
            NO_METHOD
            if isinstance(exc, NoSuchCall)
            else INVALID_PARAMS
            if isinstance(exc, BadArguments)
            else REFUSED
        )
        told = error(id, code, exc.message, {"slug": exc.slug, "hint": exc.hint})
    except Exception:
        logger.exception("the call %r failed", request["method"])
        told = error(id, INTERNAL, "the call failed; the log of the web server says why")
    else:
        told = {"jsonrpc": "2.0", "result": result, "id": id}
    return told if "id" in request else None


def error(id: Any, code: int, message: str, data: Any = None) -> dict[str, Any]:
    """An error as the specification has it."""
    told: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        told["data"] = data
    return {"jsonrpc": "2.0", "error": told, "id": id}
