"""The upload side: register, upload, complete, cancel.

Every call checks size and rate, then who asks, then the record; only then a byte of the body is read. What a capture's
records and files are told is serialised by capture, bodies are not: two uploads of one name both write, one wins.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import web
from msgspec.structs import replace

from toe_async.collector import bodies, captures, paths, upload
from toe_async.collector.artifacts import Artifacts
from toe_async.collector.auth import OPERATOR_AUDIENCE, Gate, bearer, capture_audience
from toe_async.collector.captures import Capture, Manifest, Registration, State, Stored
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.layout import Layout
from toe_async.collector.locks import KeyLocks
from toe_async.collector.parts import Part, Parts
from toe_async.collector.records import Records
from toe_async.collector.replies import json_reply
from toe_async.collector.settings import CollectorSettings
from toe_async.lib.clock import Clock
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

SHA256_HEADER = "X-Toe-Sha256"

_LARGEST_BODY = 64 << 10
_WRITE_AT_ONCE = 128 << 10
_log = log.get("collector.ingest")


class Ingest:
    """The handlers, and what they share. One per application."""

    def __init__(
        self,
        *,
        settings: CollectorSettings,
        gate: Gate,
        root: Directory,
        disk: Disk,
        layout: Layout,
        artifacts: Artifacts,
        stored: Callable[[Manifest], Awaitable[None]],
        clock: Clock,
        metrics: CollectorMetrics,
    ) -> None:
        self._settings, self._limits, self._clock, self._metrics = settings, settings.limits, clock, metrics
        self._gate, self._root, self._disk, self._layout = gate, root, disk, layout
        self._artifacts, self._tell = artifacts, stored
        self.records, self.parts = Records(root, disk), Parts(root, disk)
        self._locks = KeyLocks()
        self._under_way: defaultdict[str, dict[asyncio.Timeout, asyncio.Event]] = defaultdict(dict)
        self._uploads = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._reserved = 0
        self._stopping = False

    def routes(self) -> list[web.RouteDef]:
        """The calls under /v1."""
        expect = {"expect_handler": bodies.postpone_continue}
        one = "/v1/captures/{id}"
        return [
            web.post("/v1/captures", self.register, **expect),
            web.put(one + "/artifacts/{leaf}", self.put, **expect),
            web.post(one + "/complete", self.complete, **expect),
            web.delete(one, self.cancel, **expect),
        ]

    # -- calls ------------------------------------------------------------------------------------------------------

    async def register(self, request: web.Request) -> web.Response:
        """Keep a capture's record: 201, or 200 for the same capture again, or 409 for another one's id."""
        self._refuse_when_stopping()
        await self._operator(request)
        body = await bodies.whole(request, _LARGEST_BODY, self._limits, self._clock)
        try:
            wanted = captures.decode_registration(body)
        except msgspec.DecodeError as bad:
            raise Refused(400, "BadRegistration", f"the registration cannot be read: {str(bad)[:200]}") from bad
        fault = captures.faults(wanted, self._clock.now())
        if fault:
            raise Refused(400, "BadRegistration", fault)
        async with self._locks.hold(wanted.id):
            status, record = await self._register(wanted)
        _log.info("capture registered", captureID=wanted.id, namespace=wanted.namespace, again=status == 200)
        return json_reply(status, record)

    async def put(self, request: web.Request) -> web.Response:
        """Store one artifact: 201 when it is there for good, 200 when it was there before."""
        capture_id, leaf = self._capture_id(request), request.match_info["leaf"]
        status = 500
        try:
            status, manifest = await self._upload(request, capture_id, leaf)
        except Refused as refused:
            status = refused.status
            raise
        except StoreError as failed:
            status = failed.refusal().status
            raise
        finally:
            self._metrics.uploads.labels(str(status)).inc()
        return json_reply(status, receipt(manifest))

    async def complete(self, request: web.Request) -> web.Response:
        """Close a capture with the list of what was stored; 409 when that is not what is stored."""
        capture_id = self._capture_id(request)
        await self._uploader(request, capture_id)
        body = await bodies.whole(request, _LARGEST_BODY, self._limits, self._clock)
        try:
            said = captures.decode_completion(body)
        except msgspec.DecodeError as bad:
            raise Refused(400, "BadCompletion", f"the completion cannot be read: {str(bad)[:200]}") from bad
        async with self._locks.hold(capture_id):
            record = await self._complete(capture_id, said.artifacts)
        _log.info("capture complete", captureID=capture_id, artifacts=len(record.artifacts))
        return json_reply(200, record)

    async def cancel(self, request: web.Request) -> web.Response:
        """Refuse a capture's token from now on and remove what is half-uploaded; what is stored stays."""
        capture_id = self._capture_id(request)
        await self._operator(request)
        async with self._locks.hold(capture_id):
            record = await self._registered(capture_id)
            if record.state is State.OPEN:
                record = replace(record, state=State.CANCELLED)
                await self.records.update(record)
        for body, gone in list(self._under_way.get(capture_id, {}).items()):
            body.reschedule(asyncio.get_running_loop().time())
            await gone.wait()  # bounded by one step of the disk
        _log.info("capture cancelled", captureID=capture_id, state=record.state)
        return json_reply(200, record)

    # -- stopping ---------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Take no new bodies and wait for those under way, `timeout` seconds at most."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()

    async def free_bytes(self) -> int:
        """What may still be uploaded: not used, not kept back, not set aside for uploads under way."""
        free = await self._disk.run(self._root.free_bytes)
        self._metrics.store_free_bytes.set(free)
        return max(0, free - self._limits.min_free_bytes - self._reserved)

    # -- steps ------------------------------------------------------------------------------------------------------

    async def _operator(self, request: web.Request) -> None:
        token = bearer(request.headers.getall("Authorization", []))
        await self._gate.service(token, OPERATOR_AUDIENCE, self._settings.operator_users)

    async def _uploader(self, request: web.Request, capture_id: str) -> None:
        token = bearer(request.headers.getall("Authorization", []))
        await self._gate.service(token, capture_audience(capture_id), self._settings.uploader_users)

    async def _register(self, wanted: Registration) -> tuple[int, Capture]:
        held = await self.records.get(wanted.id)
        if held is None:
            record = captures.open_capture(wanted, self._layout.current, self._settings.max_artifact_bytes)
            if await self.records.create(record):
                return 201, record
            held = await self._registered(wanted.id)
        record_again = captures.register_again(held, wanted)
        if record_again is None:
            raise Refused(409, "Taken", "another capture is registered under this id")
        if record_again != held:
            await self.records.update(record_again)
        return 200, record_again

    async def _upload(self, request: web.Request, capture_id: str, leaf: str) -> tuple[int, Manifest]:
        self._refuse_odd_bodies(request)
        await self._uploader(request, capture_id)
        try:
            async with asyncio.timeout(None) as body:
                with self._slot(capture_id), self._listed(capture_id, body):
                    return await self._take(request, capture_id, leaf)
        except TimeoutError:
            raise Refused(403, "Cancelled", "the operator cancelled this capture") from None

    async def _take(self, request: web.Request, capture_id: str, leaf: str) -> tuple[int, Manifest]:
        # We are listed before the record is read: a cancellation is either in the record or finds us in the list.
        verdict = await self._judge(request, capture_id, leaf)
        if isinstance(verdict, upload.Already):
            return 200, await self._manifest(verdict.record, leaf)
        with self._reservation(verdict.reserve) as written:
            async with self.parts.fresh() as part:
                await self._receive(request, part, verdict.max_bytes, written)
                self._check_digest(request, part)
                return await self._commit(part, verdict.record, leaf)

    async def _judge(self, request: web.Request, capture_id: str, leaf: str) -> upload.Accept | upload.Already:
        record = await self.records.get(capture_id)
        stored = await self._stored(record, leaf) if record else None
        verdict = upload.judge(
            upload.Facts(
                now=self._clock.now(),
                leaf=leaf,
                record=record,
                length=request.content_length if "Content-Length" in request.headers else _length(request),
                declared_sha256=request.headers.get(SHA256_HEADER, ""),
                stored_sha256=stored.sha256 if stored else "",
                free_bytes=await self.free_bytes(),
            )
        )
        if isinstance(verdict, Refused):
            raise verdict
        return verdict

    async def _receive(self, request: web.Request, part: Part, max_bytes: int, written: Callable[[int], None]) -> None:
        waiting: list[bytes] = []
        held = 0
        async for piece in bodies.pieces(request, max_bytes, self._limits, self._clock):
            waiting.append(piece)
            held += len(piece)
            if held >= _WRITE_AT_ONCE:
                await self.parts.write(part, waiting)
                written(held)
                waiting, held = [], 0
        await self.parts.write(part, waiting)
        if not part.size:
            raise Refused(400, "Empty", "an artifact without a byte is no artifact")

    async def _commit(self, part: Part, judged: Capture, leaf: str) -> tuple[int, Manifest]:
        capture_id = judged.registration.id
        wanted = captures.manifest_of(judged, leaf, part.size, part.sha256, self._clock.now())
        async with self._locks.hold(capture_id):
            record = await self._registered(capture_id)
            if record.state is not State.OPEN:
                raise Refused(403, record.state, "this capture was closed while the artifact came")
            stored = await self._artifacts.commit(part, wanted)
        if (stored.capture, stored.sha256) != (wanted.capture, wanted.sha256):
            raise Refused(409, "Taken", "another content is stored under this name and is never replaced")
        await self._tell(stored)
        if stored is not wanted:
            return 200, stored
        self._metrics.bytes.inc(stored.size)
        _log.info("artifact stored", captureID=capture_id, name=stored.name, size=stored.size, sha256=stored.sha256)
        return 201, stored

    async def _complete(self, capture_id: str, said: tuple[Stored, ...]) -> Capture:
        record = await self._registered(capture_id)
        if record.state is State.CANCELLED:
            raise Refused(403, "Cancelled", "the operator cancelled this capture")
        if record.state is State.COMPLETE:
            if record.artifacts != said:
                raise Refused(409, "Mismatch", "this capture was completed with another list of artifacts")
            return record
        for one in said:
            stored = await self._stored(record, one.name) if one.name in record.registration.leaves else None
            if stored is None or (stored.size, stored.sha256) != (one.size, one.sha256):
                raise Refused(409, "Mismatch", "what is stored is not what the completion says")
        record = replace(record, state=State.COMPLETE, artifacts=said)
        await self.records.update(record)
        return record

    async def _registered(self, capture_id: str) -> Capture:
        record = await self.records.get(capture_id)
        if record is None:
            raise Refused(404, "NotRegistered", "no such capture is registered")
        return record

    async def _stored(self, record: Capture, leaf: str) -> Manifest | None:
        r = record.registration
        if leaf not in r.leaves:
            return None
        held = await self._artifacts.find(record.directory, paths.file_name(r.pod, r.container, r.id, leaf))
        return held if held is not None and held.capture == r.id else None

    async def _manifest(self, record: Capture, leaf: str) -> Manifest:
        held = await self._stored(record, leaf)
        if held is None:
            raise Refused(409, "Taken", "the artifact was deleted just now")
        return held

    @contextlib.contextmanager
    def _slot(self, capture_id: str) -> Iterator[None]:
        # Taken by known uploaders only, and never all of them by one: who has no token, or one, holds up nobody.
        self._refuse_when_stopping()
        of_this = len(self._under_way.get(capture_id, ()))
        if self._uploads >= self._limits.uploads or of_this >= self._limits.uploads_per_capture:
            raise Refused(429, "TooManyUploads", "too many uploads are under way; try again", retry_after=5)
        self._uploads += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._uploads -= 1
            if not self._uploads:
                self._idle.set()

    @contextlib.contextmanager
    def _listed(self, capture_id: str, body: asyncio.Timeout) -> Iterator[None]:
        gone = self._under_way[capture_id][body] = asyncio.Event()
        try:
            yield
        finally:
            gone.set()
            bodies_left = self._under_way[capture_id]
            del bodies_left[body]
            if not bodies_left:
                del self._under_way[capture_id]

    @contextlib.contextmanager
    def _reservation(self, size: int) -> Iterator[Callable[[int], None]]:
        """Set space aside; what the block writes is told to the function given, and is then the disk's to count."""
        left = size
        self._reserved += size

        def written(count: int) -> None:
            nonlocal left
            count = min(count, left)
            left -= count
            self._reserved -= count

        try:
            yield written
        finally:
            self._reserved -= left

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise Refused(503, "Stopping", "this collector is stopping; try again", retry_after=5)

    def _refuse_odd_bodies(self, request: web.Request) -> None:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(400, "Encoded", "send the artifact as it is, without Content-Encoding")
        if "Content-Range" in request.headers:
            raise Refused(400, "Ranged", "send the artifact whole, without Content-Range")
        if (request.content_length or 0) > self._settings.max_artifact_bytes:
            raise upload.too_big(self._settings.max_artifact_bytes)

    def _check_digest(self, request: web.Request, part: Part) -> None:
        said = request.headers.get(SHA256_HEADER)
        if said and said != part.sha256:
            raise Refused(400, "DigestMismatch", f"the body's SHA-256 is not the one in {SHA256_HEADER}")

    def _capture_id(self, request: web.Request) -> str:
        capture_id = request.match_info["id"]
        if not paths.is_capture_id(capture_id):
            raise Refused(400, "BadCaptureID", "that is no capture id: 32 characters of a-z2-7")
        return capture_id


class Receipt(msgspec.Struct, frozen=True):
    """What an uploader gets: `uri` is the artifact in the read API, `path` the file below the collector's root."""

    uri: str
    path: str
    size: int
    sha256: str


def receipt(stored: Manifest) -> Receipt:
    """Tell where an artifact is."""
    uri = f"/apis/artifacts.toe.run/v1alpha1/namespaces/{stored.namespace}/artifacts/{stored.name}"
    return Receipt(uri, "/".join((*stored.directory, stored.file)), stored.size, stored.sha256)


def _length(request: web.Request) -> int | None:
    return None if request.body_exists else 0
