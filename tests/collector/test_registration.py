"""The API server is told the CA of the collector's certificate, and told again when it is renewed."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toe_async.collector.registration import Registration
from toe_async.kube.errors import Forbidden, KubeError, NotFound
from toe_async.kube.requests import Request

OLD, NEW = (f"-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n" for word in ("b2xk", "bmV3"))


class Server:
    """Holds the one APIService; ``fault`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = {"group": "artifacts.toe.run", "service": {"name": "toe-collector"}}
        self.writes = 0
        self.fault: KubeError | None = None

    async def send(self, request: Request) -> bytes:
        assert request.path == "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.artifacts.toe.run"
        if self.fault is not None:
            raise self.fault
        if request.body is not None:
            self.writes += 1
            self.spec |= msgspec.json.decode(request.body)["spec"]
        return msgspec.json.encode({"metadata": {"name": "v1alpha1.artifacts.toe.run"}, "spec": self.spec})


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    path.write_text(OLD)
    return path


async def test_the_ca_is_entered_once_and_again_when_it_is_renewed(ca: Path) -> None:
    server = Server()
    registration = Registration(server, ca)
    await registration.look()
    await registration.look()
    assert (base64.b64decode(server.spec["caBundle"]).decode(), server.writes) == (OLD, 1)
    ca.write_text(NEW + OLD)
    await registration.look()
    assert (base64.b64decode(server.spec["caBundle"]).decode(), server.writes) == (NEW + OLD, 2)
    assert server.spec["service"] == {"name": "toe-collector"}
    assert registration.trouble is None


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (NotFound(404, "NotFound", "gone"), "does not exist; apply deploy/program"),
        (Forbidden(403, "Forbidden", "no right to patch"), "no right to patch"),
    ],
)
async def test_what_hinders_is_told_until_it_is_over(ca: Path, fault: KubeError, told: str) -> None:
    server = Server()
    server.fault = fault
    registration = Registration(server, ca)
    await registration.look()
    assert registration.trouble is not None
    assert told in registration.trouble
    server.fault = None
    await registration.look()
    assert registration.trouble is None


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----"])
async def test_a_file_without_a_certificate_is_never_entered(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    server = Server()
    registration = Registration(server, path)
    await registration.look()
    assert server.writes == 0
    assert registration.trouble is not None
    assert "holds no CA certificate" in registration.trouble
