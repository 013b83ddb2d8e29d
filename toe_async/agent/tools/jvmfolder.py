"""A folder in the target's /tmp, through which a JVM hands over what it can only write to files.

The target may be hostile: nothing here follows a symbolic link, since one inside /proc/PID/root that is absolute would
lead to this container's own files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from toe_async.agent.tools.child import ToolError

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TargetFolder:
    """A fresh folder, owned by the user of the process, gone with all that is in it at the end of the block.

    Raises ToolError, from any method, when the target's file system does not allow what is needed.
    """

    def __init__(self, root: str, pid: int, proc: str = "/proc") -> None:
        self.name = f".toe-{secrets.token_hex(6)}"
        self._root = root
        self._process = f"{proc}/{pid}"
        self._tmp = self._own = -1

    def __enter__(self) -> Self:
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # itself a link, the kernel's
            try:
                self._tmp = os.open("tmp", _FOLDER, dir_fd=root)
            finally:
                os.close(root)
            os.mkdir(self.name, 0o700, dir_fd=self._tmp)
            self._own = os.open(self.name, _FOLDER, dir_fd=self._tmp)
            self._give(self._own)
        except OSError as error:
            self._close()
            raise ToolError(
                f"the target's /tmp cannot be used ({error.strerror}): a JVM hands its results over there; mount an "
                "emptyDir at /tmp, and let the tool run as the target's user"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            for name in os.listdir(self._own):
                os.unlink(name, dir_fd=self._own)
            os.rmdir(self.name, dir_fd=self._tmp)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._own, self._tmp):
            if descriptor >= 0:
                os.close(descriptor)
        self._own = self._tmp = -1

    def _give(self, descriptor: int) -> None:
        """Make the process's user the owner, where this is root and the target is not."""
        owner = os.stat(self._process)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def inside(self, name: str) -> str:
        """The path of a file of the folder as the target sees it."""
        return f"/tmp/{self.name}/{name}"  # noqa: S108  the JVM's own choice too, for its attach socket

    def copy_out(self, name: str, to: Path) -> None:
        """Copy a file that the target wrote, and remove it from the folder."""
        try:
            with self._opened(name) as source, to.open("wb") as copy:
                shutil.copyfileobj(os.fdopen(os.dup(source), "rb"), copy, 1 << 20)
            os.unlink(name, dir_fd=self._own)
        except OSError as error:
            raise ToolError(f"what the JVM wrote cannot be read: {error.strerror}") from error

    def read(self, name: str, most: int) -> str:
        """The beginning of a file as text; empty when there is none."""
        try:
            with self._opened(name) as source:
                return os.read(source, most).decode("utf-8", "replace")
        except OSError:
            return ""

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        descriptor = os.open(name, _FILE, dir_fd=self._own)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "it is no regular file")
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def lent(self, source: Path, name: str) -> Iterator[str]:
        """A copy of a file in the target's /tmp for the time of the block; yields its path there.

        One that is there already, of another run that goes on, is used when it is the same and left in place.
        """
        content = source.read_bytes()
        made = False
        try:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o755, dir_fd=self._tmp)
                made = True
                with os.fdopen(descriptor, "wb") as copy:
                    copy.write(content)
                    os.fchmod(copy.fileno(), 0o755)
                    self._give(copy.fileno())
            except FileExistsError:
                with os.fdopen(os.open(name, _FILE, dir_fd=self._tmp), "rb") as there:
                    if there.read(len(content) + 1) != content:
                        raise ToolError(f"/tmp/{name} in the target is another file: remove it") from None  # noqa: S108
            yield f"/tmp/{name}"  # noqa: S108
        except OSError as error:
            raise ToolError(f"the target's /tmp takes no file of {len(content)} bytes: {error.strerror}") from error
        finally:
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._tmp)

    def neighbours(self, chosen: Callable[[str], bool]) -> frozenset[str]:
        """Names in the target's /tmp that are chosen."""
        try:
            return frozenset(name for name in os.listdir(self._tmp) if chosen(name))
        except OSError:
            return frozenset()

    def remove_empty_neighbours(self, names: frozenset[str]) -> None:
        """Remove those that are empty folders."""
        for name in names:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=self._tmp)
