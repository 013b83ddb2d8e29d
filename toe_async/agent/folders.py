"""Files below a folder that somebody else fills: found and opened without ever following a link.

Every step is taken from the open folder before it (O_NOFOLLOW), so that no rename or link in between leads out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

MOST_ENTRIES = 50_000
"""Looked at in one walk; what lies beyond is not seen."""
DEEPEST = 16

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """A regular file. `path` is relative, its parts joined by `/`; `stamp` changes whenever the file is written to."""

    path: str
    size: int
    identity: tuple[int, int]
    stamp: tuple[int, int]


def open_folder(path: str, *, at: int | None = None) -> int:
    """Open a folder; an OSError when it is none, or a link."""
    return os.open(path, _FOLDER, dir_fd=at)


def open_below(folder: int, parts: list[str], *, make: bool = False) -> int:
    """Open the folder that these parts lead to, made where missing if `make`; the caller closes it."""
    here = os.dup(folder)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            below = open_folder(part, at=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def regular_files(folder: int) -> Iterator[Found]:
    """The regular files below an open folder, bounded in number and depth. What vanishes meanwhile is left out."""
    left = [MOST_ENTRIES]
    yield from _walk(folder, "", 0, left)


def _walk(folder: int, prefix: str, depth: int, left: list[int]) -> Iterator[Found]:
    below: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                return
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                    continue
                at = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(at.st_mode):
                    identity, stamp = (at.st_dev, at.st_ino), (at.st_size, at.st_mtime_ns)
                    yield Found(prefix + entry.name, at.st_size, identity, stamp)
    if depth >= DEEPEST:
        return
    for name in sorted(below):
        try:
            inner = open_folder(name, at=folder)
        except OSError:
            continue
        try:
            yield from _walk(inner, f"{prefix}{name}/", depth + 1, left)
        finally:
            os.close(inner)


def open_file(folder: int, path: str) -> int:
    """Open a regular file below an open folder for reading; the caller closes it.

    Raises:
        OSError: it is gone, a link leads to it, or it is no regular file.
    """
    *parts, name = path.split("/")
    parent = open_below(folder, parts)
    try:
        opened = os.open(name, _FILE, dir_fd=parent)
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "no regular file")
    return opened


def unlink(folder: int, path: str) -> None:
    """Remove a file below an open folder; one that is gone already is no error."""
    *parts, name = path.split("/")
    with suppress(FileNotFoundError):
        parent = open_below(folder, parts)
        try:
            os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)


def is_being_written(opened: int) -> bool | None:
    """Tell whether any process has this file open for writing; None where the kernel or the file system cannot say.

    The kernel grants a read lease only on a file that nobody may write to. A writer who comes while we hold it is held
    up until we let go, and the signal by which the kernel tells us of him is one that is ignored by default.
    """
    try:
        fcntl.fcntl(opened, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    with suppress(OSError):
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
