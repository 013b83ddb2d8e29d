"""The subresources that reach into pods: log, and port-forward by `v4.channel.k8s.io` as a runtime serves it.

Port-forward keeps the real server's manners: two opening frames with the port, refusals on the error channel, frames of
32 KiB, a second of silence after the pod has closed, and an end without a closing handshake (the client sees 1006).
"""

import asyncio

from aiohttp import WSMsgType, web

from toe_async.sandbox.addressing import choose_container, find_pod
from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.pod import Pod
from toe_async.sandbox.processes import Output
from toe_async.sandbox.routes import Route
from toe_async.sandbox.status import JsonObject, bad_request
from toe_async.sandbox.store import Store

_PROTOCOL = "v4.channel.k8s.io"
_FRAME = 32 << 10
_LINGER_SECONDS = 1.0
_DATA, _ERROR = 0, 1
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff"})


class Streams:
    """Handlers for `pods/log` and `pods/portforward`."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store = store
        self._kubelet = kubelet

    async def log(self, request: web.Request, asked: Route) -> web.StreamResponse:
        """A container's output, followed on demand."""
        obj, pod = find_pod(self._store, self._kubelet, asked)
        output = _output(obj, pod, request.query.get("container", ""))
        lines = request.query.get("tailLines", "")
        tail = int(lines) if lines.isdecimal() else None
        if request.query.get("follow") != "true":
            return web.Response(body=output.text(tail), content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in output.follow(tail):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def port_forward(self, request: web.Request, asked: Route) -> web.StreamResponse:
        """Carry one or more ports over one websocket."""
        obj, pod = find_pod(self._store, self._kubelet, asked)
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise bad_request("Upgrade request required")
        ports = _ports(request.query.getall("ports", ()))
        if pod is None or obj["status"].get("phase") != "Running":
            raise bad_request(
                f"unable to forward port because pod is not running. Current status={obj['status']['phase']}"
            )
        socket = web.WebSocketResponse(protocols=(_PROTOCOL,), max_msg_size=0, compress=False)
        await socket.prepare(request)
        forwards = [_Forward(socket, index, port, pod.address) for index, port in enumerate(ports)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one.run(), name=f"forward to {one.port}") for one in forwards]
            reading = group.create_task(_receive(socket, forwards), name="forward from client")
            await asyncio.wait([reading, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, *running):
                task.cancel()
        if request.transport is not None:
            request.transport.close()
        return socket


async def _receive(socket: web.WebSocketResponse, forwards: list["_Forward"]) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            return
        channel, payload = message.data[0], message.data[1:]
        if channel % 2 == _DATA and channel // 2 < len(forwards):
            await forwards[channel // 2].send(payload)


class _Forward:
    """One port: one TCP connection into the pod."""

    def __init__(self, socket: web.WebSocketResponse, index: int, port: int, address: str) -> None:
        self._socket = socket
        self._data, self._error = 2 * index + _DATA, 2 * index + _ERROR
        self.port = port
        self._address = address
        self._writer: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def send(self, payload: bytes) -> None:
        """Hand bytes to the pod; waits while it does not read, and drops them once it has gone."""
        writer = await asyncio.shield(self._writer)
        try:
            writer.write(payload)
            await writer.drain()
        except OSError:
            return

    async def run(self) -> None:
        """Open, carry the pod's bytes, linger, end."""
        opening = self.port.to_bytes(2, "little")
        await self._frame(self._data, opening)
        await self._frame(self._error, opening)
        try:
            reader, writer = await asyncio.open_connection(self._address, self.port)
        except OSError as error:
            said = (
                f"error forwarding port {self.port} to pod: failed to connect to localhost:{self.port} inside the pod: "
            )
            await self._frame(self._error, (said + _why(error)).encode())
            return
        self._writer.set_result(writer)
        try:
            while chunk := await reader.read(_FRAME):
                await self._frame(self._data, chunk)
            await asyncio.sleep(_LINGER_SECONDS)
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _frame(self, channel: int, payload: bytes) -> None:
        await self._socket.send_bytes(bytes((channel,)) + payload)


def _why(error: OSError) -> str:
    return "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)


def _ports(given: tuple[str, ...] | list[str]) -> list[int]:
    texts = [text for one in given for text in one.split(",")]
    if not texts:
        raise bad_request('query parameter "ports" is required')
    for text in texts:
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise bad_request(f'unable to parse "{text}" as a port: must be between 1 and 65535')
    return [int(text) for text in texts]


def _output(obj: JsonObject, pod: Pod | None, wanted: str) -> Output:
    name = choose_container(obj, wanted)
    held = pod.container(name) if pod is not None else None
    if held is None or (held.state.phase == "waiting" and not held.state.last):
        reason = held.state.reason if held is not None else "ContainerCreating"
        why = "trying and failing to pull image" if reason in _PULLING else reason
        raise bad_request(f'container "{name}" in pod "{obj["metadata"]["name"]}" is waiting to start: {why}')
    return held.output
