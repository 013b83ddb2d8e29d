"""`pods/attach` and `pods/exec` over websockets, by `v5.channel.k8s.io` and `v4.channel.k8s.io`.

The first byte of a message names its channel. Whoever connects first gets an empty message on the lowest channel that
he may read, and at the end a Status on the error channel and a proper close. With v5 the client can close stdin: that
ends an attach, whose container sees an end of file only if it asked for it (`stdinOnce`). Losing the websocket ends
nothing but the session: a command of exec runs on until it or its container is over. There are no terminals: `tty` is
taken, and the sizes sent for it are passed over.
"""

import asyncio
from contextlib import suppress

import msgspec
from aiohttp import WSMsgType, web
from msgspec import Struct

from toe_async.lib.clock import Clock
from toe_async.sandbox import launching
from toe_async.sandbox.addressing import choose_container, find_pod
from toe_async.sandbox.images import PullError
from toe_async.sandbox.kubelet import Kubelet
from toe_async.sandbox.pod import Container
from toe_async.sandbox.processes import STDERR, STDOUT, Output, Process, Tap
from toe_async.sandbox.routes import Route
from toe_async.sandbox.status import JsonObject, bad_request
from toe_async.sandbox.store import Store

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _ERROR, _CLOSE = 0, 3, 255
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_SUCCESS: JsonObject = {"metadata": {}, "status": "Success"}


class _Wanted(Struct, frozen=True):
    """Which streams a client asks for."""

    stdin: bool
    streams: frozenset[int]

    @staticmethod
    def of(request: web.Request) -> "_Wanted":
        asked = {name for name in ("stdin", "stdout", "stderr", "tty") if request.query.get(name, "") in _TRUE}
        streams = {number for name, number in (("stdout", STDOUT), ("stderr", STDERR)) if name in asked}
        return _Wanted("stdin" in asked, frozenset(streams - {STDERR} if "tty" in asked else streams))

    @property
    def first(self) -> int:
        return min(self.streams, default=_ERROR)


class RemoteCommands:
    """Handlers for `pods/attach` and `pods/exec`."""

    def __init__(self, store: Store, kubelet: Kubelet, clock: Clock) -> None:
        self._store = store
        self._kubelet = kubelet
        self._clock = clock

    async def attach(self, request: web.Request, asked: Route) -> web.StreamResponse:
        """Join a running container's streams; what it wrote before is not repeated."""
        found = self._prepared(request, asked, "container {name} not found in pod {pod}_{namespace}")
        if isinstance(found, web.Response):
            return found
        container, process, wanted = found
        session = await _Session.open(request, wanted)
        with container.output.tap() as tap:
            ended = await session.run(tap, process, to_the_end=False)
        if not ended and container.spec.get("stdinOnce") and wanted.stdin:
            process.close_stdin()
        await session.close(_SUCCESS)
        return session.socket

    async def execute(self, request: web.Request, asked: Route) -> web.StreamResponse:
        """Run a command beside a running container."""
        found = self._prepared(request, asked, 'container not found ("{name}")')
        if isinstance(found, web.Response):
            return found
        container, process, wanted = found
        argv = tuple(request.query.getall("command", ()))
        assert container.launch is not None
        session = await _Session.open(request, wanted)
        output, machine, image = Output(), self._kubelet.machine, container.spec.get("image") or ""
        try:
            if not argv:
                raise OSError("args must not be empty")
            command = launching.executed(machine, image, container.launch, process.pid, argv, stdin=wanted.stdin)
            started = await Process.start(command, output, self._clock)
        except (OSError, PullError) as error:
            await session.close(_not_started(argv, error))
            return session.socket
        with output.tap() as tap:
            code = self._kubelet.accompany(process, started)
            if await session.run(tap, started, to_the_end=True):
                await session.close(_ended(await code, argv, session.protocol))
        return session.socket

    def _prepared(
        self, request: web.Request, asked: Route, missing: str
    ) -> tuple[Container, Process, _Wanted] | web.Response:
        """The container's process; or the kubelet's own answer, which is a line of text."""
        obj, pod = find_pod(self._store, self._kubelet, asked)
        name = choose_container(obj, request.query.get("container", ""))
        if not obj["spec"].get("nodeName"):
            raise bad_request(f"pod {asked.name} does not have a host assigned")
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise bad_request("Upgrade request required")
        wanted = _Wanted.of(request)
        if not wanted.stdin and not wanted.streams:
            return web.Response(status=400, text="you must specify at least 1 of stdin, stdout, stderr")
        container = pod.container(name) if pod is not None else None
        if container is None or container.process is None:
            text = missing.format(name=name, pod=asked.name, namespace=asked.namespace)
            return web.Response(status=500, text=text)
        offered = _offered(request)
        if offered and not {V5, V4} & set(offered):
            return web.Response(status=403)
        return container, container.process, wanted


class _Session:
    """One websocket and the streams that it carries."""

    def __init__(self, socket: web.WebSocketResponse, wanted: _Wanted, protocol: str) -> None:
        self.socket = socket
        self.protocol = protocol
        self._wanted = wanted

    @staticmethod
    async def open(request: web.Request, wanted: _Wanted) -> "_Session":
        offered = _offered(request)
        protocol = next((one for one in (V5, V4) if one in offered), "")
        socket = web.WebSocketResponse(protocols=(protocol,) if protocol else (), max_msg_size=0, compress=False)
        await socket.prepare(request)
        await socket.send_bytes(bytes((wanted.first,)))
        return _Session(socket, wanted, protocol)

    async def run(self, tap: Tap, process: Process, *, to_the_end: bool) -> bool:
        """Carry until the process or the client has ended; returns whether the process has.

        A client that closes stdin has ended, unless the session goes on `to_the_end` of the process.
        """
        writing = asyncio.get_running_loop().create_task(self._write(tap), name="output to client")
        reading = asyncio.get_running_loop().create_task(self._read(process, to_the_end), name="input from client")
        try:
            await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
            return writing.done() and not writing.cancelled() and writing.exception() is None
        finally:
            for task in (writing, reading):
                task.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)

    async def _write(self, tap: Tap) -> None:
        while (said := await tap.get()) is not None:
            stream, chunk = said
            if stream in self._wanted.streams:
                await self.socket.send_bytes(bytes((stream,)) + chunk)

    async def _read(self, process: Process, to_the_end: bool) -> None:
        async for message in self.socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, payload = message.data[0], message.data[1:]
            if channel == _STDIN and self._wanted.stdin:
                await process.send(payload)
            elif self.protocol == V5 and channel == _CLOSE and payload == bytes((_STDIN,)) and self._wanted.stdin:
                if not to_the_end:
                    return
                process.close_stdin()

    async def close(self, status: JsonObject) -> None:
        """Say how it ended and close; a client that has gone already does not hear it."""
        with suppress(ConnectionError, RuntimeError):
            if not self.socket.closed:
                if self.protocol:  # metadata is what the API server adds when it translates from v5 to the runtime
                    said = {key: value for key, value in status.items() if self.protocol == V5 or key != "metadata"}
                    await self.socket.send_bytes(bytes((_ERROR,)) + msgspec.json.encode(said))
                await self.socket.close()


def _offered(request: web.Request) -> list[str]:
    return [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if one.strip()]


def _ended(code: int, argv: tuple[str, ...], protocol: str) -> JsonObject:
    if code == 0:
        return _SUCCESS
    told = (
        f"error executing command [{' '.join(argv)}], exit code {code}"
        if protocol == V4
        else f"command terminated with exit code {code}"
    )
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {told}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _not_started(argv: tuple[str, ...], error: Exception) -> JsonObject:
    program = argv[0] if argv else ""
    told = (
        "Internal error occurred: error executing command in container: failed to exec in container: OCI runtime exec "
        f'failed: exec failed: unable to start container process: exec: "{program}": {error}'
    )
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {told}",
        "reason": "InternalError",
        "details": {"causes": [{"message": told}]},
        "code": 500,
    }
