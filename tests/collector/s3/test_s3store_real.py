"""The bucket backend against a real server: the same promises as on a disk, where S3 can keep them."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.collector.rig import capture_id
from tests.collector.s3.conftest import BODY, Rig, write_identity
from toe_async.apis.meta import encode
from toe_async.collector.errors import StoreError
from toe_async.collector.s3errors import StoreAway

pytestmark = pytest.mark.slow  # the server takes seconds to start


@pytest.mark.parametrize("size", [0, 1, 5 << 20, (5 << 20) + 1, 13_000_001])
async def test_what_comes_back_is_what_was_stored(real: Rig, size: int) -> None:
    """At the borders of parts too; two keys, no note, no open upload."""
    body = random.Random(size).randbytes(size)
    wanted, stored = await real.put(body)
    assert stored is wanted
    assert await real.read(wanted) == body
    assert await real.store.find(wanted.directory, wanted.file) == wanted
    assert await real.listed() == [wanted]
    assert await real.keys() == [real.key(wanted), real.key(wanted) + ".manifest.json"]
    assert real.notes() == []
    assert await real.open_uploads() == []


async def test_a_second_commit_finds_the_first(real: Rig) -> None:
    """Same content or not, what is stored stays."""
    _, first = await real.put()
    _, same = await real.put()
    _, other = await real.put(b"other")
    assert first == same == other
    assert await real.read(first) == BODY


async def test_of_200_writers_of_one_name_one_wins(real: Rig) -> None:
    """Each other content: all are told of the same one, and it is what is there."""
    bodies = [f"writer {n}".encode() for n in range(200)]
    told = await asyncio.gather(*(real.put(body) for body in bodies))
    assert len({stored.sha256 for _, stored in told}) == 1
    assert sum(stored is wanted for wanted, stored in told) == 1
    winner = told[0][1]
    assert hashlib.sha256(await real.read(winner)).hexdigest() == winner.sha256
    assert len(await real.keys()) == 2


async def test_any_range_is_the_right_one(real: Rig) -> None:
    """Forward, backward, overlapping, beyond the end."""
    body = random.Random(1).randbytes(3_000_001)
    wanted, _ = await real.put(body)
    dice = random.Random(2)
    async with real.store.open(wanted) as reader:
        assert reader.size == len(body)
        for _ in range(40):
            offset, size = dice.randrange(len(body) + 1000), dice.randrange(1, 200_000)
            assert await reader.read(offset, size) == body[offset : offset + size]


async def test_after_a_deletion_nothing_is_left(real: Rig) -> None:
    """Gone for readers old and new, and harmless when done twice; the name is free again."""
    wanted, _ = await real.put()
    async with real.store.open(wanted) as reader:
        assert await reader.read(0, 10) == BODY[:10]
        await real.store.delete(wanted)
        await real.store.delete(wanted)
        with pytest.raises(StoreError, match="removed or replaced"):
            await reader.read(10, 10)
    assert await real.keys() == []
    assert await real.store.find(wanted.directory, wanted.file) is None
    with pytest.raises(FileNotFoundError):
        async with real.store.open(wanted):
            pass
    new, stored = await real.put(b"new content")
    assert stored is new
    assert await real.read(new) == b"new content"


async def test_a_reader_never_gets_bytes_of_another_artifact(real: Rig) -> None:
    """The name is given to other content between two of its reads."""
    wanted, _ = await real.put(b"a" * 1000)
    async with real.store.open(wanted) as reader:
        assert await reader.read(0, 10) == b"a" * 10
        await real.store.delete(wanted)
        await real.put(b"b" * 1000)
        with pytest.raises(StoreError, match="removed or replaced"):
            await reader.read(10, 10)


async def test_a_hold_is_kept_and_released(real: Rig) -> None:
    """The manifest is replaced as a whole; of an artifact that is gone, or another's, it is not."""
    wanted, _ = await real.put()
    await real.store.rewrite(replace(wanted, hold="needed in court"))
    found = await real.store.find(wanted.directory, wanted.file)
    assert found == replace(wanted, hold="needed in court")
    await real.store.rewrite(wanted)
    assert await real.listed() == [wanted]
    with pytest.raises(FileNotFoundError):
        await real.store.rewrite(replace(wanted, sha256="0" * 64))
    await real.store.delete(wanted)
    with pytest.raises(FileNotFoundError):
        await real.store.rewrite(wanted)
    assert await real.keys() == []


async def test_names_with_every_character_that_a_path_may_have(real: Rig) -> None:
    """Labels bring commas, equal signs and a per cent sign into the key."""
    labels = {"app.kubernetes.io/name": "a.b_c-d", "tier": "", "x": "Y"}
    wanted, _ = await real.put(labels=labels)
    assert "%2F" in real.key(wanted)
    assert await real.read(wanted) == BODY
    assert await real.listed() == [wanted]


async def test_manifests_are_listed_over_pages_in_bounded_memory(real: Rig) -> None:
    """Two pages of the real server; what is in memory is a page, not the store."""
    async with real.staged() as (_, first):
        pass
    some = [
        replace(first, capture=capture_id(n), file=f"cart-{capture_id(n)[:10]}-heap.pprof", name=f"n{n}", size=1)
        for n in range(600)
    ]
    places = asyncio.Semaphore(16)

    async def put(key: str, body: bytes) -> None:
        async with places:
            await real.client.put_object(Bucket="profiles", Key=key, Body=body)

    async with asyncio.TaskGroup() as group:
        for one in some:
            group.create_task(put(real.key(one), b"x"))
            group.create_task(put(real.key(one) + ".manifest.json", encode(one)))
    sizes, seen = [], set[str]()
    tracemalloc.start()
    async for page in real.store.manifests():
        sizes.append(len(page))
        seen |= {one.capture for one in page}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"pages {sizes}, peak {peak >> 10} KiB")
    assert seen == {one.capture for one in some}
    assert max(sizes) <= 250
    assert peak < 16 << 20


async def test_what_is_half_there_is_not_listed(real: Rig) -> None:
    """An object without manifest, a manifest without object, one of another size, one that is no manifest."""
    whole, _ = await real.put()
    orphan = replace(whole, file="a-orphan")
    await real.client.put_object(Bucket="profiles", Key=real.key(orphan), Body=b"x")
    for file, body in {"b-alone": None, "c-short": b"x"}.items():
        other = replace(whole, file=file)
        await real.client.put_object(Bucket="profiles", Key=real.key(other) + ".manifest.json", Body=encode(other))
        if body is not None:
            await real.client.put_object(Bucket="profiles", Key=real.key(other), Body=body)
    garbled = replace(whole, file="d-garbled")
    await real.client.put_object(Bucket="profiles", Key=real.key(garbled), Body=b"x")
    await real.client.put_object(Bucket="profiles", Key=real.key(garbled) + ".manifest.json", Body=b"{")
    assert await real.listed() == [whole]
    assert await real.store.find(garbled.directory, garbled.file) is None


async def test_a_probe_leaves_nothing(real: Rig) -> None:
    """It writes and removes, and that is not there to be listed."""
    await real.store.probe()
    assert await real.keys() == []


async def test_a_rotated_key_is_taken_into_use(real: Rig, identity: Path) -> None:
    """While it is wrong an upload stays staged and the client is told to come again; afterwards it is stored."""
    write_identity(identity, "wrong")
    async with real.staged() as (part, wanted):
        with pytest.raises(StoreAway, match="does not accept the access key"):
            await real.store.probe()
        with pytest.raises(StoreAway, match="403") as raised:
            await real.store.commit(part, wanted)
        assert raised.value.refusal().status == 503
        write_identity(identity, "secretkey123")
        assert await real.store.commit(part, wanted) is wanted
    assert await real.read(wanted) == BODY


async def test_cancelled_at_any_moment_no_upload_is_left_open(real: Rig) -> None:
    """Cancelled after 0, 29, 58... ms until it gets through: no open upload, one object with its manifest."""
    body = random.Random(5).randbytes(13_000_001)
    async with real.staged(body) as (part, wanted):
        for wait in range(0, 4000, 29):
            task = asyncio.get_running_loop().create_task(real.store.commit(part, wanted))
            await asyncio.wait({task}, timeout=wait / 1000)
            task.cancel()
            try:
                stored = await task
                break
            except asyncio.CancelledError:
                assert await real.open_uploads() == [], f"after {wait} ms"
    assert stored == wanted
    assert hashlib.sha256(await real.read(wanted)).hexdigest() == wanted.sha256
    assert len(await real.keys()) == 2


_CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.collector.s3.conftest import manifest
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.parts import Parts
from toe_async.collector.s3store import S3Store
from toe_async.collector.store_url import parse_store_url
from toe_async.lib.clock import SystemClock

class Killed(S3Store):
    async def _show(self, key, manifest):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    disk = Disk()
    with Directory.root(Path(sys.argv[2])) as root:
        parts = Parts(root, disk)
        await parts.recover()
        async with Killed(parse_store_url(sys.argv[1]), root, disk, SystemClock()) as store, parts.fresh() as part:
            await parts.write(part, [b"profile " * 1000])
            await store.commit(part, manifest(part))
asyncio.run(main())
"""


async def test_killed_between_object_and_manifest_the_next_start_finishes_it(
    real: Rig, weed: str, tmp_path: Path
) -> None:
    """The object is there, nobody sees it; the note on disk is enough to show it."""

    def run() -> int:
        url = f"s3://profiles/{real.prefix}?endpoint={weed}&http=allow"
        child = [sys.executable, "-c", _CHILD, url, str(tmp_path / "store")]
        environment = os.environ | {"PYTHONPATH": "tests/support:."}
        return subprocess.run(child, check=False, env=environment, cwd=Path(__file__).parents[3]).returncode

    assert await asyncio.to_thread(run) == -signal.SIGKILL
    assert len(await real.keys()) == len(real.notes()) == 1
    assert await real.listed() == []
    assert await real.store.recover() == 1
    (found,) = await real.listed()
    assert await real.read(found) == BODY
    assert real.notes() == []
    assert await real.store.recover() == 0
