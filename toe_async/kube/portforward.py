"""One HTTP request into a pod through the API server's port-forward, its answer streamed at the reader's pace.

The answer ends where HTTP says it ends, not where the websocket does: that one lingers for a second and closes with
1006 even when all went well. Before that end, any close is the end of the pod's bytes, whatever its code; a body that
is then short by its Content-Length or chunks is Truncated. A body that only the close ends cannot be checked here and
is marked so. Memory is bounded by the read buffers: the socket is read as the reader takes chunks, and the pod waits.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import h11

from toe_async.apis.kinds import PODS
from toe_async.apis.reasons import Reason
from toe_async.kube.channels import PROTOCOL, ChannelError, Channels
from toe_async.kube.client import Client
from toe_async.kube.errors import PortForwardBroken, PortRefused, clip
from toe_async.kube.websockets import SILENCE, WebSocket

_HTTP = b"HTTP/1."


class PodResponse:
    """The answer of a pod. ``headers`` have lower-case names; the values of a repeated one are joined by commas."""

    def __init__(self, status: int, headers: Mapping[str, str], exchange: "_Exchange") -> None:
        self.status, self.headers = status, headers
        self._exchange = exchange

    @property
    def complete(self) -> bool:
        """Whether the body has been read to its end."""
        return self._exchange.complete

    @property
    def length_verified(self) -> bool:
        """Whether HTTP vouches for the length; False once a body turned out to be ended by the close alone."""
        return not (self._exchange.complete and self._exchange.closed)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, once.

        Raises:
            PortForwardBroken: with reason Truncated, DeadlineExceeded or PortForwardFailed.
        """
        return self._exchange


@asynccontextmanager
async def pod_request(
    client: Client, namespace: str, pod: str, port: int, target: str, *, deadline_seconds: float
) -> AsyncIterator[PodResponse]:
    """GET ``target`` (path and query) from a port of a pod.

    ``deadline_seconds`` bounds everything up to the last chunk; time that the reader spends elsewhere counts too.

    Raises:
        ApiError: the API server refuses the port-forward: no such pod, no right to it.
        TransportError: no connection to the API server.
        PortRefused: nothing listens on the port.
        PortForwardBroken: it broke before the answer's headers were there.
        ValueError: ``target`` or ``port`` is none.
    """
    exchange = _Exchange(f"port {port} of pod {namespace}/{pod}", port, deadline_seconds)
    request = exchange.request(target)
    path = PODS.path(namespace, pod, "portforward")
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout_at(exchange.deadline):
                ws = await stack.enter_async_context(client.websocket(path, (("ports", str(port)),), (PROTOCOL,)))
        except TimeoutError as error:
            raise exchange.too_late() from error
        yield await exchange.start(ws, request)


class _Exchange(AsyncIterator[bytes]):
    """One request and its answer: HTTP inside of channel frames inside of a websocket."""

    def __init__(self, where: str, port: int, deadline_seconds: float) -> None:
        if not 0 < port < 1 << 16:
            raise ValueError(f"{port} is no TCP port")
        self.complete = False
        self.closed = False  # the websocket has closed: no more bytes will come
        self.deadline = asyncio.get_running_loop().time() + deadline_seconds
        self._where, self._seconds = where, deadline_seconds
        self._http = h11.Connection(h11.CLIENT)
        self._channels = Channels(port)
        self._first = b""  # what the pod said first
        self._in_body = False
        self._ws: WebSocket

    def request(self, target: str) -> bytes:
        headers = [("Host", "localhost"), ("Accept-Encoding", "identity"), ("Connection", "close")]
        try:
            head = self._http.send(h11.Request(method="GET", target=target, headers=headers))
        except h11.LocalProtocolError as error:
            raise ValueError(f"{target[:200]!r} is no request target") from error
        return (head or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    async def start(self, ws: WebSocket, request: bytes) -> PodResponse:
        """Send the request and read the answer's head."""
        self._ws = ws
        if ws.protocol != PROTOCOL:
            raise self._broken(f"the server chose the protocol {ws.protocol!r} where only {PROTOCOL} was offered")
        try:
            async with asyncio.timeout_at(self.deadline):
                await ws.send_bytes(self._channels.frame(request))
        except TimeoutError as error:
            raise self.too_late() from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(f"the request could not be sent: {error}") from error
        event = await self._next_event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next_event()
        if not isinstance(event, h11.Response):
            raise self._broken(f"an HTTP response was expected, not {type(event).__name__}")
        self._in_body = True
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return PodResponse(event.status_code, headers, self)

    async def __anext__(self) -> bytes:
        if self.complete:
            raise StopAsyncIteration
        match await self._next_event():
            case h11.Data() as event:
                return bytes(event.data)
            case h11.EndOfMessage():
                self.complete = True
                raise StopAsyncIteration
            case event:
                raise self._broken(f"body or its end was expected, not {type(event).__name__}")

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if not self.closed:
                    raise self._broken(f"the port does not speak HTTP/1.1 rightly: {error}") from error
                if self._in_body:
                    raise self._broken(f"the body was cut: {error}", Reason.TRUNCATED) from error
                raise self._broken(f"it closed before an answer (code {self._ws.close_code})") from error
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._receive())  # b"" tells h11 of the close

    async def _receive(self) -> bytes:
        """More bytes of the pod; b"" once it is closed.

        D14: how it was closed does not matter, since 1006 ends good responses too.
        """
        while True:
            match await self._message():
                case aiohttp.WSMessage(type=aiohttp.WSMsgType.BINARY, data=message):
                    try:
                        received = self._channels.receive(bytes(message))
                    except ChannelError as error:
                        raise self._broken(f"the port-forward breaks its protocol: {error}") from error
                    if received.error:
                        raise self._failed(received.error)
                    if received.data:
                        self._sniff(received.data)
                        return received.data
                case aiohttp.WSMessage(
                    type=aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED
                ):
                    self.closed = True
                    return b""
                case message:
                    raise self._broken(f"the websocket failed: {message.type.name} {message.data!r}")

    def _sniff(self, data: bytes) -> None:
        """Tell a port that speaks something else by its first bytes; h11 would wait for a whole head, SSH for us."""
        if len(self._first) < len(_HTTP):
            self._first = (self._first + data)[: len(_HTTP)]
            if not _HTTP.startswith(self._first):
                raise self._broken(f"the port does not speak HTTP/1.1: it began with {self._first!r}")

    async def _message(self) -> aiohttp.WSMessage:
        try:
            async with asyncio.timeout_at(self.deadline) as whole:
                return await self._ws.receive()
        except TimeoutError as error:
            if whole.expired():
                raise self.too_late() from error
            raise self._broken(f"the API server has been silent for {SILENCE:g} s, pings included") from error

    def too_late(self) -> PortForwardBroken:
        return self._broken(f"not done within {self._seconds:g} s", Reason.DEADLINE_EXCEEDED)

    def _failed(self, words: str) -> PortRefused | PortForwardBroken:
        """What the error channel means is told by when it speaks, never by its words."""
        if not self._first:
            return PortRefused(f"{self._where}: nothing answers there: {clip(words, 300)}")
        return self._broken(f"the runtime reports: {clip(words, 300)}", Reason.TRUNCATED if self._in_body else None)

    def _broken(self, what: str, reason: Reason | None = None) -> PortForwardBroken:
        return PortForwardBroken(f"{self._where}: {what}", reason)
