"""Who may upload to a capture: the holder of its own token while that lives, and nobody else."""

import base64
import hashlib
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.e2e.harness import AGENTS, SYSTEM, Kube, Object, until

pytestmark = pytest.mark.e2e

BODY = secrets.token_bytes(4096)
ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True)
class Reply:
    """What the collector answered."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Collector:
    """The upload side of the collector, spoken to as whoever holds a token."""

    def __init__(self, kube: Kube, port: int) -> None:
        self._kube, self._port = kube, port
        secret = kube.get("secret", "toe-collector-tls", namespace=SYSTEM)
        context = ssl.create_default_context(cadata=b64decode(secret["data"]["ca.crt"]).decode())
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def call(self, method: str, path: str, token: str, body: bytes | None = None, **headers: str) -> Reply:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        said |= {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"https://localhost:{self._port}{path}", body, said, method=method)
        try:
            with self._opener.open(request, timeout=60) as response:
                return Reply(response.status, response.read(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), dict(error.headers))

    def register(self, capture: str, namespace: str = "default") -> Reply:
        """As the operator does."""
        token = self._kube("-n", SYSTEM, "create", "token", "toe-operator", "--audience=toe-collector").out.strip()
        now = datetime.now(UTC)
        record: Object = {
            "id": capture,
            "namespace": namespace,
            "run": "tokens",
            "pod": "web-0",
            "container": "app",
            "triggeredAt": now.isoformat(),
            "leaves": ["heap.pprof"],
            "maxBytes": 1 << 30,
            "expires": (now + timedelta(hours=1)).isoformat(),
        }
        return self.call("POST", "/v1/captures", token, json.dumps(record).encode())

    def upload(self, capture: str, token: str, body: bytes = BODY) -> Reply:
        return self.call("PUT", leaf(capture), token, body)


def leaf(capture: str) -> str:
    return f"/v1/captures/{capture}/artifacts/heap.pprof"


def capture_id() -> str:
    return base64.b32encode(secrets.token_bytes(20)).decode().lower()


@pytest.fixture
def collector(installed: Kube) -> Iterator[Collector]:
    with installed.forward("svc/toe-collector", 8443) as port:
        yield Collector(installed, port)


@contextmanager
def secret_of(kube: Kube, capture: str) -> Iterator[str]:
    """The Secret that the capture's tokens are bound to, by its UID."""
    name = f"toe-capture-{capture}"
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque"}, namespace=AGENTS)
    try:
        yield str(kube.get("secret", name, namespace=AGENTS)["metadata"]["uid"])
    finally:
        kube("-n", AGENTS, "delete", "secret", name, "--ignore-not-found")


def capture_token(kube: Kube, capture: str, uid: str, account: str = "toe-uploader", namespace: str = AGENTS) -> str:
    """The token that the operator would ask for, from the real TokenRequest."""
    bound = ("--bound-object-kind=Secret", f"--bound-object-name=toe-capture-{capture}", f"--bound-object-uid={uid}")
    words = ("-n", namespace, "create", "token", account, f"--audience=toe-collector/{capture}", "--duration=10m")
    return kube(*words, *(bound if namespace == AGENTS else ())).out.strip()


def test_a_captures_own_token_uploads_and_every_other_one_is_refused(installed: Kube, collector: Collector) -> None:
    mine, other = capture_id(), capture_id()
    assert collector.register(mine).status == 201
    assert collector.register(other).status == 201
    with secret_of(installed, mine) as my_uid, secret_of(installed, other) as other_uid:
        foreign_account = capture_token(installed, mine, "", account="default", namespace="default")
        refused = {
            "another capture's token": capture_token(installed, other, other_uid),
            "an ordinary service account with the right audience": foreign_account,
            "an ordinary service account": installed("-n", "default", "create", "token", "default").out.strip(),
            "the operator's own": installed(
                "-n", SYSTEM, "create", "token", "toe-operator", "--audience=toe-collector"
            ).out.strip(),
            "garbage": "not.a.token",
        }
        for who, token in refused.items():
            reply = collector.upload(mine, token)
            assert reply.status in {401, 403}, f"{who}: {reply}"
            if who == "an ordinary service account with the right audience":
                assert reply.status == 403, reply
        assert collector.upload(mine, "").status == 401
        token = capture_token(installed, mine, my_uid)
        assert collector.call("HEAD", leaf(mine), token).headers.get("Upload-Offset") == "0"  # no byte was kept
        stored = collector.upload(mine, token)
        assert stored.status == 201, stored
        assert json.loads(stored.body)["sha256"] == hashlib.sha256(BODY).hexdigest()
        assert collector.upload(mine, token).status == 200
        assert collector.upload(mine, token, BODY[::-1]).status == 409


def test_a_token_ends_with_its_secret(installed: Kube, collector: Collector) -> None:
    capture = capture_id()
    collector.register(capture)
    with secret_of(installed, capture) as uid:
        token = capture_token(installed, capture, uid)
        assert collector.call("HEAD", leaf(capture), token).status == 200
    began = time.monotonic()
    # The API server goes on for ten seconds and what it said is believed for ten more (measured, and D20).
    until("the token is refused", lambda: collector.call("HEAD", leaf(capture), token).status == 401, seconds=30)
    print(f"refused {time.monotonic() - began:.1f} s after its Secret was deleted")
    assert collector.upload(capture, token).status == 401


def test_an_expired_token_is_refused(installed: Kube, collector: Collector) -> None:
    """Signed with the cluster's own key: what the API server itself would have given an hour ago."""
    key_file = installed.kubeconfig.parent / "pki/sa.key"
    if not key_file.exists():
        pytest.skip("the cluster's signing key is not on this machine")
    capture = capture_id()
    collector.register(capture)
    with secret_of(installed, capture) as uid:
        good = signed(installed, key_file, capture, uid, life=timedelta(minutes=10))
        bad = signed(installed, key_file, capture, uid, life=-timedelta(minutes=1))
        assert collector.upload(capture, bad).status == 401
        assert collector.upload(capture, good).status == 201  # so it was the time alone


def signed(kube: Kube, key_file: Path, capture: str, uid: str, *, life: timedelta) -> str:
    """A capture's token that ends `life` from now."""
    account = kube.get("serviceaccount", "toe-uploader", namespace=AGENTS)["metadata"]["uid"]
    template = json.loads(_unpadded(capture_token(kube, capture, uid).split(".")[0]))
    end = datetime.now(UTC) + life
    claims = {
        "aud": [f"toe-collector/{capture}"],
        "exp": int(end.timestamp()),
        "iat": int((end - timedelta(hours=1)).timestamp()),
        "nbf": int((end - timedelta(hours=1)).timestamp()),
        "iss": ISSUER,
        "jti": "00000000-0000-4000-8000-000000000000",
        "sub": f"system:serviceaccount:{AGENTS}:toe-uploader",
        "kubernetes.io": {
            "namespace": AGENTS,
            "serviceaccount": {"name": "toe-uploader", "uid": account},
            "secret": {"name": f"toe-capture-{capture}", "uid": uid},
        },
    }
    head = _packed(json.dumps(template).encode()) + "." + _packed(json.dumps(claims).encode())
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return head + "." + _packed(key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256()))


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
