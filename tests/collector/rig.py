"""A collector over real sockets, in front of a reviewer that keeps the API server's rules."""

import asyncio
import base64
import contextlib
import hashlib
import io
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from toe_async.collector.app import Served
from toe_async.kube.errors import ServerError, TransportError
from toe_async.kube.requests import Request
from toe_async.telemetry.metrics import CollectorMetrics

OPERATOR = "system:serviceaccount:toe-system:toe-operator"
UPLOADER = "system:serviceaccount:toe-agents:toe-uploader"
API_AUDIENCE = "https://kubernetes.default.svc"
CAPTURE = "abcdefghijklmnopqrstuvwxyz234567"
PATH = f"/v1/captures/{CAPTURE}/artifacts/heap.pprof"
READ = "/apis/artifacts.toe.run/v1alpha1/namespaces"


@dataclass
class FakeApi:
    """TokenReview and SubjectAccessReview as the API server answers them; it knows only tokens that it made."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    grants: set[tuple[str, str, str, str]] = field(default_factory=set)  # user, verb, namespace, resource
    down: Exception | None = None
    token_reviews: int = 0
    access_reviews: int = 0
    _serial: Any = field(default_factory=itertools.count)

    def token(self, username: str, audience: str = API_AUDIENCE, *, seconds: float = 3600) -> str:
        """Make a token as TokenRequest does."""
        exp = datetime.now(UTC).timestamp() + seconds
        claims = {"sub": username, "aud": [audience], "exp": exp, "jti": next(self._serial)}
        parts = [{"alg": "RS256"}, claims, {"signature": "not checked by the collector"}]
        text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        self.tokens[text] = claims
        return text

    def revoke(self, token: str) -> None:
        """Forget a token, as deleting its bound Secret does."""
        del self.tokens[token]

    def grant(self, user: str, namespace: str, *verbs: str, resource: str = "artifacts") -> None:
        """Allow something in one namespace."""
        self.grants |= {(user, verb, namespace, resource) for verb in verbs}

    async def send(self, request: Request) -> bytes:
        """Answer one request."""
        if self.down is not None:
            raise self.down
        assert request.method == "POST"
        assert request.body is not None
        body = json.loads(request.body)
        if request.path == "/apis/authentication.k8s.io/v1/tokenreviews":
            assert (body["apiVersion"], body["kind"]) == ("authentication.k8s.io/v1", "TokenReview")
            self.token_reviews += 1
            return json.dumps(body | {"status": self._token_status(body["spec"])}).encode()
        assert request.path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        assert (body["apiVersion"], body["kind"]) == ("authorization.k8s.io/v1", "SubjectAccessReview")
        self.access_reviews += 1
        return json.dumps(body | {"status": self._access_status(body["spec"])}).encode()

    def _token_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        claims = self.tokens.get(spec["token"])
        if claims is None or claims["exp"] <= datetime.now(UTC).timestamp():
            return {"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"}
        audiences = [one for one in spec.get("audiences") or [API_AUDIENCE] if one in claims["aud"]]
        if not audiences:
            return {"user": {}, "error": f"[invalid bearer token, token audiences {claims['aud']} is invalid]"}
        user = {"username": claims["sub"], "uid": "1", "groups": ["system:authenticated"], "extra": {"x": ["y"]}}
        return {"authenticated": True, "user": user, "audiences": audiences}

    def _access_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        asked = spec["resourceAttributes"]
        assert asked["group"] == "artifacts.toe.run"
        resource = "/".join(part for part in (asked["resource"], asked.get("subresource", "")) if part)
        allowed = (spec["user"], asked["verb"], asked["namespace"], resource) in self.grants
        return {"allowed": allowed} if allowed else {"allowed": False, "reason": "no RBAC policy matched"}


@dataclass
class Collector:
    """A running collector and a client that knows its ways."""

    served: Served
    http: aiohttp.ClientSession
    api: FakeApi
    root: Path
    metrics: CollectorMetrics
    operator: str
    reader: str

    def uploader(self, capture: str = CAPTURE) -> str:
        return self.api.token(UPLOADER, f"toe-collector/{capture}")

    @contextlib.asynccontextmanager
    async def call(
        self, method: str, path: str, token: str | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        auth = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.request(method, self.served.url + path, headers=auth | (headers or {}), **more) as reply:
            yield reply

    async def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded body."""
        async with self.call(method, path, token, **more) as reply:
            return reply.status, await reply.json(content_type=None)

    async def register(self, **changes: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/v1/captures", self.operator, json=registration(**changes), ssl=False)

    async def put(
        self, data: Any, *, capture: str = CAPTURE, leaf: str = "heap.pprof", token: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        path = f"/v1/captures/{capture}/artifacts/{leaf}"
        if isinstance(data, bytes) and data:
            data = io.BytesIO(data)  # aiohttp warns of large bodies given as bytes
        return await self.ask("PUT", path, token or self.uploader(capture), data=data, **more)

    def files(self) -> list[str]:
        """What readers of the volume see, the collector's own folder left out."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file() and ".toe" not in path.parts
        )

    def parts(self) -> list[str]:
        return sorted(path.name for path in (self.root / ".toe" / "parts").iterdir())


class Wire:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer; status 0 when the connection ended instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, b""
        status, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines if line)}
        return int(status.split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def closed(self) -> bool:
        """Wait until the other side ends the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        return True


@contextlib.asynccontextmanager
async def wired(collector: Collector) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(collector.served.host, collector.served.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(collector: Collector, *more: str, token: str = "", method: str = "PUT", path: str = PATH) -> list[str]:
    return [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token or collector.uploader()}", *more]


def registration(**changes: Any) -> dict[str, Any]:
    """A registration body; `drop` names keys to leave out."""
    body = {
        "id": CAPTURE,
        "namespace": "shop",
        "labels": {"app.kubernetes.io/name": "cart", "tier": "web"},
        "run": "hot-carts",
        "runUID": "11111111-2222-3333-4444-555555555555",
        "kind": "ProfilingConfig",
        "pod": "cart-7d9f-x2x4z",
        "podUID": "66666666-7777-8888-9999-000000000000",
        "container": "server",
        "node": "node-1",
        "service": "cart",
        "tool": "pprof",
        "reason": "threshold-exceeded",
        "trigger": "cpu at 93.1 % of its request of 500m, above 80 %",
        "triggeredAt": "2026-01-24T20:44:08Z",
        "leaves": ["heap.pprof", "cpu.pprof"],
        "maxBytes": 1 << 20,
        "expires": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }
    return {key: value for key, value in (body | changes).items() if value is not None}


def capture_id(number: int) -> str:
    """A capture id that differs from others in its first ten characters, which is what paths and names carry."""
    return f"{number:010d}".translate(str.maketrans("0189", "abcd")) + "z" * 22


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Start = Callable[..., AbstractAsyncContextManager[Collector]]


def outage() -> Exception:
    return TransportError("connection refused", sent=False)


def overload() -> Exception:
    return ServerError(503, "ServiceUnavailable", "etcd leader changed")
