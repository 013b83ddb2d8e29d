"""The server's side of a port-forward: what a kubelet and the runtime behind it send, and every way they may end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from toe_async.kube.channels import PROTOCOL

PORT = 6060
OPENING = PORT.to_bytes(2, "little")
Send = Callable[[bytes], Awaitable[None]]
Pod = Callable[["Forward"], Awaitable[None]]


@dataclass
class Forward:
    """One forwarded connection; `data` and `error` go to the client, `request` is what came from it."""

    ws: web.WebSocketResponse
    request: bytes = b""
    sent: int = 0

    async def data(self, payload: bytes) -> None:
        await self.ws.send_bytes(b"\x00" + payload)
        self.sent += len(payload)

    async def error(self, payload: bytes) -> None:
        await self.ws.send_bytes(b"\x01" + payload)

    def abort(self) -> None:
        """Lose the connection without a close, as a dying API server does."""
        assert self.ws._req is not None
        assert self.ws._req.transport is not None
        self.ws._req.transport.abort()


@dataclass
class Kubelet:
    """A handler for a FakeApi: upgrades, opens the channels, reads the request, lets `pod` answer, then closes."""

    pod: Pod
    protocols: tuple[str, ...] = (PROTOCOL,)
    opening: tuple[bytes, ...] = (b"\x00" + OPENING, b"\x01" + OPENING)
    close_code: int | None = 1000
    forwards: list[Forward] = field(default_factory=list)
    live: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=self.protocols, autoclose=False, timeout=0.2)
        await ws.prepare(request)
        forward = Forward(ws)
        self.forwards.append(forward)
        self.live += 1
        try:
            for message in self.opening:
                await ws.send_bytes(message)
            while b"\r\n\r\n" not in forward.request:
                message = await ws.receive_bytes()
                assert message[:1] == b"\x00"
                forward.request += message[1:]
            await self.pod(forward)
            if self.close_code is not None:
                await ws.close(code=self.close_code)
        except (ConnectionError, TypeError):
            pass  # the client has gone: not an error of a server
        finally:
            self.live -= 1
        return ws


def saying(*payloads: bytes) -> Pod:
    """A pod that sends these pieces and ends."""

    async def pod(forward: Forward) -> None:
        for payload in payloads:
            await forward.data(payload)

    return pod


async def silence(forward: Forward) -> None:
    """A pod that accepts and says nothing; pings are answered as long as somebody reads."""
    await forward.ws.receive()


async def pieces(chunks: AsyncIterator[bytes]) -> bytes:
    """The whole of a body."""
    return b"".join([chunk async for chunk in chunks])


async def settled(number: Callable[[], int]) -> int:
    """Wait until a number stands still, and return it."""
    seen = -1
    while number() != seen:
        seen = number()
        await asyncio.sleep(0.05)
    return seen
