"""Containers as local processes: each the leader of its own session, its output kept in bounded memory.

A process dies with the sandbox: the kernel sends SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG), and
the reaper finds its descendants. A container ends with its first process; what that leaves in its session is killed.
"""

import asyncio
import ctypes
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from toe_async.lib.clock import Clock
from toe_async.sinks.uninterrupted import to_the_end

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 1 << 20
_CHUNK = 32 << 10

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Output:
    """The last MiB of what a container wrote; readers may follow it."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._dropped = 0
        self._changed = asyncio.Event()
        self.ended = False

    def add(self, chunk: bytes) -> None:
        """Take a piece; the oldest ones go when there are too many."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        while self._held > _LOG_BYTES:
            gone = len(self._chunks.popleft())
            self._held -= gone
            self._dropped += gone
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def text(self, tail_lines: int | None = None) -> bytes:
        """What is held, or its last lines."""
        whole = b"".join(self._chunks)
        if tail_lines is None:
            return whole
        return b"".join(whole.splitlines(keepends=True)[-tail_lines:]) if tail_lines else b""

    async def follow(self, tail_lines: int | None = None) -> AsyncIterator[bytes]:
        """What is held, then what comes, until the end. A slow reader misses what was dropped meanwhile."""
        seen = self._dropped + self._held
        yield self.text(tail_lines)
        while True:
            changed = self._changed
            if seen < self._dropped + self._held:
                whole = self.text()
                new = self._dropped + self._held - seen
                seen += new
                yield whole[-new:]
            elif self.ended:
                return
            else:
                await changed.wait()


class Command(Struct, frozen=True):
    """What to run, with the complete environment."""

    argv: tuple[str, ...]
    env: dict[str, str]
    directory: Path


class Process:
    """A running container."""

    def __init__(self, process: asyncio.subprocess.Process, output: Output, started_at: datetime) -> None:
        self._process = process
        self._output = output
        self.started_at = started_at

    @property
    def pid(self) -> int:
        """The first process, whose PID is the session's id as well."""
        return self._process.pid

    @staticmethod
    async def start(command: Command, output: Output, clock: Clock) -> "Process":
        """Start a container. Raises OSError when its program cannot be run."""
        # A start that is cancelled half-way would leave a process and its pipe that nobody knows.
        starting = asyncio.get_running_loop().create_task(
            asyncio.create_subprocess_exec(
                *command.argv,
                env=command.env,
                cwd=command.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            ),
            name=f"start of {command.argv[0]}",
        )
        try:
            await to_the_end(starting)
        except asyncio.CancelledError:
            if starting.exception() is None:
                await Process(starting.result(), output, clock.now()).reap()
            raise
        return Process(starting.result(), output, clock.now())

    async def wait(self) -> int:
        """Collect output until the container ends; returns the exit code as runtimes write it: 128 + signal.

        A cancelled wait ends the container and takes its pipe away.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.TaskGroup() as group:
                pumping = group.create_task(self._pump(self._process.stdout), name=f"output of {self.pid}")
                code = await self._process.wait()
                self.kill()  # a grandchild may hold the pipe open
                try:
                    async with asyncio.timeout(1):
                        await asyncio.shield(asyncio.wait([pumping]))
                except TimeoutError:
                    pumping.cancel()
        except asyncio.CancelledError:
            await self.reap()
            raise
        return code if code >= 0 else 128 - code

    async def reap(self) -> None:
        """End the container for good: dead, waited for, its output read to the end."""
        assert self._process.stdout is not None
        self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._process.wait()
                await self._pump(self._process.stdout)

    async def _pump(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(_CHUNK):
            self._output.add(chunk)

    def terminate(self) -> None:
        """SIGTERM to the first process, as a runtime does."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything in the session's process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class SessionUsage(Struct, frozen=True):
    """What a session's processes have used: CPU seconds so far, resident bytes now."""

    cpu_seconds: float
    memory_bytes: int


def usage_by_session(wanted: frozenset[int]) -> dict[int, SessionUsage]:
    """Read /proc once for the sessions named. Blocking: a few milliseconds; call it in a thread."""
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found: dict[int, SessionUsage] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            stat = Path(entry.path, "stat").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        fields = stat.rpartition(b")")[2].split()  # from the state on: the name may hold anything
        session = int(fields[3])
        if session not in wanted:
            continue
        ticks = sum(int(one) for one in fields[11:15])  # utime, stime and those of children that ended
        held = found.get(session, SessionUsage(0.0, 0))
        memory = held.memory_bytes + int(fields[21]) * page
        found[session] = SessionUsage(held.cpu_seconds + ticks / tick, memory)
    return found
