"""The upload side: register, look, upload, complete, cancel.

Every call checks size and rate, then who asks, then the record; only then a byte of the body is read. What a capture's
records and files are told is serialised by capture, bodies are not (`uploads`).
"""

import msgspec
from aiohttp import web
from msgspec.structs import replace

from toe_async.apis.kinds import ARTIFACTS
from toe_async.collector import bodies, captures, paths, upload
from toe_async.collector.artifacts import Artifacts
from toe_async.collector.auth import OPERATOR_AUDIENCE, Gate, bearer, capture_audience
from toe_async.collector.captures import Capture, Manifest, Registration, State, Stored
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.layout import Layout
from toe_async.collector.locks import KeyLocks
from toe_async.collector.records import Records
from toe_async.collector.replies import SAFE_HEADERS, json_reply, refusal
from toe_async.collector.settings import CollectorSettings
from toe_async.collector.uploads import Asked, Told, Uploads, Usage, WrongOffset
from toe_async.lib.clock import Clock
from toe_async.telemetry import log
from toe_async.telemetry.metrics import CollectorMetrics

SHA256_HEADER, SIZE_HEADER = "X-Toe-Sha256", "X-Toe-Size"
OFFSET_HEADER, COMPLETE_HEADER, REASON_HEADER = "Upload-Offset", "Upload-Complete", "X-Toe-Reason"

_LARGEST_BODY = 64 << 10
_LONGEST_SIZE = 15
_log = log.get("collector.ingest")


class StoredArtifact(msgspec.Struct, frozen=True):
    """One artifact of a capture: its leaf, its name and address in the read API, and what it holds."""

    leaf: str
    name: str
    uri: str
    size: int
    sha256: str


class Registered(msgspec.Struct, frozen=True):
    """What the operator gets: the record, and what is stored of it now."""

    registration: Registration
    directory: tuple[str, ...]
    state: State
    artifacts: list[StoredArtifact]


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
        usage: Usage,
        told: Told,
        clock: Clock,
        metrics: CollectorMetrics,
    ) -> None:
        """`usage` tells what is kept; `told` is called for each artifact that is stored."""
        self._settings, self._limits, self._clock, self._metrics = settings, settings.limits, clock, metrics
        self._gate, self._layout = gate, layout
        self._locks = KeyLocks()
        self.records = Records(root, disk)
        self.uploads = Uploads(
            settings=settings,
            root=root,
            disk=disk,
            records=self.records,
            artifacts=artifacts,
            locks=self._locks,
            usage=usage,
            told=told,
            clock=clock,
        )

    def routes(self) -> list[web.RouteDef]:
        """The calls under /v1."""
        expect = {"expect_handler": bodies.postpone_continue}
        one = "/v1/captures/{id}"
        return [
            web.post("/v1/captures", self.register, **expect),
            web.put(one + "/artifacts/{leaf}", self.put, **expect),
            web.head(one + "/artifacts/{leaf}", self.head, **expect),
            web.post(one + "/complete", self.complete, **expect),
            web.delete(one, self.cancel, **expect),
        ]

    # -- calls ------------------------------------------------------------------------------------------------------

    async def register(self, request: web.Request) -> web.Response:
        """Keep a capture's record: 201, or 200 for the same capture again, or 409 for another one's id.

        The answer tells where the capture stands and what is stored of it.
        """
        self.uploads.refuse_when_stopping()
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
        stored = await self._stored(record) if status == 200 else []
        return json_reply(status, Registered(record.registration, record.directory, record.state, stored))

    async def put(self, request: web.Request) -> web.Response:
        """Store one artifact, whole or in pieces.

        201 when it is there for good, 200 when it was there before, 202 when further pieces are wanted.
        """
        status = 500
        try:
            asked = self._asked(request)
            await self._uploader(request, asked.capture)
            taken = await self.uploads.take(request, asked)
            status = taken.status
        except WrongOffset as wrong:
            status = wrong.status
            reply = refusal(wrong)
            reply.headers[OFFSET_HEADER] = str(wrong.offset)
            return reply
        except Refused as refused:
            status = refused.status
            raise
        except StoreError as failed:
            status = failed.refusal().status
            raise
        finally:
            self._metrics.uploads.labels(str(status)).inc()
        if taken.stored is None:
            return web.Response(status=202, headers=SAFE_HEADERS | {OFFSET_HEADER: str(taken.offset)})
        if status == 201:
            self._metrics.bytes.inc(taken.stored.size)
        return json_reply(status, receipt(taken.stored))

    async def head(self, request: web.Request) -> web.Response:
        """Whether an upload would be taken, and from which byte on; ends the request that writes to it, if any.

        A refusal has no body here, so its reason is in a header.
        """
        try:
            asked = self._asked(request)
            await self._uploader(request, asked.capture)
            taken = await self.uploads.look(asked)
        except (Refused, StoreError) as failed:
            refused = failed if isinstance(failed, Refused) else failed.refusal()
            _log.info("refused", status=refused.status, reason=refused.reason, method=request.method)
            reply = refusal(refused)
            reply.headers[REASON_HEADER] = refused.reason
            return reply
        stored = taken.stored
        headers = {OFFSET_HEADER: str(taken.offset), COMPLETE_HEADER: "?0" if stored is None else "?1"}
        if stored is not None:
            headers[SHA256_HEADER] = stored.sha256
        return web.Response(headers=SAFE_HEADERS | headers)

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
        await self.uploads.close(record, Refused(403, "Complete", "this capture was closed while the artifact came"))
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
        if record.state is State.CANCELLED:
            await self.uploads.close(record, Refused(403, "Cancelled", "the operator cancelled this capture"))
        _log.info("capture cancelled", captureID=capture_id, state=record.state)
        return json_reply(200, record)

    # -- steps ------------------------------------------------------------------------------------------------------

    async def _stored(self, record: Capture) -> list[StoredArtifact]:
        found = [await self.uploads.find(record, leaf) for leaf in record.leaves]
        return [
            StoredArtifact(held.leaf, held.name, ARTIFACTS.path(held.namespace, held.name), held.size, held.sha256)
            for held in found
            if held is not None
        ]

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

    async def _complete(self, capture_id: str, said: tuple[Stored, ...]) -> Capture:
        record = await self._registered(capture_id)
        if record.state is State.CANCELLED:
            raise Refused(403, "Cancelled", "the operator cancelled this capture")
        if record.state is State.COMPLETE:
            if record.artifacts != said:
                raise Refused(409, "Mismatch", "this capture was completed with another list of artifacts")
            return record
        for one in said:
            stored = await self.uploads.find(record, one.name)
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

    def _asked(self, request: web.Request) -> Asked:
        """What the request says of itself, before anything is looked up; raises Refused (400, 411, 413)."""
        capture = self._capture_id(request)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(400, "Encoded", "send the artifact as it is, without Content-Encoding")
        length = _length(request)
        span, size = None, _size(request.headers.getall(SIZE_HEADER, []))
        if request.method != "HEAD":
            span = upload.read_span(request.headers.getall("Content-Range", []), length, self._limits.piece_bytes)
            size = _agreed(size, length if span is None else span.total)
        least = max(size or 0, span.end if span is not None else 0)
        if least > self._settings.max_artifact_bytes:
            raise upload.too_big(self._settings.max_artifact_bytes)
        if span is not None and size is not None and size < span.end:
            raise _sizes_differ()
        return Asked(capture, request.match_info["leaf"], request.headers.get(SHA256_HEADER, ""), size, span)

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
    uri = ARTIFACTS.path(stored.namespace, stored.name)
    return Receipt(uri, "/".join((*stored.directory, stored.file)), stored.size, stored.sha256)


def _length(request: web.Request) -> int | None:
    if "Content-Length" in request.headers:
        return request.content_length
    return None if request.body_exists else 0


def _size(headers: list[str]) -> int | None:
    if not headers:
        return None
    if len(headers) > 1 or not headers[0].isascii() or not headers[0].isdigit() or len(headers[0]) > _LONGEST_SIZE:
        raise Refused(400, "BadSize", f"{SIZE_HEADER} is not a number of bytes")
    return int(headers[0])


def _agreed(declared: int | None, told: int | None) -> int | None:
    if declared is not None and told is not None and declared != told:
        raise _sizes_differ()
    return told if declared is None else declared


def _sizes_differ() -> Refused:
    return Refused(400, "SizeMismatch", f"{SIZE_HEADER} and what else the request says of its length differ")
