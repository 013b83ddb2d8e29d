"""Attach to a container's first process and exec in a container, as streams over a websocket.

Output is read at the reader's pace: the socket is read as the reader takes chunks, and the process waits. The end is
the peer's close; how it ended is in `Stream.status` when the peer said so. Leaving the block closes within a quarter of
a second and does not end the process. Nor does the end of stdin tell an attached process anything: with `stdinOnce`
unset a kubelet keeps that open for whoever attaches next.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from toe_async.apis.kinds import PODS
from toe_async.kube.channels import ChannelError
from toe_async.kube.client import Client
from toe_async.kube.errors import RemoteCommandBroken
from toe_async.kube.remotechannels import PROTOCOLS, Ended, RemoteChannels
from toe_async.kube.requests import Query
from toe_async.kube.websockets import SILENCE, WebSocket

OPEN_SECONDS = 15.0
"""For the handshake: an API server waits for the kubelet before it answers."""
SEND_SECONDS = 15.0
"""For one message, while the peer does not read."""


class Stream(AsyncIterator[tuple[int, bytes]]):
    """One attached process. Iterating gives (channel, bytes) with STDOUT or STDERR, from one task at a time."""

    def __init__(self, where: str, ws: WebSocket) -> None:
        self._where, self._ws = where, ws
        self._sending = asyncio.Lock()
        try:
            self._channels = RemoteChannels(ws.protocol or "")
        except ChannelError as error:
            raise self._broken(str(error)) from error
        self._over = False

    @property
    def status(self) -> Ended | None:
        """How it ended; None before, and when the connection ended without a word about it."""
        return self._channels.ended()

    async def send(self, data: bytes) -> None:
        """Write to stdin. Sends of several tasks do not mix.

        Raises:
            RemoteCommandBroken: the connection is lost, or the peer does not take it within `SEND_SECONDS`.
        """
        await self._send(self._channels.frames(data))

    async def __anext__(self) -> tuple[int, bytes]:
        """Return further output.

        Raises:
            RemoteCommandBroken: the connection is lost or the peer breaks the protocol.
        """
        while not self._over:
            match await self._message():
                case aiohttp.WSMessage(type=aiohttp.WSMsgType.BINARY, data=message):
                    try:
                        received = self._channels.receive(bytes(message))
                    except ChannelError as error:
                        raise self._broken(f"the peer breaks the protocol: {error}") from error
                    if received is not None:
                        return received
                case aiohttp.WSMessage(
                    type=aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED
                ):
                    self._over = True
                    # A kubelet that goes away says nothing about the process; an orderly end says a Status first.
                    if self._ws.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE and self.status is None:
                        raise self._broken("the connection was lost")
                case message:
                    raise self._broken(f"the websocket failed: {message.type.name}")
        raise StopAsyncIteration

    async def _message(self) -> aiohttp.WSMessage:
        try:
            return await self._ws.receive()
        except TimeoutError as error:
            raise self._broken(f"the API server has been silent for {SILENCE:g} s, pings included") from error

    async def _send(self, messages: Sequence[bytes]) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                for message in messages:
                    await self._ws.send_bytes(message)
        except TimeoutError as error:
            raise self._broken(f"the peer takes nothing for {SEND_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(f"nothing could be sent: {type(error).__name__}") from error

    def _broken(self, what: str) -> RemoteCommandBroken:
        return RemoteCommandBroken(f"{self._where}: {what}")


@asynccontextmanager
async def attach(client: Client, namespace: str, pod: str, container: str) -> AsyncIterator[Stream]:
    """Attach stdin and stdout of a running container's first process. What it said before is not repeated.

    Raises:
        ApiError: the API server refuses: no such pod or container, it does not run, no right to it.
        TransportError: no connection to the API server.
        RemoteCommandBroken: no handshake within `OPEN_SECONDS`, or a protocol that was not offered.
    """
    query = (("container", container), ("stdin", "true"), ("stdout", "true"))
    where = f"attach to {namespace}/{pod}/{container}"
    async with _open(client, PODS.path(namespace, pod, "attach"), query, where) as stream:
        yield stream


@asynccontextmanager
async def exec_(
    client: Client, namespace: str, pod: str, container: str, command: Sequence[str]
) -> AsyncIterator[Stream]:
    """Run a command in a running container; its exit code is in `Stream.status` after the last chunk.

    Raises:
        As `attach`.
    """
    wanted = (*(("command", word) for word in command), ("container", container), ("stdout", "true"))
    query = (*wanted, ("stderr", "true"))
    where = f"exec in {namespace}/{pod}/{container}"
    async with _open(client, PODS.path(namespace, pod, "exec"), query, where) as stream:
        yield stream


@asynccontextmanager
async def _open(client: Client, path: str, query: Query, where: str) -> AsyncIterator[Stream]:
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                ws = await stack.enter_async_context(client.websocket(path, query, PROTOCOLS))
        except TimeoutError as error:
            raise RemoteCommandBroken(f"{where}: no handshake within {OPEN_SECONDS:g} s") from error
        yield Stream(where, ws)
