"""Requests to S3 that are known to have ended, and objects that are made and never replaced.

A request runs as a task of its own to its end, a few seconds longer than a cancelled caller: an upload that was just
being begun must be known to be aborted, and a part under way could otherwise arrive after the abort. What is left then
is a process that was killed: the bucket's lifecycle rule AbortIncompleteMultipartUpload is for those.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from toe_async.lib.backoff import Backoff
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.errors import Absent, Passing, SinkUnavailable
from toe_async.sinks.uninterrupted import to_the_end
from toe_async.telemetry import log

_log = log.get(__name__)

T = TypeVar("T")
Translate = Callable[[Exception, str], Exception]
Lend = Callable[[], AbstractAsyncContextManager[Any]]

PART = 5 << 20  # the smallest that S3 takes; 4 uploads hold about 60 MB together
MOST_PARTS = 10_000
_CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumSHA256", "ChecksumCRC64NVME")

# One request: 5 MiB in 120 s is 43 KiB/s, slower than any link worth waiting for. AWS may take minutes to complete.
_REQUEST_SECONDS = 120.0
_COMPLETE_SECONDS = 300.0
_GRACE_SECONDS = 5.0
_PART_RETRIES = 3
_LONGEST_PART_WAIT = 30.0


class Source(Protocol):
    """Bytes on their way into an object, read once from start to end."""

    @property
    def left(self) -> int:
        """How many are still to come."""

    async def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""


class Requests:
    """Requests to one endpoint. `lend` gives a client for one request."""

    def __init__(self, owner: TaskOwner, lend: Lend, where: str, translate: Translate) -> None:
        self.where = where
        self._owner, self._lend, self._translate = owner, lend, translate

    async def run(self, call: Callable[[Any], Awaitable[T]], seconds: float = _REQUEST_SECONDS) -> T:
        """Make one request with a client, to its end.

        Raises:
            SinkUnavailable, Taken, Absent: what it came to. Never with the store's own words, nor chained to them.
        """

        async def limited() -> T:
            async with asyncio.timeout(seconds), self._lend() as s3:
                return await call(s3)

        task = self._owner.start(limited(), name=f"s3 request to {self.where}")
        await to_the_end(task, _GRACE_SECONDS)
        try:
            return task.result()
        except Exception as error:  # noqa: BLE001 -- translated, or raised as it is
            raise self._translate(error, self.where) from None


def part_size(size: int) -> int:
    """Return the size of each part but the last, so that no artifact has more parts than S3 allows."""
    return max(PART, -(-size // MOST_PARTS))


async def create(
    requests: Requests, bucket: str, key: str, source: Source, metadata: dict[str, str], *, tags: str = ""
) -> None:
    """Store all that is left of a source as a new object. `tags` are written as in a query: a=b&c=d.

    Raises:
        Taken: an object of this name is there; what was sent of this one is taken back.
        SinkUnavailable: not stored, as far as anybody knows: a reply may have been lost.
    """
    where = {"Bucket": bucket, "Key": key}
    about: dict[str, Any] = {"Metadata": metadata, "ContentType": "application/octet-stream"}
    about |= tagging(tags)
    if source.left > PART:
        await _Parts(requests, where).put(source, about)
        return
    body = await source.read(PART)
    await requests.run(lambda s3: s3.put_object(**where, Body=body, IfNoneMatch="*", **about))


def tagging(tags: str) -> dict[str, str]:
    """The parameter for tags; none for none, since that needs a right of its own (s3:PutObjectTagging)."""
    return {"Tagging": tags} if tags else {}


class _Parts:
    """One object in parts."""

    def __init__(self, requests: Requests, where: dict[str, str]) -> None:
        self._requests, self._where = requests, where
        self._run = requests.run

    async def put(self, source: Source, about: dict[str, Any]) -> None:
        size, parts = part_size(source.left), list[dict[str, Any]]()
        try:
            await self._run(lambda s3: self._begin(s3, about))
            while source.left:
                parts.append(await self._part(len(parts) + 1, await source.read(size)))
            done = {"Parts": parts}
            await self._run(
                lambda s3: s3.complete_multipart_upload(**self._where, MultipartUpload=done, IfNoneMatch="*"),
                _COMPLETE_SECONDS,
            )
        except BaseException:
            await self._abort()
            raise

    async def _begin(self, s3: Any, about: dict[str, Any]) -> None:
        # The id is kept by the request itself, so that it is known even when its caller was cancelled meanwhile.
        self._where["UploadId"] = (await s3.create_multipart_upload(**self._where, **about))["UploadId"]

    async def _part(self, number: int, body: bytes) -> dict[str, Any]:
        """Send one part, again when its connection is lost: the others need not be sent anew for it."""
        backoff = Backoff(0.5, 5)
        while True:
            try:
                reply = await self._run(lambda s3: s3.upload_part(**self._where, PartNumber=number, Body=body))
            except Passing as error:
                if backoff.failures >= _PART_RETRIES:
                    raise
                wait = max(backoff.next(), min(error.retry_after or 0.0, _LONGEST_PART_WAIT))
            else:
                sums = {name: reply[name] for name in _CHECKSUMS if name in reply}
                return {"PartNumber": number, "ETag": reply["ETag"], **sums}
            await asyncio.sleep(wait)

    async def _abort(self) -> None:
        if "UploadId" not in self._where:
            return
        try:
            await self._run(lambda s3: s3.abort_multipart_upload(**self._where), _GRACE_SECONDS)
        except Absent:
            return  # NoSuchUpload: it was completed or aborted after all
        except SinkUnavailable as error:
            _log.warning(
                "an upload could not be aborted; the bucket's lifecycle rule has to remove it",
                key=self._where["Key"], why=str(error),
            )  # fmt: skip
