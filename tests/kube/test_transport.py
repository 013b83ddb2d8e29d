"""TLS: whom we trust, who we are, and rotation of both without a restart and without cutting what runs."""

import asyncio
import base64
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from tests.kube.fakeapi import FakeApi, Kubeconfig, ManualClock, fine, serving
from toe_async.apis.kinds import PODS
from toe_async.kube import requests
from toe_async.kube.auth import REREAD_SECONDS
from toe_async.kube.client import connect
from toe_async.kube.errors import ConfigurationError, TransportError, UntrustedServer

GET = requests.get(PODS, "a", "p", timeout=5)


@dataclass
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A CA that signs what a test asks for."""

    def __init__(self, folder: Path, name: str, *, key_identifiers: bool = True) -> None:
        self._folder, self.name, self._key_identifiers = folder, name, key_identifiers
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._subject, self._key.public_key(), ca=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, common_name: str, host: str = "127.0.0.1") -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._sign(subject, key.public_key(), host=host)
        pair = Pair(self._folder / f"{common_name}.crt", self._folder / f"{common_name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def serve(self, name: str, host: str = "127.0.0.1", clients: "Authority | None" = None) -> ssl.SSLContext:
        pair = self.issue(name, host)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.path)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool = False, host: str = "127.0.0.1"
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            name = x509.IPAddress(IPv4Address(host)) if host[0].isdigit() else x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
            issuer = self._key.public_key()
            if self._key_identifiers:
                identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
                builder = builder.add_extension(identifier, critical=False)
        elif self._key_identifiers:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            usage = x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    return lambda name: Authority(tmp_path, name)


Authorities = Callable[[str], Authority]


async def whoami(request: web.Request) -> web.StreamResponse:
    """The common name of the client's certificate."""
    assert request.transport is not None
    peer = request.transport.get_extra_info("peercert")
    return web.json_response({"cn": dict(part[0] for part in peer["subject"])["commonName"]})


async def test_a_server_of_our_ca_is_trusted_and_another_is_not(authority: Authorities, kubeconfig: Kubeconfig) -> None:
    """Nothing is sent to a server that we do not trust, and no system CA helps it."""
    ours, theirs = authority("ours"), authority("theirs")
    api = FakeApi(script=[fine()])
    async with serving(api, ours.serve("server")):
        async with connect(
            kubeconfig.write(api.url, cluster={"certificate-authority": "ours.pem"}), environ={}
        ) as client:
            assert await client.send(GET) == b'{"ok": true}'
        for ca in ({"certificate-authority": theirs.path.name}, {}):
            async with connect(kubeconfig.write(api.url, {"token": "t"}, cluster=ca), environ={}) as client:
                with pytest.raises(UntrustedServer, match="not trusted"):
                    await client.send(GET)
                with pytest.raises(UntrustedServer):
                    async with client.websocket("/x"):
                        pass
    assert len(api.seen) == 1


async def test_the_name_in_the_certificate_counts(authority: Authorities, kubeconfig: Kubeconfig) -> None:
    """Unless tls-server-name says which name to expect, as for an API server behind a tunnel."""
    ca = authority("ca")
    api = FakeApi(script=[fine()])
    async with serving(api, ca.serve("server", host="k8s.example")):
        named = {"certificate-authority": "ca.pem", "tls-server-name": "k8s.example"}
        async with connect(kubeconfig.write(api.url, cluster=named), environ={}) as client:
            assert await client.send(GET) == b'{"ok": true}'
        async with connect(
            kubeconfig.write(api.url, cluster={"certificate-authority": "ca.pem"}), environ={}
        ) as client:
            with pytest.raises(UntrustedServer):
                await client.send(GET)


async def test_verification_is_off_only_where_the_kubeconfig_says_so(
    authority: Authorities, kubeconfig: Kubeconfig
) -> None:
    """insecure-skip-tls-verify, with a warning in the log."""
    api = FakeApi(script=[fine()])
    async with serving(api, authority("ca").serve("server")):
        settings = kubeconfig.write(api.url, cluster={"insecure-skip-tls-verify": True})
        async with connect(settings, environ={}) as client:
            assert await client.send(GET) == b'{"ok": true}'


async def test_a_rotated_ca_is_found_when_the_server_is_no_longer_trusted(
    authority: Authorities, kubeconfig: Kubeconfig, tmp_path: Path
) -> None:
    """The server comes back with a certificate of a new CA; the new CA's file makes the next request work."""
    old, new = authority("old"), authority("new")
    current = tmp_path / "current.pem"
    current.write_bytes(old.path.read_bytes())
    api = FakeApi(script=[fine()])
    async with AsyncExitStack() as stack:
        async with serving(api, old.serve("one")):
            settings = kubeconfig.write(api.url, cluster={"certificate-authority": "current.pem"})
            client = await stack.enter_async_context(connect(settings, environ={}))
            await client.send(GET)
        async with serving(api, new.serve("two"), port=api.port):
            with pytest.raises(UntrustedServer):
                await client.send(GET)
            current.write_bytes(new.path.read_bytes())
            assert await client.send(requests.create(PODS, "a", b"{}")) == b'{"ok": true}'
    assert [seen.method for seen in api.seen] == ["GET", "POST"]


async def test_a_rotated_client_certificate_is_used_and_a_running_watch_goes_on(
    authority: Authorities, kubeconfig: Kubeconfig, clock: ManualClock, tmp_path: Path
) -> None:
    """New requests sign in with the new certificate a minute later; the stream of the old one is not cut."""
    ca = authority("ca")
    for name in ("first", "second"):
        ca.issue(name)
    use(tmp_path, "first")
    go = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"one")
        await go.wait()
        await response.write(b"two")
        return response

    api = FakeApi(script=[watch, whoami])
    async with serving(api, ca.serve("server", clients=ca)):
        settings = kubeconfig.write(
            api.url,
            {"client-certificate": "tls.crt", "client-key": "tls.key"},
            cluster={"certificate-authority": "ca.pem"},
        )
        async with connect(settings, environ={}, clock=clock) as client:
            async with client.stream(requests.list_(PODS)) as chunks:
                assert await anext(chunks) == b"one"
                assert await client.send(GET) == b'{"cn": "first"}'
                use(tmp_path, "second")
                assert await client.send(GET) == b'{"cn": "first"}'
                clock.seconds += REREAD_SECONDS
                assert await client.send(GET) == b'{"cn": "second"}'
                go.set()
                assert await anext(chunks) == b"two"
            assert await client.send(GET) == b'{"cn": "second"}'


def use(folder: Path, name: str) -> None:
    """Put a certificate and its key where the kubeconfig names them."""
    for suffix in ("crt", "key"):
        (folder / f"tls.{suffix}").write_bytes((folder / f"{name}.{suffix}").read_bytes())


async def test_a_half_written_rotation_keeps_the_sessions_that_work(
    authority: Authorities, kubeconfig: Kubeconfig, clock: ManualClock, tmp_path: Path
) -> None:
    """The certificate is new, its key not yet: the old pair serves until both are there."""
    ca = authority("ca")
    for name in ("first", "second"):
        ca.issue(name)
    use(tmp_path, "first")
    api = FakeApi(script=[whoami])
    async with serving(api, ca.serve("server", clients=ca)):
        settings = kubeconfig.write(
            api.url,
            {"client-certificate": "tls.crt", "client-key": "tls.key"},
            cluster={"certificate-authority": "ca.pem"},
        )
        async with connect(settings, environ={}, clock=clock) as client:
            (tmp_path / "tls.crt").write_bytes((tmp_path / "second.crt").read_bytes())
            clock.seconds += REREAD_SECONDS
            with structlog.testing.capture_logs() as logs:
                for _ in range(3):
                    assert await client.send(GET) == b'{"cn": "first"}'
            assert len(logs) == 1  # tried once, not at every request
            assert "keeping the present one" in logs[0]["event"]
            use(tmp_path, "second")
            clock.seconds += REREAD_SECONDS
            assert await client.send(GET) == b'{"cn": "second"}'


@pytest.mark.parametrize("broken", ["certificate-authority", "client-certificate", "client-key"])
async def test_material_that_does_not_load_is_told_at_the_start(
    authority: Authorities, kubeconfig: Kubeconfig, tmp_path: Path, broken: str
) -> None:
    """With the server's name, and without a byte of the key."""
    pair = authority("ca").issue("me")
    junk = tmp_path / "junk"
    junk.write_text("s3cret")
    files = {
        "certificate-authority": "ca.pem",
        "client-certificate": pair.certificate.name,
        "client-key": pair.key.name,
    }
    files[broken] = "junk"
    ca = files.pop("certificate-authority")
    settings = kubeconfig.write("https://127.0.0.1:1", files, cluster={"certificate-authority": ca})
    with pytest.raises(ConfigurationError, match=r"certificates for https://127\.0\.0\.1:1 cannot be loaded") as caught:
        async with connect(settings, environ={}):
            pass
    assert "s3cret" not in str(caught.value)


async def test_keys_inside_of_the_kubeconfig_leave_no_file_behind(
    authority: Authorities, kubeconfig: Kubeconfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ssl module loads files only; ours are gone once they are loaded."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    ca = authority("ca")
    pair = ca.issue("inline")
    data = {
        "client-certificate-data": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(pair.key.read_bytes()).decode(),
    }
    authority_data = base64.b64encode(ca.path.read_bytes()).decode()
    api = FakeApi(script=[whoami])
    async with serving(api, ca.serve("server", clients=ca)):
        settings = kubeconfig.write(api.url, data, cluster={"certificate-authority-data": authority_data})
        async with connect(settings, environ={}) as client:
            assert await client.send(GET) == b'{"cn": "inline"}'
            assert list(temporary.iterdir()) == []


async def test_a_ca_without_key_identifiers_needs_the_option(
    tmp_path: Path, kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 refuses such a CA by default (seen with EKS); the option is what lets it through, on every Python."""
    strict = ssl.create_default_context

    def create(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        context = strict(*args, **kwargs)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    ca = Authority(tmp_path, "ca", key_identifiers=False)
    api = FakeApi(script=[fine()])
    async with serving(api, ca.serve("server")):
        monkeypatch.setattr(ssl, "create_default_context", create)
        settings = kubeconfig.write(api.url, cluster={"certificate-authority": "ca.pem"})
        async with connect(settings, environ={}) as client:
            with pytest.raises(UntrustedServer):
                await client.send(GET)
        async with connect(replace(settings, disable_strict_tls=True), environ={}) as client:
            assert await client.send(GET) == b'{"ok": true}'


async def test_the_environment_s_proxy_is_used_and_its_exceptions_too(kubeconfig: Kubeconfig) -> None:
    """Plain HTTP to a name that only the proxy could resolve; NO_PROXY keeps it out."""
    proxy = FakeApi(script=[fine()])
    async with serving(proxy):
        settings = kubeconfig.write("http://k8s.invalid:6443")
        async with connect(settings, environ={"HTTP_PROXY": proxy.url}) as client:
            assert await client.send(GET) == b'{"ok": true}'
        direct = {"HTTP_PROXY": proxy.url, "NO_PROXY": "k8s.invalid"}
        async with connect(settings, environ=direct) as client:
            with pytest.raises(TransportError):
                await client.send(requests.get(PODS, "a", "p", timeout=0.1))
    assert len(proxy.seen) == 1
