"""Client certificates: whom they name, and which of them the sandbox believes."""

import asyncio
import base64
import hashlib
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography import x509

from toe_async.sandbox.certificates import Authority, KeyPair
from toe_async.sandbox.cluster import Sandbox, SandboxSettings, start
from toe_async.sandbox.resources import PODS
from toe_async.sandbox.store import Key

WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def client_context(sandbox: Sandbox, pair: KeyPair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=sandbox.certificate_authority.decode())
    if pair is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "both")
            path.write_bytes(pair.certificate + pair.key)
            context.load_cert_chain(path)
    return context


def pod_address(sandbox: Sandbox, name: str) -> str:
    item = sandbox.verbs.store.get(PODS, Key("default", name))
    return str(item.obj["status"].get("podIP", "")) if item is not None else ""


async def ask(sandbox: Sandbox, pair: KeyPair | None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    context = await asyncio.to_thread(client_context, sandbox, pair)
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(sandbox.url, connector=connector, headers=headers) as session,
        session.post(WHO_AM_I, json={}) as response,
    ):
        return response.status, await response.json()


async def test_the_common_name_is_the_user_and_each_organization_a_group(sandbox: Sandbox) -> None:
    pair = sandbox.client_certificate("jane@example.org", ("team-b", "team-a", "system:masters"))
    status, body = await ask(sandbox, pair)
    info = body["status"]["userInfo"]
    assert (status, info["username"]) == (201, "jane@example.org")
    assert info["groups"] == ["team-b", "team-a", "system:masters", "system:authenticated"]
    (fingerprint,) = info["extra"]["authentication.kubernetes.io/credential-id"]
    raw = ssl.PEM_cert_to_DER_cert(pair.certificate.decode())
    assert fingerprint == f"X509SHA256={hashlib.sha256(raw).hexdigest()}"


async def test_a_certificate_counts_before_a_token_and_names_beside_it_do_not(sandbox: Sandbox) -> None:
    pair = sandbox.client_certificate("jane")
    headers = {"Authorization": f"Bearer {sandbox.admin_token}", "X-Remote-User": "root"}
    _, body = await ask(sandbox, pair, headers)
    assert body["status"]["userInfo"]["username"] == "jane"


async def test_without_a_certificate_a_token_is_needed_as_ever(sandbox: Sandbox) -> None:
    status, _ = await ask(sandbox, None)
    assert status == 403
    status, body = await ask(sandbox, None, {"Authorization": f"Bearer {sandbox.admin_token}"})
    assert (status, body["status"]["userInfo"]["username"]) == (201, "admin")


async def test_a_certificate_of_another_authority_is_no_way_in(sandbox: Sandbox) -> None:
    stranger = Authority("toe sandbox authority", datetime.now(UTC)).client("admin", ("system:masters",))
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await ask(sandbox, stranger)


async def test_a_serving_certificate_is_no_client_certificate(sandbox: Sandbox) -> None:
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await ask(sandbox, sandbox.serving_certificate("svc", "ns"))


async def test_a_certificate_users_kubeconfig_carries_certificate_and_key(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "jane"
    await asyncio.to_thread(sandbox.write_kubeconfig, path, "jane", ("team-a",))
    held = yaml.safe_load(path.read_text())["users"][0]
    pair = KeyPair(*(base64.b64decode(held["user"][f"client-{kind}-data"]) for kind in ("certificate", "key")))
    assert (held["name"], path.stat().st_mode & 0o077) == ("jane", 0)
    _, body = await ask(sandbox, pair)
    assert body["status"]["userInfo"]["groups"] == ["team-a", "system:authenticated"]


async def test_a_serving_certificate_holds_for_all_names_of_a_service_and_for_the_first_pods(sandbox: Sandbox) -> None:
    pair = sandbox.serving_certificate("svc", "ns", ["localhost", "127.0.0.1"])
    held = x509.load_pem_x509_certificate(pair.certificate)
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "svc",
        "svc.ns",
        "svc.ns.svc",
        "svc.ns.svc.cluster.local",
        "localhost",
    ]
    addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    container = {"name": "c", "image": "none", "command": ["sleep", "600"]}
    for number in range(3):
        body = {"metadata": {"name": f"p{number}"}, "spec": {"containers": [container]}}
        sandbox.verbs.create(PODS, "default", body)
    async with asyncio.timeout(10):
        while not all(address := [pod_address(sandbox, f"p{number}") for number in range(3)]):
            await asyncio.sleep(0.02)
    assert len({*address}) == 3
    assert {"127.0.0.1", *address} <= addresses


async def test_without_tls_there_are_no_certificate_users(tmp_path: Path) -> None:
    async with start(SandboxSettings(tls=False)) as held:
        with pytest.raises(ValueError, match="needs a sandbox with TLS"):
            held.write_kubeconfig(tmp_path / "jane", "jane", ())
        await asyncio.to_thread(held.write_kubeconfig, tmp_path / "admin")
        assert "certificate-authority" not in (tmp_path / "admin").read_text()
