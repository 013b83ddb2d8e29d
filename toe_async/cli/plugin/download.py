"""One artifact into one file: it grows in a part, goes on where an earlier run ended, and is named when it is proved.

A part holds bytes of one content only, since the content's digest is in its name. What an earlier run left is read once
to go on with the digest; should the whole not have it (a disk that lost its end, a part that somebody wrote to), the
part is thrown away and everything fetched once more. Interruption leaves the part.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from typing import Protocol

from msgspec import Struct

from toe_async.cli.plugin.artifact import Artifact
from toe_async.cli.plugin.exits import Stopped
from toe_async.cli.plugin.folder import Folder
from toe_async.cli.plugin.naming import part_name
from toe_async.cli.plugin.progress import Meter
from toe_async.collector.errors import Refused
from toe_async.collector.library import Body
from toe_async.sinks.uninterrupted import in_thread

_AT_ONCE = 1 << 20
"""Bytes gathered before a thread writes them; what a kill loses."""


class Target(Struct, frozen=True):
    """Where an artifact is to go."""

    folder: Folder
    name: str
    replace: bool


class Contents(Protocol):
    """Where the bytes come from: the collector's library, or a pod that keeps them."""

    def content(
        self, namespace: str, name: str, first: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Open the bytes from `first` to before `end`, else to the end."""


class Fetch:
    """Fetches artifacts, one after another or several at once. `moved` is called with each name and count of bytes."""

    def __init__(self, library: Contents, meter: Meter, moved: Callable[[str, int], None]) -> None:
        self._library, self._meter, self._moved = library, meter, moved

    async def save(self, found: Artifact, target: Target) -> None:
        """Leave the whole artifact under the target's name; a file that is it already, from an earlier run, stays.

        Raises:
            Refused: the bytes cannot be had, or are not the promised ones.
            Stopped: the name is taken, or something else is in the way; a disk that fails.
        """
        taken = f"{target.folder.shown(target.name)} is there with another content; --force replaces it"
        part = part_name(target.name, found.sha256)
        try:
            if not target.replace and await in_thread(partial(target.folder.taken, target.name)):
                if not await in_thread(partial(target.folder.holds, target.name, found.size, found.sha256)):
                    raise Stopped(taken)
                self._meter.found(found.size)
                return
            while not await self._grow(found, target, part):
                pass  # once more at the most: a part that was begun anew is proved or raises
        except FileExistsError:
            raise Stopped(taken) from None
        except OSError as error:
            raise Stopped(f"cannot write {target.folder.shown(part)}: {error.strerror}") from error

    async def _grow(self, found: Artifact, target: Target, part: str) -> bool:
        """Fetch what the part lacks and name it. False: it began with an earlier run's bytes and is no use; it is gone.

        The part is held until it has its name, so that what is named is what was proved.

        Raises:
            Refused: the bytes that came just now are not the promised ones; the part is gone then, too.
        """
        folder = target.folder
        with ExitStack() as opened:
            file = _Part(opened)
            had = await in_thread(partial(file.begin, folder, part, found.size))
            self._meter.found(had)
            if had < found.size:
                try:
                    await self._append(found, file, had)
                finally:
                    if file.empty:  # of what never began there is nothing to keep
                        await in_thread(partial(folder.remove, part))
            if await in_thread(partial(file.proved, found)):
                await in_thread(partial(folder.publish, part, target.name, replace=target.replace))
                return True
            self._meter.lost(found.size)
            await in_thread(partial(folder.remove, part))
        if not had:
            raise _forged()
        return False

    async def _append(self, found: Artifact, file: "_Part", had: int) -> None:
        buffer = bytearray()
        try:
            async with self._library.content(found.namespace, found.name, had, found.size) as body:
                if body.headers.get("X-Toe-Sha256") != found.sha256 or body.size != found.size - had:
                    raise Refused(409, "Changed", "another content lies there than the one that was listed; list again")
                async for piece in body.pieces:
                    buffer += piece
                    self._moved(found.name, len(piece))
                    if len(buffer) >= _AT_ONCE:
                        full, buffer = buffer, bytearray()
                        await in_thread(partial(file.append, full))
        finally:  # however it ended, what came is worth keeping
            await in_thread(partial(file.append, buffer))


class _Part:
    """A part that is open, and the digest of what it holds. Blocks."""

    def __init__(self, opened: ExitStack) -> None:
        """`opened` closes it."""
        self._opened, self._fd, self._digest = opened, -1, hashlib.sha256()
        self.empty = True

    def begin(self, folder: Folder, name: str, size: int) -> int:
        """Open it and read what is there; returns how much. More than there can be is cut off and not proved."""
        self._fd = self._opened.enter_context(folder.part(name))
        if os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)
        while piece := os.read(self._fd, _AT_ONCE):
            self._digest.update(piece)
        held = os.lseek(self._fd, 0, os.SEEK_CUR)
        self.empty = held == 0
        return held

    def append(self, data: bytearray) -> None:
        """Write all of it."""
        self.empty = self.empty and not data
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def proved(self, found: Artifact) -> bool:
        """Whether this is the promised content; it is on disk then."""
        if os.fstat(self._fd).st_size != found.size or self._digest.hexdigest() != found.sha256:
            return False
        os.fsync(self._fd)
        return True


def _forged() -> Refused:
    return Refused(
        502, "DigestMismatch", "the bytes that came do not have the promised sha256; nothing was kept of them"
    )
