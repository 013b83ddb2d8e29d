"""An artifact in S3, read by ranges. Every range names the content that was there at the opening (If-Match), so a
reader never gets bytes of two different artifacts.
"""

import asyncio
from typing import Any

from toe_async.collector.errors import StoreError
from toe_async.collector.s3errors import store_errors
from toe_async.lib.backoff import Backoff
from toe_async.sinks.errors import Absent, Passing, Taken
from toe_async.sinks.s3requests import Requests

_AHEAD = 1 << 20
_TRIES = 3
_SECONDS = 30.0


class AheadBudget:
    """Memory that all readers together may use for bytes that nobody asked for yet."""

    def __init__(self, capacity: int) -> None:
        self._left = capacity

    def take(self, size: int) -> bool:
        """Have `size` bytes, if they are there."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Give them back."""
        self._left += size


class S3Reader:
    """One opened artifact. Who reads on from where the last read ended gets the next bytes fetched by the mebibyte."""

    def __init__(self, requests: Requests, where: dict[str, str], size: int, budget: AheadBudget) -> None:
        """`where` holds Bucket, Key and IfMatch."""
        self.size = size
        self._requests, self._where, self._budget = requests, where, budget
        self._held, self._held_at = b"", 0
        self._next = 0
        self._ahead = 0

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; empty at the end and nowhere else.

        Raises:
            StoreError: the artifact is no longer what was opened, or the store cannot be reached.
        """
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if not self._held_at <= offset < self._held_at + len(self._held):
            await self._fetch(offset, size)
        start = offset - self._held_at
        piece = self._held[start : start + size]
        self._next = offset + len(piece)
        if self._next == self._held_at + len(self._held):
            self._drop()
        return piece

    def close(self) -> None:
        """Give back what was fetched ahead."""
        self._drop()

    async def _fetch(self, offset: int, size: int) -> None:
        self._drop()
        ahead = min(_AHEAD, self.size - offset)
        if offset == self._next and offset > 0 and size < ahead and self._budget.take(ahead):
            try:
                held = await self._range(offset, ahead)
            except BaseException:
                self._budget.give(ahead)
                raise
            self._ahead = ahead
        else:
            held = await self._range(offset, size)
        self._held, self._held_at = held, offset

    def _drop(self) -> None:
        self._held = b""
        self._budget.give(self._ahead)
        self._ahead = 0

    async def _range(self, offset: int, size: int) -> bytes:
        async def get(s3: Any) -> bytes:
            reply = await s3.get_object(**self._where, Range=f"bytes={offset}-{offset + size - 1}")
            async with reply["Body"] as stream:
                # Said before it is read: what a mad server sends must not become memory.
                return bytes(await stream.read()) if reply.get("ContentLength") == size else b""

        backoff = Backoff(0.2, 2)
        with store_errors():
            while True:
                try:
                    found = await self._requests.run(get, _SECONDS)
                    break
                except (Absent, Taken) as gone:
                    raise StoreError("the artifact was removed or replaced while it was read") from gone
                except Passing:
                    if backoff.failures >= _TRIES - 1:
                        raise
                    wait = backoff.next()
                await asyncio.sleep(wait)
        if len(found) != size:
            raise StoreError("the object store gave another range than was asked for")
        return found
