"""Requests to a collector: what goes wrong becomes one of this folder's errors, and of an answer little is ever told.

Redirects are never followed. Of an answer only its status and its one-word reason are told. The CA file is read again
when it changes.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import Struct

from toe_async.apis.reasons import Reason
from toe_async.sinks.errors import Passing, SinkRefused, SinkUnavailable
from toe_async.sinks.uninterrupted import in_thread

SILENCE_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_LARGEST_ANSWER = 64 << 10
_REASON = "X-Toe-Reason"
_WORD = re.compile(r"[A-Za-z]{1,40}")
# These are about this capture and stay as they are. A leaf that is not registered just after we registered it is one of
# a capture that was closed before.
_FINAL = frozenset({"Complete", "Cancelled", "Taken", "Mismatch", "LeafNotRegistered"})
_ADVICE = {
    401: "it does not accept the token; see its log and the API server's token reviews",
    403: "it does not know the operator or the uploader; compare --operator-user and --uploader-user with the accounts",
    404: "it is no collector, or one that forgot this capture",
    413: "the artifact is larger than it takes; raise --max-artifact-bytes",
    507: "its store, or this namespace's share of it, is full",
}


class Answer(Struct, frozen=True):
    """What a collector said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CollectorHTTP:
    """One collector. Used as an async context manager."""

    def __init__(self, url: str, ca: Path | None) -> None:
        self._url, self._trust = url.rstrip("/"), _Trust(ca)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(
        self, method: str, path: str, token: str, *, also: frozenset[int] = frozenset(), **what: Any
    ) -> Answer:
        """Send a request and return its answer when that is 200, 201, 202 or one of `also`.

        Raises:
            SinkUnavailable, SinkRefused: everything else; Passing for a connection that gave no answer.
        """
        assert self._session is not None
        headers = what.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        context = await self._trust.context() if self._url.startswith("https:") else True
        try:
            async with self._session.request(
                method, self._url + path, headers=headers, ssl=context, allow_redirects=False, **what
            ) as answer:
                body = await _bounded(answer)
                if answer.status in {200, 201, 202} or answer.status in also:
                    return Answer(answer.status, answer.headers, body)
                raise _refusal(answer, body)
        except aiohttp.ClientConnectorCertificateError as error:
            raise SinkUnavailable("the collector's certificate is not one of --collector-ca") from error
        except aiohttp.ClientError as error:
            raise Passing(f"the collector gives no answer ({type(error).__name__})") from error
        except TimeoutError as error:
            # Only the socket's own limits come here: a deadline of the caller arrives as a cancellation.
            raise Passing("the collector does not answer in time") from error


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
        # The answer to a HEAD has no body, and its reason in a header.
        word = msgspec.json.decode(body, type=_Refusal).reason if body else answer.headers.get(_REASON, "")
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
    return SinkUnavailable(message, retry_after=retry_after, sink_wide=status in {401, 403} and word != "Expired")
