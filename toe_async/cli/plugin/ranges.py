"""An artifact's bytes through the API server, piece by piece.

The API server ends every request after 60 s, so bytes are asked for in ranges of at most `LARGEST_PIECE`, smaller ones
where the link is slow. A piece that breaks off half-way keeps what came: the next request begins where it ended. Every
answer is held against what was asked (range, total, ETag) before a byte of it is used; the bytes themselves are only
proved by their digest, which is the reader's to compute.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack

from msgspec import Struct

from toe_async.cli.plugin.refusals import refused, unexpected
from toe_async.collector.errors import Refused
from toe_async.kube.client import Answer, Client
from toe_async.kube.errors import ApiError, KubeError, TransportError, UntrustedServer
from toe_async.kube.requests import Request
from toe_async.lib.backoff import Backoff

LARGEST_PIECE = 32 << 20
SMALLEST_PIECE = 1 << 20
ATTEMPTS = 6
"""Failures in a row after which a download is given up; one that brought `PROGRESS` bytes begins a new row."""
PROGRESS = 256 << 10
PIECE_SECONDS = 90.0
"""Whole time of one request; above the API server's 60 s, so that its end is seen as it happens."""
_SLOW, _FAST = 20.0, 5.0
_LONGEST_ASKED_WAIT = 60.0
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_ETAG = re.compile(r'"([0-9a-f]{64})"')


class Span(Struct, frozen=True):
    """What an answer says that it holds: bytes `first` up to `end` (not included) of `total`, of this content."""

    first: int
    end: int
    total: int
    sha256: str


def span_of(status: int, headers: Mapping[str, str]) -> Span:
    """Read a good answer's headers.

    Raises:
        Refused: they do not say which bytes of which content these are.
    """
    etag = _ETAG.fullmatch(headers.get("ETag", ""))
    if etag is None:
        raise unexpected("the answer does not say by its ETag which content it is part of")
    if status == 206:
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None:
            raise unexpected("the answer is a part, but does not say which")
        first, last, total = map(int, found.groups())
        if not first <= last < total:
            raise unexpected("the answer is a part that cannot be")
        return Span(first, last + 1, total, etag[1])
    length = headers.get("Content-Length", "")
    if status != 200 or not length.isdecimal() or len(length) > 18:
        raise unexpected("the answer is neither a part nor a whole of known length")
    return Span(0, int(length), int(length), etag[1])


def next_size(size: int, seconds: float) -> int:
    """How many bytes to ask for after a piece of `size` took so long: a request should take well below a minute."""
    if seconds > _SLOW:
        return max(SMALLEST_PIECE, size // 2)
    return min(LARGEST_PIECE, size * 2) if seconds < _FAST else size


def worth_repeating(error: KubeError) -> bool:
    """Whether the rest may come when it is asked for again."""
    match error:
        case UntrustedServer():
            return False
        case TransportError():
            return True
        case ApiError(status=408 | 429 | 500 | 502 | 503 | 504):
            return True
    return False


class Ranges:
    """One reading of one artifact. `start`, then `pieces` once, then `close`, which may come at any time."""

    def __init__(self, client: Client, path: str, first: int, end: int | None) -> None:
        self._client, self._path = client, path
        self.first, self.end = first, end
        self.total, self.sha256, self.disposition = 0, "", ""
        self._at, self._size, self._failures = first, LARGEST_PIECE, 0
        self._backoff = Backoff(0.5, 8.0)
        self._stack = AsyncExitStack()
        self._begun: Answer | None = None

    async def start(self) -> None:
        """Ask for the first piece, so that `total`, `sha256` and `end` are known.

        Raises:
            Refused: it cannot be had.
        """
        while self._begun is None:
            try:
                self._begun = await self._stack.enter_async_context(self._client.open(self._request()))
            except ApiError as error:
                if error.status == 416 and self.first == 0:  # only of an empty artifact there is no first byte
                    self.end = 0
                    return
                await self._after(error, 0)
            except KubeError as error:
                await self._after(error, 0)
        span = span_of(self._begun.status, self._begun.headers)
        self.total, self.sha256 = span.total, span.sha256
        self.disposition = self._begun.headers.get("Content-Disposition", "")
        self.end = span.total if self.end is None else min(self.end, span.total)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes from `first` to `end`, exactly as many.

        Raises:
            Refused: what is missing cannot be had, or another content lies there now.
        """
        assert self.end is not None
        loop = asyncio.get_running_loop()
        while self._at < self.end:
            began, before = loop.time(), self._at
            try:
                async with AsyncExitStack() as stack:
                    if self._begun is not None:
                        answer, self._begun = self._begun, None
                        stack.push_async_exit(self._stack.pop_all())
                    else:
                        answer = await stack.enter_async_context(self._client.open(self._request()))
                    stop = self._checked(span_of(answer.status, answer.headers))
                    async for chunk in answer.pieces:
                        if len(chunk) > stop - self._at:
                            raise unexpected("more bytes came than were promised")
                        self._at += len(chunk)
                        yield chunk
                if self._at < stop:
                    raise TransportError("the answer ended before its promised length")
                self._size = next_size(self._size, loop.time() - began)
                self._failures = 0
                self._backoff.reset()
            except KubeError as error:
                self._size = max(SMALLEST_PIECE, self._size // 2)
                await self._after(error, self._at - before)

    async def close(self) -> None:
        """End what is open."""
        await self._stack.aclose()

    def _request(self) -> Request:
        stop = self._at + self._size
        last = (stop if self.end is None else min(stop, self.end)) - 1
        return Request(
            "GET", self._path, accept="*/*", timeout=PIECE_SECONDS, headers=(("Range", f"bytes={self._at}-{last}"),)
        )

    def _checked(self, span: Span) -> int:
        """Where the answer's bytes end, if they are the next ones of the same content."""
        assert self.end is not None
        if (span.sha256, span.total) != (self.sha256, self.total):
            raise Refused(409, "Changed", "the artifact became another one while it was read; begin anew")
        if span.first != self._at or span.end > max(self.end, self._at + self._size):
            raise unexpected("other bytes came than were asked for")
        return min(span.end, self.end)

    async def _after(self, error: KubeError, brought: int) -> None:
        """Wait before the next try; raises when there is none."""
        if brought >= PROGRESS:
            self._failures = 0
            self._backoff.reset()
        self._failures += 1
        if not worth_repeating(error) or self._failures >= ATTEMPTS:
            raise refused(error) from error
        asked = error.retry_after if isinstance(error, ApiError) else None
        await asyncio.sleep(min(max(asked or 0.0, 0.0), _LONGEST_ASKED_WAIT) + self._backoff.next())
