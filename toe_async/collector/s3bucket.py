"""One prefix of a bucket, request by request. Raises what `sinks.s3requests` raises; `s3store` makes sense of it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from msgspec import Struct

from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest, decode_manifest
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.records import PRIVATE
from toe_async.collector.s3errors import mapped, store_errors
from toe_async.collector.s3listing import Candidate, Listed
from toe_async.collector.store_url import S3Place
from toe_async.sinks.errors import Absent, SinkError
from toe_async.sinks.s3requests import Requests, Source, create
from toe_async.telemetry import log

_LARGEST_MANIFEST = 256 << 10
_LISTED_AT_ONCE = 1000
_MANIFESTS_AT_ONCE = 16
_log = log.get("collector.s3bucket")


class Object(Struct, frozen=True):
    """What an object says of itself; `sha256` is empty for one that this program did not make."""

    size: int
    etag: str
    sha256: str

    def holds(self, manifest: Manifest) -> bool:
        """Whether it is the artifact of this manifest."""
        return (self.size, self.sha256) == (manifest.size, manifest.sha256)


class Found(Struct, frozen=True):
    """A stored manifest and the version of it that was read; None for one that cannot be read."""

    manifest: Manifest | None
    etag: str


class Bucket:
    """Objects and manifests by key. A manifest is asked for by its artifact's key."""

    def __init__(self, place: S3Place, requests: Requests) -> None:
        self._place = place
        self.requests = requests
        self.private = place.key(PRIVATE, "")
        """What the keys begin with that are nobody's artifacts."""

    def key(self, manifest: Manifest) -> str:
        """Where an artifact lies."""
        return self._place.key(*manifest.directory, manifest.file)

    def at(self, key: str) -> dict[str, str]:
        """A key as requests want it."""
        return {"Bucket": self._place.bucket, "Key": key}

    async def create(self, key: str, source: Source, manifest: Manifest) -> None:
        """Make an object; raises Taken where there is one."""
        about = {"capture-id": manifest.capture, "leaf": manifest.leaf, "sha256": manifest.sha256}
        await create(self.requests, self._place.bucket, key, source, about)

    async def put(self, key: str, body: bytes, **condition: str) -> None:
        """Write a small object, on conditions."""
        await self.requests.run(
            lambda s3: s3.put_object(**self.at(key), Body=body, ContentType="application/json", **condition)
        )

    async def put_manifest(self, key: str, manifest: Manifest, **condition: str) -> None:
        """Write a manifest; raises Taken or Absent when the condition does not hold."""
        await self.put(key + MANIFEST_SUFFIX, encode(manifest), **condition)

    async def head(self, key: str) -> Object | None:
        """Look at an object."""
        try:
            found: dict[str, Any] = await self.requests.run(lambda s3: s3.head_object(**self.at(key)))
        except Absent:
            return None
        sums = [value for name, value in found.get("Metadata", {}).items() if name.lower() == "sha256"]
        return Object(found.get("ContentLength", 0), found["ETag"], *sums[:1] or [""])

    async def manifest(self, key: str) -> Found | None:
        """Read a manifest."""

        async def get(s3: Any) -> tuple[str, bytes]:
            reply = await s3.get_object(**self.at(key + MANIFEST_SUFFIX))
            async with reply["Body"] as stream:
                small = reply.get("ContentLength", _LARGEST_MANIFEST + 1) <= _LARGEST_MANIFEST
                return reply["ETag"], await stream.read() if small else b""

        try:
            etag, body = await self.requests.run(get)
        except Absent:
            return None
        try:
            return Found(decode_manifest(body), etag)
        except msgspec.DecodeError:
            _log.warning("a manifest cannot be read; its artifact is not shown", key=key)
            return Found(None, etag)

    async def remove(self, key: str) -> None:
        """Remove an object; harmless when it is gone."""
        with contextlib.suppress(Absent):
            await self.requests.run(lambda s3: s3.delete_object(**self.at(key)))

    async def listing(self, after: str = "") -> AsyncGenerator[list[Listed], None]:
        """Every object below the prefix, whatever it is, in the order of the keys; those behind `after`.

        Raises:
            StoreError: also between two pages.
        """
        more = {"StartAfter": after} if after else {}
        while True:
            with store_errors():
                reply = await self.requests.run(
                    lambda s3: s3.list_objects_v2(
                        Bucket=self._place.bucket,
                        Prefix=self._place.key(""),
                        MaxKeys=_LISTED_AT_ONCE,
                        **more,  # noqa: B023 -- called within this turn only
                    )
                )
            yield [Listed(one["Key"], one["Size"], one["LastModified"]) for one in reply.get("Contents", [])]
            if not reply.get("IsTruncated"):
                return
            more = {"ContinuationToken": reply["NextContinuationToken"]}

    async def manifests(self, wanted: list[Candidate]) -> list[Manifest]:
        """Read manifests, some at a time; without those that are gone or do not fit their artifact.

        Raises:
            StoreError: one could not be read.
        """
        waiting, found = iter(wanted), list[Manifest]()

        async def worker() -> None:
            for one in waiting:
                held = await self.manifest(one.key.removesuffix(MANIFEST_SUFFIX))
                if held is not None and held.manifest is not None and held.manifest.size == one.artifact_size:
                    found.append(held.manifest)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_MANIFESTS_AT_ONCE, len(wanted))):
                    group.create_task(worker())
        except* SinkError as failed:
            first = failed.exceptions[0]
            assert isinstance(first, SinkError)
            raise mapped(first) from first
        return found
