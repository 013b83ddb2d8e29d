"""Reading what a client sends: only after all checks, only so much, only so slowly.

An `Expect: 100-continue` is answered at the moment the first byte of the body is wanted, never earlier. So a refusal,
whatever its reason, costs no body.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import NoReturn

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestPayloadError

from toe_async.collector.errors import Refused
from toe_async.collector.replies import refusal
from toe_async.collector.settings import Limits
from toe_async.collector.upload import Pace, too_big
from toe_async.lib.clock import Clock


async def postpone_continue(request: web.Request) -> web.Response | None:
    """Expect handler of every route: say nothing yet."""
    if request.headers["Expect"].lower() == "100-continue":
        return None
    reply = refusal(Refused(417, "UnknownExpectation", "the only expectation known here is 100-continue"))
    reply.force_close()
    return reply


async def pieces(request: web.Request, max_bytes: int, limits: Limits, clock: Clock) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces of at most the read buffer.

    Raises:
        Refused: 413 it is longer than `max_bytes`, 408 it comes too slowly, 400 it ends early or breaks HTTP's rules.
    """
    pace = Pace(limits.body_bytes_per_second, limits.body_grace_seconds, limits.idle_seconds)
    size = 0
    await _go_ahead(request)
    while True:
        began = clock.monotonic()
        try:
            async with asyncio.timeout(pace.patience):
                piece = await request.content.readany()
        except TimeoutError:
            raise Refused(408, "TooSlow", "the body came too slowly") from None
        except (RequestPayloadError, ConnectionError, web.HTTPException) as broken:
            _cut_short(broken)
        if not piece:
            break
        pace.received(len(piece), clock.monotonic() - began)
        size += len(piece)
        if size > max_bytes:
            raise too_big(max_bytes)
        yield piece
    if request.content_length is not None and size != request.content_length:
        _cut_short(None)


def left_over(request: web.Request) -> bytes:
    """What came of a body before it broke off and `pieces` did not yield any more."""
    # aiohttp's own reading methods raise what broke the body before they give out what came ahead of it.
    return request.content._read_nowait(-1)  # noqa: SLF001


async def whole(request: web.Request, max_bytes: int, limits: Limits, clock: Clock) -> bytes:
    """Read a small body; raises Refused as `pieces` does."""
    if (request.content_length or 0) > max_bytes:
        raise too_big(max_bytes)
    return b"".join([piece async for piece in pieces(request, max_bytes, limits, clock)])


async def _go_ahead(request: web.Request) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes written bytes for a begun answer
        await request.writer.drain()


def _cut_short(cause: BaseException | None) -> NoReturn:
    raise Refused(400, "BrokenBody", "the body ended early or broke the rules of HTTP") from cause
