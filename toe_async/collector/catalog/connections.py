"""The connections to the index: one that writes, a few that read, each used by one thread at a time."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from toe_async.collector.catalog.file import IndexFile, IndexLost, translated
from toe_async.collector.catalog.query import micros
from toe_async.collector.disk import Disk
from toe_async.collector.errors import StoreError
from toe_async.lib.clock import Clock

T = TypeVar("T")

_READERS = 2
"""More would only wait for each other: what they do holds the interpreter's lock half of the time."""
_READER_CACHE_BYTES = 4 << 20
_WRITER_CACHE_BYTES = 16 << 20


class Connections:
    """An index file in use. Steps run in the disk's threads; writes one after the other, reads beside them."""

    def __init__(self, path: Path, disk: Disk, clock: Clock) -> None:
        self._file, self._disk, self._clock = IndexFile(path), disk, clock
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        self._writing = asyncio.Lock()
        self._reading = asyncio.Semaphore(_READERS)
        self.lost = asyncio.Event()
        """Set when the file turned out to be lost: nothing works until `renew`."""

    async def open(self) -> None:
        """Open the file, or a new one in its place when it cannot be used. Raises StoreError."""
        await self._disk.run(self._open)

    async def renew(self) -> None:
        """Open whatever file stands there now, or a new one in the place of a broken one."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._writing)
            for _ in range(_READERS):
                await stack.enter_async_context(self._reading)
            await self._disk.run(self._reopen)
            self.lost.clear()

    async def close(self) -> None:
        """Close everything; steps under way have ended, for nobody may call any more."""
        await self._disk.run(self._close)

    async def read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run one reading step.

        Raises:
            IndexLost: the file is broken or gone; see `lost`.
            StoreError: it did not work, and may the next time.
        """
        async with self._reading:
            return await self._run(lambda: self._read(step))

    async def write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run one writing step; raises as `read` does, and StoreFull."""
        async with self._writing:
            return await self._run(lambda: self._write(step))

    async def _run(self, step: Callable[[], T]) -> T:
        if self.lost.is_set():
            raise IndexLost("the index is lost and not yet made again")
        try:
            return await self._disk.run(step)
        except IndexLost:
            self.lost.set()
            raise

    def _read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        self._file.check()
        reader = self._readers.pop()
        try:
            with translated():
                return step(reader)
        finally:
            self._readers.append(reader)

    def _write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        self._file.check()
        if self._writer is None:
            raise StoreError("the index is closed")
        with translated():
            return step(self._writer)

    def _open(self) -> None:
        # In microseconds since 1970, so that versions go on growing after an index was lost, however fast they came.
        self._file.prepare(micros(self._clock.now()))
        self._writer = self._file.connect(writer=True, cache_bytes=_WRITER_CACHE_BYTES)
        for _ in range(_READERS):
            self._readers.append(self._file.connect(writer=False, cache_bytes=_READER_CACHE_BYTES))

    def _reopen(self) -> None:
        self._close()
        self._open()

    def _close(self) -> None:
        held, self._readers = self._readers, []
        if self._writer is not None:
            held.append(self._writer)
            self._writer = None
        for one in held:
            # A broken file may not even be closed without an error; its descriptors are gone all the same.
            with contextlib.suppress(sqlite3.Error):
                one.close()
