"""How answers look: JSON always, with headers under which nothing served here can act in a browser."""

from typing import Any

from aiohttp import web
from msgspec import Struct

from toe_async.apis.meta import encode
from toe_async.collector.errors import Refused

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "toe-collector",
}


class ErrorBody(Struct, frozen=True):
    """Why a request was not served: a sentence, and a stable word for programs."""

    error: str
    reason: str


def json_reply(status: int, body: Any) -> web.Response:
    """Answer with a struct or plain data."""
    return web.Response(status=status, body=encode(body), content_type="application/json", headers=SAFE_HEADERS)


def refusal(refused: Refused, body: Any = None) -> web.Response:
    """Answer with an error; `body` says it in another API's form."""
    reply = json_reply(refused.status, body or ErrorBody(refused.message, refused.reason))
    if refused.retry_after is not None:
        reply.headers["Retry-After"] = str(refused.retry_after)
    if refused.size is not None:
        reply.headers["Content-Range"] = f"bytes */{refused.size}"
    if refused.status == 401:
        reply.headers["WWW-Authenticate"] = "Bearer"
    return reply
