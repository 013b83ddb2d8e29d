"""Ephemeral containers as the tests make them, and websockets into containers as they read them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from tests.contract.clusters import JSON, Answer, Server
from tests.contract.test_pods import IMAGE, pod

STRATEGIC = "application/strategic-merge-patch+json"
IDLE = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(600)"
ECHO = """
import sys
print("up", flush=True)
for line in sys.stdin:
    print("got", line.strip(), flush=True)
    if line == "complain\\n":
        print("oops", file=sys.stderr, flush=True)
    if line.startswith("exit "):
        open("/dev/termination-log", "w").write("last words")
        sys.exit(int(line[5:]))
print("no more", flush=True)
"""
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


def tool(name: str = "tool", program: str = IDLE, **more: object) -> JSON:
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "-c", program],
        **more,
    }


async def add(server: Server, *containers: JSON, to: str = "p", uid: str = "", **query: str) -> Answer:
    """Add containers to a pod by strategic merge, as kubectl does."""
    body: JSON = {"spec": {"ephemeralContainers": list(containers)}}
    if uid:
        body["metadata"] = {"uid": uid}
    path = server.core("pods", f"{to}/ephemeralcontainers")
    return await server.call("PATCH", path, body, content_type=STRATEGIC, params=query)


async def nowhere(server: Server, name: str = "p", **spec: object) -> JSON:
    """A pod of a node that does not exist, so nothing of it runs: enough for what the API server itself decides."""
    return await server.make(server.core("pods"), pod(IDLE, name, nodeName="contract-no-node", **spec))


async def running(server: Server, name: str = "p", program: str = IDLE, **spec: object) -> JSON:
    await server.make(server.core("pods"), pod(program, name, **spec))
    return await server.until(server.core("pods", name), lambda one: one["status"]["phase"] == "Running")


def status_of(obj: JSON, name: str = "tool") -> JSON:
    held = [one for one in obj["status"].get("ephemeralContainerStatuses", ()) if one["name"] == name]
    return held[0] if held else {"state": {}}


async def reaches(server: Server, state: str, name: str = "tool", of: str = "p") -> JSON:
    """Wait until an ephemeral container is waiting, running or terminated; returns its status."""
    found = await server.until(server.core("pods", of), lambda one: state in status_of(one, name)["state"])
    return status_of(found, name)


Query = Sequence[tuple[str, str]]


@asynccontextmanager
async def opened(
    server: Server, path: str, query: Query, *, protocols: tuple[str, ...] = (V5,), token: str | None = None
) -> AsyncIterator["Remote"]:
    """A websocket to `attach` or `exec` of a pod: path is e.g. `p/attach`."""
    async with asyncio.timeout(40), server.websocket(path, query, protocols, token) as socket:
        yield Remote(socket)


class Remote:
    """What comes, kept by channel."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.messages: list[bytes] = []
        self.closed: int | None = None

    def channel(self, number: int) -> bytes:
        return b"".join(one[1:] for one in self.messages if one[0] == number)

    @property
    def status(self) -> JSON:
        held: JSON = json.loads(self.channel(3))
        return held

    async def until(self, number: int, expected: bytes) -> None:
        """Read until a channel has said something."""
        while expected not in self.channel(number):
            await self._next()
            assert self.closed is None, (self.messages, expected)

    async def to_the_end(self) -> None:
        while self.closed is None:
            await self._next()

    async def _next(self) -> None:
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            self.messages.append(message.data)
        else:
            self.closed = message.data if message.type is aiohttp.WSMsgType.CLOSE else 1006

    async def say(self, text: str) -> None:
        await self.socket.send_bytes(b"\0" + text.encode() + b"\n")


async def refusal(server: Server, path: str, query: Query, token: str | None = None) -> Answer:
    """The answer to a request for a websocket that is refused before there is one."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": V5,
    }
    asked = server.core("pods", path)
    async with asyncio.timeout(10):
        return await server.call("GET", asked, accept="*/*", headers=headers, token=token, params=dict(query))
