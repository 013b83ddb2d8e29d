"""Passing one request on to the backend of an APIService, as the real aggregator does.

The backend believes headers that say who asks, because they come with the front proxy's certificate; so whatever the
client sent in their place is taken out, and its own credential never gets through. Bodies stream both ways without
being kept: who reads slowly slows down who sends. A body that breaks off, at its end of time or at the backend's, ends
the client's connection without an end of the body, so that nobody takes a part for the whole.

Unlike the real one it rewrites no links in HTML, and refuses to upgrade a connection.
"""

import asyncio
import ssl
import string

import aiohttp
from aiohttp import web
from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from toe_async.sandbox.rbac import User
from toe_async.sandbox.status import Refusal, bad_request

_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
_OURS = frozenset({"authorization", "expect", "host", "x-remote-user", "x-remote-uid", "x-remote-group"})
_OURS_BY_PREFIX = ("x-remote-extra-", "impersonate-")
_LEGAL = frozenset(string.ascii_letters + string.digits + "!#$&'*+-.^_`|~")
_LONG_RUNNING = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class Target(Struct, frozen=True):
    """One endpoint of a backend and how to speak to it."""

    address: str
    port: int
    server_name: str
    context: ssl.SSLContext

    def url(self, path: str, query: str = "") -> URL:
        """The address of a path that is percent-encoded already."""
        return URL.build(scheme="https", host=self.address, port=self.port, path=path, query_string=query, encoded=True)


def is_long_running(verb: str, subresource: str) -> bool:
    """Whether a request is exempt from the limit on time."""
    return verb == "watch" or subresource.partition("/")[0] in _LONG_RUNNING


def identity(user: User) -> CIMultiDict[str]:
    """The headers that tell a backend who asks, spelled as Go writes them."""
    headers = CIMultiDict({"X-Remote-User": user.name})
    if user.uid:
        headers["X-Remote-Uid"] = user.uid
    for group in user.groups:
        headers.add("X-Remote-Group", group)
    for key, values in user.extra.items():
        for value in values:
            headers.add(f"X-Remote-Extra-{_escaped(key)}", value)
    return headers


def _escaped(key: str) -> str:
    text = "".join(chr(byte) if chr(byte) in _LEGAL else f"%{byte:02X}" for byte in key.encode())
    return "-".join(part.capitalize() for part in text.split("-"))


def outgoing(headers: CIMultiDictProxy[str], user: User, peer: str) -> CIMultiDict[str]:
    """What a backend gets of a request's headers."""
    dropped = _dropped(headers) | _OURS
    kept = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and not name.lower().startswith(_OURS_BY_PREFIX)
    )
    kept["X-Forwarded-For"] = ", ".join([*kept.getall("X-Forwarded-For", ()), peer])
    kept.extend(identity(user))
    return kept


def incoming(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """What a client gets of an answer's headers; rules of other origins are the API server's own affair."""
    dropped = _dropped(headers)
    kept = CIMultiDict({"Cache-Control": "no-cache, private"})
    kept.extend(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and not name.lower().startswith("access-control-")
    )
    return kept


def _dropped(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    named = (one.strip().lower() for value in headers.getall("Connection", ()) for one in value.split(","))
    return _HOP_BY_HOP.union(named)


def unavailable(why: str) -> web.Response:
    """503 in the aggregator's form: a line of text, and no Status."""
    return web.Response(status=503, text=f"{why}\n", headers={"X-Content-Type-Options": "nosniff"})


async def forward(
    request: web.Request, session: aiohttp.ClientSession, target: Target, user: User, seconds: float | None
) -> web.StreamResponse:
    """Pass a request on and its answer back.

    `seconds` limits both together; None is without limit. Cancellation closes the backend's connection.

    When the body breaks off the client's connection is closed.

    Raises:
        Refusal: an upgrade, or no answer in time.
    """
    if "upgrade" in {one.strip().lower() for one in request.headers.get("Connection", "").split(",")}:
        raise bad_request("the sandbox passes no upgraded connections on to aggregated APIs")
    response: web.StreamResponse | None = None
    try:
        async with asyncio.timeout(seconds):
            headers = outgoing(request.headers, user, request.remote or "")
            async with session.request(
                request.method,
                target.url(request.rel_url.raw_path, request.rel_url.raw_query_string),
                headers=headers,
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
                ssl=target.context,
                server_hostname=target.server_name,
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                response.headers.extend(incoming(answer.headers))
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if response is None:
            if isinstance(error, TimeoutError):
                message = "Timeout: request did not complete within the allotted timeout"
                raise Refusal(504, "Timeout", message, {}) from error
            return unavailable(f"error trying to reach service: {error}")
        if request.transport is not None:
            request.transport.abort()
        return response
