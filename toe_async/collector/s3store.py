"""Artifacts in S3: `Artifacts` over a bucket, under the same names as in a directory.

`{prefix}/{namespace}/{labels}/{run}/{date}/{file}` is an artifact, and `{file}.manifest.json` beside it makes it
visible. Uploads are staged on local disk; a commit then

1. notes manifest and intent below `{root}/.toe/s3` on local disk, synced;
2. makes the object with `If-None-Match: *`, in parts where it is large, with capture id and digest as metadata; a name
   that is taken is looked at: the same digest is the same upload whose reply was lost, anything else stays;
3. puts the manifest beside it, and removes the note. Only now may somebody be told that it is stored.

A crash between 2 and 3 is finished by `recover` from the note, or by the same upload coming again. A deletion removes
the object, then the manifest; a manifest without an object is nothing and makes way for the next upload of that name.

What S3 cannot give, and a directory does:

- Reading on after a deletion. Ranges are fetched one by one; a reader of an artifact that is deleted meanwhile gets a
  StoreError at its next range, never other bytes.
- One step for an artifact and its manifest. Between the two requests of a commit or a deletion a crash leaves one of
  them: invisible to readers, counted by the bucket, finished as told above or removed by `s3orphans`.
- Objects that only this program removes. A lifecycle rule of the bucket may take some: they are found missing when they
  are looked for, and leave the catalog when the store is read the next time.
- Full isolation between collectors that share a prefix. Commits, deletions and holds of one artifact wait for each
  other within one process only. Across processes the conditions of S3 decide: create-only for objects, If-Match for
  manifests. A deletion in one process and an upload of the same name in another can leave an object without its
  manifest: not every store takes a condition with DeleteObject.
- Create-only itself, where a store checks the condition and writes in two steps (SeaweedFS was seen to tell two writers
  within milliseconds that each has won). After every upload the object is looked at again, and whoever finds another
  one's says so; one that was overwritten later than that look is not noticed. Names hold the capture's id, so two
  writers of one name are two attempts at one upload.
- Space set aside and quotas. A bucket has no end that can be asked for; a quota of the provider shows as 507 when it is
  reached, after the upload was staged.
- A quick reading of the whole store. `manifests` costs a request each, some hundreds a second; it is needed only when
  the local catalog was lost.
- Power loss is the provider's: a 200 means that S3 says it is durable.
- Parts of uploads that a killed process began stay until the bucket's lifecycle rule AbortIncompleteMultipartUpload.

Rights needed: PutObject, GetObject, DeleteObject and AbortMultipartUpload on the prefix, ListBucket on the bucket.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator
from typing import Self

from msgspec.structs import replace

from toe_async.collector.captures import Manifest
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import StoreError
from toe_async.collector.locks import KeyLocks
from toe_async.collector.parts import Part
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.s3bucket import Bucket
from toe_async.collector.s3connection import S3Connection
from toe_async.collector.s3drafts import Drafts
from toe_async.collector.s3errors import StoreAway, store_errors
from toe_async.collector.s3listing import Pairing
from toe_async.collector.s3reader import AheadBudget, S3Reader
from toe_async.collector.store_url import S3Place
from toe_async.lib.clock import Clock
from toe_async.sinks.errors import Absent, Taken
from toe_async.sinks.s3requests import PART
from toe_async.telemetry import log

ENDLESS = 1 << 60
"""What a bucket still takes, in bytes: nobody can say, and this much will never be asked for."""

_YIELDED_AT_ONCE = 250
_WHOLE_AT_ONCE, _IN_PARTS_AT_ONCE = 4, 2  # an upload holds up to 15 MB of memory
_AHEAD_BYTES = 16 << 20
_PROBE_SECONDS = 10.0
_TURN_SECONDS = 120.0
_TRIES = 5
_log = log.get("collector.s3store")


class S3Store:
    """The artifacts below one prefix of a bucket. Used as an async context manager."""

    def __init__(self, place: S3Place, root: Directory, disk: Disk, clock: Clock) -> None:
        """`root` is the local directory of which `.toe` is used."""
        self._place, self._disk = place, disk
        self._connection = S3Connection(place, clock)
        self.bucket = Bucket(place, self._connection.requests)
        self._drafts = Drafts(root, disk)
        self._locks = KeyLocks()
        self._whole, self._in_parts = asyncio.Semaphore(_WHOLE_AT_ONCE), asyncio.Semaphore(_IN_PARTS_AT_ONCE)
        self._ahead = AheadBudget(_AHEAD_BYTES)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._connection.__aexit__(None, None, None)

    # -- writing ----------------------------------------------------------------------------------------------------

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        """Store a finished upload, or find out what is stored under its name."""
        key = self.bucket.key(manifest)
        async with self._locks.hold(key), self._drafts.noted(manifest):
            with store_errors():
                return await self._commit(part, manifest, key)

    async def delete(self, manifest: Manifest) -> None:
        """Remove an artifact for good: its bytes first, so that nothing is left that looks stored and is not.

        Another one that was stored under its name since stays.
        """
        key = self.bucket.key(manifest)
        async with self._locks.hold(key):
            with store_errors():
                found = await self.bucket.manifest(key)
                if found is not None and found.manifest is not None and not _same_upload(found.manifest, manifest):
                    return
                await self.bucket.remove(key)
                await self.bucket.remove(key + MANIFEST_SUFFIX)

    async def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest of a stored artifact; raises FileNotFoundError when the artifact is gone."""
        key = self.bucket.key(manifest)
        async with self._locks.hold(key):
            with store_errors():
                for _ in range(_TRIES):
                    found = await self.bucket.manifest(key)
                    if found is None or not _same(found.manifest, manifest) or await self.bucket.head(key) is None:
                        raise FileNotFoundError(errno.ENOENT, "the artifact is gone")
                    with contextlib.suppress(Taken, Absent):
                        await self.bucket.put_manifest(key, manifest, IfMatch=found.etag)
                        return
                raise StoreError("a manifest is being changed by others all the time")

    async def free_bytes(self) -> int:
        """ENDLESS: S3 tells nobody."""
        return ENDLESS

    async def probe(self) -> None:
        """Write and remove an object; raises StoreError."""
        key = f"{self.bucket.private}probe-{secrets.token_hex(8)}"
        with store_errors():
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self.bucket.put(key, b"")
                    await self.bucket.remove(key)
            except TimeoutError:
                raise StoreAway(f"{self._place}: no answer within {_PROBE_SECONDS:g} s") from None

    # -- reading ----------------------------------------------------------------------------------------------------

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        """The manifest of a stored artifact, or None; also None when only one of the two is there, or they differ."""
        key = self._place.key(*directory, file)
        with store_errors():
            found = await self.bucket.manifest(key)
            if found is None or found.manifest is None:
                return None
            held = await self.bucket.head(key)
        return found.manifest if held is not None and held.holds(found.manifest) else None

    @contextlib.asynccontextmanager
    async def open(self, manifest: Manifest) -> AsyncIterator[S3Reader]:
        """A stored artifact's bytes for as long as the block lasts.

        Raises:
            FileNotFoundError: it is gone, or has another content than its manifest says.
        """
        key = self.bucket.key(manifest)
        with store_errors():
            found = await self.bucket.head(key)
        if found is None or not found.holds(manifest):
            raise FileNotFoundError(errno.ENOENT, "the artifact is gone")
        where = self.bucket.at(key) | {"IfMatch": found.etag}
        reader = S3Reader(self.bucket.requests, where, manifest.size, self._ahead)
        try:
            yield reader
        finally:
            reader.close()

    async def manifests(self) -> AsyncIterator[list[Manifest]]:
        """All stored artifacts, a page of the listing at a time."""
        pairing = Pairing(self.bucket.private)
        async for page in self.bucket.listing():
            found = list(pairing.page(page))
            for at in range(0, len(found), _YIELDED_AT_ONCE):
                yield await self.bucket.manifests(found[at : at + _YIELDED_AT_ONCE])

    # -- tidying ----------------------------------------------------------------------------------------------------

    async def discard_half(self, key: str) -> bool:
        """Remove an object that has no manifest, or a manifest that has no object, if it is one of ours and still so.

        It is looked at right before, so that what was completed meanwhile stays.
        """
        artifact = key.removesuffix(MANIFEST_SUFFIX)
        async with self._locks.hold(artifact):
            with store_errors():
                found, held = await self.bucket.head(artifact), await self.bucket.manifest(artifact)
                if (found is None) == (held is None):
                    return False
                ours = bool(found.sha256) if found is not None else held is not None and held.manifest is not None
                if ours:
                    await self.bucket.remove(key)
                return ours

    async def recover(self) -> int:
        """Finish the commits of dead processes that got as far as the object; returns how many were finished.

        What cannot be looked at now, because the store is away, stays noted for the next time.
        """
        finished = 0
        for name in await self._drafts.names():
            try:
                async with self._drafts.abandoned(name) as manifest:
                    if manifest is not None:
                        with store_errors():
                            finished += await self._finish(manifest)
            except StoreError as failed:
                _log.warning("a commit of a dead process cannot be finished now", error=str(failed))
                break
        return finished

    async def _finish(self, manifest: Manifest) -> bool:
        key = self.bucket.key(manifest)
        found = await self.bucket.head(key)
        if found is None or not found.holds(manifest):
            return False
        await self._show(key, manifest)
        return True

    # -- the steps --------------------------------------------------------------------------------------------------

    async def _commit(self, part: Part, manifest: Manifest, key: str) -> Manifest:
        found = await self.bucket.head(key)
        if found is None:
            async with _turn(self._in_parts if part.size > PART else self._whole):
                with contextlib.suppress(Taken):
                    await self.bucket.create(key, _PartSource(part, self._disk), manifest)
            # Looked at again even when nothing was wrong: see above for stores that let two writers win.
            found = await self.bucket.head(key)
            if found is None:
                raise StoreError("the object store lost what it had just taken")
        if found.holds(manifest):
            return await self._show(key, manifest)
        held = await self.bucket.manifest(key)
        if held is not None and held.manifest is not None and held.manifest.sha256 == found.sha256:
            return held.manifest
        return replace(manifest, sha256=found.sha256, size=found.size)

    async def _show(self, key: str, manifest: Manifest) -> Manifest:
        """Put the manifest beside an object that is this artifact, unless one of the same content is there."""
        for _ in range(_TRIES):
            held = await self.bucket.manifest(key)
            if held is not None and held.manifest is not None and held.manifest.sha256 == manifest.sha256:
                return held.manifest
            # One of other content is of a deletion that a crash cut short: its object is gone.
            condition = {"IfNoneMatch": "*"} if held is None else {"IfMatch": held.etag}
            with contextlib.suppress(Taken, Absent):
                await self.bucket.put_manifest(key, manifest, **condition)
                return manifest
        raise StoreError("a manifest is being changed by others all the time")


class _PartSource:
    """A staged part on its way out."""

    def __init__(self, part: Part, disk: Disk) -> None:
        self.left = part.size
        self._part, self._disk, self._at = part, disk, 0

    async def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end; raises StoreError when the disk has them no more."""
        want = min(count, self.left)
        piece = await self._disk.run(lambda: os.pread(self._part.path_fd(), want, self._at))
        if len(piece) != want:
            raise StoreError("a part became shorter")
        self._at += want
        self.left -= want
        return piece


@contextlib.asynccontextmanager
async def _turn(places: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_TURN_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise StoreAway("the object store is too slow for the uploads that wait for it") from None
    try:
        yield
    finally:
        places.release()


def _same_upload(held: Manifest, wanted: Manifest) -> bool:
    return (held.sha256, held.stored_at) == (wanted.sha256, wanted.stored_at)


def _same(held: Manifest | None, wanted: Manifest) -> bool:
    return held is not None and (held.capture, held.leaf, held.sha256) == (wanted.capture, wanted.leaf, wanted.sha256)
