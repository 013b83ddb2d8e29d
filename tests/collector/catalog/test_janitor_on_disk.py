"""The janitor over a real directory: readers, uploads in flight, and bytes that are really gone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.collector.catalog.catalogrig import SetClock, listed
from tests.collector.rig import capture_id, registration
from toe_async.apis.meta import encode
from toe_async.collector import captures
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, open_catalog
from toe_async.collector.catalog.janitor import Janitor
from toe_async.collector.catalog.orphans import Orphans
from toe_async.collector.catalog.policy import Policies
from toe_async.collector.catalog.retention import Retention, RetentionPolicy
from toe_async.collector.dateformat import DateLayout
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.parts import Parts
from toe_async.collector.records import Records
from toe_async.collector.storage import DirectoryStore

SECRET = b"password=hunter2 " * 4096
WEEK = timedelta(days=7)


@dataclass
class Rig:
    path: Path
    clock: SetClock
    store: DirectoryStore
    parts: Parts
    catalog: Catalog
    janitor: Janitor

    async def stored(self, number: int) -> Manifest:
        async with self.parts.fresh() as part:
            await self.parts.write(part, [SECRET])
            made = await self.store.commit(part, self.manifest(number, part.size, part.sha256))
        await self.catalog.add([made])
        return made

    def manifest(self, number: int, size: int, sha256: str) -> Manifest:
        wanted = captures.decode_registration(encode(registration(id=capture_id(number))))
        record = captures.open_capture(wanted, DateLayout("2006"), 1 << 30)
        return captures.manifest_of(record, "heap.pprof", size, sha256, self.clock.now())

    def holding_the_secret(self) -> list[Path]:
        return [path for path in self.path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    disk, clock, policies = Disk(), SetClock(datetime.now(UTC)), Policies(None)
    policies.current = Retention(RetentionPolicy(age=WEEK))
    with Directory.root(tmp_path) as root:
        store, parts, records = DirectoryStore(root, disk), Parts(root, disk), Records(root, disk)
        await store.recover()
        await parts.recover()
        await records.load()
        orphans = Orphans(root, disk, store, records, clock)
        async with open_catalog(tmp_path / ".toe" / "index.sqlite", disk, clock) as catalog:
            await catalog.build(store)
            yield Rig(tmp_path, clock, store, parts, catalog, Janitor(catalog, store, policies, clock, orphans))
        await orphans.close()
        await disk.close()


async def test_nothing_of_an_artifact_is_on_disk_one_pass_after_its_age(rig: Rig) -> None:
    """H25, with the bytes themselves; and its folders are gone too."""
    held = await rig.stored(1)
    assert rig.holding_the_secret()
    rig.clock.time += WEEK
    assert (await rig.janitor.sweep()).removed == 1
    assert rig.holding_the_secret() == []
    assert await listed(rig.catalog) == []
    assert not (rig.path / held.directory[0]).exists()


async def test_who_reads_an_artifact_while_it_goes_gets_all_of_it(rig: Rig) -> None:
    """And who comes later gets nothing."""
    held = await rig.stored(1)
    rig.clock.time += WEEK
    async with rig.store.open(held) as reader:
        first = await reader.read(0, 1000)
        assert (await rig.janitor.sweep()).removed == 1
        assert first + await reader.read(1000, 1 << 20) == SECRET
    with pytest.raises(FileNotFoundError):
        async with rig.store.open(held):
            pass


async def test_an_upload_in_flight_is_not_touched_and_ends_well(rig: Rig) -> None:
    """Though it began before an artifact that goes, and its folder goes with that one."""
    old = await rig.stored(1)
    async with rig.parts.fresh() as part:
        await rig.parts.write(part, [SECRET])
        rig.clock.time += WEEK
        swept = await rig.janitor.sweep()
        assert (swept.removed, swept.orphans) == (1, 0)
        wanted = rig.manifest(2, part.size, part.sha256)
        assert wanted.directory == old.directory
        assert await rig.store.commit(part, wanted) is wanted
    await rig.catalog.add([wanted])
    assert (await rig.janitor.sweep()).removed == 0
    assert await rig.store.find(wanted.directory, wanted.file) == wanted


async def test_uploads_and_passes_at_once_leave_catalog_and_store_the_same(rig: Rig) -> None:
    """Every artifact is whole or gone, every upload succeeds."""
    for number in range(20):
        await rig.stored(number)
    rig.clock.time += WEEK
    async with asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(rig.janitor.sweep())
        for number in range(20, 40):
            tasks.create_task(rig.stored(number))
    assert sweeping.result().removed == 20
    found = [one.name async for batch in rig.store.manifests() for one in batch]
    assert sorted(found) == sorted(await listed(rig.catalog))
    assert len(found) == 20
