"""Websockets to the API server: refusals keep their words, silence is told from patience, the end does not linger."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientWebSocketResponse, ClientWSTimeout
from yarl import URL

from toe_async.kube.answers import refusal
from toe_async.kube.transport import Sessions

HEARTBEAT = 15.0
SILENCE = 2 * HEARTBEAT
"""Seconds without anything, not even the answer to a ping, after which a peer that we listen to is dead."""
LARGEST_MESSAGE = 1 << 20
_CLOSE_GRACE = 0.25

WebSocket = ClientWebSocketResponse[Literal[True]]


async def refuse_handshake(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Middleware: an upgrade that is not answered by 101 is an ApiError with the Status that came, redirects included.

    aiohttp would follow a redirect, credentials and all, and drop the body of a refusal.
    """
    response = await handler(request)
    if "Upgrade" in request.headers and response.status != 101:
        try:
            raise await refusal(f"{request.method} {request.url.raw_path}", response)
        finally:
            response.close()
    return response


async def upgrade(sessions: Sessions, url: URL, headers: dict[str, str], protocols: Sequence[str]) -> WebSocket:
    """Open a websocket; its own heartbeat is off, since it takes a reader that pauses for a peer that is dead."""
    return await sessions.streams.ws_connect(
        url,
        protocols=protocols,
        headers=headers,
        heartbeat=None,
        autoping=True,
        max_msg_size=LARGEST_MESSAGE,
        timeout=ClientWSTimeout(ws_receive=SILENCE, ws_close=_CLOSE_GRACE),
        proxy=sessions.tls.proxy,
        server_hostname=sessions.tls.server_name,
    )


async def beat(ws: WebSocket) -> None:
    """Send a ping every `HEARTBEAT` seconds until the websocket is closed.

    Nobody waits for the answers here: they reset the receiver's `SILENCE` when they come.
    """
    while not ws.closed:
        await asyncio.sleep(HEARTBEAT)
        try:
            await ws.ping()
        except (aiohttp.ClientError, OSError):
            return  # the receiver finds out by itself


async def close(ws: WebSocket) -> None:
    """Say goodbye and drop the connection, within a grace: a peer that keeps sending is not read to its end."""
    try:
        async with asyncio.timeout(_CLOSE_GRACE):
            await ws.close()
    except TimeoutError:
        pass  # aiohttp drops the connection when its close is cancelled
