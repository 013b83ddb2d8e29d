"""Artifacts into S3, create-only (D16).

Theory of operation. An artifact has three names to try, derived from persisted facts (`keys`). For each one in turn: a
name that another upload of this process holds is skipped; HEAD tells whether the name is taken; the upload itself ends
with `If-None-Match: *`, so of two writers who both saw it free one gets 412. A taken name is looked at: metadata with
our capture id, type and digest mean that an earlier attempt got through and its reply was lost, which is success; else
the next name. After the upload the object is looked at once more: SeaweedFS was seen to let two writers complete one
name within milliseconds, and the one that was overwritten takes its next name. Nothing is ever overwritten on purpose,
listed or deleted: PutObject, GetObject and AbortMultipartUpload on the prefix are all the rights there are.

Without the right to list, AWS answers HEAD on a free name with 403, not 404; so 403 counts as "free as far as we can
tell" and the conditional write decides.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import msgspec

from toe_async.apis.captures import Receipt, S3Ref
from toe_async.kube.sender import Sender
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks import keys
from toe_async.sinks.allow import Allowed
from toe_async.sinks.credentials import Keys, OperatorIdentity, keys_in_secret
from toe_async.sinks.errors import Absent, Denied, SinkRefused, SinkUnavailable, Taken
from toe_async.sinks.s3requests import Requests, Translate, create, tagging
from toe_async.sinks.spool import SpoolEntry
from toe_async.sinks.spoolreader import reading
from toe_async.sinks.uninterrupted import in_thread
from toe_async.telemetry import log

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

_log = log.get(__name__)

Connect = Callable[["AioSession", Keys, Allowed], AbstractAsyncContextManager[Any]]

_PROBE_SECONDS = 10.0
_PROBE_NAME = ".toe-probe"


class S3Sink:
    """Stores artifacts in S3. Used as an async context manager; leaving it ends what was cut short."""

    def __init__(self, client: Sender) -> None:
        self._client = client
        self._identity = OperatorIdentity()
        self._reserved: set[tuple[str, str, str]] = set()
        # Whoever starts a request awaits its outcome, so nothing is left to say about an error.
        self._owner = TaskOwner(lambda name, error: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)

    async def store(self, entry: SpoolEntry, ref: S3Ref, allowed: Allowed, *, again: bool) -> Receipt:
        """Store one artifact and its manifest; `again` looks at all names for an upload whose reply was lost.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        async with self._connected(ref, allowed, entry.record.namespace) as requests:
            upload = _Upload(requests, ref, entry)
            key = await upload.find_mine() if again else None
            if key is not None:
                _log.info("an earlier upload got through, its reply was lost", entry=entry.name)
            else:
                key = await self._place(upload, ref, allowed)
            await upload.put_manifest(key)
        artifact = entry.artifact
        return Receipt(uri=f"s3://{ref.bucket}/{key}", size=artifact.size, sha256=artifact.sha256)

    async def probe(self, ref: S3Ref, allowed: Allowed, namespace: str) -> str | None:
        """Ask for an object that is not there: tells whether endpoint, key and bucket are good, and changes nothing."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS), self._connected(ref, allowed, namespace) as requests:
                await _probe(requests, ref)
        except (SinkUnavailable, SinkRefused) as error:
            return str(error)
        except TimeoutError:
            return f"{_where(ref)}: no answer within {_PROBE_SECONDS:g} s"
        return None

    async def _place(self, upload: "_Upload", ref: S3Ref, allowed: Allowed) -> str:
        host = allowed.endpoint.url if allowed.endpoint else ""
        for key in upload.names:
            reservation = (host, ref.bucket, key)
            if reservation in self._reserved:
                continue
            self._reserved.add(reservation)
            try:
                if await upload.put(key):
                    return key
            finally:
                self._reserved.discard(reservation)
        raise SinkUnavailable(f"{_where(ref)}: all three names of this artifact are taken", sink_wide=False)

    @asynccontextmanager
    async def _connected(self, ref: S3Ref, allowed: Allowed, namespace: str) -> AsyncIterator[Requests]:
        connect, translate = await in_thread(_botocore)
        try:
            if allowed.use_operator_identity:
                used = await self._identity.keys()
            else:
                used = await keys_in_secret(self._client, namespace, ref.credentials_secret)
            async with connect(await self._identity.session(), used, allowed) as s3:
                yield Requests(self._owner, lambda: nullcontext(s3), _where(ref), translate)
        except Denied:
            if allowed.use_operator_identity:
                self._identity.forget()
            raise
        except (Absent, Taken) as error:
            # Where these are to be expected they are caught; the upload itself was forgotten, or the like.
            raise SinkUnavailable(
                f"{_where(ref)}: the store does not know what it was told before", sink_wide=False
            ) from error
        except Exception as error:  # noqa: BLE001 -- translated, or raised as it is
            raise translate(error, _where(ref)) from None


class _Upload:
    """One artifact on its way into one bucket."""

    def __init__(self, requests: Requests, ref: S3Ref, entry: SpoolEntry) -> None:
        self._requests, self._bucket, self._entry = requests, ref.bucket, entry
        self._metadata = keys.metadata(entry.record, entry.artifact)
        self.names = keys.candidates(ref.prefix, entry.record, entry.artifact)

    async def find_mine(self) -> str | None:
        """Return the name under which an earlier attempt stored this artifact."""
        for key in self.names:
            if await self._is_mine(key):
                return key
        return None

    async def put(self, key: str) -> bool:
        """Store the artifact under a name; False when the name is another object's."""
        if (mine := await self._is_mine(key)) is not None:
            return mine
        try:
            async with reading(self._entry) as reader:
                await create(
                    self._requests, self._bucket, key, reader, self._metadata, tags=keys.tags(self._entry.record)
                )
        except Taken:
            return await self._is_mine(key) or False
        # Some stores check the condition and write in two steps, so that of two writers both may be told "stored".
        return await self._is_mine(key) is not False

    async def put_manifest(self, key: str) -> None:
        """Store the whole context beside the object; one that is there already is this one, as its name is ours."""
        entry = self._entry
        body = {"uri": f"s3://{self._bucket}/{key}", "capture": entry.record, "artifact": entry.artifact}
        try:
            await self._requests.run(
                lambda s3: s3.put_object(
                    Bucket=self._bucket,
                    Key=key + keys.MANIFEST_SUFFIX,
                    Body=msgspec.json.format(msgspec.json.encode(body)),
                    ContentType="application/json",
                    IfNoneMatch="*",
                    **tagging(keys.tags(entry.record)),
                )
            )
        except Taken:
            return

    async def _is_mine(self, key: str) -> bool | None:
        """Tell whether the object of this name is this artifact; None when there is none as far as we may see."""
        try:
            found: dict[str, Any] = await self._requests.run(lambda s3: s3.head_object(Bucket=self._bucket, Key=key))
        except (Absent, Denied):
            return None
        same = keys.is_same(found.get("Metadata", {}), self._entry.record, self._entry.artifact)
        return same and found.get("ContentLength") == self._entry.artifact.size


async def _probe(requests: Requests, ref: S3Ref) -> None:
    key = f"{keys.clean_prefix(ref.prefix)}/{_PROBE_NAME}".lstrip("/")
    try:
        reply = await requests.run(lambda s3: s3.get_object(Bucket=ref.bucket, Key=key, Range="bytes=0-0"))
        reply["Body"].close()
    except Absent:
        return
    except Denied as error:
        # Without the right to list, a name that is not there is denied as well: AccessDenied tells nothing.
        if error.code != "AccessDenied":
            raise


def _where(ref: S3Ref) -> str:
    return f"s3://{ref.bucket} at {ref.endpoint or 'AWS'}"


def _botocore() -> tuple[Connect, Translate]:
    """Import what knows botocore. Blocks for 0.2 s the first time, which is why it waits until S3 is used."""
    from toe_async.sinks.s3client import connect
    from toe_async.sinks.s3errors import translate

    return connect, translate
