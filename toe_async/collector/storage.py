"""Artifacts on disk: whole or not there.

An upload is staged as `{root}/.toe/parts/{token}.part` (`parts`). A commit then

1. syncs the part, and writes and syncs its manifest as `{token}.manifest`;
2. links the part to its final name, which must be free: from here on the name is taken;
3. moves the manifest beside it: from here on the artifact is visible;
4. syncs the directory. Only now may somebody be told that it is stored.

Afterwards the part's own name is taken away. Steps 2 to 4, a deletion and a changed manifest of one artifact wait for
each other by a lock file, in this process and others: a deletion never takes what was committed after it began.

A crash before 2 leaves a part, which an upload in pieces may still go on with, and a manifest that the next start
removes. A crash between 2 and 3 is finished by the next start, which knows it by the part's second link, or by the same
upload coming again. Links, unlike renames, never replace, on every file system that has them. Nothing else here depends
on one process owning the volume.
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Generator, Iterator

import msgspec
from msgspec.structs import replace

from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest, decode_manifest
from toe_async.collector.disk import Directory, Disk, remove_empty
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import DRAFT, FOLDER, PART, Part, abandoned
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.records import PRIVATE
from toe_async.lib.names import digest, is_dns1123_label
from toe_async.telemetry import log

_LARGEST_MANIFEST = 256 << 10
_PIECE = 1 << 20
_DEEPEST = 16
_SCANNED_AT_ONCE = 250
_TRIES = 10
_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Also when a link stands in the way: what lies behind it is none of ours."""
_LOCKS = (PRIVATE, "locks")
_LOCK_LETTERS = 2
"""Of the names of lock files: a thousand of them serve all artifacts."""
_log = log.get("collector.storage")


class FileReader:
    """An artifact's open file; deleting the artifact takes nothing from it."""

    def __init__(self, fd: int, size: int, disk: Disk) -> None:
        self.size = size
        self._fd, self._disk = fd, disk

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on."""
        return await self._disk.run(lambda: os.pread(self._fd, size, offset))


class DirectoryStore:
    """The artifacts below one root: `Artifacts` on a file system."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self._root, self._disk = root, disk

    # -- writing ----------------------------------------------------------------------------------------------------

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        """Store a finished upload, or find out what is stored under its name.

        A deletion takes away the folders that it leaves empty. That can meet a commit between the making of a folder
        and the link of its first file: it fails with ENOENT then, with nothing of it visible, and is done again.
        """
        for _ in range(_TRIES - 1):
            try:
                return await self._disk.run(lambda: self._commit(part, manifest))
            except StoreError as failed:
                if not isinstance(failed.__cause__, FileNotFoundError):
                    raise
        return await self._disk.run(lambda: self._commit(part, manifest))

    async def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest of a stored artifact.

        Raises:
            FileNotFoundError: the artifact is gone.
        """
        if not await self._disk.run(lambda: self._rewrite(manifest)):
            raise FileNotFoundError(errno.ENOENT, "the artifact is gone")

    async def delete(self, manifest: Manifest) -> None:
        """Remove an artifact for good: its bytes first, so that nothing is left that looks stored and is not.

        Another one that was stored under its name since stays. The folders that held nothing else go with it.
        """
        await self._disk.run(lambda: self._delete(manifest))
        await self._disk.run(lambda: remove_empty(self._root, manifest.directory))

    async def free_bytes(self) -> int:
        """What the file system still takes."""
        return await self._disk.run(self._root.free_bytes)

    async def probe(self) -> None:
        """Write and remove a file; raises StoreError."""
        await self._disk.run(self._probe)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        """The manifest of a stored artifact, or None."""
        return await self._disk.run(lambda: self._find(directory, file))

    @contextlib.asynccontextmanager
    async def open(self, manifest: Manifest) -> AsyncIterator[FileReader]:
        """A stored artifact's bytes for as long as the block lasts.

        Raises:
            FileNotFoundError: it is gone, or not as long as its manifest says.
        """
        opened: list[int] = []
        try:
            await self._disk.run(lambda: opened.extend(self._open(manifest)))
            if not opened:
                raise FileNotFoundError(errno.ENOENT, "the artifact is gone")
            yield FileReader(opened[0], manifest.size, self._disk)
        finally:
            for fd in opened:
                os.close(fd)

    async def manifests(self) -> AsyncIterator[list[Manifest]]:
        """All stored artifacts, some hundreds at a time."""
        walk = _walk(self._root, ())
        try:
            while (found := await self._disk.run(lambda: next(walk, None))) is not None:
                yield found
        finally:
            await self._disk.run(walk.close)

    # -- starting ---------------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Finish the commits of dead processes, or take them back; returns how many were finished."""
        return await self._disk.run(self._recover)

    # -- the steps, each in a thread --------------------------------------------------------------------------------

    def _commit(self, part: Part, manifest: Manifest) -> Manifest:
        part.sync()
        with self._root.enter(FOLDER) as parts:
            try:
                parts.write(part.token + DRAFT, encode(manifest))
                with self._root.enter(manifest.directory, create=True) as final, self._alone(manifest):
                    return _publish(parts, part.token, final, manifest)
            finally:
                parts.remove(part.token + DRAFT)

    def _rewrite(self, manifest: Manifest) -> bool:
        draft = secrets.token_hex(16) + DRAFT
        with self._alone(manifest), self._root.enter(FOLDER) as parts:
            held = self._find(manifest.directory, manifest.file)
            if held is None or not _same(held, manifest):
                return False
            parts.write(draft, encode(manifest))
            try:
                with self._root.enter(manifest.directory) as final:
                    parts.replace(draft, final, manifest.file + MANIFEST_SUFFIX)
                    final.sync()
            finally:
                parts.remove(draft)
        return True

    def _probe(self) -> None:
        name = f"probe-{secrets.token_hex(8)}"
        with self._root.enter((PRIVATE,)) as folder:
            folder.write(name, b"")
            folder.remove(name)

    def _find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        try:
            with self._root.enter(directory) as folder:
                return _stored(folder, file)
        except OSError as failed:
            if failed.errno in _NOTHING_THERE:
                return None
            raise

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
        with (
            self._alone(manifest),
            contextlib.suppress(FileNotFoundError),
            self._root.enter(manifest.directory) as folder,
        ):
            held = _described(folder, manifest.file)
            if held is not None and not _same(held, manifest):
                return
            folder.remove(manifest.file)
            folder.sync()
            folder.remove(manifest.file + MANIFEST_SUFFIX)
            folder.sync()

    @contextlib.contextmanager
    def _alone(self, manifest: Manifest) -> Iterator[None]:
        name = digest(*manifest.directory, manifest.file, length=_LOCK_LETTERS)
        try:
            locks = self._root.enter(_LOCKS)
        except FileNotFoundError:
            locks = self._root.enter(_LOCKS, create=True)
        with locks, locks.locked(name):
            yield

    def _recover(self) -> int:
        finished = 0
        self._root.make(_LOCKS)
        with self._root.enter(FOLDER, create=True) as parts:
            names = {entry.name for entry in parts.entries()}
            for token in [name.removesuffix(DRAFT) for name in names if name.endswith(DRAFT)]:
                with abandoned(parts, token + PART) as dead:
                    if not dead:
                        continue
                    if self._finish(parts, token):
                        finished += 1
                        parts.remove(token + PART)
                    parts.remove(token + DRAFT)
        return finished

    def _finish(self, parts: Directory, token: str) -> bool:
        part = parts.stat(token + PART)
        try:
            manifest = decode_manifest(parts.read(token + DRAFT, _LARGEST_MANIFEST))
            with self._root.enter(manifest.directory) as final:
                if final.stat(manifest.file).st_ino != part.st_ino:
                    return False
                if not _exists(final, manifest.file + MANIFEST_SUFFIX):
                    parts.link(token + DRAFT, final, manifest.file + MANIFEST_SUFFIX)
                final.sync()
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        return True


def _publish(parts: Directory, token: str, final: Directory, manifest: Manifest) -> Manifest:
    file, beside = manifest.file, manifest.file + MANIFEST_SUFFIX
    try:
        parts.link(token + PART, final, file)
    except FileExistsError:
        held = _stored(final, file)
        if held is not None:
            return held
        found = _digest(final, file)
        if found != manifest.sha256:
            return replace(manifest, sha256=found)
        # The same content without its manifest: a commit that a crash cut short. Go on where it stopped.
        parts.replace(token + DRAFT, final, beside)
        final.sync()
        return manifest
    try:
        # The file's name is ours alone, so a manifest that stands here is of a deletion that a crash cut short.
        parts.replace(token + DRAFT, final, beside)
        final.sync()
    except OSError:
        # It may or may not last, and nobody was told that it is stored: so nobody may see it either.
        with contextlib.suppress(OSError):
            final.remove(beside)
            final.remove(file)
        raise
    return manifest


def _same(held: Manifest, wanted: Manifest) -> bool:
    """Whether both are of one upload, whatever was changed of its manifest since."""
    return (held.sha256, held.stored_at) == (wanted.sha256, wanted.stored_at)


def _described(folder: Directory, file: str) -> Manifest | None:
    """The manifest beside a file, whether the file is there or not."""
    try:
        return decode_manifest(folder.read(file + MANIFEST_SUFFIX, _LARGEST_MANIFEST))
    except msgspec.DecodeError:
        _log.warning("a manifest cannot be read; its artifact is not shown", file=file)
        return None
    except OSError as failed:
        if failed.errno in _NOTHING_THERE:
            return None
        raise


def _stored(folder: Directory, file: str) -> Manifest | None:
    """The manifest of a file that is whole."""
    manifest = _described(folder, file)
    try:
        return manifest if manifest is not None and folder.stat(file).st_size == manifest.size else None
    except FileNotFoundError:
        return None


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


def _walk(folder: Directory, at: tuple[str, ...]) -> Generator[list[Manifest], None, None]:
    """What is stored below a folder. What no namespace is called is passed by, such as a volume's own lost+found."""
    found: list[Manifest] = []
    below: list[str] = []
    for entry in folder.entries():
        if entry.is_dir(follow_symlinks=False):
            if at or is_dns1123_label(entry.name):
                below.append(entry.name)
        elif entry.name.endswith(MANIFEST_SUFFIX):
            file = entry.name.removesuffix(MANIFEST_SUFFIX)
            manifest = _stored(folder, file)
            # A copy of a folder that somebody made within the store says where the original is, and is none itself.
            if manifest is not None and (manifest.directory, manifest.file) == (at, file):
                found.append(manifest)
        if len(found) >= _SCANNED_AT_ONCE:
            yield found
            found = []
    yield found
    for name in below if len(at) < _DEEPEST else ():
        try:
            deeper = folder.enter((name,))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced while we looked at its siblings
        with deeper:
            yield from _walk(deeper, (*at, name))
