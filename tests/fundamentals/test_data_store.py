"""Stores: by URL, over the network, a separate one for the queues, and the errors of impossible ones."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import Job


@pq.job()
def addition(self: Job, a: float = 0, b: float = 0) -> float:
    return a + b


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def tls_context(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and the certificate that it shows, made for this test."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.fixture
async def network_url(request: pytest.FixtureRequest, valkey: Any, tmp_path: Path) -> AsyncIterator[str]:
    """The test's store on a TCP port: of scheme `redis`, or of `rediss` with a certificate of its own."""
    scheme: str = request.param
    context, certificate = tls_context(tmp_path) if scheme == "rediss" else (None, None)
    carrying: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        for source, target in ((reader, there[1]), (there[0], writer)):
            carrying.add(task := asyncio.create_task(carry(source, target)))
            task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield f"{scheme}://localhost:{port}/0" + (f"?ssl_ca_certs={certificate}" if certificate else "")
    server.close()
    for task in list(carrying):
        task.cancel()
    await asyncio.gather(*carrying, return_exceptions=True)


@pytest.mark.parametrize("network_url", ["redis", "rediss"], indirect=True)
async def test_over_the_network(make_app: Any, start_worker: Any, network_url: str) -> None:
    """`redis://`, and `rediss://` with TLS: producer, worker and its lease keeper."""
    app = make_app(data_store=network_url)
    await start_worker(app)
    async with app.api() as api:
        assert [task.get() for task in await api.tasks.map("addition", range(20))] == list(range(20))
        assert (await api.tasks.queue("addition", a=1, delay=0.05)).get() == 1


@pytest.mark.parametrize("network_url", ["rediss"], indirect=True)
async def test_a_store_with_an_unknown_certificate_is_refused(make_app: Any, network_url: str) -> None:
    """Its certificate is refused, and the error says where."""
    app = make_app(data_store=network_url.partition("?")[0])
    broker = await app.store.broker(patience=0.0)
    with pytest.raises(pq.StoreError, match="localhost"):
        await broker.open()
    await broker.close()


async def test_a_broker_of_its_own(make_app: Any, start_worker: Any, valkey: Any) -> None:
    """With `message_broker` the queues are there, whatever `data_store` is."""
    app = make_app(data_store="redis://127.0.0.1:1/0", message_broker=valkey.url)
    await start_worker(app)
    async with app.api() as api:
        assert (await api.tasks.queue("addition", a=4, b=6)).get() == 10


@pytest.mark.parametrize(
    "scheme",
    ["redis+sentinel", "valkeys+sentinel"],
)
async def test_several_servers_that_are_not_there(make_app: Any, scheme: str) -> None:
    """The error names the missing thing, and no password."""
    app = make_app(data_store=f"{scheme}://:SESAME@127.0.0.1:1,127.0.0.1:2/shop?sentinel_password=SESAME")
    broker = await app.store.broker(patience=0.0)
    broker.server.first_patience = 0.0
    with pytest.raises(pq.StoreUnavailable) as caught:
        await broker.open()
    await broker.close()
    assert "connection refused" in str(caught.value)
    assert "SESAME" not in f"{caught.value} {caught.value.hint}"
