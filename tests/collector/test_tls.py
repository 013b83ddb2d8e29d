"""TLS from the first day: no key pair no start, renewed pairs without a lost upload, nothing below 1.2."""

import asyncio
import datetime as dt
import os
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from tests.collector.rig import Collector, FakeApi, Start, capture_id
from toe_async.collector.app import Served, serve
from toe_async.collector.errors import SettingsError
from toe_async.collector.listener import Listener, accepting, bind
from toe_async.collector.settings import Address, CollectorSettings, Limits
from toe_async.collector.tls import Certificate
from toe_async.lib.clock import SystemClock
from toe_async.telemetry.metrics import CollectorMetrics


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Pair:
    """A self-signed pair in a folder laid out as a mounted Secret: links through `..data`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.generation = folder, 0
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"

    def issue(self) -> int:
        """Renew the pair by swapping the link; returns the new serial number."""
        self.generation += 1
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "toe-collector")])
        now = dt.datetime.now(dt.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(self.generation)
            .not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        data = self.folder / f"..{self.generation}"
        data.mkdir()
        (data / "tls.crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        (data / "tls.key").write_bytes(private(key))
        new = self.folder / "..new"
        new.symlink_to(data.name)
        new.replace(self.folder / "..data")
        for file in (self.cert, self.key):
            if not file.is_symlink():
                file.symlink_to(Path("..data") / file.name)
        return self.generation


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "tls").mkdir()
    made = Pair(tmp_path / "tls")
    made.issue()
    return made


async def serial(collector: Collector) -> int:
    """The serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(collector.served.host, collector.served.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def becomes(collector: Collector, wanted: int) -> None:
    async with asyncio.timeout(5):
        while await serial(collector) != wanted:
            await asyncio.sleep(0.02)


async def test_a_renewed_pair_is_used_without_dropping_an_upload(start: Start, pair: Pair) -> None:
    """An upload begins under one certificate and ends under another; new connections get the new one."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"before"
        begun.set()
        await go_on.wait()
        yield b"after"

    limits = Limits(reload_seconds=0.05)
    async with start(insecure_http=False, tls_cert=pair.cert, tls_key=pair.key, limits=limits) as collector:
        assert collector.served.url.startswith("https://")
        await collector.register()
        assert await serial(collector) == 1
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(collector.put(body(), expect100=True, ssl=False))
            await begun.wait()
            await becomes(collector, pair.issue())
            go_on.set()
        status, receipt = upload.result()
        assert (status, receipt["size"]) == (201, 11)


async def test_a_pair_that_does_not_match_changes_nothing_until_it_does(start: Start, pair: Pair) -> None:
    """The last good one stays in use and /readyz?verbose says why."""
    limits = Limits(reload_seconds=0.05)
    async with start(insecure_http=False, tls_cert=pair.cert, tls_key=pair.key, limits=limits) as collector:
        old_key = pair.key.read_bytes()
        renewed = pair.issue()
        fine = pair.key.read_bytes()
        pair.key.resolve().write_bytes(old_key)
        async with asyncio.timeout(5):
            while "certificate" not in await text(collector, "/readyz?verbose"):
                await asyncio.sleep(0.02)
        assert await serial(collector) in {1, renewed}  # both may have been loaded before the key was spoilt
        pair.key.resolve().write_bytes(fine)
        await becomes(collector, renewed)
        async with asyncio.timeout(5):
            while "certificate" in await text(collector, "/readyz?verbose"):
                await asyncio.sleep(0.02)


async def text(collector: Collector, path: str) -> str:
    async with collector.call("GET", path, ssl=False) as reply:
        assert reply.status == 200
        return await reply.text()


async def test_tls_below_1_2_and_unverified_clients_send_no_body(start: Start, pair: Pair) -> None:
    """A client that verifies refuses our self-signed certificate; one that offers only TLS 1.1 gets no handshake."""
    async with start(insecure_http=False, tls_cert=pair.cert, tls_key=pair.key) as collector:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            async with collector.call("GET", "/healthz"):
                pass
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(collector.served.host, collector.served.port, ssl=old)
        with pytest.raises(aiohttp.ClientError):
            async with collector.http.get(collector.served.url.replace("https", "http") + "/healthz"):
                pass


@pytest.mark.slow
async def test_two_hundred_uploads_go_through_while_the_pair_is_renewed_twenty_times(start: Start, pair: Pair) -> None:
    """Each over a connection of its own, so that handshakes meet every moment of a renewal."""
    limits = Limits(reload_seconds=0.02)
    async with start(insecure_http=False, tls_cert=pair.cert, tls_key=pair.key, limits=limits) as collector:
        leaves = [f"{number}.pprof" for number in range(10)]
        tokens: dict[str, str] = {}
        for number in range(20):
            capture = capture_id(number)
            assert (await collector.register(id=capture, leaves=leaves))[0] == 201
            tokens[capture] = collector.uploader(capture)
        done, turn = 0, asyncio.Semaphore(8)
        renewed = asyncio.Event()

        async def upload(capture: str, leaf: str) -> int:
            nonlocal done
            async with turn, aiohttp.ClientSession() as http:
                url = f"{collector.served.url}/v1/captures/{capture}/artifacts/{leaf}"
                auth = {"Authorization": f"Bearer {tokens[capture]}"}
                async with http.put(url, data=b"x" * 100, headers=auth, ssl=False) as reply:
                    done += 1
                    if done % 10 == 0:
                        renewed.set()
                    return reply.status

        async def renew() -> None:
            for _ in range(20):
                await becomes(collector, pair.issue())
                await renewed.wait()
                renewed.clear()

        async with asyncio.TaskGroup() as group:
            group.create_task(renew())
            uploads = [group.create_task(upload(capture, leaf)) for capture in tokens for leaf in leaves]
        assert [upload.result() for upload in uploads] == [201] * 200
        assert await serial(collector) == 21


# -- clients with certificates ----------------------------------------------------------------------------------------


class Authority:
    """A CA that gives certificates to clients."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the tests")])
        self.pem = self._issue(self.name, self.key, authority=True)

    def admit(self, context: ssl.SSLContext, name: str) -> None:
        """Give a client's context a certificate of this common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._issue(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, authority=False)
        with tempfile.NamedTemporaryFile() as file:
            file.write(cert + private(key))
            file.flush()
            context.load_cert_chain(file.name)

    def _issue(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        return cert.public_bytes(serialization.Encoding.PEM)


def client(ca: Authority | None, name: str = "front-proxy-client") -> ssl.SSLContext:
    """A client that shows a certificate of this CA, or none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ca is not None:
        ca.admit(context, name)
    return context


async def status(collector: Collector, context: ssl.SSLContext) -> int:
    """The status of a probe over a new connection; 0 when the handshake failed."""
    url = f"{collector.served.url}/healthz"
    try:
        async with aiohttp.ClientSession() as http, http.get(url, ssl=context) as reply:
            return reply.status
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError):
        return 0


async def test_with_a_client_ca_only_its_clients_get_through_the_handshake(
    start: Start, pair: Pair, tmp_path: Path
) -> None:
    """No certificate, one of another CA, one that names itself like the right one; a new CA counts without restart."""
    one, other = Authority(), Authority()
    bundle = tmp_path / "client-ca.crt"
    bundle.write_bytes(one.pem)
    wanted = CollectorSettings(
        root=tmp_path / "store",
        operator_users=frozenset(),
        uploader_users=frozenset(),
        listen="127.0.0.1:0",
        tls_cert=pair.cert,
        tls_key=pair.key,
        client_ca=bundle,
        limits=Limits(reload_seconds=0.02),
    )
    metrics = CollectorMetrics(CollectorRegistry())
    async with serve(wanted, FakeApi(), SystemClock(), metrics) as served, aiohttp.ClientSession() as http:
        collector = Collector(served, http, FakeApi(), wanted.root, metrics, "", "")
        assert await status(collector, client(one)) == 200
        assert await status(collector, client(None)) == 0
        assert await status(collector, client(other)) == 0
        bundle.write_bytes(other.pem)
        async with asyncio.timeout(5):
            while await status(collector, client(other)) != 200:
                await asyncio.sleep(0.02)
        assert await status(collector, client(one)) == 0
        bundle.write_text("not a certificate")
        async with asyncio.timeout(5):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client(other))) as known:
                while "client CA" not in await (await known.get(f"{served.url}/readyz?verbose")).text():
                    await asyncio.sleep(0.02)
        assert await status(collector, client(other)) == 200


async def test_a_second_listener_knows_its_clients_by_their_certificates(pair: Pair) -> None:
    """The CA comes from a function and may change; with none, nobody is let in. The name is there for the handler."""
    front, authorities = Authority(), [b""]
    certificate = await asyncio.to_thread(Certificate, pair.cert, pair.key, lambda: authorities[0])
    names: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = request.transport.get_extra_info("peercert")["subject"]
        names.extend(value for part in subject for key, value in part if key == "commonName")
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/healthz", handler)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    sock = bind(Address("127.0.0.1", 0))
    listener = Listener(sock, runner.server, lambda: certificate.context, Limits(), SystemClock())
    async with accepting(listener, sock), aiohttp.ClientSession() as http:
        served = Served("127.0.0.1", sock.getsockname()[1], f"https://127.0.0.1:{sock.getsockname()[1]}", None)
        metrics = CollectorMetrics(CollectorRegistry())
        collector = Collector(served, http, FakeApi(), pair.folder, metrics, "", "")
        assert await status(collector, client(front)) == 0
        authorities[0] = front.pem
        await asyncio.to_thread(certificate.reload)
        assert await status(collector, client(front, "kube-apiserver-proxy")) == 200
        assert await status(collector, client(Authority())) == 0
        assert await status(collector, client(None)) == 0
    await runner.cleanup()
    assert names == ["kube-apiserver-proxy"]


@pytest.mark.parametrize("content", [None, "not a certificate", "\u00e9"])
def test_a_bad_client_ca_does_not_start(pair: Pair, tmp_path: Path, content: str | None) -> None:
    """One sentence that says which flag."""
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="give --client-ca a file of PEM certificates"):
        Certificate(pair.cert, pair.key, file.read_bytes)


@pytest.mark.parametrize("fault", ["missing", "garbage", "mismatch", "directory"])
def test_a_bad_key_pair_does_not_start(pair: Pair, fault: str) -> None:
    """One sentence that names both files and the way out."""
    match fault:
        case "missing":
            pair.key.resolve().unlink()
        case "garbage":
            pair.cert.resolve().write_text("not a certificate")
        case "mismatch":
            old = pair.key.read_bytes()
            pair.issue()
            pair.key.resolve().write_bytes(old)
        case _:
            pair.cert.unlink()
            pair.cert.mkdir()
    with pytest.raises(SettingsError, match=r"tls\.crt.*tls\.key.*put a PEM") as refused:
        Certificate(pair.cert, pair.key)
    assert "\n" not in str(refused.value)


async def test_a_handshake_that_never_comes_is_ended(start: Start, pair: Pair) -> None:
    """Ten seconds by default."""
    limits = Limits(header_seconds=0.2)
    async with start(insecure_http=False, tls_cert=pair.cert, tls_key=pair.key, limits=limits) as collector:
        reader, writer = await asyncio.open_connection(collector.served.host, collector.served.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_taken_address_is_one_sentence(start: Start, collector: Collector, tmp_path: Path) -> None:
    """Not a traceback, and nothing half-started is left."""
    with pytest.raises(SettingsError, match="cannot listen on"):
        async with start(root=tmp_path / "second", listen=f"127.0.0.1:{collector.served.port}"):
            pass


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/proc/1/mem", os.R_OK), reason="any user shows the same")
async def test_a_root_that_is_no_directory_is_one_sentence(start: Start, tmp_path: Path) -> None:
    """Whoever runs it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="give --root a directory"):
        async with start(root=tmp_path / "file" / "below"):
            pass
