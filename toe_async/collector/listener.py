"""Connections: how many, how long, and over which certificate.

aiohttp leaves three holes that are closed here. Its server counts no connections, so we accept them ourselves and turn
the surplus of one address away before TLS costs anything. It waits for ever for a reader that reads nothing; `sweep`
ends those. And its own error pages are no JSON. The header deadline is aiohttp's keep-alive timer, which runs from the
connection, or the last answer, to the end of the next request's headers.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from typing import Any, cast

from aiohttp import web
from aiohttp.web_request import BaseRequest

from toe_async.collector.errors import Refused, SettingsError
from toe_async.collector.replies import refusal
from toe_async.collector.settings import Address, Limits
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

_BACKLOG = 512
_SWEEP_SECONDS = 2.0
_NO_DESCRIPTORS_PAUSE = 0.5
_LARGEST_HEADER = 16 << 10  # an Authorization header may carry a long token
MOST_HEADERS = 64
_READ_BUFFER = 64 << 10
# Fixed: the kernel would grow it by itself, to megabytes for each of many readers that take nothing, and every growth
# would look as if the reader had taken something.
_SEND_BUFFER = 256 << 10
_RESET = struct.pack("ii", 1, 0)
_log = log.get("collector.listener")


class Connection(web.RequestHandler):
    """One client's connection; it knows since when its peer has taken nothing."""

    def __init__(
        self,
        manager: web.Server,
        limits: Limits,
        clock: Clock,
        ended: Callable[["Connection"], None],
        most_headers: int,
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.header_seconds,
            lingering_time=limits.linger_seconds,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
            max_headers=most_headers,
            access_log=cast("Any", None),
        )
        self._clock, self._ended = clock, ended
        self._wire: asyncio.Transport | None = None
        self._stuck_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        self._ended(self)
        task = self._task_handler if self._current_request is None else None
        super().connection_lost(exc)
        if task is not None:
            # No handler of ours runs: it waits for a body that cannot come any more, for as long as it would linger.
            task.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = self._clock.monotonic()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = None

    def abort_if_stuck(self, limit: float) -> None:
        """End a connection whose peer has taken less than the write buffer in `limit` seconds, also while it closes."""
        if self._wire is None:
            return
        if self._stuck_since is None and self._wire.is_closing():
            self._stuck_since = self._clock.monotonic()
        if self._stuck_since is not None and self._clock.monotonic() - self._stuck_since > limit:
            # Without this the kernel would keep what the peer does not take for minutes after we forgot it.
            with contextlib.suppress(OSError):
                self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._wire.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp itself refuses, such as a request that breaks HTTP's rules."""
        _log.info("request refused", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer had begun when the request turned out to be broken")
        reply = refusal(Refused(status, "BadRequest" if status < 500 else "Internal", "the request cannot be served"))
        reply.force_close()
        return reply


class Listener:
    """Accepts connections for an application until it is closed."""

    def __init__(
        self,
        sock: socket.socket,
        server: web.Server,
        tls: Callable[[], SSLContext | None],
        limits: Limits,
        clock: Clock,
        *,
        most_headers: int = MOST_HEADERS,
    ) -> None:
        self._sock, self._server, self._tls, self._limits, self._clock = sock, server, tls, limits, clock
        self._most_headers = most_headers
        self._by_address: Counter[str] = Counter()
        self._connections: dict[Connection, str] = {}
        self._opening: set[socket.socket] = set()
        self.trouble: str | None = None
        """Why no connection is accepted any more; only a restart helps."""

    def failed(self, name: str, error: BaseException) -> None:
        """Note that one of our tasks ended by an error."""
        self.trouble = f"{name} ended by {type(error).__name__}"
        _log.error("the listener failed", task=name, error=repr(error)[:500])

    async def run(self) -> None:
        """Accept until cancelled; every socket that was accepted is then somebody's or closed."""
        loop, waiting = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with TaskOwner(_handshake_failed) as tasks:
                while True:
                    # Not loop.sock_accept: a socket that it accepts while we are cancelled is lost.
                    loop.add_reader(self._sock, waiting.set)
                    await waiting.wait()
                    waiting.clear()
                    if not self._accept(tasks):
                        loop.remove_reader(self._sock)
                        await asyncio.sleep(_NO_DESCRIPTORS_PAUSE)
        finally:
            loop.remove_reader(self._sock)
            for sock in self._opening:
                sock.close()  # its task was cancelled before it began

    def _accept(self, tasks: TaskOwner) -> bool:
        """Accept what waits, some at a time; False when there are no descriptors for it."""
        for _ in range(_BACKLOG):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return True
            except OSError as failed:
                # Those that are open end in bounded time and give theirs back.
                _log.warning("cannot accept a connection", error=failed.strerror)
                return False
            host = str(address[0])
            if (
                self._by_address[host] >= self._limits.connections_per_address
                or self._by_address.total() >= self._limits.connections
            ):
                sock.close()
                continue
            self._by_address[host] += 1
            self._opening.add(sock)
            tasks.start(self._open(sock, host), name="open connection")
        return True

    async def sweep(self) -> None:
        """End connections that are stuck, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for connection in list(self._connections):
                connection.abort_if_stuck(self._limits.idle_seconds)

    async def _open(self, sock: socket.socket, host: str) -> None:
        connection = Connection(self._server, self._limits, self._clock, self._ended, self._most_headers)
        self._connections[connection] = host
        self._opening.discard(sock)
        tls = self._tls()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=tls,
                ssl_handshake_timeout=self._limits.header_seconds if tls else None,
                ssl_shutdown_timeout=self._limits.linger_seconds if tls else None,
            )
        except BaseException as failed:
            self._ended(connection)
            sock.close()
            if not isinstance(failed, OSError):
                raise

    def _ended(self, connection: Connection) -> None:
        host = self._connections.pop(connection, None)
        if host is not None:
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]


def bind(address: Address) -> socket.socket:
    """Listen on an address.

    Raises:
        SettingsError: it is taken or not ours; one sentence.
    """
    try:
        if not address.host and socket.has_dualstack_ipv6():
            sock = socket.create_server(
                ("::", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        else:
            host = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(address.host, address.host)  # noqa: S104
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server((host, address.port), family=family, backlog=_BACKLOG)
    except OSError as failed:
        raise SettingsError(
            f"cannot listen on {address.host}:{address.port} ({failed.strerror}): stop what uses it, or choose another"
        ) from failed
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def accepting(listener: Listener, sock: socket.socket) -> AsyncIterator[None]:
    """Accept connections for as long as the block lasts; those that stand live on, for the server to end."""
    try:
        async with TaskOwner(listener.failed) as tasks:
            tasks.start(listener.run(), name="accept connections")
            tasks.start(listener.sweep(), name="sweep stuck connections")
            yield
    finally:
        sock.close()


def _handshake_failed(name: str, error: BaseException) -> None:
    _log.info("a connection could not be opened", error=repr(error)[:200])
