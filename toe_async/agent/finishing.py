"""A source made into a leaf in the folder of finished leaves, and its disk space given back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from toe_async.agent.folders import open_below, open_file, unlink
from toe_async.agent.gathering import STDOUT, Source
from toe_async.agent.packing import Packed, disk_fault, measure, pack, too_large
from toe_async.agent.segments import punch


class Finisher:
    """Packs sources of one run. `root` and `leaves` are its open folders, `max_bytes` bounds a leaf (0: no limit)."""

    def __init__(self, root: int, leaves: int, max_bytes: int, stopped: Callable[[], bool]) -> None:
        self._root, self._leaves, self._max_bytes, self._stopped = root, leaves, max_bytes, stopped

    def leaf(self, source: Source) -> Packed:
        """Make the leaf and remove its source.

        Raises:
            Lost: nothing of either is left, save a source that is a part of a file.
            Stopped: the source is as it was.
        """
        try:
            done = self._moved(source) if source.span is None and source.method == "none" else self._packed(source)
        except OSError as error:
            raise disk_fault(error) from error
        return Packed(source.name, *done)

    def remove(self, source: Source) -> None:
        """Give back what a source and the beginning of its leaf take on the disk."""
        if source.span is None:
            self._unlink(self._root, source.path)
        elif source.path == STDOUT:
            self._punch(source.span)
        self.forget(source.name)

    def forget(self, name: str) -> None:
        """Remove a leaf, if it is there."""
        self._unlink(self._leaves, name)

    def _moved(self, source: Source) -> tuple[int, str]:
        folder, _, name = source.path.rpartition("/")
        parent = open_below(self._root, folder.split("/") if folder else [])
        try:
            os.rename(name, source.name, src_dir_fd=parent, dst_dir_fd=self._leaves)
        finally:
            os.close(parent)
        opened = open_file(self._leaves, source.name)  # refuses what is no regular file any more
        try:
            size = os.fstat(opened).st_size
            if self._max_bytes and size > self._max_bytes:
                raise too_large(self._max_bytes)
            return measure(opened, self._stopped)
        finally:
            os.close(opened)

    def _packed(self, source: Source) -> tuple[int, str]:
        opened = open_file(self._root, source.path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(source.name, flags, 0o600, dir_fd=self._leaves)
            try:
                span = source.span or (0, os.fstat(opened).st_size)
                method, most = source.method, self._max_bytes
                done = pack(opened, span, target, method, max_bytes=most, stopped=self._stopped)
            finally:
                os.close(target)
        finally:
            os.close(opened)
        if source.span is None:
            unlink(self._root, source.path)
        elif source.path == STDOUT:
            self._punch(source.span)
        return done

    def _punch(self, span: tuple[int, int]) -> None:
        with suppress(OSError):
            opened = os.open(STDOUT, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
            try:
                punch(opened, span)
            finally:
                os.close(opened)

    @staticmethod
    def _unlink(folder: int, path: str) -> None:
        with suppress(OSError):
            unlink(folder, path)
