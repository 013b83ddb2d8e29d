"""The file system, one careful step at a time.

Paths are never strings to us: every file is reached by walking directory descriptors from the root, one segment at a
time, and no step follows a symbolic link, so a link planted in the store leads nowhere. Directories are 0700, files
0600.

The functions block and run in the threads of a `Disk`. There the operating system's errors become StoreError, and a
caller that is cancelled goes on only when its step has ended: no descriptor is closed under a running thread.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from toe_async.collector.errors import StoreError, StoreFull

T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not block the open
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOCK_SECONDS = 30.0
_LOCK_LOOK_SECONDS = 0.002


class Disk:
    """Threads for blocking steps: at most `workers` at a time, so that a slow disk is back-pressure and not memory."""

    def __init__(self, workers: int = 8) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="collector-disk")

    async def run(self, step: Callable[[], T]) -> T:
        """Run one step and return what it returns.

        Raises:
            StoreFull: no space or quota is left.
            StoreError: any other failure of the file system.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, step)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _settled(future)
            raise
        except OSError as failed:
            raise mapped(failed) from failed

    async def close(self) -> None:
        """Wait for the steps under way and end the threads."""
        await asyncio.to_thread(self._pool.shutdown)


async def _settled(future: "asyncio.Future[T]") -> None:
    # A second cancellation must not leave the thread behind either; a step is bounded by the disk alone.
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()


def mapped(failed: OSError) -> StoreError:
    """The store's word for an error of the operating system."""
    kind = StoreFull if failed.errno in _FULL else StoreError
    return kind(f"the file system answered {errno.errorcode.get(failed.errno or 0, 'an unknown error')}")


class Directory:
    """An open directory. Everything below it is named by single segments."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def root(cls, path: os.PathLike[str]) -> Self:
        """Open the root of the store, which must exist; it alone may be a link."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enter(self, segments: tuple[str, ...], *, create: bool = False) -> "Directory":
        """Open a directory below this one, made where it is missing with `create`.

        With `create` the whole way is there for good: every parent was synced. Raises OSError, ENOTDIR or ELOOP where
        something else, a link for example, stands in the way.
        """
        here = os.dup(self.fd)
        try:
            for segment in segments:
                _single(segment)
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(segment, 0o700, dir_fd=here)
                    # Also when it was there: whoever made it may not have come to this line.
                    os.fsync(here)
                below = os.open(segment, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            return Directory(here)
        except BaseException:
            os.close(here)
            raise

    def make(self, segments: tuple[str, ...]) -> None:
        """Make a directory below this one, for good; harmless when it is there."""
        self.enter(segments, create=True).close()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def sync(self) -> None:
        """Make the names in this directory last."""
        os.fsync(self.fd)

    def create(self, name: str) -> int:
        """Make a new file, never open an old one, and return its descriptor."""
        return os.open(_single(name), _CREATE, 0o600, dir_fd=self.fd)

    def open(self, name: str, access: int = os.O_RDONLY) -> int:
        """Open a regular file and return its descriptor. Raises FileNotFoundError for anything that is none."""
        fd = os.open(_single(name), _OPEN | access, dir_fd=self.fd)
        if not os.path.isfile(fd):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "not a regular file")
        return fd

    def read(self, name: str, limit: int) -> bytes:
        """Read a whole small file; of a longer one, the first `limit` bytes."""
        with os.fdopen(self.open(name), "rb") as file:
            return file.read(limit)

    def write(self, name: str, content: bytes) -> None:
        """Make a new file with this content and sync it; nothing is left of it when that fails."""
        fd = self.create(name)
        try:
            try:
                write_all(fd, content)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            self.remove(name)
            raise

    def remove(self, name: str) -> bool:
        """Remove a file; tell whether it was there."""
        try:
            os.unlink(_single(name), dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def link(self, name: str, into: "Directory", new: str) -> None:
        """Give a file a second name that must be free. Raises FileExistsError; never replaces."""
        os.link(_single(name), _single(new), src_dir_fd=self.fd, dst_dir_fd=into.fd, follow_symlinks=False)

    def replace(self, name: str, into: "Directory", new: str) -> None:
        """Move a file onto a name, atomically, whatever stood there."""
        os.replace(_single(name), _single(new), src_dir_fd=self.fd, dst_dir_fd=into.fd)

    def stat(self, name: str) -> os.stat_result:
        """Stat one entry, a link itself included."""
        return os.stat(_single(name), dir_fd=self.fd, follow_symlinks=False)

    def entries(self) -> "Iterator[os.DirEntry[str]]":
        """The entries, unordered; valid while the directory is open."""
        with os.scandir(self.fd) as found:
            yield from found

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Be the only one, of all processes, within the block for this name; a file of that name stays.

        Raises:
            StoreError: somebody else is in it for half a minute.
        """
        fd = self._lock_file(name)
        try:
            end = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise StoreError("somebody keeps a lock of the store") from None
                    time.sleep(_LOCK_LOOK_SECONDS)
            yield
        finally:
            os.close(fd)

    def _lock_file(self, name: str) -> int:
        try:
            return self.create(name)
        except FileExistsError:
            return self.open(name, os.O_RDWR)  # NFS grants an exclusive lock to writers only
        except OSError as failed:
            if failed.errno not in _FULL:
                raise
            # Whoever wants to make room must not need any: one for all, then.
            return os.open(".", _DIRECTORY, dir_fd=self.fd)

    def free_bytes(self) -> int:
        """What an unprivileged process may still write to this file system."""
        room = os.statvfs(self.fd)
        return room.f_bavail * room.f_frsize


def remove_empty(root: Directory, directory: tuple[str, ...]) -> None:
    """Remove a folder if it is empty, then the one above if it is empty by that, and so on below the root. Blocks."""
    for depth in range(len(directory), 0, -1):
        try:
            with root.enter(directory[: depth - 1]) as above:
                os.rmdir(directory[depth - 1], dir_fd=above.fd)
        except FileNotFoundError:
            continue  # somebody else was faster, and may not have come to the one above
        except OSError:
            return  # in use, or not ours to remove


def write_all(fd: int, content: bytes | bytearray | memoryview) -> None:
    """Write everything; the kernel may take it in pieces."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _single(segment: str) -> str:
    # The last line of defence: layout and checks above never produce one of these.
    if not segment or segment in {".", ".."} or "/" in segment or "\0" in segment:
        raise StoreError("a path segment is not one segment")
    return segment
