"""Leaves of tools on their way to S3: fetched once, delivered whatever happens, kept until they are written down."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, NotStored, Receipt, SinkRef
from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.reasons import Reason
from toe_async.lib.clock import SystemClock
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.delivery import Delivery, DeliveryFailed
from toe_async.sinks.errors import SinkRefused
from toe_async.sinks.keys import candidates
from toe_async.sinks.spool import Spool, SpoolEntry
from toe_async.sinks.tooldeliveries import Fetch, ToolDeliveries
from toe_async.telemetry.metrics import OperatorMetrics

BODY = b"what the tool found " * 1000
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def record(make_record: Callable[..., CaptureRecord]) -> CaptureRecord:
    """A run of tcpdump whose artifacts are named after its claim."""
    made = make_record()
    return replace(made, group=POWER_TOOLS.group, kind="PowerTool", tool="tcpdump", named_at=made.triggered_at)


class Bucket:
    """Where deliveries end."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses = False

    async def store(self, entry: SpoolEntry, *, again: bool) -> Receipt:
        if self.refuses:
            raise SinkRefused(Reason.SINK_NOT_ALLOWED, "the bucket is not listed")
        key = candidates("", entry.record, entry.artifact)[0]
        self.objects[key] = await asyncio.to_thread(entry.path.read_bytes)
        return Receipt(uri=f"s3://b/{key}", size=entry.artifact.size, sha256=entry.artifact.sha256)

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        raise AssertionError

    async def probe(self, ref: SinkRef, namespace: str) -> str | None:
        return None


class Process:
    """One operator's spool, delivery and what it fetched."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.spool = Spool(root, 64 << 20, SystemClock())
        self.bucket, self.fetched = bucket, 0
        self.deliveries = ToolDeliveries(self.spool, POWER_TOOLS.group)
        self.others: list[str] = []
        self.owner = TaskOwner(lambda name, error: None)

    async def start(self) -> None:
        await self.spool.recover()
        delivery = Delivery(
            self.spool,
            self.bucket,
            self.deliveries.reporting(self._other),
            on_retry=lambda *_: None,
            clock=SystemClock(),
            metrics=OperatorMetrics(CollectorRegistry()),
            deadline_seconds=600,
        )
        self.owner.start(delivery.run(), name="delivery")

    async def _other(self, record: CaptureRecord, artifact: ArtifactRecord, outcome: object) -> None:
        self.others.append(record.kind)

    def fetch(self, body: bytes = BODY) -> Fetch:
        @asynccontextmanager
        async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
            self.fetched += 1

            async def chunks() -> AsyncIterator[bytes]:
                for at in range(0, len(body), 7000):
                    yield body[at : at + 7000]

            yield chunks()

        return opened

    async def deliver(self, record: CaptureRecord, body: bytes = BODY) -> Receipt | NotStored:
        async with asyncio.timeout(10):
            return await self.deliveries.deliver(record, "dump.pcap", len(BODY), SHA, self.fetch(body))

    async def empty(self) -> None:
        """Wait until nothing is in the spool."""
        async with asyncio.timeout(10):
            while self.spool.entries():
                await asyncio.sleep(0.01)

    async def die(self) -> None:
        await self.owner.__aexit__(None, None, None)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
async def process(tmp_path: Path, bucket: Bucket) -> AsyncIterator[Process]:
    made = Process(tmp_path / "spool", bucket)
    await made.start()
    yield made
    await made.die()


async def test_a_leaf_is_delivered_and_leaves_the_spool_once_it_is_written_down(
    process: Process, record: CaptureRecord
) -> None:
    """Until then, whoever asks again gets the same receipt and fetches nothing."""
    receipt = await process.deliver(record)
    assert isinstance(receipt, Receipt)
    assert receipt.sha256 == SHA
    assert await process.deliver(record) == receipt
    assert (process.fetched, len(process.spool.entries())) == (1, 1)
    process.deliveries.release(record.id)
    await process.empty()
    assert list(process.bucket.objects.values()) == [BODY]


async def test_a_process_that_dies_before_it_is_written_down_delivers_it_again(
    tmp_path: Path, bucket: Bucket, record: CaptureRecord
) -> None:
    """To the same key, without fetching: the supervisor may be gone by then."""
    first = Process(tmp_path / "spool", bucket)
    await first.start()
    receipt = await first.deliver(record)
    await first.die()
    second = Process(tmp_path / "spool", bucket)
    await second.start()
    assert await second.deliver(record) == receipt
    assert (second.fetched, len(bucket.objects)) == (0, 1)
    second.deliveries.release(record.id)
    await second.empty()
    await second.die()


async def test_other_bytes_than_announced_are_not_kept(process: Process, record: CaptureRecord) -> None:
    """Shorter, longer or changed; then the right ones may come."""
    for body in (BODY[:-1], BODY[:-1] + b"!", BODY + b"x"):
        told = await process.deliver(record, body)
        assert isinstance(told, NotStored)
        assert not told.final
    assert not process.spool.entries()
    assert isinstance(await process.deliver(record), Receipt)


async def test_a_sink_s_refusal_is_final(process: Process, record: CaptureRecord) -> None:
    """In its own words; nothing stays in the spool for it."""
    process.bucket.refuses = True
    told = await process.deliver(record)
    assert told == NotStored(reason=Reason.SINK_NOT_ALLOWED, message="the bucket is not listed", final=True)
    await process.empty()


async def test_a_leaf_that_an_earlier_process_received_in_part_is_fetched_anew(
    tmp_path: Path, process: Process, record: CaptureRecord
) -> None:
    """Its remains are reported as lost and end nothing."""
    writer = await process.spool.begin(record, "dump.pcap", "tool", len(BODY))
    await writer.write(BODY[:5000])
    later = Process(tmp_path / "spool", process.bucket)
    await later.start()
    told = await later.deliver(record)
    while isinstance(told, NotStored):
        assert not told.final
        await later.empty()
        told = await later.deliver(record)
    assert told.sha256 == SHA
    await later.die()
    await writer.abort()


async def test_an_entry_that_nobody_asks_for_leaves_in_the_end(
    process: Process, record: CaptureRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its PowerTool is gone, or another replica leads: it is stored all the same."""
    monkeypatch.setattr("toe_async.sinks.tooldeliveries.UNCLAIMED_SECONDS", 0.05)
    writer = await process.spool.begin(record, "dump.pcap", "tool", len(BODY))
    await writer.write(BODY)
    await writer.commit(verified=True)
    await process.empty()
    assert list(process.bucket.objects.values()) == [BODY]


async def test_what_is_not_ours_is_reported_as_before(
    process: Process, make_record: Callable[..., CaptureRecord]
) -> None:
    """Captures of ProfilingConfigs go their own way."""
    record = make_record()
    report = process.deliveries.reporting(process._other)
    artifact = ArtifactRecord(
        leaf="heap.pprof", type="heap", size=1, sha256=SHA, captured_at=record.triggered_at, verified=True
    )
    await report(record, artifact, DeliveryFailed(Reason.UPLOAD_FAILED, "late"))
    assert process.others == ["ProfilingConfig"]
