"""The connection to the store under TLS: accepted certificates, and the errors of others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tls import Authority, tls_server

from pq import api as pq
from pq.broker.redis.broker import RedisBroker
from pq.errors import StoreError, StoreRefused


@pq.job()
async def waits(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


def url(port: int, *options: str, host: str = "localhost", scheme: str = "rediss") -> str:
    return f"{scheme}://:STOREPASS@{host}:{port}/0?{'&'.join(options)}".removesuffix("?")


async def refusal(make_app: Any, where: str) -> StoreRefused:
    """Return the errors of a producer, a worker, and the thread that renews its lease; all of them the same."""
    said = []
    async with asyncio.timeout(60):
        with pytest.raises(StoreRefused) as caught:
            async with make_app(data_store=where).api():
                pass
        said.append(caught.value)
        with pytest.raises(StoreRefused) as caught:
            await make_app(data_store=where).worker("w1").start()
        said.append(caught.value)
        renewer = RedisBroker(where).renewer()
        with pytest.raises(StoreRefused) as caught:
            await asyncio.to_thread(renewer.renew, "lease", ["default"], 1000)
        said.append(caught.value)
        await asyncio.to_thread(renewer.close)  # its loop is its thread's
    for error in said:
        assert "STOREPASS" not in f"{error} {error.hint}"
    return said[0]


@pytest.fixture
def password(valkey: Any) -> Any:
    valkey.client.config_set("requirepass", "STOREPASS")
    yield
    valkey.client.config_set("requirepass", "")


async def test_a_worker_that_lives_longer_than_its_lease(
    authority: Authority, make_app: Any, start_worker: Any, valkey: Any, password: None
) -> None:
    """With our authority in the URL; the thread's own connection renews the lease."""
    async with tls_server(valkey.url, authority.issue("localhost")) as port:
        app = make_app(data_store=url(port, f"ssl_ca_certs={authority.path}"), lease=0.6)
        worker = await start_worker(app)
        async with app.api() as api, asyncio.timeout(60):
            assert (await api.tasks.queue("waits", 1.5)).get() == "done"
        await worker.stop(grace=0.0)


async def test_an_unknown_authority(authority: Authority, make_app: Any, valkey: Any) -> None:
    async with tls_server(valkey.url, authority.issue("localhost")) as port:
        error = await refusal(make_app, url(port))
        assert "its certificate is not trusted" in error.message
        assert "ssl_ca_certs=/path/ca.pem" in (error.hint or "")


async def test_another_authority(authority: Authority, make_app: Any, valkey: Any, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "another")
    async with tls_server(valkey.url, authority.issue("localhost")) as port:
        error = await refusal(make_app, url(port, f"ssl_ca_certs={other.path}"))
        assert "its certificate is not trusted" in error.message


async def test_an_expired_certificate(authority: Authority, make_app: Any, valkey: Any) -> None:
    async with tls_server(valkey.url, authority.issue("localhost", days=-1)) as port:
        error = await refusal(make_app, url(port, f"ssl_ca_certs={authority.path}"))
        assert "its certificate has expired" in error.message
        assert "renew" in (error.hint or "")


async def test_a_certificate_of_another_host(authority: Authority, make_app: Any, valkey: Any) -> None:
    async with tls_server(valkey.url, authority.issue("elsewhere.example.org")) as port:
        error = await refusal(make_app, url(port, f"ssl_ca_certs={authority.path}"))
        assert "its certificate is for another host" in error.message
        assert "ssl_check_hostname=false" in (error.hint or "")


async def test_a_tunnel_whose_name_is_not_looked_at(
    authority: Authority, make_app: Any, start_worker: Any, valkey: Any, password: None
) -> None:
    async with tls_server(valkey.url, authority.issue("elsewhere.example.org")) as port:
        where = url(port, f"ssl_ca_certs={authority.path}", "ssl_check_hostname=false")
        app = make_app(data_store=where, lease=0.6)
        worker = await start_worker(app)
        async with app.api() as api, asyncio.timeout(60):
            assert (await api.tasks.queue("waits", 1.0)).get() == "done"
        await worker.stop(grace=0.0)


async def test_certificates_of_clients(
    authority: Authority, make_app: Any, start_worker: Any, valkey: Any, password: None
) -> None:
    """A server that asks for one gets it, from the thread too; without one the error says what is missing."""
    certificate, key = authority.issue("client")
    issued = authority.issue("localhost")
    async with tls_server(valkey.url, issued, client_ca=authority.path) as port:
        ours = f"ssl_ca_certs={authority.path}"
        app = make_app(
            data_store=url(port, ours, f"ssl_certfile={certificate}", f"ssl_keyfile={key}"), lease=0.6
        )
        worker = await start_worker(app)
        async with app.api() as api, asyncio.timeout(60):
            assert (await api.tasks.queue("waits", 1.0)).get() == "done"
        await worker.stop(grace=0.0)
        with pytest.raises(StoreError) as caught:
            async with asyncio.timeout(60), make_app(data_store=url(port, ours)).api():
                pass
        assert "certificate of ours" in f"{caught.value} {caught.value.hint}"
        assert "ssl_certfile=" in (caught.value.hint or "")


async def test_a_port_without_tls(make_app: Any, valkey: Any) -> None:
    """`rediss://` where `redis://` is meant."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR no TLS here\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "localhost", 0)
    try:
        error = await refusal(make_app, url(server.sockets[0].getsockname()[1]))
    finally:
        server.close()
    assert "does not speak TLS" in error.message
    assert "redis://" in (error.hint or "")


async def test_a_file_that_is_not_there(authority: Authority, make_app: Any, valkey: Any) -> None:
    async with tls_server(valkey.url, authority.issue("localhost")) as port:
        error = await refusal(make_app, url(port, "ssl_ca_certs=/nowhere.pem"))
    assert "names a file that is not there" in error.message
