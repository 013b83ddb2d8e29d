"""Large artifacts through broken connections: every byte once, the digest right, whatever was cut and where.

The seven interruptions are those that tusd's handler tests name: timeout, close, reset, a lock that is held, too long,
stopped by the server, and the server's own end.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from faultproxy import Cut, FaultProxy, How, faulty
from msgspec.structs import replace

from tests.sinks.test_collector import FakeApi, access, collector
from toe_async.apis.captures import CaptureRecord, CollectorRef
from toe_async.collector.captures import Manifest
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import Part
from toe_async.collector.storage import DirectoryStore
from toe_async.lib.clock import SystemClock
from toe_async.sinks import collectorhttp, pieces
from toe_async.sinks.collector import CollectorSink
from toe_async.sinks.errors import SinkRefused, SinkUnavailable
from toe_async.sinks.spool import SpoolEntry

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

MIB = 1 << 20
PIECE = 256 << 10
CUTS = int(os.environ.get("TOE_UPLOAD_CUTS", "25"))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(pieces, "_CHUNK", 64 << 10)
    monkeypatch.setattr(collectorhttp, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(pieces, "SILENCE_SECONDS", 2.0)


@pytest.fixture
async def entry(spooled: MakeEntry, make_record: MakeRecord) -> SpoolEntry:
    """Two MiB and a bit, so that the last piece is a short one."""
    return await spooled(make_record(sink=CollectorRef(endpoint="")), random.Random(1).randbytes(2 * MIB + 12_345))


class Rig:
    """A collector behind a proxy, and a client that knows only the proxy."""

    def __init__(self, api: FakeApi, root: Path, sink: CollectorSink, proxy: FaultProxy) -> None:
        self.api, self.root, self.sink, self.proxy = api, root, sink, proxy

    def stored(self) -> list[bytes]:
        return [path.read_bytes() for path in self.root.rglob("*.pprof") if path.is_file()]

    def left_over(self) -> list[str]:
        parts = self.root / ".toe" / "parts"
        return [path.name for path in parts.iterdir()] if parts.exists() else []


@asynccontextmanager
async def rigged(api: FakeApi, tmp_path: Path, *cuts: Cut) -> AsyncIterator[Rig]:
    async with (
        collector(api, tmp_path / "store") as url,
        faulty(int(url.rpartition(":")[2]), cuts) as (front, proxy),
        CollectorSink(api, access(front, tmp_path), SystemClock()) as sink,
    ):
        yield Rig(api, tmp_path / "store", sink, proxy)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


async def persistent(sink: CollectorSink, entry: SpoolEntry, attempts: int = 8) -> None:
    """As the delivery does: again after what may pass."""
    for left in reversed(range(attempts)):
        try:
            receipt = await sink.store(entry)
        except SinkUnavailable:
            if not left:
                raise
        else:
            assert (receipt.size, receipt.sha256) == (entry.artifact.size, entry.artifact.sha256)
            return


@pytest.mark.parametrize("how", list(How), ids=lambda how: how.value)
@pytest.mark.parametrize("at", [100_000, PIECE + 5_000, 2 * MIB], ids=["first piece", "a later one", "near the end"])
async def test_what_came_before_a_cut_is_not_sent_again(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry, how: How, at: int
) -> None:
    async with rigged(api, tmp_path, Cut(at, how)) as rig:
        await persistent(rig.sink, entry)
        assert rig.proxy.happened == 1
        assert rig.stored() == [entry.path.read_bytes()]
        assert rig.left_over() == []
        # What was on the wire or in a buffer when it broke is lost: a piece at the very most.
        assert rig.proxy.sent <= entry.artifact.size + PIECE + 64 * 1024


async def test_cuts_at_random_places_cost_a_tenth_at_most(
    api: FakeApi, tmp_path: Path, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """TOE_UPLOAD_CUTS=500 is the long form."""
    seed = random.Random(20261121)
    size = 64 * MIB if CUTS > 100 else 16 * MIB
    body = seed.randbytes(size)
    entry = await spooled(make_record(sink=CollectorRef(endpoint="")), body)
    cuts = [Cut(seed.randrange(size), seed.choice([How.CLOSE, How.RESET])) for _ in range(CUTS)]
    async with rigged(api, tmp_path, *cuts) as rig:
        await persistent(rig.sink, entry, attempts=CUTS)
        assert rig.stored() == [body]
        print(f"{rig.proxy.happened} cuts, {rig.proxy.sent / size:.4f} times the size was sent")
        assert rig.proxy.happened == CUTS
        assert rig.proxy.sent <= 1.1 * size


async def test_a_second_sender_ends_the_first_and_goes_on_from_its_offset(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry
) -> None:
    """The first one hangs on a dead connection, as after a failover of its network; nobody waits for it."""
    async with rigged(api, tmp_path, Cut(MIB, How.STALL)) as rig:
        first = asyncio.get_running_loop().create_task(rig.sink.store(entry))
        await rig.proxy.cut.wait()
        await rig.sink.store(entry)
        assert rig.proxy.sent <= entry.artifact.size + PIECE + 64 * 1024
        with pytest.raises(SinkUnavailable, match="409 Superseded"):
            await first
        assert rig.stored() == [entry.path.read_bytes()]


async def test_what_is_too_long_is_refused_before_a_byte_of_it(api: FakeApi, tmp_path: Path, entry: SpoolEntry) -> None:
    async with collector(api, tmp_path / "store") as url, faulty(int(url.rpartition(":")[2]), ()) as (front, proxy):
        small = replace(access(front, tmp_path), max_bytes=MIB)
        async with CollectorSink(api, small, SystemClock()) as sink:
            with pytest.raises(SinkUnavailable, match="413"):
                await sink.store(entry)
        assert proxy.sent < 64 * 1024


async def test_a_cancelled_capture_ends_its_upload_for_good(api: FakeApi, tmp_path: Path, entry: SpoolEntry) -> None:
    """The operator's DELETE: the token is refused at once and the parts are removed."""
    async with rigged(api, tmp_path, Cut(MIB, How.STALL)) as rig:
        upload = asyncio.get_running_loop().create_task(rig.sink.store(entry))
        await rig.proxy.cut.wait()
        operator = collectorhttp.CollectorHTTP(f"http://127.0.0.1:{rig.proxy.upstream}", None)
        async with operator:
            token = (tmp_path / "token").read_text().strip()
            await operator.ask("DELETE", f"/v1/captures/{entry.record.id}", token)
        with pytest.raises(SinkRefused, match="403 Cancelled"):
            await upload
        assert rig.stored() == []
        assert rig.left_over() == []


async def test_a_collector_that_is_restarted_goes_on_where_it_was(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry
) -> None:
    async with rigged(api, tmp_path, Cut(MIB + 1000, How.STALL)) as before:
        upload = asyncio.get_running_loop().create_task(before.sink.store(entry))
        await before.proxy.cut.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
    async with rigged(api, tmp_path) as after:
        await after.sink.store(entry)
        assert after.stored() == [entry.path.read_bytes()]
        assert after.proxy.sent <= entry.artifact.size - MIB + PIECE + 64 * 1024


async def test_a_capture_that_was_cancelled_before_its_upload_is_final_too(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry
) -> None:
    """A large artifact is asked for by HEAD first, whose refusal has no body; other captures are not held up by it."""
    async with rigged(api, tmp_path, Cut(MIB, How.RESET)) as rig:
        operator = collectorhttp.CollectorHTTP(f"http://127.0.0.1:{rig.proxy.upstream}", None)
        async with operator:
            await rig.sink._register(entry.record, entry.artifact.leaf)
            token = (tmp_path / "token").read_text().strip()
            await operator.ask("DELETE", f"/v1/captures/{entry.record.id}", token)
        with pytest.raises(SinkRefused, match="403 Cancelled"):
            await rig.sink.store(entry)


async def test_what_is_there_to_its_last_byte_is_not_sent_again(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store failed after the last piece had come, and is well again."""
    real = DirectoryStore.commit
    failures = [StoreError("the file system answered EIO")]

    async def commit(self: DirectoryStore, part: Part, manifest: Manifest) -> Manifest:
        if failures:
            raise failures.pop()
        return await real(self, part, manifest)

    monkeypatch.setattr(DirectoryStore, "commit", commit)
    async with rigged(api, tmp_path) as rig:
        await rig.sink.store(entry)
        assert rig.stored() == [entry.path.read_bytes()]
        assert rig.left_over() == []
        assert rig.proxy.sent <= entry.artifact.size + 64 * 1024


async def test_damage_in_the_spool_is_found_behind_the_offset_too(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry
) -> None:
    """What the collector has already is read again and counted into the digest."""
    async with rigged(api, tmp_path, Cut(MIB, How.STALL)) as rig:
        upload = asyncio.get_running_loop().create_task(rig.sink.store(entry))
        await rig.proxy.cut.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        damaged = bytearray(entry.path.read_bytes())
        damaged[10] ^= 1
        entry.path.write_bytes(damaged)
        assert sha256(damaged).hexdigest() != entry.artifact.sha256
        with pytest.raises(SinkRefused, match="has other bytes"):
            await rig.sink.store(entry)
        assert rig.stored() == []
