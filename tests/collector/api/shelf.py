"""The read API over a real catalog and store on disk, in front of a reviewer that keeps the API server's rules."""

import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from tests.collector.rig import FakeApi, capture_id
from toe_async.apis.core import UserInfo
from toe_async.apis.meta import encode
from toe_async.collector import paths
from toe_async.collector.api.identity import Bearer, Identity
from toe_async.collector.api.local import Holdings, LocalLibrary
from toe_async.collector.api.rights import Rights
from toe_async.collector.api.routes import Api
from toe_async.collector.auth import Gate
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import open_catalog
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.rendering.renderer import Renderer
from toe_async.collector.settings import Limits
from toe_async.collector.storage import DirectoryStore
from toe_async.lib.clock import Clock, SystemClock
from toe_async.telemetry.metrics import CollectorMetrics

GROUP = "/apis/artifacts.toe.run"
BASE = f"{GROUP}/v1alpha1"
SHOP = f"{BASE}/namespaces/shop/artifacts"
EVERYTHING = ("list", "get", "delete", "deletecollection", "patch")
STORED = datetime(2026, 1, 24, 20, 44, 8, 250_000, tzinfo=UTC)
NOW = STORED + timedelta(hours=1, minutes=5)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class FixedClock(SystemClock):
    """The wall clock stands still, so that ages can be compared."""

    def now(self) -> datetime:
        return NOW


@dataclass
class Reviewer(FakeApi):
    """Keeps who was asked about; a grant in namespace "" holds in each, as a ClusterRoleBinding does."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def _access_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(spec)
        wanted = spec["resourceAttributes"]
        assert (wanted["group"], wanted["version"]) == ("artifacts.toe.run", "v1alpha1")
        resource = "/".join(part for part in (wanted["resource"], wanted.get("subresource", "")) if part)
        if "system:masters" in spec.get("groups", ()):
            return {"allowed": True}
        names = {"", wanted.get("namespace", "")}
        allowed = any((spec["user"], wanted["verb"], one, resource) in self.grants for one in names)
        return {"allowed": allowed} if allowed else {"allowed": False, "reason": "no RBAC policy matched"}

    def allow_all(self, user: str, namespace: str) -> None:
        """Everything that there is to allow."""
        self.grant(user, namespace, *EVERYTHING)
        for subresource in ("content", "render"):
            self.grant(user, namespace, "get", resource=f"artifacts/{subresource}")


@dataclass
class Shelf:
    """A store with an API in front of it."""

    reviewer: Reviewer
    root: Path
    gate: Gate
    holdings: Holdings
    http: aiohttp.ClientSession
    url: str
    ada: str
    """A token that may do everything in `shop`."""

    async def keep(self, number: int = 0, content: bytes = b"", **changes: Any) -> Manifest:
        """Store an artifact and tell the catalog; `number` makes the capture and how long ago it was stored."""
        held = manifest(number, content, **changes)
        put_on_disk(self.root, held, content or f"bytes {number}".encode())
        await self.holdings.catalog.add([held])
        return held

    def library(self, user: str = "ada") -> LocalLibrary:
        return LocalLibrary(UserInfo(username=user), self.holdings)

    @contextlib.asynccontextmanager
    async def call(
        self, method: str, path: str, token: str | None = "", headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        auth = {} if token is None else {"Authorization": f"Bearer {token or self.ada}"}
        async with self.http.request(method, self.url + path, headers=auth | (headers or {}), **more) as reply:
            yield reply

    async def ask(self, method: str, path: str, token: str | None = "", **more: Any) -> tuple[int, Any]:
        async with self.call(method, path, token, **more) as reply:
            assert reply.content_type == "application/json", await reply.text()
            return reply.status, await reply.json()

    async def names(self, query: str = "", base: str = SHOP) -> list[str]:
        status, page = await self.ask("GET", base + query)
        assert status == 200, page
        return [item["metadata"]["name"] for item in page["items"]]


class StartShelf(Protocol):
    def __call__(self, *, complete: bool = True) -> AbstractAsyncContextManager[Shelf]: ...


def manifest(number: int = 0, content: bytes = b"", **changes: Any) -> Manifest:
    """An artifact's manifest; the higher the number the older it is."""
    content = content or f"bytes {number}".encode()
    held: dict[str, Any] = {
        "leaf": "heap.pprof",
        "stored_at": STORED - timedelta(minutes=number),
        "capture": capture_id(number),
        "namespace": "shop",
        "labels": {"app": "cart"},
        "run": "hot-carts",
        "run_uid": "11111111-2222-3333-4444-555555555555",
        "kind": "ProfilingConfig",
        "pod": f"cart-{number}",
        "pod_uid": "66666666-7777-8888-9999-000000000000",
        "container": "server",
        "node": "node-1",
        "service": "cart",
        "tool": "pprof",
        "reason": "threshold-exceeded",
        "trigger": "cpu at 93.1 % of its request of 500m, above 80 %",
        "triggered_at": STORED - timedelta(minutes=number, seconds=30),
    } | changes
    held.setdefault("name", paths.artifact_name(held["capture"], held["leaf"]))
    held.setdefault("directory", paths.directory(held["namespace"], held["labels"], held["run"], ("2026", "01", "24")))
    held.setdefault("file", paths.file_name(held["pod"], held["container"], held["capture"], held["leaf"]))
    return Manifest(size=len(content), sha256=hashlib.sha256(content).hexdigest(), **held)


def put_on_disk(root: Path, held: Manifest, content: bytes) -> None:
    """Lay an artifact down as a commit leaves it."""
    folder = root.joinpath(*held.directory)
    os.makedirs(folder, exist_ok=True)
    (folder / held.file).write_bytes(content)
    (folder / (held.file + paths.MANIFEST_SUFFIX)).write_bytes(encode(held))


def on_disk(root: Path) -> list[str]:
    """Artifacts that are really there."""
    return sorted(path.name for path in root.rglob("*.pprof"))


def folded(lines: str) -> bytes:
    """Folded stacks as a tool leaves them."""
    return gzip.compress(lines.encode())


def manifest_on_disk(root: Path, held: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(root.joinpath(*held.directory, held.file + paths.MANIFEST_SUFFIX).read_text())
    return found


@contextlib.asynccontextmanager
async def holding(root: Path, gate: Gate, clock: Clock, *, complete: bool = True) -> AsyncIterator[Holdings]:
    """A store below `root` and its catalog, which knows everything unless told otherwise."""
    (root / ".toe" / "parts").mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        disk = Disk()
        stack.push_async_callback(disk.close)
        artifacts = DirectoryStore(stack.enter_context(Directory.root(root)), disk)
        catalog = await stack.enter_async_context(open_catalog(root / ".toe" / "index.sqlite", disk, clock))
        if complete:
            await catalog.build(artifacts)
        renderer = await stack.enter_async_context(Renderer())
        rights = Rights(gate, clock, 10.0)
        yield Holdings(catalog=catalog, artifacts=artifacts, renderer=renderer, rights=rights, clock=clock)


@contextlib.asynccontextmanager
async def shelf(root: Path, *, complete: bool = True) -> AsyncIterator[Shelf]:
    """An API on a free loopback port that knows its callers by token."""
    reviewer, clock = Reviewer(), FixedClock()
    ada = reviewer.token("ada")
    reviewer.allow_all("ada", "shop")
    async with (
        Gate(reviewer, clock, CollectorMetrics(CollectorRegistry()), Limits().review_seconds) as gate,
        holding(root, gate, clock, complete=complete) as holdings,
        served(Api(holdings, Bearer(gate), Limits())) as url,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        yield Shelf(reviewer, root, gate, holdings, http, url, ada)


@contextlib.asynccontextmanager
async def served(api: Api) -> AsyncIterator[str]:
    """Its URL, without TLS."""
    app = web.Application()
    app.add_routes(api.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Says:
    """An identity that is always the same."""

    def __init__(self, user: UserInfo) -> None:
        self._user = user

    async def viewer(self, request: web.Request) -> UserInfo:
        return self._user


def nobody() -> Identity:
    """As the API server names a caller without credentials."""
    return Says(UserInfo(username="system:anonymous", groups=("system:unauthenticated",)))
