"""A TCP proxy that cuts connections where it is told, and counts what was sent through it."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable
from enum import Enum
from typing import NamedTuple


class How(Enum):
    """What happens to a connection."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"
    """Nothing goes through any more, in either direction, and nobody is told."""
    MUTE = "mute"
    """The server gets what is sent, its answers are lost and the connection ends with them."""


class Cut(NamedTuple):
    """Cut the connection that carries the client's byte number `at`, counted over all connections."""

    at: int
    how: How


class FaultProxy:
    """Made by `faulty`. `sent` counts the client's bytes that were passed on."""

    def __init__(self, upstream: int, cuts: Iterable[Cut]) -> None:
        self.upstream = upstream
        self.sent = 0
        self.happened = 0
        self.cut = asyncio.Event()
        """Set once the first cut was made."""
        self._cuts = deque(sorted(cuts))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.close()
            return
        muted = asyncio.Event()
        answers = asyncio.get_running_loop().create_task(self._answers(up_reader, writer, muted))
        try:
            await self._requests(reader, up_writer, writer, muted)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if not muted.is_set():
                answers.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await answers
            for one in (up_writer, writer):
                one.close()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        muted: asyncio.Event,
    ) -> None:
        while piece := await reader.read(64 << 10):
            left = self._cuts[0].at - self.sent if self._cuts else len(piece) + 1
            passed = piece[: max(left, 0)] if left <= len(piece) else piece
            upstream.write(passed)
            self.sent += len(passed)
            await upstream.drain()
            if left > len(piece):
                continue
            how = self._cuts.popleft().how
            self.happened += 1
            self.cut.set()
            if how is How.MUTE:
                muted.set()
                upstream.write(piece[len(passed) :])
                self.sent += len(piece) - len(passed)
                continue
            if how is How.RESET:
                for one in (upstream, client):
                    one.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            if how is How.STALL:
                await reader.read(-1)  # until the client gives up
            return

    async def _answers(
        self, upstream: asyncio.StreamReader, client: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await upstream.read(64 << 10):
                if muted.is_set() and b"100 Continue" not in piece:
                    break
                client.write(piece)
                await client.drain()
        client.close()


@contextlib.asynccontextmanager
async def faulty(upstream: int, cuts: Iterable[Cut]) -> AsyncIterator[tuple[str, FaultProxy]]:
    """A proxy in front of a local port, for as long as the block lasts: its URL, and itself."""
    proxy = FaultProxy(upstream, cuts)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
