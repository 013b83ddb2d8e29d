"""An artifact's bytes over HTTP: whole or one range of them, always an attachment that no browser will interpret."""

from aiohttp import web

from toe_async.collector.api.local import LocalLibrary, no_range
from toe_async.collector.captures import Manifest
from toe_async.collector.errors import StoreError
from toe_async.collector.library import Body
from toe_async.collector.replies import SAFE_HEADERS


async def send(request: web.Request, library: LocalLibrary, namespace: str, name: str) -> web.StreamResponse:
    """Answer a GET or HEAD for the content of an artifact; raises Refused (404, 416, and those of the rights)."""
    held = await library.described(namespace, name)
    first, end, partial = byte_range(request, held)
    async with library.body(held, first, end) as body:
        reply = web.StreamResponse(status=206 if partial else 200, headers=SAFE_HEADERS | head(body))
        if partial:
            reply.headers["Content-Range"] = f"bytes {first}-{end - 1}/{held.size}"
        reply.content_length = body.size
        await reply.prepare(request)
        try:
            if request.method != "HEAD":
                async for piece in body.pieces:
                    await reply.write(piece)
        except StoreError as failed:
            # The answer has begun: all that is left to say is that it is not whole.
            raise ConnectionError("the store failed while the artifact was sent") from failed
        await reply.write_eof()
    return reply


def head(body: Body) -> dict[str, str]:
    """The headers that make it an attachment."""
    return body.headers | {
        "Content-Type": body.content_type,
        "Content-Disposition": f'attachment; filename="{body.filename}"',
    }


def byte_range(request: web.Request, held: Manifest) -> tuple[int, int, bool]:
    """The bytes asked for as (first, end, partial); raises Refused (416) for what is not there.

    A range whose If-Range names another content is ignored, as HTTP wants it.
    """
    if "Range" not in request.headers or request.headers.get("If-Range", f'"{held.sha256}"') != f'"{held.sha256}"':
        return 0, held.size, False
    try:
        asked = request.http_range
    except ValueError:
        raise no_range(held) from None
    start, end, _ = asked.indices(held.size)
    # aiohttp reads `bytes=-0`, the last nothing, as everything.
    if start >= end or (asked.start == 0 and request.headers["Range"].partition("=")[2].startswith("-")):
        raise no_range(held)
    return start, end, True
