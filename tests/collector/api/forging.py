"""Certificates good and bad, listeners as the collector has them, and requests sent byte by byte."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from toe_async.collector.api.routes import Api
from toe_async.collector.listener import Listener, accepting, bind
from toe_async.collector.settings import Limits, parse_address
from toe_async.collector.tls import Certificate
from toe_async.lib.clock import SystemClock

Headers = Sequence[tuple[bytes, bytes]]
DAY = dt.timedelta(days=1)


@dataclass
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    @property
    def pem(self) -> bytes:
        return self.cert.read_bytes()

    def client(self) -> ssl.SSLContext:
        """A client that shows it and trusts any server."""
        context = nobody()
        context.load_cert_chain(self.cert, self.key)
        return context


def nobody() -> ssl.SSLContext:
    """A client without a certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Authority:
    """A CA of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject([(NameOID.COMMON_NAME, name)])
        built = _builder(self._subject, self._subject, self._key.public_key(), now() - DAY, now() + DAY)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        *,
        parts: Sequence[tuple[ObjectIdentifier, str]] | None = None,
        begin: dt.timedelta = -DAY,
        end: dt.timedelta = DAY,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Pair:
        """A leaf certificate; `parts` replaces the common name `name` as its subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject([(NameOID.COMMON_NAME, name)] if parts is None else parts)
        built = _builder(subject, self._subject, key.public_key(), now() + begin, now() + end)
        built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return self._write(built.sign(self._key, hashes.SHA256()), key)

    def _write(self, made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
        pair = Pair(self._folder / f"{made.serial_number}.crt", self._folder / f"{made.serial_number}.key")
        pair.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


def self_signed(folder: Path, name: str) -> Pair:
    """A certificate that vouches for itself."""
    authority = Authority(folder, name)
    made = x509.load_pem_x509_certificate(authority.pem)
    return authority._write(made, authority._key)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _subject(parts: Sequence[tuple[ObjectIdentifier, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
        .not_valid_before(begin).not_valid_after(end)
    )  # fmt: skip


@contextlib.asynccontextmanager
async def listening(api: Api, certificate: Certificate | None) -> AsyncIterator[int]:
    """The API on a free port of the collector's own listener."""
    app = web.Application()
    app.add_routes(api.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    sock = bind(parse_address("127.0.0.1:0"))
    await runner.setup()
    try:
        assert runner.server is not None
        listener = Listener(
            sock, runner.server, lambda: certificate.context if certificate else None, Limits(), SystemClock()
        )
        async with accepting(listener, sock):
            yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


async def exchange(port: int, client: ssl.SSLContext | None, path: str, headers: Headers) -> tuple[int, bytes]:
    """Send a GET with exactly these headers; status and body, status 0 when the connection was refused."""
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: collector", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            try:
                writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # TLS errors are among them: the handshake ends only after the client believes it is through
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head else (0, b"")
