"""The spool: what it promises against crashes, full disks and impatient callers."""

import asyncio
import contextlib
import hashlib
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from toe_async.apis.captures import CaptureRecord
from toe_async.apis.reasons import Reason
from toe_async.lib.clock import SystemClock
from toe_async.sinks.errors import AlreadySpooled, SinkRefused, SpoolError, SpoolFull
from toe_async.sinks.spool import Spool, SpoolEntry
from toe_async.sinks.spoolreader import reading

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]


def names(spool_root: Path) -> list[str]:
    """List the files of a spool."""
    return sorted(path.name for path in spool_root.iterdir())


async def test_a_committed_artifact_is_there_whole_with_its_digest(spool: Spool, make_record: MakeRecord) -> None:
    """Chunks of any size come out as one file."""
    data = random.Random(1).randbytes(3_000_001)
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 4 << 20)
    for at in range(0, len(data), 70_001):
        await writer.write(data[at : at + 70_001])
    artifact = await writer.commit(verified=False)
    assert (artifact.size, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (artifact.leaf, artifact.type, artifact.verified) == ("heap.pprof", "heap", False)
    [entry] = spool.entries()
    assert entry.path.read_bytes() == data
    assert entry.artifact == artifact
    assert spool.used_bytes == len(data)


async def test_an_entry_survives_a_restart_with_everything_that_delivery_needs(
    spool: Spool, spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path
) -> None:
    """Record, artifact and bytes come back equal; the bytes count again."""
    entry = await spooled(make_record(), b"abc" * 1000)
    again = Spool(tmp_path / "spool", 1 << 20, SystemClock())
    [back] = await again.recover()
    assert back.recovered
    assert (back.record, back.artifact, back.path, back.lost) == (entry.record, entry.artifact, entry.path, None)
    assert again.used_bytes == 3000
    assert again.entries() == [back]


async def test_an_aborted_artifact_leaves_nothing(spool: Spool, make_record: MakeRecord, tmp_path: Path) -> None:
    """Abort fits a `finally`: before, after and twice."""
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 1 << 20)
    await writer.write(b"x" * 2000)
    assert spool.used_bytes == 2000
    await writer.abort()
    await writer.abort()
    assert names(tmp_path / "spool") == []
    assert spool.used_bytes == 0
    await (await spool.begin(make_record(), "heap.pprof", "heap", 1)).abort()


async def test_abort_after_commit_keeps_the_artifact(spool: Spool, make_record: MakeRecord) -> None:
    """So a `finally` cannot lose what is committed."""
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 10)
    await writer.write(b"abc")
    await writer.commit(verified=True)
    await writer.abort()
    assert spool.entries()[0].path.read_bytes() == b"abc"


async def test_a_removed_entry_leaves_nothing(
    spool: Spool, spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path
) -> None:
    """After its delivery; removing twice is harmless."""
    entry = await spooled(make_record())
    await spool.remove(entry)
    await spool.remove(entry)
    assert (names(tmp_path / "spool"), spool.used_bytes, spool.entries()) == ([], 0, [])


async def test_one_artifact_is_taken_once(spool: Spool, spooled: MakeEntry, make_record: MakeRecord) -> None:
    """While it is received, and while it waits for its delivery; other leaves of the capture are others."""
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 10)
    with pytest.raises(AlreadySpooled):
        await spool.begin(make_record(), "heap.pprof", "heap", 10)
    await writer.abort()
    await spooled(make_record())
    with pytest.raises(AlreadySpooled):
        await spool.begin(make_record(), "heap.pprof", "heap", 10)
    await spooled(make_record(), type_="cpu")
    assert len(spool.entries()) == 2


async def test_a_capture_that_may_not_fit_is_refused_before_it_starts(
    spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path
) -> None:
    """StoreFull before a port-forward is opened, with the figures and the way out; nothing is kept."""
    small = Spool(tmp_path / "small", 1000, SystemClock())
    await small.recover()
    with pytest.raises(SpoolFull) as caught:
        await small.begin(make_record(), "heap.pprof", "heap", 1001)
    assert (caught.value.needed, caught.value.free, caught.value.reason) == (1001, 1000, Reason.STORE_FULL)
    assert names(tmp_path / "small") == []
    writer = await small.begin(make_record(), "heap.pprof", "heap", 1000)
    await writer.abort()


async def test_captures_that_share_the_space_cannot_pass_the_limit_together(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    """The write that would pass it ends its own capture; the other one goes on."""
    small = Spool(tmp_path / "small", 1000, SystemClock())
    await small.recover()
    one = await small.begin(make_record("one"), "heap.pprof", "heap", 1000)
    two = await small.begin(make_record("two"), "heap.pprof", "heap", 1000)
    await one.write(b"x" * 600)
    with pytest.raises(SpoolFull):
        await two.write(b"x" * 600)
    await two.abort()
    await one.write(b"x" * 400)
    assert (await one.commit(verified=True)).size == 1000
    assert small.used_bytes == 1000


async def test_more_than_was_announced_is_refused(spool: Spool, make_record: MakeRecord) -> None:
    """The announced size is what was checked against the limit."""
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 10)
    with pytest.raises(SpoolFull, match="announced"):
        await writer.write(b"x" * 11)
    await writer.abort()


async def test_a_full_disk_ends_that_capture_cleanly(spool: Spool, make_record: MakeRecord, tmp_path: Path) -> None:
    """A limit of the kernel on file sizes stands in for ENOSPC: the write fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = await spool.begin(make_record(), "heap.pprof", "heap", 8 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        await writer.write(b"x" * (1 << 20))
        with pytest.raises(SpoolFull, match="disk is full"):
            await writer.write(b"x" * (1 << 20))
        await writer.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (names(tmp_path / "spool"), spool.used_bytes) == ([], 0)
    await (await spool.begin(make_record(), "heap.pprof", "heap", 1)).abort()


async def test_a_disk_that_refuses_is_said_without_a_traceback_of_the_system(
    spool: Spool, make_record: MakeRecord, tmp_path: Path
) -> None:
    """EACCES, EIO and the like: the capture ends, the reason is the spool's."""
    (tmp_path / "spool").rmdir()
    with pytest.raises(SpoolError, match="ENOENT") as caught:
        await spool.begin(make_record(), "heap.pprof", "heap", 1)
    assert caught.value.reason == Reason.SPOOL_DAMAGED


async def test_a_listener_hears_of_what_is_there_and_of_what_comes(
    spool: Spool, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """Delivery misses nothing whenever it starts."""
    heard: list[SpoolEntry] = []
    one = await spooled(make_record("one"))
    with spool.listening(heard.append):
        two = await spooled(make_record("two"))
    await spooled(make_record("three"))
    assert heard == [one, two]


async def test_a_cancelled_begin_leaves_nothing(spool: Spool, make_record: MakeRecord, tmp_path: Path) -> None:
    """Cancelled at each of its steps in turn, it can be begun again, and no file is left."""
    for steps in range(12):
        task = asyncio.get_running_loop().create_task(spool.begin(make_record(), "heap.pprof", "heap", 1))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).abort()
        assert names(tmp_path / "spool") == []
        assert spool.used_bytes == 0


async def test_a_cancelled_commit_is_all_or_nothing(spool: Spool, make_record: MakeRecord, tmp_path: Path) -> None:
    """The caller that was cancelled aborts, and then there is nothing; else the entry is whole."""
    for steps in range(12):
        writer = await spool.begin(make_record(f"{steps}"), "heap.pprof", "heap", 10)
        await writer.write(b"abc")
        task = asyncio.get_running_loop().create_task(writer.commit(verified=True))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await writer.abort()
        for entry in spool.entries():
            assert entry.path.read_bytes() == b"abc"
            await spool.remove(entry)
        assert names(tmp_path / "spool") == []
        assert spool.used_bytes == 0


async def test_what_an_interrupted_write_or_removal_left_is_cleared(
    spool: Spool, spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path
) -> None:
    """Data without a state is nobody's, a half-written state never was, an unreadable one says nothing."""
    entry = await spooled(make_record())
    root = tmp_path / "spool"
    (root / "orphan.data").write_bytes(b"x")
    (root / "half.tmp").write_bytes(b'{"rec')
    (root / "bad.json").write_bytes(b"{")
    (root / "bad.data").write_bytes(b"x")
    again = Spool(root, 1 << 20, SystemClock())
    assert [back.name for back in await again.recover()] == [entry.name]
    assert names(root) == [f"{entry.name}.data", f"{entry.name}.json"]


async def test_data_that_the_disk_lost_is_told(
    spool: Spool, spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path
) -> None:
    """A committed artifact of another size is no artifact."""
    entry = await spooled(make_record())
    entry.path.write_bytes(b"prof")
    [back] = await Spool(tmp_path / "spool", 1 << 20, SystemClock()).recover()
    assert back.lost is not None
    assert back.lost.reason == Reason.SPOOL_DAMAGED
    assert (back.artifact.size, back.artifact.sha256) == (4, "")


async def test_entries_come_back_oldest_first(make_record: MakeRecord, tmp_path: Path) -> None:
    """The one that waited longest is nearest to its deadline."""

    class Ticking(SystemClock):
        hour = 23

        def now(self) -> datetime:
            self.hour -= 1
            return datetime(2026, 1, 1, self.hour, tzinfo=UTC)

    spool = Spool(tmp_path, 1 << 20, Ticking())
    await spool.recover()
    for name in "abc":
        writer = await spool.begin(make_record(name), "heap.pprof", "heap", 10)
        await writer.commit(verified=True)
    back = await Spool(tmp_path, 1 << 20, SystemClock()).recover()
    assert [entry.artifact.captured_at.hour for entry in back] == [20, 21, 22]


async def test_a_reader_gives_the_last_bytes_only_when_all_are_right(
    spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """G2: what a sink takes is what was captured, or it is nothing."""
    entry = await spooled(make_record(), b"0123456789")
    async with reading(entry) as reader:
        assert [await reader.read(4), await reader.read(4), await reader.read(4), await reader.read(4)] == [
            b"0123", b"4567", b"89", b"",
        ]  # fmt: skip
    entry.path.write_bytes(b"0123456780")
    async with reading(entry) as reader:
        assert await reader.read(8) == b"01234567"
        with pytest.raises(SinkRefused) as caught:
            await reader.read(8)
        assert caught.value.reason == Reason.SPOOL_DAMAGED
    entry.path.write_bytes(b"0123")
    async with reading(entry) as reader:
        with pytest.raises(SinkRefused):
            await reader.read(8)
    entry.path.unlink()
    with pytest.raises(SinkRefused):
        async with reading(entry):
            pass


# -- killed processes -------------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, ctypes, os, sys
from pathlib import Path
import msgspec
from toe_async.apis.captures import CaptureRecord
from toe_async.lib.clock import SystemClock
from toe_async.sinks.spool import Spool

calls, die_at = 0, int(sys.argv[2])
def hook(event, args):
    # Every touch of the disk but fsync is announced before it happens; fsync is wrapped below.
    if event in {"open", "os.rename", "os.remove"} and str(args[0]).startswith(sys.argv[1]):
        step()
def step():
    global calls
    calls += 1
    if calls == die_at:
        os.kill(os.getpid(), 9)
fsync = os.fsync
os.fsync = lambda fd: (step(), fsync(fd), step())

async def main():
    record = msgspec.json.decode(sys.stdin.buffer.read(), type=CaptureRecord)
    spool = Spool(Path(sys.argv[1]), 1 << 30, SystemClock())
    await spool.recover()
    sys.addaudithook(hook)
    writer = await spool.begin(record, "heap.pprof", "heap", 8 << 20)
    step()
    for n in range(4):
        await writer.write(bytes([n]) * (1 << 20))
        step()
    await writer.commit(verified=True)
    print("committed", flush=True)
    step()
    await spool.remove(spool.entries()[0])
    print("removed", flush=True)
asyncio.run(main())
print("steps", calls, flush=True)
"""


def _run_child(root: Path, record: bytes, die_at: int) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(root), str(die_at)],
        input=record, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode().splitlines()


@pytest.mark.slow
async def test_a_process_killed_at_any_point_leaves_an_entry_that_is_absent_cut_short_or_whole(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    """SIGKILL at every touch of the disk, in turn: what was committed is whole, what was begun is told."""
    record = make_record()
    body = msgspec.json.encode(record)
    code, said = await asyncio.to_thread(_run_child, tmp_path / "whole", body, -1)
    assert code == 0
    steps = int(said[-1].split()[1])
    assert steps > 20
    data = b"".join(bytes([n]) * (1 << 20) for n in range(4))
    seen = set()
    for die_at in range(1, steps + 1):
        root = tmp_path / str(die_at)
        code, said = await asyncio.to_thread(_run_child, root, body, die_at)
        assert code == -signal.SIGKILL
        spool = Spool(root, 1 << 30, SystemClock())
        found = await spool.recover()
        assert len(found) <= 1
        if not found:
            seen.add("absent")
            assert die_at < 8 or "committed" in said, "a capture that was begun is forgotten"
            assert names(root) == []
        elif found[0].lost is None:
            seen.add("whole")
            assert found[0].path.read_bytes() == data
            assert found[0].artifact.sha256 == hashlib.sha256(data).hexdigest()
        else:
            seen.add("cut short")
            assert "committed" not in said, "a committed artifact is lost"
            assert found[0].lost.reason == Reason.REPLICA_GONE
            assert found[0].record == record
        for entry in found:
            await spool.remove(entry)
        assert names(root) == []
    assert seen == {"absent", "cut short", "whole"}
