"""An S3 store over a real server and over one that can be told to misbehave."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, running_seaweed

from tests.collector.rig import registration
from tests.collector.s3.fake_bucket import FakeBucket
from tests.sinks.fake_s3 import serving
from toe_async.apis.meta import encode
from toe_async.collector import captures
from toe_async.collector.captures import Manifest
from toe_async.collector.dateformat import DateLayout
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.parts import Part, Parts
from toe_async.collector.s3store import S3Store
from toe_async.collector.store_url import parse_store_url
from toe_async.lib.clock import SystemClock
from toe_async.sinks.credentials import Keys, OperatorIdentity
from toe_async.sinks.s3client import connect

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)
BODY = b"profile " * 1000


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The collector's identity: a mounted credentials file, and no other source."""
    path = tmp_path / "credentials"
    write_identity(path, SECRET_KEY)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return path


def write_identity(path: Path, secret: str) -> None:
    path.write_text(f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={secret}\n")


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real server."""
    with running_seaweed(tmp_path_factory.mktemp("weed")) as endpoint:
        yield endpoint


@dataclass
class Rig:
    """A store, its staging, and the bucket as its owner sees it."""

    store: S3Store
    parts: Parts
    root: Path
    prefix: str
    client: Any

    async def put(self, body: bytes = BODY, **changes: Any) -> tuple[Manifest, Manifest]:
        """Stage and commit: what was to be stored, and what is."""
        async with self.staged(body, **changes) as (part, wanted):
            return wanted, await self.store.commit(part, wanted)

    @contextlib.asynccontextmanager
    async def staged(self, body: bytes = BODY, **changes: Any) -> AsyncIterator[tuple[Part, Manifest]]:
        async with self.parts.fresh() as part:
            await self.parts.write(part, [body])
            yield part, manifest(part, **changes)

    async def read(self, manifest: Manifest) -> bytes:
        async with self.store.open(manifest) as reader:
            pieces, at = [], 0
            while piece := await reader.read(at, 256 << 10):
                pieces.append(piece)
                at += len(piece)
            return b"".join(pieces)

    async def listed(self) -> list[Manifest]:
        return [one async for page in self.store.manifests() for one in page]

    def key(self, manifest: Manifest) -> str:
        return "/".join((self.prefix, *manifest.directory, manifest.file))

    async def keys(self) -> list[str]:
        reply = await self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return [found["Key"] for found in reply.get("Contents", [])]

    async def open_uploads(self) -> list[str]:
        reply = await self.client.list_multipart_uploads(Bucket=BUCKET)
        return [found["Key"] for found in reply.get("Uploads", []) if found["Key"].startswith(self.prefix)]

    def notes(self) -> list[str]:
        folder = self.root / ".toe" / "s3"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def manifest(part: Part, leaf: str = "heap.pprof", **changes: Any) -> Manifest:
    """What is known about a staged upload."""
    wanted = captures.decode_registration(encode(registration(**changes)))
    record = captures.open_capture(wanted, DateLayout("2006/01/02"), 1 << 40)
    return captures.manifest_of(record, leaf, part.size, part.sha256, NOW)


Open = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Open a store at an endpoint."""

    @contextlib.asynccontextmanager
    async def open_(endpoint: str, prefix: str, root: str = "store") -> AsyncIterator[Rig]:
        place = parse_store_url(f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&http=allow")
        path, disk = tmp_path / root, Disk()
        path.mkdir(exist_ok=True)
        session = await OperatorIdentity().session()
        async with connect(session, Keys(ACCESS_KEY, SECRET_KEY, None), place.allowed()) as client:
            with Directory.root(path) as directory:
                parts = Parts(directory, disk)
                await parts.recover()
                async with S3Store(place, directory, disk, SystemClock()) as store:
                    yield Rig(store, parts, path, prefix, client)
                await disk.close()

    return open_


@pytest.fixture
async def real(weed: str, opened: Open, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """A store of its own for each test on the real server."""
    async with opened(weed, f"t{abs(hash(request.node.name))}") as rig:
        yield rig


@pytest.fixture
async def fake() -> AsyncIterator[FakeBucket]:
    """A server that keeps the rules until it is told otherwise."""
    server = FakeBucket()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get(f"/{BUCKET}", server.handle)
    app.router.add_route("*", f"/{BUCKET}/{{key:.*}}", server.handle)
    async with serving(app) as url:
        server.url = url
        yield server


@pytest.fixture
async def rig(fake: FakeBucket, opened: Open) -> AsyncIterator[Rig]:
    """A store on the fake server."""
    async with opened(fake.url, "a/b") as made:
        yield made
