"""What crashes leave in a directory store, and what only looks like it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.collector.catalog.catalogrig import SetClock
from tests.collector.rig import CAPTURE, capture_id, registration
from toe_async.apis.meta import encode
from toe_async.collector import captures
from toe_async.collector.captures import Capture, Manifest, State
from toe_async.collector.catalog.orphans import Orphans
from toe_async.collector.dateformat import DateLayout
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.parts import Parts
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.records import Records
from toe_async.collector.storage import DirectoryStore

BODY = b"profile " * 100
HOURS = timedelta(hours=1)


@dataclass
class Rig:
    """A store on disk, and a clock that is as many hours ahead as a test says: a file's times cannot be set back."""

    path: Path
    root: Directory
    disk: Disk
    clock: SetClock
    store: DirectoryStore
    parts: Parts
    records: Records
    orphans: Orphans

    async def stored(self, number: int = 1) -> Manifest:
        record = opened(id=capture_id(number))
        async with self.parts.fresh() as part:
            await self.parts.write(part, [BODY])
            wanted = captures.manifest_of(record, "heap.pprof", part.size, part.sha256, self.clock.now())
            return await self.store.commit(part, wanted)

    async def pass_after(self, waited: timedelta) -> int:
        """What a walk that begins after this time removes, and the pass after it, which ends what it took."""
        self.clock.time += waited
        removed = await self.orphans.sweep()
        self.clock.time += timedelta(minutes=1)
        return removed + await self.orphans.sweep()

    def file(self, held: Manifest) -> Path:
        return self.path.joinpath(*held.directory, held.file)

    def beside(self, held: Manifest) -> Path:
        return self.path.joinpath(*held.directory, held.file + MANIFEST_SUFFIX)

    def files(self) -> set[str]:
        locks = self.path / ".toe" / "locks"
        return {path.name for path in self.path.rglob("*") if path.is_file() and path.parent != locks}


def opened(**changes: object) -> Capture:
    wanted = captures.decode_registration(encode(registration(**changes)))
    return captures.open_capture(wanted, DateLayout("2006"), 1 << 30)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    disk, clock = Disk(), SetClock(datetime.now(UTC))
    with Directory.root(tmp_path) as root:
        store, parts, records = DirectoryStore(root, disk), Parts(root, disk), Records(root, disk)
        await store.recover()
        await parts.recover()
        await records.load()
        orphans = Orphans(root, disk, store, records, clock)
        yield Rig(tmp_path, root, disk, clock, store, parts, records, orphans)
        await orphans.close()
        await disk.close()


async def test_half_an_artifact_goes_after_an_hour_and_not_before(rig: Rig) -> None:
    """Either half; whole ones stay, and the folder of a half that was alone goes with it."""
    whole, bare, bereft = [await rig.stored(number) for number in (1, 2, 3)]
    rig.beside(bare).unlink()
    rig.file(bereft).unlink()
    elsewhere = replace(bare, directory=("bank", "no-labels", "hot", "2026"))
    rig.file(elsewhere).parent.mkdir(parents=True)
    rig.file(elsewhere).write_bytes(BODY)
    before = rig.files()
    assert await rig.pass_after(timedelta(minutes=50)) == 0
    assert rig.files() == before
    assert await rig.pass_after(timedelta(minutes=70)) == 3
    assert rig.files() == {whole.file, whole.file + MANIFEST_SUFFIX}
    assert not (rig.path / "bank").exists()
    assert await rig.store.find(whole.directory, whole.file) == whole


async def test_an_upload_that_comes_again_keeps_what_was_taken_from_under_it(rig: Rig) -> None:
    """It may have built on the old half in the very moment in which that was taken away."""
    held = await rig.stored()
    manifest = rig.beside(held).read_bytes()
    rig.beside(held).unlink()
    rig.clock.time += 2 * HOURS
    assert await rig.orphans.sweep() == 0
    assert not rig.file(held).exists()
    rig.beside(held).write_bytes(manifest)  # the commit's last step, told to its client as stored
    rig.clock.time += timedelta(minutes=1)
    assert await rig.orphans.sweep() == 0
    assert await rig.store.find(held.directory, held.file) == held
    async with rig.store.open(held) as reader:
        assert await reader.read(0, 1 << 20) == BODY
    assert await rig.pass_after(3 * HOURS) == 0
    assert await rig.store.find(held.directory, held.file) == held


async def test_an_upload_stored_anew_wins_over_what_was_taken(rig: Rig) -> None:
    """Its name was free meanwhile; two contents never mix."""
    held = await rig.stored()
    rig.file(held).unlink()
    rig.clock.time += 2 * HOURS
    await rig.orphans.sweep()
    assert not rig.beside(held).exists()
    again = await rig.stored()
    assert again.stored_at > held.stored_at
    rig.clock.time += timedelta(minutes=1)
    assert await rig.orphans.sweep() == 0
    assert await rig.store.find(held.directory, held.file) == again
    assert not list((rig.path / ".toe" / "orphans").iterdir())


async def test_a_process_that_dies_between_taking_and_settling_loses_nothing(rig: Rig) -> None:
    """Another one goes on with what it took."""
    held = await rig.stored()
    manifest = rig.beside(held).read_bytes()
    rig.beside(held).unlink()
    rig.clock.time += 2 * HOURS
    await rig.orphans.sweep()
    rig.beside(held).write_bytes(manifest)
    rig.clock.time += timedelta(minutes=1)
    other = Orphans(rig.root, rig.disk, rig.store, rig.records, rig.clock)
    await other.sweep()
    await other.close()
    assert await rig.store.find(held.directory, held.file) == held


async def test_parts_go_when_nobody_can_go_on_with_them(rig: Rig) -> None:
    """A dead whole upload, a closed capture's, an ended capture's, an unknown one's; not an open one's."""
    ids = {name: capture_id(number) for number, name in enumerate(("open", "closed", "ended", "unknown"))}
    end = rig.clock.now() + 100 * HOURS
    await rig.records.create(opened(id=ids["open"], expires=end.isoformat()))
    await rig.records.create(replace(opened(id=ids["closed"], expires=end.isoformat()), state=State.CANCELLED))
    await rig.records.create(opened(id=ids["ended"]))
    for one in ids.values():
        async with rig.parts.resumed(one, "heap.pprof") as part:
            await rig.parts.write(part, [BODY])
    folder = rig.path / ".toe" / "parts"
    (folder / "0123456789abcdef.part").write_bytes(b"half")
    (folder / "0123456789abcdef0.manifest").write_bytes(b"{}")
    assert await rig.pass_after(timedelta(minutes=50)) == 0
    assert await rig.pass_after(timedelta(minutes=70)) == 5
    assert {path.name for path in folder.iterdir()} == {f"{ids['open']}-heap.pprof.part"}


async def test_a_part_that_a_living_process_writes_to_stays_however_old(rig: Rig) -> None:
    """Its lock says so; a slow upload may take hours."""
    async with rig.parts.fresh() as part, rig.parts.resumed(CAPTURE, "heap.pprof") as resumed:
        await rig.parts.write(part, [BODY])
        await rig.parts.write(resumed, [BODY])
        assert await rig.pass_after(5 * HOURS) == 0
        wanted = captures.manifest_of(opened(), "heap.pprof", part.size, part.sha256, rig.clock.now())
        assert await rig.store.commit(part, wanted) is wanted
    assert await rig.store.find(wanted.directory, wanted.file) == wanted


async def test_a_commit_that_another_dead_process_did_not_finish_is_finished(rig: Rig) -> None:
    """Not only at the next start: that process may never start again."""
    held = await rig.stored()
    token = "0123456789abcdef"
    parts = rig.path / ".toe" / "parts"
    os.link(rig.file(held), parts / f"{token}.part")
    rig.beside(held).rename(parts / f"{token}.manifest")
    assert await rig.store.find(held.directory, held.file) is None
    await rig.pass_after(2 * HOURS)
    assert await rig.store.find(held.directory, held.file) == held
    assert not list(parts.iterdir())


async def test_half_written_records_and_probes_go_and_records_stay(rig: Rig) -> None:
    """Temporary files of a process that died while writing them."""
    await rig.records.create(opened())
    private = rig.path / ".toe"
    (private / "captures" / f"{CAPTURE}.77.0.tmp").write_bytes(b"{")
    (private / "probe-0123").write_bytes(b"")
    (private / "index.sqlite").write_bytes(b"kept")
    assert await rig.pass_after(2 * HOURS) == 2
    assert rig.files() == {f"{CAPTURE}.json", "index.sqlite"}


async def test_what_this_program_did_not_write_is_never_touched(rig: Rig, tmp_path: Path) -> None:
    """Somebody else's files, links, and a volume's own folder that may not be read."""
    held = await rig.stored()
    folder = rig.file(held).parent
    outside = tmp_path / "outside-abcdefghij-heap.pprof"
    outside.write_bytes(b"not ours")
    (folder / "README").write_bytes(b"notes")
    (folder / "outside").symlink_to(tmp_path)
    (rig.path / "lost+found").mkdir()
    (rig.path / "lost+found" / "x-abcdefghij-heap.pprof").write_bytes(b"an inode")
    (rig.path / "shop" / "x-abcdefghij-heap.pprof").write_bytes(b"too high up")
    before = rig.files()
    assert await rig.pass_after(2 * HOURS) == 0
    assert rig.files() == before
    assert (folder / "outside").is_symlink()


async def test_an_empty_folder_goes_when_it_is_old(rig: Rig) -> None:
    """A process may die between deleting and tidying up."""
    held = await rig.stored()
    (rig.path / "bank" / "no-labels" / "hot").mkdir(parents=True)
    await rig.pass_after(timedelta(minutes=50))
    assert (rig.path / "bank" / "no-labels" / "hot").is_dir()
    await rig.pass_after(timedelta(minutes=70))
    assert not (rig.path / "bank").exists()
    assert rig.file(held).is_file()


async def test_a_large_store_is_walked_in_pieces_over_several_passes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass ends after some seconds, in the middle of a folder if need be, and the next one goes on."""
    many = [await rig.stored(number) for number in range(30)]
    for held in many:
        rig.beside(held).unlink()
    monkeypatch.setattr("toe_async.collector.catalog.orphans._LOOKED_AT", 7)
    monkeypatch.setattr("toe_async.collector.catalog.orphans._PASS_SECONDS", 0.0)
    rig.clock.time += 2 * HOURS
    left = []
    for _ in range(8):
        await rig.orphans.sweep()
        left.append(sum(rig.file(held).exists() for held in many))
    assert left == sorted(left, reverse=True)
    assert 30 > left[0] > left[1] > left[2] > 0
    assert left[-1] == 0


async def test_two_janitors_on_one_volume_do_not_disturb_each_other(rig: Rig) -> None:
    """They meet at every file, and everything whole is there afterwards."""
    whole = [await rig.stored(number) for number in range(10)]
    halves = [await rig.stored(number) for number in range(10, 40)]
    for held in halves:
        rig.beside(held).unlink()
    rig.clock.time += 2 * HOURS
    janitors = [Orphans(rig.root, rig.disk, rig.store, rig.records, rig.clock) for _ in range(3)]
    removed = 0
    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            passes = [tasks.create_task(one.sweep()) for one in janitors]
        removed += sum(one.result() for one in passes)
        rig.clock.time += timedelta(minutes=1)
    for one in janitors:
        await one.close()
    assert removed == len(halves)
    assert not any(rig.file(held).exists() for held in halves)
    for held in whole:
        assert await rig.store.find(held.directory, held.file) == held


async def test_a_walk_that_fails_is_given_up_and_the_next_hour_walks_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails now and then must not end the janitor for good."""
    held = await rig.stored()
    rig.beside(held).unlink()
    real = os.scandir

    def broken(path: object) -> object:
        raise OSError(5, "Input/output error")

    rig.clock.time += 2 * HOURS
    with monkeypatch.context() as patch, contextlib.suppress(Exception):
        patch.setattr(os, "scandir", broken)
        await rig.orphans.sweep()
    assert os.scandir is real
    assert await rig.pass_after(2 * HOURS) == 1
