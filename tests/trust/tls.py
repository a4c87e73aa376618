"""Certificates made for a test, and a program that ends TLS before a store."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path, name: str = "a test's authority") -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._certificate(self._name, self._key.public_key(), 2)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path = directory / "ca.pem"
        self.path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _certificate(self, name: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - dt.timedelta(days=9)).not_valid_after(
            now + dt.timedelta(days=days)
        )

    def issue(self, host: str, *, days: int = 2) -> tuple[Path, Path]:
        """A certificate for a host and its key; `days` below 0: one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = self._certificate(name, key.public_key(), days)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        paths = self.directory / f"{host}{days}.pem", self.directory / f"{host}{days}.key"
        paths[0].write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths


@contextlib.asynccontextmanager
async def tls_server(
    store_url: str, certificate: tuple[Path, Path], *, client_ca: Path | None = None
) -> AsyncIterator[int]:
    """A port of localhost with TLS before that store; `client_ca`: who has to have signed a client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(store_url.removeprefix("unix://"))
        for source, target in ((reader, there[1]), (there[0], writer)):
            carrying.add(task := asyncio.create_task(carry(source, target)))
            task.add_done_callback(carrying.discard)

    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)  # handshakes that fail are what the tests are about
    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # A handshake that has failed leaves asyncio's own task for a moment.
        shaking = [task for task in asyncio.all_tasks() if "_accept_connection2" in repr(task)]
        for task in (left := [*carrying, *shaking]):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        loop.set_exception_handler(handler)
