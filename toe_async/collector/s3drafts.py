"""Notes of commits under way, on local disk: `{root}/.toe/s3/{digest}.manifest`, locked while their process lives.

A note is a manifest whose object may be in the bucket while it itself is not. It is written before the first byte
leaves and removed when both are there or the commit has failed for good.
"""

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator

import msgspec

from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest, decode_manifest
from toe_async.collector.disk import Directory, Disk, write_all
from toe_async.collector.records import PRIVATE
from toe_async.collector.s3errors import StoreAway
from toe_async.lib.names import digest
from toe_async.telemetry import log

_FOLDER = (PRIVATE, "s3")
_SUFFIX = ".manifest"
_LARGEST = 256 << 10
_log = log.get("collector.s3drafts")


class Drafts:
    """All notes below one root."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self._root, self._disk = root, disk

    @contextlib.asynccontextmanager
    async def noted(self, manifest: Manifest) -> AsyncIterator[None]:
        """Keep a note for as long as the block lasts, and beyond it when it raises: its outcome is unknown then.

        One artifact with one content has one note, however often it is tried.

        Raises:
            StoreError: the note could not be written.
            StoreAway: somebody else commits the same at this moment, or finishes it.
        """
        name = digest(*manifest.directory, manifest.file, manifest.sha256) + _SUFFIX
        async with self._held(name) as opened:
            await self._disk.run(lambda: self._write(name, encode(manifest), opened))
            if not opened:
                raise StoreAway("another collector is storing this upload")
            yield

    async def names(self) -> list[str]:
        """The notes there are."""
        return await self._disk.run(self._names)

    @contextlib.asynccontextmanager
    async def abandoned(self, name: str) -> AsyncIterator[Manifest | None]:
        """A note that nobody is at any more, or None; it is removed when the block ends well."""
        async with self._held(name) as opened:
            yield await self._disk.run(lambda: self._read(name, opened))

    @contextlib.asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[list[int]]:
        opened, keep = list[int](), True
        try:
            yield opened
            keep = False
        finally:
            await self._disk.run(lambda: self._leave(name, opened, keep=keep))

    def _write(self, name: str, body: bytes, opened: list[int]) -> None:
        with self._root.enter(_FOLDER, create=True) as folder:
            try:
                fd = folder.create(name)
            except FileExistsError:
                fd = folder.open(name, os.O_RDWR)
            if not _locked(fd):
                return
            opened.append(fd)
            # The same manifest but for the instant: one that a crash cut short here is no note and nothing was sent.
            os.ftruncate(fd, 0)
            write_all(fd, body)
            os.fsync(fd)
            folder.sync()

    def _read(self, name: str, opened: list[int]) -> Manifest | None:
        with self._root.enter(_FOLDER) as folder:
            try:
                fd = folder.open(name, os.O_RDWR)
            except FileNotFoundError:
                return None
        if not _locked(fd):
            return None
        opened.append(fd)
        try:
            return decode_manifest(os.pread(fd, _LARGEST, 0))
        except msgspec.DecodeError:
            _log.warning("the note of a commit cannot be read and is removed", file=name)
            return None

    def _leave(self, name: str, opened: list[int], *, keep: bool) -> None:
        try:
            if opened and not keep:
                with self._root.enter(_FOLDER) as folder:
                    folder.remove(name)
        finally:
            for fd in opened:
                os.close(fd)

    def _names(self) -> list[str]:
        with self._root.enter(_FOLDER, create=True) as folder:
            return sorted(entry.name for entry in folder.entries() if entry.name.endswith(_SUFFIX))


def _locked(fd: int) -> bool:
    """Take the note as a sign of life; closes it and says no where somebody else has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    return True
