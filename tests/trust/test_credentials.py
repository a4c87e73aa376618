"""No code that mentions a URL shows its password, whatever the URL looks like."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pq.api import PulsarQueue
from pq.broker.connect import Store
from pq.broker.redis.broker import RedisBroker
from pq.broker.redis.failures import translate
from pq.config import Settings, load, redact
from pq.errors import PqError

SCHEMES = st.sampled_from(
    [
        "redis",
        "rediss",
        "valkey",
        "unix",
        "redis+sentinel",
        "redis+cluster",
        "smtp",
        "http",
        "REDIS",
        "wrong",
        "",
    ]
)
FEW = settings(max_examples=150, derandomize=True, deadline=None, database=None)
# The middle of the password is a word that is nowhere else; around it all that people forget to encode.
PASSWORDS = st.tuples(
    st.text("ab1@:/#?&=%+ ;é\\\"'\n", max_size=8), st.text("ab1@:/#?&=%+ ;é\\\"'\n", max_size=8)
).map(lambda ends: f"{ends[0]}S3CRET{ends[1]}")
HOSTS = st.sampled_from(
    ["host:6379/0", "localhost", "/run/valkey.sock", "[::1]:1", "a:1,b:2/0", "host:port/x", ""]
)


@FEW
@given(
    SCHEMES,
    st.sampled_from(["", "user", "us er"]),
    PASSWORDS,
    HOSTS,
    st.sampled_from(["", "?db=1", "?a=b@c"]),
)
@example("redis", "", "S3CRET/with?all#of@it:", "host:6379/0", "")
@example("", "", "S3CRET", "host", "?ssl=1")
def test_the_password_of_a_login(scheme: str, user: str, password: str, host: str, query: str) -> None:
    url = f"{scheme}://{user}:{password}@{host}{query}".removeprefix("://")
    assert "S3CRET" not in redact(url)
    assert "S3CRET" not in repr(redact(url))


@FEW
@given(
    st.sampled_from(
        [
            "password",
            "ssl_password",
            "PASSWORD",
            "token",
            "a_secret",
            "sslpassword",
            "passwd",
            "pwd",
            "api_key",
        ]
    ),
    st.text("ab1@:/%+ é", max_size=6),
    st.sampled_from(["", "&db=0", "&timeout=1&x=y@z"]),
)
def test_the_password_in_a_parameter(name: str, end: str, rest: str) -> None:
    assert "S3CRET" not in redact(f"redis://host:6379/0?x=1&{name}=S3CRET{end}{rest}")
    assert "S3CRET" not in redact(f"unix:///run/s?{name}=S3CRET{end}{rest}")


@FEW
@given(SCHEMES, PASSWORDS, HOSTS)
def test_errors_and_reprs(scheme: str, password: str, host: str) -> None:
    """Settings, a store, a broker, and the errors of a store hide it."""
    url = f"{scheme}://:{password}@{host}"
    said = []
    for name in ("data_store", "message_broker"):
        for how in (
            {"keywords": {name: url}},
            {"cli": {name: url}},
            {"environ": {f"PQ_{name.upper()}": url}},
        ):
            try:
                found = load(**{"environ": {}, **how})  # type: ignore[arg-type]
            except PqError as error:
                said += [str(error), error.hint or "", repr(error)]
                continue
            said.append(repr(found))
            try:
                store = Store(Settings(data_store=found.data_store), "config.py")
                said.append(repr(store))
                broker = RedisBroker(store.url)
                said += [repr(broker), broker.where]
                for exc in (ConnectionRefusedError(111, "Connect call failed"), TimeoutError(), OSError(url)):
                    if exc.args != (url,):
                        error = translate(exc, broker.where, "data_store")
                        said += [str(error), repr(error), error.hint or ""]
            except (PqError, ValueError) as error:
                said.append(str(error))
    assert not [text for text in said if "S3CRET" in text]


@pytest.mark.parametrize(
    "url", ["redis://:S3CRET@localhost:1/0", "redis://ann:S3CRET@localhost:1/0?password=S3CRET"]
)
async def test_an_app_whose_store_is_not_there(url: str) -> None:
    app = PulsarQueue(data_store=url)
    with pytest.raises(PqError) as caught:
        async with asyncio.timeout(60), app.api():
            pass
    whole = [f"{exc} {exc!r}" for exc in _chain(caught.value)]
    assert "S3CRET" not in " ".join([*whole, caught.value.hint or "", repr(app)])


def _chain(exc: BaseException | None) -> list[BaseException]:
    return [] if exc is None else [exc, *_chain(exc.__cause__), *_chain(exc.__context__)]
