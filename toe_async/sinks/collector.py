"""Artifacts to the collector: register the capture, take a ticket for it, upload, give the ticket back.

The operator's own token (audience `toe-collector`, projected into the pod and re-read each time) may only register and
cancel; the upload itself takes a ticket like anybody's (D19). Everything may be done twice: registering again and
uploading the same digest again are both 200, so a lost answer or a killed process costs a repetition and nothing else.

Tokens are in memory and in the Authorization header only. Of an answer only its status and its one-word reason are ever
told. Redirects are never followed. The CA file is read again when it changes.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, Receipt
from toe_async.apis.reasons import Reason
from toe_async.lib.clock import Clock, rfc3339
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.credentials import Sender
from toe_async.sinks.errors import Passing, SinkRefused, SinkUnavailable
from toe_async.sinks.spool import SpoolEntry
from toe_async.sinks.spoolreader import SpoolReader, reading
from toe_async.sinks.tickets import Tickets
from toe_async.sinks.uninterrupted import in_thread

_CHUNK = 256 << 10
_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
_PROBE_SECONDS = 10.0
_LARGEST_ANSWER = 64 << 10
_LONGEST_TRIGGER = 1024
# How long a registered capture takes uploads after the last attempt began; a new attempt extends it.
_OPEN_FOR = timedelta(hours=2)
_WORD = re.compile(r"[A-Za-z]{1,40}")
# These are about this capture and stay as they are. A leaf that is not registered just after we registered it is one of
# a capture that was closed before.
_FINAL = frozenset({"Complete", "Cancelled", "Taken", "Mismatch", "LeafNotRegistered"})
_ADVICE = {
    401: "it does not accept the token; see its log and the API server's token reviews",
    403: "it does not know the operator or the uploader; compare --operator-user and --uploader-user with the accounts",
    404: "it is no collector, or one that forgot this capture",
    413: "the artifact is larger than it takes; raise --max-artifact-bytes",
    507: "its store is full",
}


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
        self._trust = _Trust(access.ca)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._owner.__aexit__(None, None, None)
        assert self._session is not None
        await self._session.close()

    async def store(self, entry: SpoolEntry) -> Receipt:
        """Store one artifact.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        record, artifact = entry.record, entry.artifact
        await self._register(record, artifact.leaf)
        async with self._tickets.hold(record.id) as token, reading(entry) as reader:
            answer = await self._put(record.id, artifact, token, reader)
        stored = _decode(answer, _Stored)
        if (stored.size, stored.sha256) != (artifact.size, artifact.sha256):
            raise SinkUnavailable("the collector's receipt is for other bytes than were sent", sink_wide=False)
        return Receipt(uri=stored.uri, size=stored.size, sha256=stored.sha256)

    async def complete(self, record: CaptureRecord, artifacts: tuple[ArtifactRecord, ...]) -> None:
        """Close a capture with the list of what was stored.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        said = [{"name": each.leaf, "size": each.size, "sha256": each.sha256} for each in artifacts]
        async with self._tickets.hold(record.id) as token:
            await self._ask("POST", f"/v1/captures/{record.id}/complete", token, json={"artifacts": said})

    async def probe(self) -> str | None:
        """Ask the collector whether it is ready."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._ask("GET", "/readyz", "")
        except SinkUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"the collector does not answer within {_PROBE_SECONDS:g} s"
        return None

    async def _register(self, record: CaptureRecord, leaf: str) -> None:
        target = record.target
        body = {
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
            "tool": "pprof",
            "reason": record.reason,
            "trigger": record.trigger[:_LONGEST_TRIGGER],
            "triggeredAt": rfc3339(record.triggered_at, micro=True),
            "leaves": [leaf],
            "maxBytes": self._access.max_bytes,
            "expires": rfc3339(self._clock.now() + _OPEN_FOR),
        }
        await self._ask("POST", "/v1/captures", await self._own_token(), json=body)

    async def _own_token(self) -> str:
        path = self._access.token_file
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

    async def _put(self, capture_id: str, artifact: ArtifactRecord, token: str, reader: SpoolReader) -> bytes:
        damage: list[SinkRefused] = []
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(artifact.size),
            "X-Toe-Sha256": artifact.sha256,
        }
        path = f"/v1/captures/{capture_id}/artifacts/{quote(artifact.leaf, safe='')}"
        try:
            # aiohttp puts no limit on how long a peer may take nothing of a body, so each piece moves this one.
            async with asyncio.timeout(_SILENCE_SECONDS) as silence:
                body = _body(reader, silence, damage)
                return await self._ask("PUT", path, token, data=body, headers=headers, expect100=True)
        except TimeoutError as error:
            raise Passing(f"the collector took nothing for {_SILENCE_SECONDS:g} s") from error
        except SinkUnavailable:
            if damage:
                raise damage[0] from None
            raise

    async def _ask(self, method: str, path: str, token: str, **what: Any) -> bytes:
        """Send a request and return the body of its good answer; everything else becomes one of our errors here."""
        assert self._session is not None
        headers = what.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        context = await self._trust.context() if self._access.url.startswith("https:") else True
        try:
            async with self._session.request(
                method, self._access.url.rstrip("/") + path, headers=headers, ssl=context, allow_redirects=False, **what
            ) as answer:
                body = await _bounded(answer)
                if answer.status in {200, 201}:
                    return body
                raise _refusal(answer, body)
        except aiohttp.ClientConnectorCertificateError as error:
            raise SinkUnavailable("the collector's certificate is not one of --collector-ca") from error
        except aiohttp.ClientError as error:
            raise Passing(f"the collector gives no answer ({type(error).__name__})") from error
        except TimeoutError as error:
            # Only the socket's own limits come here: a deadline of the caller arrives as a cancellation.
            raise Passing("the collector does not answer in time") from error


class _Stored(Struct, frozen=True):
    uri: str
    size: int
    sha256: str


class _Refusal(Struct, frozen=True):
    reason: str = ""


class _Trust:
    """The TLS context for one CA file, made anew when the file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context for now.

        Raises:
            SinkUnavailable: the file is missing or holds no certificate.
        """
        try:
            return await in_thread(self._current)
        except (OSError, ssl.SSLError) as error:
            raise SinkUnavailable(
                f"the CA file {self._path} holds no certificate; it is ca.crt of Secret toe-collector-tls"
            ) from error

    def _current(self) -> ssl.SSLContext:
        if self._path is None:
            self._context = self._context or ssl.create_default_context()
            return self._context
        found = self._path.stat()
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if self._context is None or seen != self._seen:
            self._context, self._seen = ssl.create_default_context(cafile=str(self._path)), seen
        return self._context


async def _body(reader: SpoolReader, silence: asyncio.Timeout, damage: list[SinkRefused]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while reader.left:
        try:
            chunk = await reader.read(_CHUNK)
        except SinkRefused as error:
            damage.append(error)  # aiohttp reports any fault of a body as a lost connection
            raise
        silence.reschedule(loop.time() + _SILENCE_SECONDS)
        yield chunk


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            raise SinkUnavailable(f"the collector's answer is longer than {_LARGEST_ANSWER} bytes; is it a collector?")
    return bytes(body)


def _refusal(answer: aiohttp.ClientResponse, body: bytes) -> SinkUnavailable | SinkRefused:
    status = answer.status
    try:
        word = msgspec.json.decode(body, type=_Refusal).reason
    except (msgspec.MsgspecError, UnicodeDecodeError):
        word = ""
    word = word if _WORD.fullmatch(word) else ""
    wait = answer.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdecimal() and len(wait) < 6 else None
    message = f"the collector answers {status} {word}".rstrip() + (f"; {_ADVICE[status]}" if status in _ADVICE else "")
    if status in {403, 409} and word in _FINAL:
        return SinkRefused(Reason.CONFLICTED, message)
    if status == 507:
        return SinkUnavailable(message, reason=Reason.STORE_FULL, retry_after=retry_after)
    if status >= 500 or status in {408, 429}:
        return Passing(message, retry_after=retry_after)
    return SinkUnavailable(message, retry_after=retry_after, sink_wide=status in {401, 403})


def _decode(body: bytes, type_: type[_Stored]) -> _Stored:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SinkUnavailable("the collector's receipt cannot be read; is it a collector?", sink_wide=False) from error
