"""A spooled artifact on its way out, read once from start to end and checked against what was promised."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from toe_async.apis.reasons import Reason
from toe_async.sinks.errors import SinkRefused
from toe_async.sinks.spool import SpoolEntry
from toe_async.sinks.uninterrupted import in_thread

_SKIPPED_AT_ONCE = 1 << 20


class SpoolReader:
    """Hands out an artifact's bytes; `left` are still to come. Made by `reading`."""

    def __init__(self, entry: SpoolEntry, file: BinaryIO) -> None:
        self._entry, self._file = entry, file
        self.left = entry.artifact.size
        self._sha256 = hashlib.sha256()

    async def start_at(self, offset: int) -> None:
        """Go on from `offset`. What lies before it is read again, so that the check at the end covers every byte.

        Raises:
            SinkRefused: the disk does not give what was committed to it.
        """
        if offset < self._entry.artifact.size - self.left:
            self._sha256, self.left = hashlib.sha256(), self._entry.artifact.size
            await in_thread(lambda: self._file.seek(0))
        while (skip := offset - (self._entry.artifact.size - self.left)) > 0:
            await self.read(min(skip, _SKIPPED_AT_ONCE))

    async def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end, none after it. The last ones come only when all is right.

        Raises:
            SinkRefused: the disk does not give what was committed to it; no retry will.
        """
        want = min(count, self.left)
        if want == 0:
            return b""
        try:
            chunk = await in_thread(lambda: self._next(want))
        except OSError as error:
            raise self._damaged("cannot be read") from error
        if len(chunk) != want:
            raise self._damaged("is shorter than it was")
        self.left -= want
        if self.left == 0 and self._sha256.hexdigest() != self._entry.artifact.sha256:
            raise self._damaged("has other bytes than it had")
        return chunk

    def _next(self, count: int) -> bytes:
        chunk = self._file.read(count)
        self._sha256.update(chunk)
        return chunk

    def _damaged(self, how: str) -> SinkRefused:
        return SinkRefused(Reason.SPOOL_DAMAGED, f"{self._entry.artifact.leaf} in the spool {how}")


@asynccontextmanager
async def reading(entry: SpoolEntry) -> AsyncIterator[SpoolReader]:
    """Open an artifact.

    Raises:
        SinkRefused: its file is gone.
    """
    opened: list[BinaryIO] = []  # filled by the thread, so that a file is known although its opener was cancelled
    try:
        try:
            await in_thread(lambda: opened.append(entry.path.open("rb", buffering=0)))
        except OSError as error:
            raise SinkRefused(Reason.SPOOL_DAMAGED, f"{entry.artifact.leaf} in the spool cannot be opened") from error
        yield SpoolReader(entry, opened[0])
    finally:
        for file in opened:
            await in_thread(file.close)
