"""Which of a tool's files are finished while it still runs, and where its one stdout is cut.

A file is a segment once a newer one has come and nobody writes to it any more. Where the kernel cannot tell the latter,
it must have been left alone for QUIET_SECONDS.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from toe_async.agent.folders import Found

QUIET_SECONDS = 5.0

_LONGEST_LINE = 64 << 10
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE


class Rotation:
    """Watches files that a tool rotates by itself. Judged by what each look finds, newest file last."""

    def __init__(self) -> None:
        # A file's number is another one's as soon as it is removed, so the path belongs to what names a file.
        self._order: dict[tuple[str, tuple[int, int]], int] = {}
        self._since: dict[tuple[str, tuple[int, int]], tuple[tuple[int, int], float]] = {}
        self._next = 0

    def closed(
        self, found: Iterable[Found], now: float, is_being_written: Callable[[Found], bool | None]
    ) -> list[Found]:
        """The files that are finished."""
        files = sorted(found, key=lambda one: (one.stamp[1], one.path))
        order, since = {}, {}
        for one in files:
            key = (one.path, one.identity)
            if key not in self._order:
                self._next += 1
            order[key] = self._order.get(key, self._next)
            stamp, left_at = self._since.get(key, (one.stamp, now))
            since[key] = (one.stamp, left_at if stamp == one.stamp else now)
        self._order, self._since = order, since
        newest = max(order.values(), default=0)
        return [
            one
            for one in files
            if order[one.path, one.identity] < newest
            and self._is_left(now - since[one.path, one.identity][1], is_being_written(one))
        ]

    @staticmethod
    def _is_left(quiet: float, written: bool | None) -> bool:
        return quiet >= QUIET_SECONDS if written is None else not written


class Cutter:
    """Cuts a file that one process appends to into spans, at the end of a line where there is one.

    The writer need not know: what was taken is punched out of the file, whose length goes on growing.
    """

    def __init__(self, every: float, begun: float) -> None:
        self._every, self._due = every, begun + every
        self.first = 0
        """Where the next span begins."""

    def cut(self, source: int, now: float) -> tuple[int, int] | None:
        """The span that is due, or None."""
        if now < self._due:
            return None
        self._due = now + self._every
        return self._span(_end_of_line(source, self.first, os.fstat(source).st_size))

    def rest(self, source: int) -> tuple[int, int] | None:
        """The last span, or None when nothing is left."""
        return self._span(os.fstat(source).st_size)

    def _span(self, end: int) -> tuple[int, int] | None:
        first = self.first
        if end <= first:
            return None
        self.first = end
        return first, end


def punch(file: int, span: tuple[int, int]) -> None:
    """Give the disk space of a span back; a file system that cannot keeps it until the file goes."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.fallocate(file, _PUNCH, ctypes.c_int64(span[0]), ctypes.c_int64(span[1] - span[0]))


def _end_of_line(source: int, first: int, size: int) -> int:
    begin = max(first, size - _LONGEST_LINE)
    tail = os.pread(source, size - begin, begin)
    at = tail.rfind(b"\n")
    return begin + at + 1 if at >= 0 else size
