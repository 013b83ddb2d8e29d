"""S3 against a real server: integrity, races, cancellation, memory."""

import asyncio
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toe_async.apis.captures import CaptureRecord, Receipt, S3Ref
from toe_async.kube.requests import Request
from toe_async.sinks.allow import Allowed
from toe_async.sinks.credentials import Keys, OperatorIdentity
from toe_async.sinks.endpoints import parse_endpoint
from toe_async.sinks.errors import SinkUnavailable
from toe_async.sinks.s3 import S3Sink, _Upload
from toe_async.sinks.s3client import connect
from toe_async.sinks.spool import SpoolEntry

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

pytestmark = pytest.mark.slow  # the server takes seconds to start and the bodies are large


class NoApi:
    """The operator's own identity needs no API server."""

    async def send(self, request: Request) -> bytes:
        raise AssertionError(request)


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The server's only user."""
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id=AKIATEST\naws_secret_access_key=secretkey123\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return path


class Bucket:
    """What an administrator would see, and the sink as delivery uses it."""

    def __init__(self, url: str, client: Any) -> None:
        self.url, self.client = url, client

    async def store(self, sink: S3Sink, entry: SpoolEntry, prefix: str, *, again: bool = False) -> Receipt:
        ref = S3Ref(bucket="profiles", prefix=prefix, endpoint=self.url)
        return await sink.store(entry, ref, self.allowed(), again=again)

    async def body(self, receipt: Receipt) -> bytes:
        key = receipt.uri.removeprefix("s3://profiles/")
        reply = await self.client.get_object(Bucket="profiles", Key=key)
        async with reply["Body"] as stream:
            return bytes(await stream.read())

    async def keys(self, prefix: str) -> list[str]:
        reply = await self.client.list_objects_v2(Bucket="profiles", Prefix=f"{prefix}/")
        return [found["Key"] for found in reply.get("Contents", [])]

    async def open_uploads(self) -> list[str]:
        reply = await self.client.list_multipart_uploads(Bucket="profiles")
        return [found["Key"] for found in reply.get("Uploads", [])]

    def allowed(self) -> Allowed:
        return Allowed(parse_endpoint(self.url), use_operator_identity=True)


@pytest.fixture
async def bucket(weed: str) -> AsyncIterator[Bucket]:
    """The bucket of the real server."""
    session = await OperatorIdentity().session()
    keys = Keys("AKIATEST", "secretkey123", None)
    async with connect(session, keys, Allowed(parse_endpoint(weed))) as client:
        yield Bucket(weed, client)


@pytest.mark.parametrize("size", [1, 5 << 20, (5 << 20) + 1, 13_000_001])
async def test_what_comes_back_is_what_was_captured(
    bucket: Bucket, spooled: MakeEntry, make_record: MakeRecord, size: int
) -> None:
    """At the borders of parts too; with metadata of fifty labels."""
    data = random.Random(size).randbytes(size)
    labels = {f"example.org/label-{n}": f"v-{n}" for n in range(50)}
    entry = await spooled(make_record(f"{size}", labels=labels), data)
    async with S3Sink(NoApi()) as sink:
        receipt = await bucket.store(sink, entry, f"whole-{size}")
        assert await bucket.store(sink, entry, f"whole-{size}", again=True) == receipt
    assert hashlib.sha256(await bucket.body(receipt)).hexdigest() == receipt.sha256 == entry.artifact.sha256
    assert len(await bucket.keys(f"whole-{size}")) == 2


async def test_of_writers_that_do_not_know_of_each_other_each_keeps_a_name(
    bucket: Bucket, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """Six replicas, one service, one second: nothing is overwritten, every body is found under its receipt."""
    entries = [await spooled(make_record(f"{n}", pod=f"web-{n}"), random.Random(n).randbytes(1000)) for n in range(6)]

    async def replica(entry: SpoolEntry) -> Receipt:
        async with S3Sink(NoApi()) as sink:
            return await bucket.store(sink, entry, "race")

    receipts = await asyncio.gather(*(replica(entry) for entry in entries))
    assert len({receipt.uri for receipt in receipts}) == 6
    for receipt in receipts:
        assert hashlib.sha256(await bucket.body(receipt)).hexdigest() == receipt.sha256
    assert len(await bucket.keys("race")) == 12


@pytest.mark.parametrize("size", [1000, (5 << 20) + 1])
async def test_a_name_that_was_taken_after_we_looked_is_left_alone(
    bucket: Bucket, spooled: MakeEntry, make_record: MakeRecord, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself refuses the write, whole or in parts; the parts are not left behind."""
    first = await spooled(make_record(f"{size}-1"), random.Random(1).randbytes(size))
    second = await spooled(make_record(f"{size}-2"), random.Random(2).randbytes(size))
    look, blind = _Upload._is_mine, [True]

    async def late(upload: _Upload, key: str) -> bool | None:
        return None if blind and blind.pop() else await look(upload, key)

    async with S3Sink(NoApi()) as sink:
        theirs = await bucket.store(sink, first, f"late-{size}")
        monkeypatch.setattr(_Upload, "_is_mine", late)
        ours = await bucket.store(sink, second, f"late-{size}")
    assert blind == []
    assert hashlib.sha256(await bucket.body(theirs)).hexdigest() == theirs.sha256
    assert hashlib.sha256(await bucket.body(ours)).hexdigest() == ours.sha256
    assert await bucket.open_uploads() == []


async def test_cancelled_at_any_moment_no_upload_is_left_open(
    bucket: Bucket, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """Cancelled after 0, 23, 46... ms until it gets through: the server lists no open upload, one object at the end."""
    entry = await spooled(make_record(), random.Random(5).randbytes(13_000_001))
    async with S3Sink(NoApi()) as sink:
        for wait in range(0, 4000, 23):
            task = asyncio.get_running_loop().create_task(bucket.store(sink, entry, "cut", again=True))
            await asyncio.wait({task}, timeout=wait / 1000)
            task.cancel()
            try:
                receipt = await task
                break
            except asyncio.CancelledError:
                assert await bucket.open_uploads() == [], f"after {wait} ms"
    assert hashlib.sha256(await bucket.body(receipt)).hexdigest() == entry.artifact.sha256
    assert len(await bucket.keys("cut")) == 2


async def test_a_wrong_key_is_told(bucket: Bucket, spooled: MakeEntry, make_record: MakeRecord, identity: Path) -> None:
    """The server's own answer, in our words."""
    identity.write_text("[default]\naws_access_key_id=AKIATEST\naws_secret_access_key=wrong\n")
    entry = await spooled(make_record())
    async with S3Sink(NoApi()) as sink:
        with pytest.raises(SinkUnavailable, match="does not accept the access key"):
            await bucket.store(sink, entry, "wrong")
        said = await sink.probe(S3Ref(bucket="profiles", endpoint=bucket.url), bucket.allowed(), "shop")
    assert "access key" in (said or "")


async def test_a_probe_of_the_real_server(bucket: Bucket) -> None:
    """A bucket that is there, one that is not."""
    async with S3Sink(NoApi()) as sink:
        assert await sink.probe(S3Ref(bucket="profiles", endpoint=bucket.url), bucket.allowed(), "shop") is None
        said = await sink.probe(S3Ref(bucket="absent", endpoint=bucket.url), bucket.allowed(), "shop")
    assert "make the bucket" in (said or "")


_CHILD = """
import asyncio, os, resource, sys
from pathlib import Path
import msgspec
from toe_async.apis.captures import CaptureRecord, S3Ref
from toe_async.lib.clock import SystemClock
from toe_async.sinks.allow import Allowed
from toe_async.sinks.endpoints import parse_endpoint
from toe_async.sinks.s3 import S3Sink, _Upload
from toe_async.sinks.spool import Spool

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")) // 1024

async def one(spool, sink, record, leaf, mib):
    writer = await spool.begin(record, leaf, leaf, mib << 20)
    for _ in range(mib * 32):
        await writer.write(os.urandom(32 << 10))
    await writer.commit(verified=True)
    entry = spool.entries()[0]
    ref = S3Ref(bucket="profiles", prefix="memory", endpoint=sys.argv[1])
    allowed = Allowed(parse_endpoint(ref.endpoint), use_operator_identity=True)
    receipt = await sink.store(entry, ref, allowed, again=False)
    assert receipt.size == mib << 20
    await spool.remove(entry)
    print(peak(), flush=True)

async def main():
    record = msgspec.json.decode(sys.stdin.buffer.read(), type=CaptureRecord)
    spool = Spool(Path(sys.argv[2]), 1 << 30, SystemClock())
    await spool.recover()
    async with S3Sink(None) as sink:
        await one(spool, sink, record, "small", 1)
        await one(spool, sink, record, "large", 256)
asyncio.run(main())
"""


@pytest.mark.timeout(180)
async def test_a_quarter_of_a_gib_needs_no_more_memory_than_a_mib(
    weed: str, make_record: MakeRecord, tmp_path: Path
) -> None:
    """PR13, U6: through the spool and into S3, VmHWM grows by no more than 32 MiB."""

    def run() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, weed, str(tmp_path / "spool")],
            input=msgspec.json.encode(make_record("memory")), capture_output=True, check=False, env=dict(os.environ),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return [int(line) for line in done.stdout.split()]

    small, large = await asyncio.to_thread(run)
    print(f"VmHWM after 1 MiB: {small} MiB, after 256 MiB: {large} MiB")
    assert large - small <= 32
