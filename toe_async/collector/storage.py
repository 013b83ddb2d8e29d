"""Artifacts on disk: whole or not there.

One upload is written to `{root}/.toe/parts/{token}.part`, locked while its process lives. A commit then

1. syncs the part, and writes and syncs its manifest as `{token}.manifest`;
2. links the part to its final name, which must be free: from here on the name is taken;
3. links the manifest beside it: from here on the artifact is visible;
4. syncs the directory. Only now may somebody be told that it is stored.
5. removes both part names.

A crash before 2 leaves two files that nobody sees and the next start removes. A crash between 2 and 3 is finished by
the next start, which knows it by the part's second link, or by the same upload coming again. Links, unlike renames,
never replace, on every file system that has them. Nothing else here depends on one process owning the volume.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
from msgspec.structs import replace

from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest, decode_manifest
from toe_async.collector.disk import Directory, Disk, write_all
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.records import PRIVATE
from toe_async.telemetry import log

_PARTS = (PRIVATE, "parts")
_PART, _DRAFT = ".part", ".manifest"
_LARGEST_MANIFEST = 256 << 10
_PIECE = 1 << 20
_DEEPEST = 16
_SCANNED_AT_ONCE = 250
_log = log.get("collector.storage")


class Part:
    """The file of one upload under way. Its methods block and belong to one thread at a time."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self._fd = -1
        self._sha256 = hashlib.sha256()
        self.size = 0

    def create(self, parts: Directory) -> None:
        """Make the file, and lock it as a sign of life."""
        self._fd = parts.create(self.token + _PART)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, pieces: list[bytes]) -> None:
        """Append pieces of the body."""
        for piece in pieces:
            write_all(self._fd, piece)
            self._sha256.update(piece)
            self.size += len(piece)

    @property
    def sha256(self) -> str:
        """Digest of what was written so far."""
        return self._sha256.hexdigest()

    def sync(self) -> None:
        """Make the content last."""
        os.fsync(self._fd)

    def remove(self, parts: Directory) -> None:
        """Take its names away, and with them the bytes unless they were committed; harmless when done before."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            parts.remove(self.token + _DRAFT)
            parts.remove(self.token + _PART)
            os.close(fd)


class Storage:
    """The artifacts below one root."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self._root, self._disk = root, disk

    # -- writing ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def part(self) -> AsyncIterator[Part]:
        """An upload's file for as long as the block lasts; nothing of it remains afterwards but what was committed."""
        part = Part()
        try:
            await self._disk.run(lambda: self._with_parts(part.create))
            yield part
        finally:
            await self._disk.run(lambda: self._with_parts(part.remove))

    async def write(self, part: Part, pieces: list[bytes]) -> None:
        """Append to it, in a thread."""
        await self._disk.run(lambda: part.write(pieces))

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        """Store a finished upload under its final name, or find out what is stored there.

        Returns the manifest of what is stored now: the one given, an older one of the same content (the upload was not
        needed), or that of a different content, which stays. The caller lets one commit of a capture run at a time.
        """
        return await self._disk.run(lambda: self._commit(part, manifest))

    # -- reading and deleting ---------------------------------------------------------------------------------------

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        """The manifest of a stored artifact, or None."""
        return await self._disk.run(lambda: self._find(directory, file))

    @contextlib.asynccontextmanager
    async def open(self, manifest: Manifest) -> AsyncIterator[int]:
        """A stored artifact's bytes as a descriptor, for as long as the block lasts.

        Raises:
            FileNotFoundError: it is gone, or not as long as its manifest says.
        """
        opened: list[int] = []
        try:
            await self._disk.run(lambda: opened.extend(self._open(manifest)))
            if not opened:
                raise FileNotFoundError(errno.ENOENT, "the artifact is gone")
            yield opened[0]
        finally:
            for fd in opened:
                os.close(fd)

    async def delete(self, manifest: Manifest) -> None:
        """Remove an artifact for good: its bytes first, so that nothing is left that looks stored and is not."""
        await self._disk.run(lambda: self._delete(manifest))

    async def read(self, fd: int, offset: int, size: int) -> bytes:
        """Read from an opened artifact."""
        return await self._disk.run(lambda: os.pread(fd, size, offset))

    # -- starting ---------------------------------------------------------------------------------------------------

    async def recover(self) -> tuple[int, int]:
        """Finish or remove what dead processes left; returns how many uploads were finished and how many removed."""
        return await self._disk.run(self._recover)

    def manifests(self) -> Iterator[list[Manifest]]:
        """All stored artifacts, some hundreds at a time. Blocks: each step is for a thread."""
        yield from _walk(self._root, 0)

    # -- the steps, each in a thread --------------------------------------------------------------------------------

    def _with_parts(self, step: Callable[[Directory], None]) -> None:
        with self._root.enter(_PARTS) as parts:
            step(parts)

    def _commit(self, part: Part, manifest: Manifest) -> Manifest:
        part.sync()
        with self._root.enter(_PARTS) as parts:
            parts.write(part.token + _DRAFT, encode(manifest))
            with self._root.enter(manifest.directory, create=True) as final:
                return _publish(parts, part.token, final, manifest)

    def _find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        try:
            with self._root.enter(directory) as folder:
                return _stored(folder, file)
        except FileNotFoundError:
            return None

    def _open(self, manifest: Manifest) -> list[int]:
        try:
            with self._root.enter(manifest.directory) as folder:
                fd = folder.open(manifest.file)
        except FileNotFoundError:
            return []
        if os.fstat(fd).st_size == manifest.size:
            return [fd]
        os.close(fd)
        return []

    def _delete(self, manifest: Manifest) -> None:
        with contextlib.suppress(FileNotFoundError), self._root.enter(manifest.directory) as folder:
            folder.remove(manifest.file)
            folder.sync()
            folder.remove(manifest.file + MANIFEST_SUFFIX)
            folder.sync()

    def _recover(self) -> tuple[int, int]:
        finished = removed = 0
        with self._root.enter(_PARTS, create=True) as parts:
            names = {entry.name for entry in parts.entries()}
            for name in names:
                token, _, _ = name.partition(".")
                if name.endswith(_PART):
                    with _abandoned(parts, name) as dead:
                        if not dead:
                            continue
                        done = token + _DRAFT in names and self._finish(parts, token)
                        finished, removed = finished + done, removed + (not done)
                        parts.remove(token + _DRAFT)
                        parts.remove(name)
                elif token + _PART not in names:
                    parts.remove(name)
        return finished, removed

    def _finish(self, parts: Directory, token: str) -> bool:
        part = parts.stat(token + _PART)
        try:
            manifest = decode_manifest(parts.read(token + _DRAFT, _LARGEST_MANIFEST))
            with self._root.enter(manifest.directory) as final:
                if final.stat(manifest.file).st_ino != part.st_ino:
                    return False
                if not _exists(final, manifest.file + MANIFEST_SUFFIX):
                    parts.link(token + _DRAFT, final, manifest.file + MANIFEST_SUFFIX)
                final.sync()
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        return True


def _publish(parts: Directory, token: str, final: Directory, manifest: Manifest) -> Manifest:
    file, beside = manifest.file, manifest.file + MANIFEST_SUFFIX
    try:
        parts.link(token + _PART, final, file)
    except FileExistsError:
        held = _stored(final, file)
        if held is not None:
            return held
        found = _digest(final, file)
        if found != manifest.sha256:
            return replace(manifest, sha256=found)
        # The same content without its manifest: a commit that a crash cut short. Go on where it stopped.
        parts.replace(token + _DRAFT, final, beside)
        final.sync()
        return manifest
    try:
        # The file's name is ours alone, so a manifest that stands here is of a deletion that a crash cut short.
        parts.replace(token + _DRAFT, final, beside)
        final.sync()
    except OSError:
        # It may or may not last, and nobody was told that it is stored: so nobody may see it either.
        with contextlib.suppress(OSError):
            final.remove(beside)
            final.remove(file)
        raise
    return manifest


def _stored(folder: Directory, file: str) -> Manifest | None:
    """The manifest of a file that is whole."""
    try:
        manifest = decode_manifest(folder.read(file + MANIFEST_SUFFIX, _LARGEST_MANIFEST))
        whole = folder.stat(file).st_size == manifest.size
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        _log.warning("a manifest cannot be read; its artifact is not shown", file=file)
        return None
    return manifest if whole else None


def _digest(folder: Directory, file: str) -> str:
    state = hashlib.sha256()
    fd = folder.open(file)
    try:
        while piece := os.read(fd, _PIECE):
            state.update(piece)
    finally:
        os.close(fd)
    return state.hexdigest()


def _exists(folder: Directory, file: str) -> bool:
    try:
        folder.stat(file)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _abandoned(parts: Directory, name: str) -> Iterator[bool]:
    """Tell whether the part's writer is dead, keeping its lock meanwhile."""
    try:
        fd = parts.open(name, os.O_RDWR)  # NFS grants an exclusive lock to writers only
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _walk(folder: Directory, depth: int) -> Iterator[list[Manifest]]:
    found: list[Manifest] = []
    below: list[str] = []
    for entry in folder.entries():
        if entry.is_dir(follow_symlinks=False):
            if entry.name != PRIVATE:
                below.append(entry.name)
        elif entry.name.endswith(MANIFEST_SUFFIX):
            manifest = _stored(folder, entry.name.removesuffix(MANIFEST_SUFFIX))
            if manifest is not None:
                found.append(manifest)
        if len(found) >= _SCANNED_AT_ONCE:
            yield found
            found = []
    yield found
    for name in below if depth < _DEEPEST else ():
        try:
            deeper = folder.enter((name,))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced while we looked at its siblings
        with deeper:
            yield from _walk(deeper, depth + 1)
