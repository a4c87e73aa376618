"""Translation of the errors of redis-py, sockets and servers: what passes, what is refused, what is full.

`StoreUnavailable` is repeated by `pq.broker.redis.calls`; the other errors reach the caller, with a hint.
"""

from __future__ import annotations

from typing import Any

import redis.exceptions as redis_errors

from ...errors import QueueFull, StoreError, StoreRefused, StoreUnavailable


class ScriptMissing(StoreError):
    """The server does not know a script (any more): load it and repeat. Never leaves the broker."""


def checked(reply: Any, where: str, stated: str | None = None) -> Any:
    """Return `reply`; raise the error in it as one of ours."""
    if isinstance(reply, Exception):
        raise translate(reply, where, stated) from reply
    return reply


_STATED = "data_store (PQ_DATA_STORE)"


def _plainly(text: str) -> str:
    """Return in two words what sockets and redis-py say in many ways."""
    for words, plain in (
        (("Error 111 ", "Error 61 ", "Connection refused", "Connect call failed"), "connection refused"),
        (("Name or service not known", "nodename nor servname", "Temporary failure in name"), "no such host"),
        (("Error 2 ", "No such file"), "no such socket"),
    ):
        if any(word in text for word in words):
            return plain
    return text


# Beginnings of error texts that say "not now": the call may be repeated.
_PASSING = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "UNKILLABLE",
    "UNBLOCKED",  # it was a primary when the waiting began
)
REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "ERR AUTH", "ERR invalid password", "ERR DB index")


_CLIENT_CERTIFICATE = "ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key to the URL"
_TLS = (
    ("certificate has expired", "its certificate has expired", "renew it on the server"),
    (
        ("ostname mismatch", "is not valid for", "doesn't match"),
        "its certificate is for another host",
        "use the host name that is in it, or ssl_check_hostname=false for a tunnel",
    ),
    (
        ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"),
        "it does not speak TLS",
        "use redis:// for this port, or its TLS port",
    ),
    (
        ("CERTIFICATE_REQUIRED", "certificate required", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE"),
        "it asks for a client certificate",
        f"add {_CLIENT_CERTIFICATE}",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted",
        "name the authority that signed it: ssl_ca_certs=/path/ca.pem in the URL",
    ),
)


def _about_tls(text: str) -> tuple[str, str]:
    """Return what went wrong with TLS, in a few words, and what to do."""
    for words, why, what_to_do in _TLS:
        if any(word in text for word in ((words,) if isinstance(words, str) else words)):
            return f"{why} ({text})", what_to_do
    return f"TLS failed: {text}", "docs/how-to/security.md has the parameters of the URL"


def _about_connection(said: str, where: str, stated: str | None) -> StoreError:
    """Return the error for a connection that could not be made, or broke."""
    hint = f"start it, or remove {stated or _STATED} to use the embedded server"
    if said == "no such socket" and not where.startswith("unix"):  # with a port it can only be a file of TLS
        return StoreRefused(
            f"{where}: the URL names a file that is not there",
            hint=f"look at ssl_ca_certs, ssl_certfile and ssl_keyfile in {stated or _STATED}",
        )
    if "closed" in said and where.startswith(("rediss", "valkeys")):
        # So some servers say it, and one that ends does too.
        hint = f"if it asks for a certificate of ours, add {_CLIENT_CERTIFICATE}; else {hint}"
    return StoreUnavailable(f"no Redis or Valkey at {where}: {said}", hint=hint)


def translate(exc: BaseException, where: str, stated: str | None = None) -> StoreError:
    """Return the error of redis-py, the socket or the server as one of ours. `stated`: where its URL comes from.

    By text as well as by class: a script passes an error on as text, and servers differ in which.
    """
    if isinstance(exc, StoreError):
        return exc  # of the look-up of the server
    cause = exc.__cause__
    if cause is not None and isinstance(cause, redis_errors.RedisError):
        exc = cause  # a login that was refused comes wrapped as a connection that failed
    text = str(exc) or type(exc).__name__
    code = getattr(exc, "status_code", None)
    if isinstance(code, str) and not text.startswith(code):
        text = f"{code} {text}"  # redis-py takes the code off the text of the errors that it knows
    if isinstance(exc, redis_errors.NoScriptError) or "NOSCRIPT" in text:
        return ScriptMissing(text)
    if "PQFULL " in text:
        return QueueFull(
            text.partition("PQFULL ")[2], hint="let the workers catch up, or raise the limit of the queue"
        )
    if (
        isinstance(exc, redis_errors.OutOfMemoryError)
        or "OOM " in text
        or "used memory > 'maxmemory'" in text
    ):
        return QueueFull(
            f"the store at {where} is full: {text}",
            hint="let the workers catch up, give it more memory (maxmemory), or shorten result_ttl",
        )
    if isinstance(exc, redis_errors.AuthenticationError) or any(word in text for word in REFUSALS):
        return StoreRefused(
            f"{where} refused: {text}",
            hint=f"check user, password and rights in {stated or _STATED}; percent-encode @ : / in a password",
        )
    if "SSL" in text or "certificate" in text or "TLS" in text:
        why, what_to_do = _about_tls(text)
        return StoreRefused(f"{where}: {why}", hint=f"{what_to_do} [{stated or _STATED}]")
    if isinstance(exc, (redis_errors.ConnectionError, redis_errors.TimeoutError, TimeoutError, OSError)):
        return _about_connection(
            "no answer in time" if isinstance(exc, TimeoutError) else _plainly(text), where, stated
        )
    if any(word in text for word in _PASSING):
        return StoreUnavailable(f"{where} cannot serve now: {text}", hint="it is repeated until it can")
    return StoreError(f"{where}: {text}")
