"""Containers as local processes: each the leader of its own session, its output kept in bounded memory.

Whoever attaches gets a tap: what is written from then on, stdout and stderr apart. A tap that is not read holds the
container up, as a runtime's does, until it is closed.

A process dies with the sandbox: the kernel sends SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG), and
the reaper finds its descendants. A container ends with its first process; what that leaves in its session is killed.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from toe_async.lib.clock import Clock
from toe_async.sandbox.enclosure import Enclosure
from toe_async.sinks.uninterrupted import to_the_end

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 1 << 20
_CHUNK = 32 << 10
_TAP_CHUNKS = 64
STDOUT, STDERR = 1, 2

Tap = asyncio.Queue[tuple[int, bytes] | None]
"""(stream, bytes) as they are written; None when the container has ended."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Output:
    """The last MiB of what a container wrote; readers may follow it."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._dropped = 0
        self._changed = asyncio.Event()
        self._taps: list[Tap] = []
        self.ended = False

    @contextmanager
    def tap(self) -> Iterator[Tap]:
        """Listen to what comes from now on."""
        tap: Tap = asyncio.Queue(_TAP_CHUNKS)
        self._taps.append(tap)
        try:
            yield tap
        finally:
            self._taps.remove(tap)
            while not tap.empty():  # whoever waits to put something in goes on
                tap.get_nowait()

    async def write(self, stream: int, chunk: bytes) -> None:
        """Take a piece for the log and for all taps; waits for those that are full."""
        self.add(chunk)
        for tap in list(self._taps):
            await tap.put((stream, chunk))

    async def hang_up(self) -> None:
        """Tell the taps that the process has ended."""
        for tap in list(self._taps):
            await tap.put(None)

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
    """What to run, with the complete environment; `inside` is the PID of the process whose enclosure is joined."""

    argv: tuple[str, ...]
    env: dict[str, str]
    directory: Path
    stdin: bool = False
    enclosure: Enclosure | None = None
    inside: int = 0

    def begin(self) -> None:
        """What a child does before it becomes the program."""
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.enclosure is None:
            return
        if self.inside:
            self.enclosure.join(self.inside, os.fsencode(self.directory))
        else:
            self.enclosure.enter(os.fsencode(self.directory))


class Process:
    """A running container."""

    def __init__(
        self, process: asyncio.subprocess.Process, command: Command, output: Output, started_at: datetime
    ) -> None:
        self._process = process
        self.command = command
        self.ended = asyncio.Event()
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
                cwd=command.directory if command.enclosure is None else "/",
                stdin=asyncio.subprocess.PIPE if command.stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=command.begin,
            ),
            name=f"start of {command.argv[0]}",
        )
        try:
            await to_the_end(starting)
        except asyncio.CancelledError:
            if starting.exception() is None:
                await Process(starting.result(), command, output, clock.now()).reap()
            raise
        except subprocess.SubprocessError as error:  # the enclosure: what failed stays behind in the child
            raise OSError(f"{command.argv[0]} could not be started in a file system of its own") from error
        return Process(starting.result(), command, output, clock.now())

    async def send(self, data: bytes) -> None:
        """Write to the container's stdin; without one, or once it has ended, the bytes are dropped."""
        if self._process.stdin is None:
            return
        with suppress(ConnectionError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def close_stdin(self) -> None:
        """Give the process an end of file."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def wait(self) -> int:
        """Collect output until the container ends; returns the exit code as runtimes write it: 128 + signal.

        A cancelled wait ends the container and takes its pipe away.
        """
        try:
            async with asyncio.TaskGroup() as group:
                pumping = group.create_task(self._pump_all(), name=f"output of {self.pid}")
                code = await self._process.wait()
                self.kill()  # a grandchild may hold the pipe open
                try:
                    async with asyncio.timeout(1):
                        await asyncio.shield(asyncio.wait([pumping]))
                except TimeoutError:
                    pumping.cancel()
            self.close_stdin()
            await self._output.hang_up()
        except asyncio.CancelledError:
            await self.reap()
            raise
        finally:
            self.ended.set()
        return code if code >= 0 else 128 - code

    async def reap(self) -> None:
        """End the container for good: dead, waited for, its output read to the end."""
        self.kill()
        self.close_stdin()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._process.wait()
                await self._pump_all()

    async def _pump_all(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(self._pump(STDOUT, self._process.stdout), self._pump(STDERR, self._process.stderr))

    async def _pump(self, number: int, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(_CHUNK):
            await self._output.write(number, chunk)

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
