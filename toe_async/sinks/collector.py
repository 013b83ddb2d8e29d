"""Artifacts to the collector: register the capture, take a ticket for it, upload, give the ticket back.

The operator's own token (audience `toe-collector`, projected into the pod and re-read each time) may only register and
cancel; the upload itself takes a ticket like anybody's (D19). Everything may be done twice: registering again and
uploading the same digest again are both 200, so a lost answer or a killed process costs a repetition and nothing else.
Tokens are in memory and in the Authorization header only.
"""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, Receipt
from toe_async.apis.reasons import Reason
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock, rfc3339
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.collectorhttp import CollectorHTTP
from toe_async.sinks.errors import SinkUnavailable
from toe_async.sinks.pieces import Upload
from toe_async.sinks.spool import SpoolEntry
from toe_async.sinks.spoolreader import reading
from toe_async.sinks.tickets import Tickets
from toe_async.sinks.uninterrupted import in_thread

_PROBE_SECONDS = 10.0
_LONGEST_TRIGGER = 1024
# How long a registered capture takes uploads after the last attempt began; a new attempt extends it.
_OPEN_FOR = timedelta(hours=2)


class CollectorAccess(Struct, frozen=True, kw_only=True):
    """How the operator reaches its collector. Without `ca` the system's trust store is used."""

    url: str
    token_file: Path | None
    ca: Path | None
    agents_namespace: str
    uploader_account: str
    max_bytes: int


class CollectorSink:
    """Stores artifacts in the collector. Used as an async context manager."""

    def __init__(self, client: Sender, access: CollectorAccess, clock: Clock) -> None:
        self._access, self._clock = access, clock
        # Whoever starts one of these awaits its outcome, so nothing is left to say about an error.
        self._owner = TaskOwner(lambda name, error: None)
        self._tickets = Tickets(client, access.agents_namespace, access.uploader_account, clock, self._owner)
        self._http = CollectorHTTP(access.url, access.ca)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)
        await self._http.__aexit__(*exc)

    async def store(self, entry: SpoolEntry) -> Receipt:
        """Store one artifact.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        record, artifact = entry.record, entry.artifact
        await self._register(record, artifact.leaf)
        async with self._tickets.hold(record.id) as ticket, reading(entry) as reader:
            receipt = await Upload(self._http, record.id, artifact, ticket, reader).run()
        stored = _decode(receipt, _Stored)
        if (stored.size, stored.sha256) != (artifact.size, artifact.sha256):
            raise SinkUnavailable("the collector's receipt is for other bytes than were sent", sink_wide=False)
        return Receipt(uri=stored.uri, size=stored.size, sha256=stored.sha256)

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        """Close a capture with the list of what was stored.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        said = [{"name": each.leaf, "size": each.size, "sha256": each.sha256} for each in artifacts]
        async with self._tickets.hold(record.id) as ticket:
            path, token = f"/v1/captures/{record.id}/complete", await ticket.token()
            await self._http.ask("POST", path, token, json={"artifacts": said})

    async def probe(self) -> str | None:
        """Ask the collector whether it is ready."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._http.ask("GET", "/readyz", "")
        except SinkUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"the collector does not answer within {_PROBE_SECONDS:g} s"
        return None

    async def _register(self, record: CaptureRecord, leaf: str) -> None:
        expires = self._clock.now() + _OPEN_FOR
        body = registration(record, expires=expires, max_bytes=self._access.max_bytes) | {"leaves": [leaf]}
        await self._http.ask("POST", "/v1/captures", await own_token(self._access.token_file), json=body)


def registration(record: CaptureRecord, *, expires: datetime, max_bytes: int) -> dict[str, Any]:
    """The body of `POST /v1/captures`, but for the leaves that the capture may have."""
    target = record.target
    body: dict[str, Any] = {
        "id": record.id,
        "namespace": record.namespace,
        "labels": record.matching_labels,
        "run": record.name,
        "runUID": record.uid,
        "kind": record.kind,
        "pod": target.pod,
        "podUID": target.pod_uid,
        "container": target.container,
        "node": target.node,
        "service": target.service,
        "tool": record.tool,
        "reason": record.reason,
        "trigger": record.trigger[:_LONGEST_TRIGGER],
        "triggeredAt": rfc3339(record.triggered_at, micro=True),
        "maxBytes": max_bytes,
        "expires": rfc3339(expires),
    }
    if record.retention_days is not None:
        body["retentionDays"] = record.retention_days
    return body


async def own_token(path: Path | None) -> str:
    """Read the operator's own token, which may only register and cancel.

    Raises:
        SinkUnavailable: there is none.
    """
    if path is None:
        raise SinkUnavailable("the operator has no --collector-token-file", reason=Reason.CREDENTIALS_MISSING)
    try:
        token = (await in_thread(path.read_text)).strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token.isascii() or not token.isprintable() or not token:
        raise SinkUnavailable(
            f"{path} holds no token for the collector; mount a projected one with audience toe-collector",
            reason=Reason.CREDENTIALS_MISSING,
        )
    return token


class _Stored(Struct, frozen=True):
    uri: str
    size: int
    sha256: str


def _decode(body: bytes, type_: type[_Stored]) -> _Stored:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SinkUnavailable("the collector's receipt cannot be read; is it a collector?", sink_wide=False) from error
