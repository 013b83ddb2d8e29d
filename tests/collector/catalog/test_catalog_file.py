"""The index as a file: lost, broken, another's, shared, and cut by a loss of power."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.collector.catalog.catalogrig import Memory, SetClock, listed, manifest, whole
from toe_async.collector.catalog import Catalog, Query, open_catalog
from toe_async.collector.catalog.file import ASIDE, IndexLost
from toe_async.collector.disk import Disk
from toe_async.collector.errors import StoreError, StoreFull

HELD = [manifest("a", 1), manifest("b", 2, labels={"tier": "web"})]


async def test_what_was_known_is_known_after_a_restart(tmp_path: Path, disk: Disk, clock: SetClock) -> None:
    """And not called complete before it was compared with the store."""
    async with open_catalog(tmp_path / "index.sqlite", disk, clock) as first:
        await first.add(HELD)
        version = (await first.page(Query(), 1, "")).version
    async with open_catalog(tmp_path / "index.sqlite", disk, clock) as second:
        assert not whole(second)
        assert await listed(second) == ["b", "a"]
        assert (await second.page(Query(), 1, "")).version >= version
        await second.build(Memory(*HELD))
        assert whole(second)
        assert await listed(second) == ["b", "a"]


async def test_only_its_owner_can_read_the_file(catalog: Catalog, tmp_path: Path) -> None:
    """It tells what runs where; so do the files beside it."""
    await catalog.add(HELD)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.keys() >= {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _rotten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")


def _newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def _without_an_index(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX by_age")


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "spoil", [_noise, _half, _rotten, _foreign, _newer, _without_an_index, _a_folder, _a_link, Path.unlink]
)
async def test_a_file_that_is_no_index_of_ours_is_moved_aside_and_built_again(
    tmp_path: Path, disk: Disk, clock: SetClock, spoil: Callable[[Path], None]
) -> None:
    """Whatever happened to it, the manifests give the list back; versions go on growing."""
    path = tmp_path / "index.sqlite"
    async with open_catalog(path, disk, clock) as first:
        await first.add(HELD)
        before = (await first.page(Query(), 1, "")).version
    spoil(path)
    clock.time += timedelta(seconds=1)
    async with open_catalog(path, disk, clock) as second:
        with contextlib.suppress(IndexLost):  # damage further in shows itself with the first use
            await listed(second)
        await second.build(Memory(*HELD))
        assert await listed(second) == ["b", "a"]
        assert await listed(second, Query(namespace="shop", run="hot")) == ["b", "a"]
        assert (await second.page(Query(), 1, "")).version > before
    assert path.is_file()
    assert not path.is_symlink()
    assert os.path.lexists(tmp_path / f"index.sqlite{ASIDE}") is (spoil is not Path.unlink)


async def test_damage_that_shows_itself_in_use_ends_completeness_until_the_index_is_built_again(
    tmp_path: Path, disk: Disk, clock: SetClock
) -> None:
    """`keep` does so by itself; until then nothing is answered, and nothing wrong."""
    path = tmp_path / "index.sqlite"
    many = [manifest(f"n{number}", number) for number in range(600)]
    async with open_catalog(path, disk, clock) as before:
        await before.add(many)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    async with open_catalog(path, disk, clock) as catalog, asyncio.TaskGroup() as tasks:
        with pytest.raises(IndexLost):
            await listed(catalog)
        assert not whole(catalog)
        with pytest.raises(IndexLost):
            await catalog.add(HELD)
        keeping = tasks.create_task(catalog.keep(Memory(*many)))
        while not whole(catalog):
            await asyncio.sleep(0.005)
        assert len(await listed(catalog)) == len(many)
        keeping.cancel()


async def test_an_index_removed_under_a_running_catalog_is_made_again(
    tmp_path: Path, disk: Disk, clock: SetClock
) -> None:
    """What is written to a file that nobody finds any more would be lost."""
    path = tmp_path / "index.sqlite"
    async with open_catalog(path, disk, clock) as catalog:
        store = Memory(*HELD)
        await catalog.build(store)
        path.unlink()
        with pytest.raises(IndexLost):
            await listed(catalog)
        assert not whole(catalog)
        await catalog.build(store)
        assert whole(catalog)
        assert await listed(catalog) == ["b", "a"]
        assert path.is_file()


async def test_a_running_catalog_does_not_take_the_place_of_another_programs_index(
    tmp_path: Path, disk: Disk, clock: SetClock
) -> None:
    """Two versions of the collector would else move each other's index aside for ever: the one started last has it."""
    path = tmp_path / "index.sqlite"
    async with open_catalog(path, disk, clock) as catalog:
        path.unlink()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")
            db.execute("CREATE TABLE another (x)")
        with pytest.raises(IndexLost):
            await listed(catalog)
        with pytest.raises(StoreError, match="another program"):
            await catalog.build(Memory())
        assert not whole(catalog)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


async def test_two_catalogs_on_one_file_see_what_the_other_does(tmp_path: Path, clock: SetClock) -> None:
    """As in a rolling update on one machine; every version is given once."""
    disks = Disk(), Disk()
    path = tmp_path / "index.sqlite"
    async with open_catalog(path, disks[0], clock) as one, open_catalog(path, disks[1], clock) as other:
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(one.add([manifest(f"a{number}", number)]))
                tasks.create_task(other.add([manifest(f"b{number}", number)]))
        entries = (await one.page(Query(), 500, "")).entries
        assert len({entry.version for entry in entries}) == 40
        assert (await other.page(Query(), 500, "")).entries == entries
        await other.remove("shop", "a7")
        assert await one.get("shop", "a7") is None
    for disk in disks:
        await disk.close()


_CRASH = """
import asyncio, os, sys
from pathlib import Path
from typing import Any
from tests.collector.catalog.catalogrig import SetClock, manifest
from toe_async.collector.catalog import open_catalog
from toe_async.collector.disk import Disk

async def main():
    async with open_catalog(Path(sys.argv[1]), Disk(), SetClock()) as catalog:
        for number in range(50):
            await catalog.add([manifest(f"n{number}", number)])
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_killed_process_loses_nothing_that_was_added(tmp_path: Path, disk: Disk, clock: SetClock) -> None:
    """Only the machine's end does, and the next test is about that."""
    path = tmp_path / "index.sqlite"
    command = [sys.executable, "-c", _CRASH, str(path)]
    ended = await asyncio.to_thread(subprocess.run, command, check=False, timeout=30)
    assert ended.returncode == -9
    async with open_catalog(path, disk, clock) as catalog:
        assert len(await listed(catalog)) == 50


@pytest.mark.parametrize("kept", [0, 1, 1000, 5000, 20_000])
async def test_what_a_loss_of_power_cuts_off_the_end_is_found_and_healed(
    tmp_path: Path, disk: Disk, clock: SetClock, kept: int
) -> None:
    """The log that was not synced is cut anywhere: the rest is consistent, and the store brings back what is lost."""
    path, lost = tmp_path / "live" / "index.sqlite", tmp_path / "lost" / "index.sqlite"
    path.parent.mkdir()
    lost.parent.mkdir()
    many = [manifest(f"n{number}", number) for number in range(60)]
    async with open_catalog(path, disk, clock) as catalog:
        for one in many:
            await catalog.add([one])
        shutil.copy(path, lost)
        wal = path.with_name("index.sqlite-wal").read_bytes()
        assert len(wal) > 20_000
        lost.with_name("index.sqlite-wal").write_bytes(wal[:kept])
    async with open_catalog(lost, disk, clock) as catalog:
        assert len(await listed(catalog)) < len(many)
        assert not whole(catalog)
        await catalog.build(Memory(*many))
        assert len(await listed(catalog)) == len(many)
        assert (await catalog.usage("shop")).artifacts == len(many)


async def test_a_full_disk_is_told_and_leaves_the_index_whole(
    tmp_path: Path, disk: Disk, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit stands in for it."""
    real = sqlite3.connect

    def limited(*given: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = real(*given, **named)
        made.execute("PRAGMA max_page_count = 40")
        return made

    monkeypatch.setattr(sqlite3, "connect", limited)
    async with open_catalog(tmp_path / "index.sqlite", disk, clock) as catalog:
        await catalog.add(HELD)
        with pytest.raises(StoreFull):
            await catalog.add(manifest(f"n{number}", number) for number in range(500))
        assert await listed(catalog) == ["b", "a"]
        assert (await catalog.usage()).artifacts == 2
        await catalog.remove("shop", "a")
        assert await listed(catalog) == ["b"]
