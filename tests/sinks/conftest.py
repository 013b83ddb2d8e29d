"""Captures, spools and a real S3 server for the tests of the sinks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from seaweed import running_seaweed

from tests.sinks.fake_s3 import FakeS3, serving
from toe_async.apis.captures import ArtifactRecord, CaptureRecord, S3Ref, SinkRef, Target
from toe_async.lib.clock import SystemClock
from toe_async.lib.names import digest
from toe_async.sinks.spool import Spool, SpoolEntry

# looptime asks the policy for a loop before every test; without this the first synchronous test would make one that
# nobody closes, and some later test would be blamed for the warning.
asyncio.set_event_loop(None)

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

AT = datetime(2026, 1, 24, 20, 44, 8, 123456, UTC)


@pytest.fixture
def make_record() -> MakeRecord:
    """Make a capture of pod `web-0` of namespace `shop`."""

    def make(
        name: str = "one",
        *,
        pod: str = "web-0",
        namespace: str = "shop",
        service: str = "web",
        labels: dict[str, str] | None = None,
        sink: SinkRef | None = None,
    ) -> CaptureRecord:
        return CaptureRecord(
            id=digest(name),
            kind="ProfilingConfig",
            namespace=namespace,
            name="hot",
            uid="0c0ffee0-0000-4000-8000-000000000001",
            target=Target(
                namespace=namespace,
                pod=pod,
                pod_uid="0c0ffee0-0000-4000-8000-000000000002",
                container="app",
                node="node-1",
                labels=labels if labels is not None else {"app": "web"},
                service=service,
            ),
            reason="threshold-exceeded",
            trigger="CPU 91% of request is above 80%",
            triggered_at=AT,
            holder="operator-0",
            sink=sink or S3Ref(bucket="profiles", prefix="hot", endpoint="https://s3.example.org"),
            matching_labels={"app": "web"},
        )

    return make


@pytest.fixture
def make_artifact() -> Callable[..., ArtifactRecord]:
    """Make an artifact of a few bytes."""

    def make(
        type_: str = "heap", data: bytes = b"profile", *, leaf: str = "", captured_at: datetime = AT
    ) -> ArtifactRecord:
        return ArtifactRecord(
            leaf=leaf or f"{type_}.pprof",
            type=type_,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            captured_at=captured_at,
            verified=True,
        )

    return make


class OneSecond(SystemClock):
    """A wall clock that stands still, so that captures of one test meet in one second however slow the machine is."""

    def __init__(self) -> None:
        self._now = super().now()

    def now(self) -> datetime:
        return self._now


@pytest.fixture
async def spool(tmp_path: Path) -> Spool:
    """A spool of 64 MiB, ready for use."""
    spool = Spool(tmp_path / "spool", 64 << 20, OneSecond())
    await spool.recover()
    return spool


@pytest.fixture
def spooled(spool: Spool) -> MakeEntry:
    """Commit an artifact to the spool."""

    async def make(record: CaptureRecord, data: bytes = b"profile", type_: str = "heap") -> SpoolEntry:
        writer = await spool.begin(record, f"{type_}.pprof", type_, len(data))
        for at in range(0, len(data), 1 << 20):
            await writer.write(data[at : at + (1 << 20)])
        await writer.commit(verified=True)
        return spool.entries()[-1]

    return make


@pytest.fixture
async def s3() -> AsyncIterator[FakeS3]:
    """The server; its bucket is `profiles`."""
    fake = FakeS3()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/profiles/{key:.*}", fake.handle)
    async with serving(app) as url:
        fake.url = url
        yield fake


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server on loopback with a bucket `profiles`; yields its endpoint."""
    with running_seaweed(tmp_path_factory.mktemp("weed")) as endpoint:
        yield endpoint
