"""The server under test: the sandbox always, and the real cluster of TOE_CONTRACT_KUBECONFIG when that is set.

Every test talks raw HTTP and gets a namespace of its own, `contract-...`; nothing it makes outlives it. What a server
does after a moment (RBAC, namespaces, pods) is waited for by watching, or by asking until the answer is the wanted one.
"""

import asyncio
import base64
import io
import json
import os
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from toe_async.sandbox.cluster import Sandbox, SandboxSettings, start
from toe_async.sandbox.images import Image

JSON = dict[str, Any]
REAL = os.environ.get("TOE_CONTRACT_KUBECONFIG", "")
IMAGES = (Image("localhost/contract-nope:*", pullable=False),)
"""What a real registry at that address does not have either."""


class Answer:
    """One response, read whole."""

    def __init__(self, status: int, raw: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.raw = raw
        self.headers = headers

    @property
    def body(self) -> JSON:
        held: JSON = json.loads(self.raw)
        return held

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(reason, field) of every cause."""
        return [(one["reason"], one["field"]) for one in self.body.get("details", {}).get("causes", ())]


class Server:
    """A cluster as its clients see it."""

    def __init__(
        self, url: str, admin: aiohttp.ClientSession, bare: aiohttp.ClientSession, sandbox: Sandbox | None
    ) -> None:
        self.url = url
        self._admin = admin
        self._bare = bare
        self.sandbox = sandbox
        self.namespace = f"contract-{secrets.token_hex(4)}"
        self._cleanup: list[str] = []

    @property
    def is_real(self) -> bool:
        return self.sandbox is None

    def core(self, plural: str, name: str = "") -> str:
        """The path of a core resource in the test's namespace."""
        return f"/api/v1/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        token: str | None = None,
        headers: dict[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """One request, as the administrator or with a bearer token ("" for nobody)."""
        session = self._admin if token is None else self._bare
        sent = {"Accept": accept, "Content-Type": content_type, **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        async with session.request(
            method, self.url + path, data=data, headers=sent, params={**(params or {}), **query}
        ) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def make(self, path: str, body: JSON, **query: str) -> JSON:
        """Create an object that must be accepted."""
        answer = await self.call("POST", path, body, params=query)
        assert answer.status == 201, answer.raw
        return answer.body

    async def make_cluster_wide(self, path: str, body: JSON) -> JSON:
        """The same for an object that no namespace takes with it: it is deleted when the test ends."""
        made = await self.make(path, body)
        self._cleanup.append(f"{path}/{made['metadata']['name']}")
        return made

    async def merge(self, path: str, body: JSON, **query: str) -> Answer:
        return await self.call("PATCH", path, body, content_type="application/merge-patch+json", params=query)

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[AsyncIterator[JSON]]:
        """Open a watch; yields its events."""
        query = {"watch": "1", **query}
        timeout = aiohttp.ClientTimeout(total=60)
        async with self._admin.get(self.url + path, params=query, timeout=timeout) as response:
            assert response.status == 200, await response.read()
            yield _lines(response)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose body is read while it comes."""
        async with self._admin.get(self.url + path) as response:
            assert response.status == 200, await response.read()
            yield response

    async def send(self, path: str, pieces: AsyncIterable[bytes]) -> Answer:
        """A POST whose body is made while it goes."""
        async with self._admin.post(self.url + path, data=pieces) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def until(self, path: str, holds: Callable[[JSON], bool], seconds: float = 45) -> JSON:
        """Watch one object until a condition holds; returns its state then."""
        collection, _, name = path.rpartition("/")
        async with asyncio.timeout(seconds), self.watch(collection, fieldSelector=f"metadata.name={name}") as events:
            async for event in events:
                if event["type"] in {"ADDED", "MODIFIED"} and holds(event["object"]):
                    found: JSON = event["object"]
                    return found
        raise AssertionError(f"{path} never became what was waited for")

    async def gone(self, path: str, seconds: float = 45) -> None:
        """Wait until an object is deleted."""
        collection, _, name = path.rpartition("/")
        async with asyncio.timeout(seconds):
            while (await self.call("GET", path)).status == 200:
                async with self.watch(collection, fieldSelector=f"metadata.name={name}", timeoutSeconds="1") as events:
                    async for event in events:
                        if event["type"] == "DELETED":
                            return

    async def eventually(self, ask: Callable[[], Awaitable[Answer]], holds: Callable[[Answer], bool]) -> Answer:
        """Ask again until the answer is the wanted one: a real server learns of RBAC and policies a moment later."""
        async with asyncio.timeout(30):
            while not holds(answer := await ask()):
                await asyncio.sleep(0.2)
        return answer

    async def account(self, name: str) -> str:
        """A service account of the test's namespace and a token for it."""
        await self.make(self.core("serviceaccounts"), {"metadata": {"name": name}})
        answer = await self.call("POST", self.core("serviceaccounts", f"{name}/token"), {"spec": {}, **_TOKEN_REQUEST})
        assert answer.status == 201, answer.raw
        token: str = answer.body["status"]["token"]
        return token

    @asynccontextmanager
    async def forward(self, pod: str, port: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A port-forward websocket."""
        url = self.url + self.core("pods", f"{pod}/portforward")
        async with self._admin.ws_connect(
            url, params={"ports": str(port)}, protocols=("v4.channel.k8s.io",), max_msg_size=0
        ) as socket:
            yield socket

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: tuple[str, ...], token: str | None = None
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket to a subresource of a pod, as the administrator or with a bearer token."""
        session, headers = self._admin, {}
        if token is not None:
            session, headers = self._bare, {"Authorization": f"Bearer {token}"}
        url = self.url + self.core("pods", path)
        async with session.ws_connect(
            url, params=query, protocols=protocols, headers=headers, max_msg_size=0
        ) as socket:
            yield socket

    async def clean_up(self) -> None:
        for path in reversed(self._cleanup):
            await self.call("DELETE", path)
        await self.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


_TOKEN_REQUEST = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[JSON]:
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield json.loads(line)
    assert not rest, "the stream ended inside an event"


@asynccontextmanager
async def _connected(url: str, admin: ssl.SSLContext, bare: ssl.SSLContext, token: str, sandbox: Sandbox | None) -> AsyncIterator[Server]:  # fmt: skip  # noqa: E501
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=admin), headers=headers) as trusted,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=bare)) as nobody,
    ):
        server = Server(url, trusted, nobody, sandbox)
        await server.make("/api/v1/namespaces", {"metadata": {"name": server.namespace}})
        try:
            yield server
        finally:
            await server.clean_up()


@asynccontextmanager
async def sandbox_server(settings: SandboxSettings | None = None) -> AsyncIterator[Server]:
    async with start(settings or SandboxSettings(metrics_resolution_seconds=0.3, images=IMAGES)) as sandbox:
        context = ssl.create_default_context(cadata=sandbox.certificate_authority.decode())
        async with _connected(sandbox.url, context, context, sandbox.admin_token, sandbox) as server:
            yield server


@asynccontextmanager
async def real_server() -> AsyncIterator[Server]:
    held = yaml.safe_load(Path(REAL).read_text())
    cluster, user = held["clusters"][0]["cluster"], held["users"][0]["user"]
    authority = _pem(cluster, "certificate-authority").decode()
    admin, bare = ssl.create_default_context(cadata=authority), ssl.create_default_context(cadata=authority)
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = Path(directory, "client.crt"), Path(directory, "client.key")
        certificate.write_bytes(_pem(user, "client-certificate"))
        key.write_bytes(_pem(user, "client-key"))
        admin.load_cert_chain(certificate, key)
    async with _connected(cluster["server"], admin, bare, "", None) as server:
        account = server.core("serviceaccounts", "default")
        await server.eventually(lambda: server.call("GET", account), lambda answer: answer.status == 200)
        yield server


def _pem(held: JSON, name: str) -> bytes:
    if f"{name}-data" in held:
        return base64.b64decode(held[f"{name}-data"])
    return Path(held[name]).read_bytes()
