"""A pod behind an API server, both on real sockets: a scripted HTTP target and a relay that speaks v4 port-forward."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from toe_async.capture.targets import PprofTarget
from toe_async.kube.client import Client, ClientSettings, connect

PROTOCOL = "v4.channel.k8s.io"
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


class FakePod:
    """What listens in the pod, what the API server says, and what was seen of both."""

    def __init__(self) -> None:
        self.port = 0
        self.script: Script | None = None
        self.requests: list[str] = []
        self.sent = 0
        self.refusal: tuple[int, str] | None = None
        self.cut_after: int | None = None
        self.forwarded = 0
        self.closed = asyncio.Event()

    @property
    def target(self) -> PprofTarget:
        return PprofTarget("shop", "web-1", "uid-1", "app", self.port, "/debug/pprof")

    def answers(self, raw: bytes) -> None:
        """Answer every request with these bytes and close."""

        async def script(writer: asyncio.StreamWriter) -> None:
            await self.send(writer, raw)

        self.script = script

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send and count what the peer has taken."""
        writer.write(data)
        await writer.drain()
        self.sent += len(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the relay into the pod."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.split(b"\r\n")[0].decode())
                assert self.script is not None
                work = {asyncio.ensure_future(self.script(writer)), asyncio.ensure_future(reader.read(1))}
                try:
                    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in work:
                        one.cancel()
                    await asyncio.gather(*work, return_exceptions=True)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.closed.set()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The API server's side of a port-forward, as facts.md section 5 has it."""
        if self.refusal is not None:
            code, reason = self.refusal
            status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "words"}
            return web.Response(status=code, body=json.dumps(status), content_type="application/json")
        ws = web.WebSocketResponse(protocols=(PROTOCOL,))
        await ws.prepare(request)
        port = int(request.query["ports"])
        await ws.send_bytes(b"\0" + port.to_bytes(2, "little"))
        await ws.send_bytes(b"\1" + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await ws.send_bytes(b"\1error forwarding port: connection refused")
            return ws
        try:
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._relay_back(reader, ws, request))
                async for message in ws:
                    if message.type is WSMsgType.BINARY:
                        writer.write(message.data[1:])
                back.cancel()
        finally:
            writer.close()
        return ws

    async def _relay_back(self, reader: asyncio.StreamReader, ws: web.WebSocketResponse, request: web.Request) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(32 << 10):
                await ws.send_bytes(b"\0" + data)
                self.forwarded += len(data)
                if self.cut_after is not None and self.forwarded >= self.cut_after:
                    assert request.transport is not None
                    request.transport.abort()
                    return
        await ws.close()


@pytest.fixture
async def pod() -> AsyncIterator[FakePod]:
    """The pod's own server is up; set `script` or `answers` before asking."""
    fake = FakePod()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    async with server:
        yield fake


@pytest.fixture
async def client(pod: FakePod, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an API server that forwards into `pod`."""
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/shop/pods/web-1/portforward", pod.forward)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": site.name}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    try:
        async with connect(ClientSettings(kubeconfig=str(kubeconfig)), environ={}) as opened:
            yield opened
    finally:
        await runner.cleanup()
