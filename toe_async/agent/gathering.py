"""What there is to be stored of a run: files, stdout and log as sources, each with the name that its leaf will have."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

from toe_async.agent.folders import Found, is_being_written, open_file, open_folder, regular_files
from toe_async.agent.leafnames import is_compressed, leaf_name
from toe_async.agent.packing import SUFFIXES
from toe_async.agent.protocol import Orders
from toe_async.agent.segments import Cutter, Rotation
from toe_async.lib.globs import any_match, check_glob

MOST_LEAVES = 200
OUT, STDOUT, LOG = "out", "stdout", "log"
"""In the state folder: the tool's `{output}`, the file that its stdout appends to, the tail of its stderr."""


@dataclass(frozen=True)
class Source:
    """A file to be packed, seen from the state folder; `span` for a part of one that stays where it is."""

    path: str
    name: str
    method: str
    size: int
    span: tuple[int, int] | None = None


class Gathering:
    """Finds the sources of one run. `root` is its open state folder; who packs a file removes it before the next look.

    Raises ValueError when the orders hold a broken glob.
    """

    def __init__(self, root: int, orders: Orders, method: str) -> None:
        for glob in orders.outputs:
            check_glob(glob)
        self._root, self._method = root, method
        self._globs, self._tool, self._rolling = orders.outputs, orders.tool, orders.rolling
        self._names: set[str] = set()
        self._rotation, self._segment = Rotation(), 0
        self._cutter: Cutter | None = None
        self.beyond = 0
        """Files that are not stored because there are MOST_LEAVES."""

    @property
    def empty(self) -> bool:
        """Whether nothing was found but a log."""
        return not self._names

    def closed(self, now: float) -> list[Source]:
        """Segments that are finished while the tool runs; `now` is time.monotonic()."""
        found: list[Source] = []
        with suppress(OSError):
            found += self._cut(now)
        with suppress(OSError):
            for one in self._rotation.closed(self._found(), now, self._is_being_written):
                found += self._file(one)
        return found

    def rest(self, known: Container[str]) -> list[Source]:
        """Everything else, once the tool has ended, but files whose paths are known.

        What cannot be opened is a source too, that will be lost.
        """
        found: list[Source] = []
        try:
            found += self._last_of_stdout()
        except FileNotFoundError:
            pass
        except OSError:
            found += self._source(STDOUT, f"{self._tool}.out", 0, None)
        try:
            files = self._found()
        except OSError:
            return found + self._source(OUT, f"{self._tool}-files", 0, None)
        for one in files:
            if f"{OUT}/{one.path}" not in known:
                found += self._file(one)
        return found

    def log(self) -> list[Source]:
        """The tail of stderr, which has a place beside MOST_LEAVES - 1 others."""
        with suppress(OSError):
            size = self._size(LOG)
            if size:
                return [Source(LOG, leaf_name(f"{self._tool}.log", "", self._names), "none", size, (0, size))]
        return []

    def _cut(self, now: float) -> list[Source]:
        stdout = open_file(self._root, STDOUT)
        try:
            if self._cutter is None:
                self._cutter = Cutter(self._rolling, now)
            return self._of_stdout(self._cutter.cut(stdout, now))
        finally:
            os.close(stdout)

    def _last_of_stdout(self) -> list[Source]:
        if self._cutter is None:
            size = self._size(STDOUT)
            return self._source(STDOUT, f"{self._tool}.out", size, None) if size else []
        stdout = open_file(self._root, STDOUT)
        try:
            return self._of_stdout(self._cutter.rest(stdout))
        finally:
            os.close(stdout)

    def _of_stdout(self, span: tuple[int, int] | None) -> list[Source]:
        if span is None:
            return []
        self._segment += 1
        return self._source(STDOUT, f"{self._tool}-{self._segment:04d}.out", span[1] - span[0], span)

    def _file(self, one: Found) -> list[Source]:
        return self._source(f"{OUT}/{one.path}", one.path, one.size, None)

    def _source(self, path: str, called: str, size: int, span: tuple[int, int] | None) -> list[Source]:
        if len(self._names) >= MOST_LEAVES - 1:
            self.beyond += 1
            return []
        method = "none" if is_compressed(called) else self._method
        name = leaf_name(called, SUFFIXES[method], self._names)
        self._names.add(name)
        return [Source(path, name, method, size, span)]

    def _found(self) -> list[Found]:
        out = open_folder(OUT, at=self._root)
        try:
            files = regular_files(out)
            return sorted(one for one in files if one.size and (not self._globs or any_match(self._globs, one.path)))
        finally:
            os.close(out)

    def _is_being_written(self, one: Found) -> bool | None:
        opened = open_file(self._root, f"{OUT}/{one.path}")
        try:
            return is_being_written(opened)
        finally:
            os.close(opened)

    def _size(self, path: str) -> int:
        opened = open_file(self._root, path)
        try:
            return os.fstat(opened).st_size
        finally:
            os.close(opened)
