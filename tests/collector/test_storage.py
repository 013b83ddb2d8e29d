"""What a commit leaves on disk when things go wrong: full disks, dead processes, files that were there before."""

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.collector.rig import Start, registration
from toe_async.apis.meta import encode
from toe_async.collector import captures
from toe_async.collector.captures import Manifest
from toe_async.collector.dateformat import DateLayout
from toe_async.collector.disk import Directory, Disk, mapped
from toe_async.collector.errors import StoreError, StoreFull
from toe_async.collector.parts import Part, Parts
from toe_async.collector.settings import Limits
from toe_async.collector.storage import DirectoryStore

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)
BODY = b"profile " * 1000
RECORD = captures.open_capture(captures.decode_registration(encode(registration())), DateLayout("2006"), 1 << 30)


class Store:
    """The directory backend and the staging folder in front of it, as one process has them."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self.parts, self.artifacts = Parts(root, disk), DirectoryStore(root, disk)

    async def recover(self) -> tuple[int, int]:
        return await self.artifacts.recover(), await self.parts.recover()


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Store]:
    disk = Disk()
    with Directory.root(tmp_path) as root:
        made = Store(root, disk)
        await made.recover()
        yield made
        await disk.close()


async def store(storage: Store, body: bytes = BODY) -> tuple[Manifest, Manifest]:
    """What was to be stored, and what is."""
    async with storage.parts.fresh() as part:
        await storage.parts.write(part, [body])
        wanted = manifest(part)
        return wanted, await storage.artifacts.commit(part, wanted)


def manifest(part: Part) -> Manifest:
    return captures.manifest_of(RECORD, "heap.pprof", part.size, part.sha256, NOW)


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and ".toe" not in path.parts)


def private(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".toe" / "parts").iterdir())


async def scanned(storage: Store) -> list[str]:
    return [one.name async for found in storage.artifacts.manifests() for one in found]


async def test_a_commit_shows_both_files_and_nothing_else(storage: Store, tmp_path: Path) -> None:
    """The artifact, its manifest, no part."""
    wanted, stored = await store(storage)
    assert stored is wanted
    assert visible(tmp_path) == [wanted.file, f"{wanted.file}.manifest.json"]
    assert not private(tmp_path)
    assert await storage.artifacts.find(wanted.directory, wanted.file) == wanted
    assert await scanned(storage) == [wanted.name]


async def test_an_upload_under_way_is_not_visible(storage: Store, tmp_path: Path) -> None:
    """And leaves nothing when it is given up."""
    with contextlib.suppress(RuntimeError):
        async with storage.parts.fresh() as part:
            await storage.parts.write(part, [BODY])
            assert not visible(tmp_path)
            assert len(private(tmp_path)) == 1
            raise RuntimeError
    assert not private(tmp_path)


async def test_a_second_commit_finds_the_first(storage: Store) -> None:
    """Same content or not, what is stored stays."""
    _, first = await store(storage)
    _, same = await store(storage)
    _, other = await store(storage, b"other")
    assert first == same == other


async def test_a_file_without_a_manifest_is_finished_by_the_same_content_only(storage: Store, tmp_path: Path) -> None:
    """As a power cut between the two links would leave it."""
    wanted, _ = await store(storage)
    folder = tmp_path.joinpath(*wanted.directory)
    (folder / f"{wanted.file}.manifest.json").unlink()
    assert await storage.artifacts.find(wanted.directory, wanted.file) is None
    assert await scanned(storage) == []
    _, other = await store(storage, b"other")
    assert other.sha256 == wanted.sha256
    assert visible(tmp_path) == [wanted.file]
    _, stored = await store(storage)
    assert stored.sha256 == wanted.sha256
    assert await scanned(storage) == [wanted.name]


async def test_a_manifest_without_its_file_is_nothing_and_makes_way(storage: Store, tmp_path: Path) -> None:
    """As a crash in a deletion would leave it."""
    wanted, _ = await store(storage)
    tmp_path.joinpath(*wanted.directory, wanted.file).unlink()
    assert await storage.artifacts.find(wanted.directory, wanted.file) is None
    assert await scanned(storage) == []
    new, stored = await store(storage, b"new content")
    assert stored is new
    assert await storage.artifacts.find(new.directory, new.file) == new


async def test_a_deletion_takes_nothing_that_is_stored_under_its_name_meanwhile(
    storage: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload comes again when the bytes are gone and the manifest is not: it waits, and is whole afterwards."""
    first, _ = await store(storage)
    inside, go_on = threading.Event(), threading.Event()
    real = Directory.remove

    def removed(self: Directory, name: str) -> bool:
        found = real(self, name)
        if name == first.file:
            inside.set()
            assert go_on.wait(10)
        return found

    monkeypatch.setattr(Directory, "remove", removed)
    async with asyncio.TaskGroup() as group:
        deleting = group.create_task(storage.artifacts.delete(first))
        await asyncio.to_thread(inside.wait, 10)
        again = group.create_task(store(storage, b"another content"))
        await asyncio.wait({again}, timeout=0.2)
        assert not deleting.done()
        go_on.set()
    wanted, stored = again.result()
    assert stored is wanted
    assert await storage.artifacts.find(wanted.directory, wanted.file) == wanted


@pytest.mark.parametrize("change", ["delete", "rewrite"])
async def test_what_was_meant_for_an_earlier_artifact_does_not_touch_its_successor(storage: Store, change: str) -> None:
    """Between a look and a deletion, or a hold, the name may have been given to another upload."""
    earlier, _ = await store(storage)
    await storage.artifacts.delete(earlier)
    later, _ = await store(storage, b"x" * len(BODY))
    if change == "delete":
        await storage.artifacts.delete(earlier)
    else:
        with pytest.raises(FileNotFoundError):
            await storage.artifacts.rewrite(replace(earlier, hold="an incident"))
    assert await storage.artifacts.find(later.directory, later.file) == later
    await storage.artifacts.delete(replace(later, hold="whatever was changed of it"))
    assert await storage.artifacts.find(later.directory, later.file) is None


async def test_a_deletion_needs_no_room(storage: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what makes some on a full disk."""
    wanted, _ = await store(storage)
    for lock in (tmp_path / ".toe" / "locks").iterdir():
        lock.unlink()
    real = os.open

    def full(path: str, flags: int, *args: int, **more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "no")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", full)
    await storage.artifacts.delete(wanted)
    assert not visible(tmp_path)


async def test_what_is_no_namespace_is_not_entered(storage: Store, tmp_path: Path) -> None:
    """A volume's lost+found may not be read by us; a manifest that is a link is nothing either."""
    wanted, _ = await store(storage)
    lost = tmp_path / "lost+found" / "deeper"
    shutil.copytree(tmp_path / wanted.directory[0], lost)
    real = os.open

    def kept_out(path: str, *args: int, **more: int) -> int:
        if path == "lost+found":
            raise PermissionError(errno.EACCES, "no")
        return real(path, *args, **more)

    tmp_path.joinpath(*wanted.directory, "linked.manifest.json").symlink_to("/etc/passwd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", kept_out)
        assert await scanned(storage) == [wanted.name]


@pytest.mark.parametrize("rot", [b'{"name":"\xff"}', b'{"new":' + b"[" * 100_000, b"", b"{}"])
async def test_a_manifest_that_rotted_hides_its_artifact_and_no_other(
    storage: Store, tmp_path: Path, rot: bytes
) -> None:
    """The catalog is read to its end."""
    wanted, _ = await store(storage)
    rotted = tmp_path.joinpath(*wanted.directory, "cart-aaaaaaaaaa-heap.pprof")
    rotted.write_bytes(b"x")
    rotted.with_name(rotted.name + ".manifest.json").write_bytes(rot)
    assert await scanned(storage) == [wanted.name]
    assert await storage.artifacts.find(wanted.directory, rotted.name) is None


async def test_a_copy_of_a_folder_within_the_store_is_no_second_artifact(storage: Store, tmp_path: Path) -> None:
    """Its manifests tell where the originals were, which may be gone."""
    wanted, _ = await store(storage)
    shutil.copytree(tmp_path / wanted.directory[0], tmp_path / "before-the-upgrade")
    assert await scanned(storage) == [wanted.name]
    await storage.artifacts.delete(wanted)
    assert await scanned(storage) == []


async def test_a_file_that_became_shorter_is_not_served(storage: Store, tmp_path: Path) -> None:
    """Its manifest says another size."""
    wanted, _ = await store(storage)
    os.truncate(tmp_path.joinpath(*wanted.directory, wanted.file), 10)
    assert await storage.artifacts.find(wanted.directory, wanted.file) is None
    with pytest.raises(FileNotFoundError):
        async with storage.artifacts.open(wanted):
            pass


@pytest.mark.parametrize("linked", [False, True])
async def test_the_next_start_finishes_or_removes_what_a_dead_process_left(
    storage: Store, tmp_path: Path, linked: bool
) -> None:
    """Finished where the file had its name already, removed where it had not."""
    parts = tmp_path / ".toe" / "parts"
    token = "89ab" * 8
    (parts / f"{token}.part").write_bytes(BODY)
    wanted = captures.manifest_of(RECORD, "heap.pprof", len(BODY), "a" * 64, NOW)
    (parts / f"{token}.manifest").write_bytes(encode(wanted))
    (parts / "0123.part").write_bytes(b"half")
    (parts / "4567.manifest").write_bytes(b"{}")
    folder = tmp_path.joinpath(*wanted.directory)
    if linked:
        folder.mkdir(parents=True)
        os.link(parts / f"{token}.part", folder / wanted.file)
    assert await storage.recover() == ((1, 1) if linked else (0, 2))
    assert not private(tmp_path)
    assert await scanned(storage) == ([wanted.name] if linked else [])


async def test_a_start_leaves_the_uploads_of_a_living_process_alone(storage: Store, tmp_path: Path) -> None:
    """Two collectors on one volume, as in a rolling update."""
    async with storage.parts.fresh() as part:
        await storage.parts.write(part, [BODY])
        disk = Disk()
        with Directory.root(tmp_path) as root:
            assert await Store(root, disk).recover() == (0, 0)
        await disk.close()
        wanted = manifest(part)
        assert await storage.artifacts.commit(part, wanted) is wanted


@pytest.mark.parametrize("call", ["write", "fsync", "link", "replace", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
async def test_an_error_of_the_disk_leaves_nothing_visible(
    storage: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """At every call that can fail, once each: refused with the right word, and the next try succeeds."""
    real, failed_at = getattr(os, call), 0
    for fail_at in range(1, 20):
        calls = 0

        def fails(*args: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fail_at:  # noqa: B023 -- called within this turn only
                raise OSError(code, os.strerror(code))
            return real(*args, **more)

        monkeypatch.setattr(os, call, fails)
        try:
            await store(storage)
            break
        except StoreError as error:
            refused = error
        finally:
            monkeypatch.setattr(os, call, real)
        failed_at += 1
        assert isinstance(refused, StoreFull) is (code in {errno.ENOSPC, errno.EDQUOT})
        assert not visible(tmp_path)
        assert not private(tmp_path)
    assert failed_at >= 1
    assert len(visible(tmp_path)) == 2


def test_the_words_for_errors_hold_no_path() -> None:
    """They reach clients."""
    refusal = mapped(OSError(errno.EACCES, "Permission denied", "/data/secret")).refusal()
    assert (refusal.status, "secret" in refusal.message) == (500, False)


async def test_a_cancelled_step_is_waited_for(storage: Store, tmp_path: Path) -> None:
    """No descriptor is closed under a thread, no file is left."""
    entered = asyncio.Event()

    async def upload() -> None:
        async with storage.parts.fresh() as part:
            entered.set()
            while True:
                await storage.parts.write(part, [b"x" * (1 << 20)])

    for _ in range(5):
        entered.clear()
        task = asyncio.get_running_loop().create_task(upload())
        await entered.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not private(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "none", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk_is_507_and_leaves_nothing(start: Start, small_disk: Path) -> None:
    """Declared too large: before the body; chunked: when it is reached. Then smaller ones still fit."""
    async with start(root=small_disk, limits=Limits(min_free_bytes=64 << 10)) as collector:
        await collector.register(maxBytes=8 << 20)

        async def body(size: int) -> AsyncIterator[bytes]:
            for _ in range(0, size, 32 << 10):
                yield b"x" * (32 << 10)

        status, error = await collector.put(b"x" * (1 << 20), expect100=True)
        assert (status, error["reason"]) == (507, "StoreFull")
        status, error = await collector.put(body(4 << 20), expect100=True)
        assert (status, error["reason"]) == (507, "StoreFull")
        assert not collector.files()
        assert not collector.parts()
        assert (await collector.put(body(256 << 10), expect100=True))[0] == 201
        async with collector.call("GET", "/metrics") as reply:
            assert 'toe_collector_uploads_total{code="507"} 2.0' in await reply.text()


async def test_running_out_of_inodes_is_507_too(start: Start, small_disk: Path) -> None:
    """Space is not the only thing that ends."""
    async with start(root=small_disk, limits=Limits(min_free_bytes=0)) as collector:
        await collector.register()
        for number in range(40):
            with contextlib.suppress(OSError):
                (small_disk / f"filler-{number}").touch()
        status, error = await collector.put(b"x" * 100)
        assert (status, error["reason"]) == (507, "StoreFull")
        for filler in small_disk.glob("filler-*"):
            filler.unlink()
        assert (await collector.put(b"x" * 100))[0] == 201


async def test_space_for_uploads_under_way_is_set_aside(start: Start, small_disk: Path) -> None:
    """Two uploads that fit alone and not together: the second is refused before its body."""
    async with start(root=small_disk, limits=Limits(min_free_bytes=0)) as collector:
        await collector.register()
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            begun.set()
            await go_on.wait()
            yield b"x" * 599_000

        async with asyncio.TaskGroup() as group:
            first = group.create_task(collector.put(slow(), expect100=True, headers={"Content-Length": "600000"}))
            await begun.wait()
            status, error = await collector.put(b"x" * 600_000, leaf="cpu.pprof", expect100=True)
            assert (status, error["reason"]) == (507, "StoreFull")
            go_on.set()
        assert first.result()[0] == 201
