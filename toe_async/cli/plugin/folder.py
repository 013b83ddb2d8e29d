"""Writing into one folder and nowhere else.

The folder is opened once and everything happens relative to its descriptor; names are single segments. No link is
followed: a symbolic link, a device or a second name of somebody's file where a part should grow is refused. A file gets
its name when it is whole, in one step that does not replace what is there unless that is asked for. All of it blocks.
"""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from toe_async.cli.plugin.exits import Stopped

_NEW = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in the way must not block
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}


class Folder:
    """An opened folder; made by `opened`."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self.path = fd, path

    def shown(self, name: str) -> str:
        """How to call a file of it towards the user."""
        return name if self.path == "." else os.path.join(self.path, name)

    def taken(self, name: str) -> bool:
        """Whether something has this name, a link that leads nowhere included."""
        try:
            os.stat(_segment(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether a plain file of this name has exactly this content."""
        try:
            fd = os.open(_segment(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    @contextmanager
    def part(self, name: str) -> Iterator[int]:
        """Open a part for appending and reading, made if it is not there; held by this process alone.

        Raises:
            Stopped: something else is in the way, or another process writes to it.
        """
        fd = self._locked(name)
        try:
            os.set_blocking(fd, True)
            yield fd
        finally:
            os.close(fd)

    def publish(self, part: str, name: str, *, replace: bool) -> None:
        """Give a whole part its name; what has that name already stays, unless `replace`.

        Raises:
            FileExistsError: the name is taken.
        """
        part, name = _segment(part), _segment(name)
        if replace:
            os.replace(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        else:
            self._link(part, name)
        os.fsync(self._fd)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(_segment(name), dir_fd=self._fd)

    def _link(self, part: str, name: str) -> None:
        try:
            os.link(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # No hard links here (FAT, some network shares): the name is taken by an empty file, then replaced by ours.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600, dir_fd=self._fd))
            os.replace(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        else:
            os.unlink(part, dir_fd=self._fd)

    def _locked(self, name: str) -> int:
        part = _segment(name)
        try:
            fd = os.open(part, _NEW, 0o600, dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                raise Stopped(f"{self.shown(name)} is in the way and no plain file; remove it") from error
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found, here = os.fstat(fd), os.stat(part, dir_fd=self._fd, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
                raise Stopped(f"{self.shown(name)} is in the way and no plain file of yours; remove it")
            if (found.st_dev, found.st_ino) != (here.st_dev, here.st_ino):
                raise Stopped(f"another process has just finished {self.shown(name)}")
        except (BlockingIOError, FileNotFoundError) as error:
            os.close(fd)
            raise Stopped(f"another process is writing {self.shown(name)}; wait for it or end it") from error
        except BaseException:
            os.close(fd)
            raise
        return fd


@contextmanager
def opened(path: str, *, make: bool = False) -> Iterator[Folder]:
    """Open a folder that the user has chosen; it may be a link of theirs.

    With `make` one that is missing is made, for its owner alone; the one that it is to be in must be there.

    Raises:
        Stopped: there is none, or it cannot be opened or made.
    """
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Stopped(f"cannot write into {path}: {error.strerror}") from error
    try:
        yield Folder(fd, path)
    finally:
        os.close(fd)


def _segment(name: str) -> str:
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise Stopped("a file name is no plain name")
    return name
