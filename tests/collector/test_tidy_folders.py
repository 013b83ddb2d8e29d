"""Folders that go with their last artifact, and commits that come at that moment."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.collector.rig import capture_id, registration
from toe_async.apis.meta import encode
from toe_async.collector import captures
from toe_async.collector.captures import Manifest
from toe_async.collector.dateformat import DateLayout
from toe_async.collector.disk import Directory, Disk, remove_empty
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import Part, Parts
from toe_async.collector.storage import DirectoryStore

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)


class Rig:
    def __init__(self, path: Path, root: Directory) -> None:
        self.path, self.root, self.disk = path, root, Disk()
        self.parts = Parts(root, self.disk)
        self.tidy = DirectoryStore(root, self.disk)

    async def store(self, number: int, **changes: object) -> Manifest:
        async with self.parts.fresh() as part:
            await self.parts.write(part, [b"profile"])
            return await self.tidy.commit(part, manifest(part, number, **changes))


def manifest(part: Part, number: int, **changes: object) -> Manifest:
    wanted = captures.decode_registration(encode(registration(id=capture_id(number), **changes)))
    record = captures.open_capture(wanted, DateLayout("2006/01/02"), 1 << 30)
    return captures.manifest_of(record, "heap.pprof", part.size, part.sha256, NOW)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with Directory.root(tmp_path) as root:
        made = Rig(tmp_path, root)
        await made.parts.recover()
        yield made
        await made.disk.close()


async def test_the_last_artifact_takes_its_empty_folders_with_it(rig: Rig) -> None:
    """Up to the first one that holds something else; never the root, nor what is ours."""
    first, second = await rig.store(1), await rig.store(2)
    other = await rig.store(3, run="cold")
    await rig.tidy.delete(first)
    assert rig.path.joinpath(*second.directory).is_dir()
    await rig.tidy.delete(second)
    assert not rig.path.joinpath(*second.directory[:3]).exists()
    assert await rig.tidy.find(other.directory, other.file) == other
    await rig.tidy.delete(other)
    assert {path.name for path in rig.path.iterdir()} == {".toe"}
    await rig.tidy.delete(other)


async def test_a_folder_with_anything_in_it_stays(rig: Rig) -> None:
    """Whoever put it there."""
    held = await rig.store(1)
    note = rig.path.joinpath(*held.directory, "note")
    note.write_text("mine")
    await rig.tidy.delete(held)
    assert note.read_text() == "mine"


async def test_a_link_in_the_way_is_not_followed(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty folder outside of the store is nobody's business here."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "labels").mkdir()
    (rig.path / "shop").symlink_to(outside)
    remove_empty(rig.root, ("shop", "labels"))
    assert (outside / "labels").is_dir()


@pytest.mark.parametrize("call", ["open", "link", "mkdir", "fsync"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7, 8])
async def test_a_commit_succeeds_whenever_its_folder_is_taken_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    """Right before each of its calls that need the folder, as far up as it is empty."""
    wanted: list[Manifest] = []
    real, seen = getattr(os, call), 0

    def racing(*given: object, **named: object) -> object:
        nonlocal seen
        seen += 1
        if seen == at and wanted:
            remove_empty(rig.root, wanted[0].directory)
        return real(*given, **named)

    async with rig.parts.fresh() as part:
        await rig.parts.write(part, [b"profile"])
        wanted.append(manifest(part, 1))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, racing)
            assert await rig.tidy.commit(part, wanted[0]) is wanted[0]
    assert await rig.tidy.find(wanted[0].directory, wanted[0].file) == wanted[0]


async def test_commits_and_deletions_in_one_folder_never_fail(rig: Rig) -> None:
    """Many at once, each deletion leaving the folder empty for a moment."""

    async def come_and_go(number: int) -> None:
        for _ in range(15):
            held = await rig.store(number)
            assert await rig.tidy.find(held.directory, held.file) == held
            await rig.tidy.delete(held)

    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(come_and_go(number))
    assert {path.name for path in rig.path.iterdir()} == {".toe"}


async def test_another_failure_of_a_commit_is_told_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a folder that went is a reason to try again."""
    tries = 0

    def full(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError(5, "Input/output error")

    async with rig.parts.fresh() as part:
        await rig.parts.write(part, [b"profile"])
        monkeypatch.setattr(os, "link", full)
        with pytest.raises(StoreError, match="EIO"):
            await rig.tidy.commit(part, manifest(part, 1))
    assert tries == 1
