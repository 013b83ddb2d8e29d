"""Bytes and drawings on their way to a browser: attachments, and pages shut in a sandbox."""

import re
from collections.abc import Mapping

from aiohttp import web

from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.library import Library
from toe_async.collector.pages.artifacts import read
from toe_async.collector.replies import SAFE_HEADERS
from toe_async.profiles.page import policy_of

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

# Without an origin a drawing reads no cookie and sends no form, whatever a name in a profile made of it. No
# Cross-Origin-Opener-Policy here: browsers refuse to load a sandboxed document that sets one.
_DRAWING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def drawing(library: Library, namespace: str, name: str, query: Mapping[str, str]) -> web.Response:
    """Draw an artifact; raises Refused as the library does."""
    _, body = await library.render(namespace, name, query)
    headers = _DRAWING | {"Content-Security-Policy": policy_of(body)}
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)


async def content(library: Library, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
    """Send an artifact's bytes, whole or one range, as an attachment that no browser interprets.

    Raises:
        Refused: nothing was sent yet.
        ConnectionError: the bytes ended early, and so does the connection.
    """
    first, end = await _wanted(library, request, namespace, name)
    reply = web.StreamResponse(headers=SAFE_HEADERS)
    try:
        async with library.content(namespace, name, first, end) as body:
            file = body.filename if _FILE_NAME.fullmatch(body.filename) else "artifact"
            reply.set_status(206 if "Content-Range" in body.headers else 200)
            reply.headers.update(body.headers)
            reply.headers["Content-Type"] = "application/octet-stream"
            reply.headers["Content-Disposition"] = f'attachment; filename="{file}"'
            reply.headers["Accept-Ranges"] = "bytes"
            reply.content_length = body.size
            await reply.prepare(request)
            async for piece in body.pieces:
                await reply.write(piece)
            await reply.write_eof()
    except (Refused, StoreError) as late:
        if not reply.prepared:
            raise
        raise ConnectionError("the artifact could not be read to its end") from late
    return reply


async def _wanted(library: Library, request: web.Request, namespace: str, name: str) -> tuple[int, int | None]:
    """The range that is asked for; what is no single range of this content is answered whole, as HTTP allows."""
    asked = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if asked is None or asked.groups() == ("", ""):
        return 0, None
    facts = read(await library.get(namespace, name)).facts
    if request.headers.get("If-Range", f'"{facts.sha256}"') != f'"{facts.sha256}"':
        return 0, None
    start, last = asked.groups()
    first = int(start) if start else max(0, facts.size - int(last))
    end = min(int(last) + 1, facts.size) if start and last else facts.size
    if first >= end:
        raise Refused(
            416, "NoSuchRange", f"the artifact has {facts.size} bytes; ask for one range of them", size=facts.size
        )
    return first, end
