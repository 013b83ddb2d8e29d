"""One child from start to end: never left behind, never believed more than its limits allow.

Whatever happens, a lost viewer, a flood, a hang, the child's whole session is killed, the child is waited for, and its
pipes are closed. An answer counts from the moment it is complete; what the child does afterwards does not matter.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, cast

from msgspec import Struct

from toe_async.collector.errors import StoreError
from toe_async.collector.rendering import frames
from toe_async.collector.rendering.frames import Answer
from toe_async.collector.rendering.limits import RenderLimits
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.sinks.uninterrupted import to_the_end

COMMAND = (sys.executable, "-I", "-B", "-X", "utf8", "-m", "toe_async.collector.rendering.child")
"""Isolated from the environment and the working directory; writes no bytecode, as it may write nothing."""

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_FED_AT_ONCE = 256 << 10
_LAST_WORDS_SECONDS = 1.0


class Source(Protocol):
    """The bytes of an artifact, wherever they lie."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; empty at the end."""


class Told(Struct, frozen=True):
    """What a child left. `answer` is None when it gave none; `why` then says how it ended, for the log."""

    answer: Answer | None
    body: bytes = b""
    why: str = ""
    cpu_spent: bool = False
    said: str = ""


class _Child(asyncio.SubprocessProtocol):
    """What arrives from one process, bounded, and when it is over."""

    def __init__(self, limits: RenderLimits) -> None:
        loop = asyncio.get_running_loop()
        self._limits = limits
        self._head = bytearray()
        self._pieces: list[bytes] = []
        self._missing = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self.answer: Answer | None = None
        self.why = "it ended without an answer"
        self.said = bytearray()
        self.told: asyncio.Future[None] = loop.create_future()
        """Done when nothing more is to be expected: an answer is complete, impossible, or the pipe is closed."""
        self.exited, self.closed = asyncio.Event(), asyncio.Event()

    @property
    def complete(self) -> bool:
        return self.answer is not None and not self._missing

    def body(self) -> bytes:
        return b"".join(self._pieces)

    async def writable(self) -> None:
        """Wait until the pipe takes more; returns at once when it is closed."""
        await self._writable.wait()

    # -- what the loop calls ----------------------------------------------------------------------------------------

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            self.said += data[: self._limits.stderr_bytes - len(self.said)]
        elif not self.told.done():
            try:
                self._take(data)
            except ValueError as bad:
                self.answer, self.why = None, f"it wrote no answer: {bad}"
                self._over()
            if self.complete:
                self._over()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == _STDOUT:
            self._over()
        if fd == _STDIN:
            self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's is not derived from it

    def process_exited(self) -> None:
        self.exited.set()
        # What it wrote is in the pipe; a process that it left behind must not keep the pipe from ending.
        kill_all(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._writable.set()
        self._over()

    def _over(self) -> None:
        if not self.told.done():
            self.told.set_result(None)

    def _take(self, data: bytes) -> None:
        if self.answer is None:
            self._head += data
            if len(self._head) < frames.PREFIX:
                return
            end = frames.PREFIX + frames.head_length(bytes(self._head[: frames.PREFIX]))
            if len(self._head) < end:
                return
            told = frames.answer(bytes(self._head[frames.PREFIX : end]))
            data = bytes(self._head[end:])
            self.answer = told
            self._missing = 0 if told.refused else told.size
            if self._missing > self._limits.output_bytes:
                raise ValueError("the answer is larger than agreed")
        if len(data) > self._missing:
            raise ValueError("more came than the answer holds")
        self._missing -= len(data)
        self._pieces.append(data)


async def ask(
    owner: TaskOwner, command: Sequence[str], order: bytes, sources: Sequence[Source], limits: RenderLimits
) -> Told:
    """Run a child with an order and its sources, and return what came of it.

    Cancellation kills the child and is let through when nothing of it is left.

    Raises:
        TimeoutError: it took longer than `wall_seconds`.
        StoreError: a source is not as long as it said; and whatever else a source raises.
    """
    async with _running(owner, command, limits) as (transport, child):
        feeding = owner.start(_feed(transport, child, order, sources), name="feed a renderer")
        try:
            async with asyncio.timeout(limits.wall_seconds):
                await asyncio.wait({feeding, child.told}, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done():
                    feeding.result()
                await child.told
        finally:
            await cancel_and_wait(feeding)
        if not child.complete:
            # Its last words and its exit status are on their way; only a process that it started could withhold them.
            kill_all(transport)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await child.closed.wait()
    said = child.said.decode("utf-8", "backslashreplace")
    if child.complete:
        return Told(child.answer, child.body(), said=said)
    status = transport.get_returncode() or 0
    return Told(None, why=f"{child.why} (status {status})", cpu_spent=status == -signal.SIGXCPU, said=said)


@contextlib.asynccontextmanager
async def _running(
    owner: TaskOwner, command: Sequence[str], limits: RenderLimits
) -> AsyncIterator[tuple[asyncio.SubprocessTransport, _Child]]:
    loop = asyncio.get_running_loop()
    starting = owner.start(
        loop.subprocess_exec(lambda: _Child(limits), *command, env={}, cwd="/", start_new_session=True),
        name="start a renderer",
    )
    try:
        await to_the_end(starting)
        yield starting.result()
    finally:
        if not starting.cancelled() and starting.exception() is None:
            transport, child = starting.result()
            kill_all(transport)
            await _gone(transport, child)


def kill_all(transport: asyncio.SubprocessTransport) -> None:
    """Kill a child and whatever it started that did not leave its group."""
    # The group's number is not given away while a member lives. When all are gone another process could get it in
    # theory, after the kernel has gone through all numbers between the child's end and this line.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)


async def _gone(transport: asyncio.SubprocessTransport, child: _Child) -> None:
    """Wait until the process is reaped and its pipes are closed, also when cancelled meanwhile: it was killed."""
    cancelled: asyncio.CancelledError | None = None
    while not child.exited.is_set():
        try:
            await child.exited.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    # A process that it started may hold the other ends open for ever.
    transport.close()
    while not child.closed.is_set():
        try:
            await child.closed.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _feed(transport: asyncio.SubprocessTransport, child: _Child, order: bytes, sources: Sequence[Source]) -> None:
    pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(_STDIN))
    pipe.write(order)
    for source in sources:
        at = 0
        while at < source.size and not pipe.is_closing():
            piece = await source.read(at, min(_FED_AT_ONCE, source.size - at))
            if not piece:
                raise StoreError("an artifact became shorter while it was read")
            at += len(piece)
            pipe.write(piece)
            await child.writable()
