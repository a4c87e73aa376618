"""Certificates made for a test, and a program that ends TLS before a store."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
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
        made = made.add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
        paths = self.directory / f"{host}{days}.pem", self.directory / f"{host}{days}.key"
        paths[0].write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@contextlib.asynccontextmanager
async def tls_server(
    store: str,
    certificate: tuple[Path, Path],
    *,
    client_ca: Path | None = None,
    on_plain: Callable[[bytes], None] | None = None,
) -> AsyncIterator[int]:
    """A port of localhost with TLS before that store, a Unix socket's URL or `host:port`.

    `client_ca`: the authority of client certificates. `on_plain`: accepts clients without TLS too, and gets the
    beginning of what such a client sends.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    under_way: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    def start(work: Coroutine[Any, Any, None]) -> None:
        under_way.add(task := loop.create_task(work))
        task.add_done_callback(under_way.discard)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: bool) -> None:
        try:
            while data := await reader.read(65536):
                if told and on_plain is not None:
                    on_plain(data)
                told = False
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(connection: socket.socket) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            plain = on_plain is not None and await _first_byte(connection) != b"\x16"
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=None if plain else context
            )
            here = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                if store.startswith("unix://"):
                    answers, there = await asyncio.open_unix_connection(store.removeprefix("unix://"))
                else:
                    host, _, port = store.rpartition(":")
                    answers, there = await asyncio.open_connection(host, int(port))
            except OSError:
                here.close()
                return
            start(carry(reader, there, plain))
            start(carry(answers, here, False))
        except (OSError, ConnectionError):
            connection.close()  # the tests are about failing handshakes
        except BaseException:
            connection.close()
            raise

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listening)
            start(serve(connection))

    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    listening.setblocking(False)
    accepting = loop.create_task(accept())
    try:
        yield listening.getsockname()[1]
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listening.close()
        for task in (left := list(under_way)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _first_byte(connection: socket.socket) -> bytes:
    """Return the first bytes of the input; they stay to be read."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(connection, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
        return connection.recv(1, socket.MSG_PEEK)
    finally:
        loop.remove_reader(connection)
