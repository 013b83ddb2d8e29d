"""A file system of the target gets full up to a point: by files without a name, which go with their process."""

from __future__ import annotations

import errno
import os

from toe_async.agent.chaos.effect import ChaosError, Effect, tell

MOST_PERCENT = 95
SHARED_PERCENT = 80
"""On a file system that the node uses too: kubelets evict pods when 85 to 90 per cent of it are used."""
LEAST_FREE = 512 << 20
_STEP = 64 << 20


class Fill(Effect):
    """PATH's file system is brought to PERCENT of its size, never beyond what would harm the node."""

    def __init__(self, root: str, path: str, percent: int) -> None:
        if not path.startswith("/") or ".." in path.split("/"):
            raise ChaosError(f"{path!r} is no absolute path without ..")
        if not 1 <= percent <= MOST_PERCENT:
            raise ChaosError(f"storage takes 1 to {MOST_PERCENT} per cent, not {percent}")
        self._root, self._path, self._percent = root, path, percent
        self._file: int | None = None
        self._size = 0

    def begin(self) -> None:
        folder = self._open()
        try:
            shared = self._shared(folder)
            percent = min(self._percent, SHARED_PERCENT) if shared else self._percent
            to_take, may_take = self._missing(folder, percent, shared)
            if to_take <= 0:
                raise ChaosError(f"the file system of {self._path} is at {percent} per cent already")
            if may_take <= 0:
                raise ChaosError(
                    f"the file system of {self._path} is the node's too, and less than {LEAST_FREE >> 20} MiB are free"
                )
            self._file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=folder)
        except OSError as error:
            raise ChaosError(f"{self._path} of the target cannot be written: {error.strerror}") from error
        finally:
            os.close(folder)
        self._take(min(to_take, may_take))
        tell("filled", path=self._path, bytes=self._size, percent=percent, shared=shared)

    def end(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        """The folder inside of the target's root; links are resolved there, never against our own root."""
        try:
            at = os.open(self._root or "/", os.O_PATH | os.O_DIRECTORY)
            for part in [part for part in self._path.split("/") if part]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = inner
        except OSError as error:
            raise ChaosError(
                f"{self._path} of the target cannot be opened as a folder ({error.strerror}); "
                "name the folder itself, not a link to it"
            ) from error
        return at

    def _shared(self, folder: int) -> bool:
        """Whether the node's own disk is behind it: the container's root is, a memory or network volume is not."""
        root, device = os.stat(self._root or "/"), os.fstat(folder).st_dev
        return device == root.st_dev or self._kind(device) not in {"tmpfs", "nfs", "nfs4"}

    def _kind(self, device: int) -> str:
        """The type of the file system on a device, as the target has it mounted; empty where that is not told."""
        wanted = f"{os.major(device)}:{os.minor(device)}"
        process = os.path.dirname(self._root) if self._root.startswith("/proc/") else "/proc/self"
        try:
            with open(f"{process}/mountinfo") as file:
                for line in file:
                    fields = line.split()
                    if fields[2] == wanted:
                        return fields[fields.index("-") + 1]
        except (OSError, ValueError, IndexError):
            pass
        return ""

    def _missing(self, folder: int, percent: int, shared: bool) -> tuple[int, int]:
        """Bytes up to the percentage, and how many of them may be taken."""
        held = os.fstatvfs(folder)
        size, free = held.f_blocks * held.f_frsize, held.f_bavail * held.f_frsize
        used = size - held.f_bfree * held.f_frsize
        return size * percent // 100 - used, free - (LEAST_FREE if shared else 0)

    def _take(self, size: int) -> None:
        assert self._file is not None
        while self._size < size:
            step = min(_STEP, size - self._size)
            try:
                os.posix_fallocate(self._file, self._size, step)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    return  # a quota below the file system's size: that is as full as it gets
                raise ChaosError(f"{self._path} of the target cannot be filled: {error.strerror}") from error
            self._size += step
