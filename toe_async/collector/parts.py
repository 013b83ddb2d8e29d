"""Uploads under way, on local disk: `{root}/.toe/parts/{token}.part`, locked while a request writes to one.

A whole upload's part has a random token and is gone with its request. The part of an upload in pieces is called after
its capture and leaf and outlives requests and processes: its length is the upload's offset, and nothing else says so.
Its digest is kept in memory between two pieces and read again from the file when it is not known any more.

A part that has a second name was committed: it is an artifact's content, and is never written to again.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from toe_async.collector import paths
from toe_async.collector.disk import Directory, Disk, write_all
from toe_async.collector.errors import Refused, StoreError
from toe_async.collector.records import PRIVATE

T = TypeVar("T")

FOLDER = (PRIVATE, "parts")
PART, DRAFT = ".part", ".manifest"

_DIGESTS_KEPT = 1024
_DIGESTED_AT_ONCE = 16 << 20
_PIECE = 1 << 20
_TRIES = 5
_Stamp = tuple[int, int, int]


class Resumable(NamedTuple):
    """A part that a later request may go on with."""

    capture: str
    leaf: str
    size: int


class Part:
    """The open file of one upload. Its methods block and belong to one thread at a time."""

    def __init__(self, token: str, fd: int, size: int = 0) -> None:
        self.token, self.size = token, size
        self._fd = fd
        self._sha256, self._digested = hashlib.sha256(), 0

    def path_fd(self) -> int:
        """A descriptor of the file, for reading at offsets (pread); valid while the part is open."""
        return self._fd

    @property
    def sha256(self) -> str:
        """Digest of everything written. Only valid for a part written from its beginning, or after `Parts.digest`."""
        assert self._digested == self.size, "digest what was there before"
        return self._sha256.hexdigest()

    def write(self, pieces: list[bytes]) -> None:
        """Append pieces of the body."""
        for piece in pieces:
            write_all(self._fd, piece)
            if self._digested == self.size:
                self._sha256.update(piece)
                self._digested += len(piece)
            self.size += len(piece)

    def sync(self) -> None:
        """Make the content last."""
        os.fsync(self._fd)

    def digest_more(self) -> bool:
        """Digest some of what is not digested yet; False when nothing is left."""
        end = min(self.size, self._digested + _DIGESTED_AT_ONCE)
        while self._digested < end:
            piece = os.pread(self._fd, min(_PIECE, end - self._digested), self._digested)
            if not piece:
                raise StoreError("a part became shorter")
            self._sha256.update(piece)
            self._digested += len(piece)
        return self._digested < self.size

    def stamp(self) -> _Stamp:
        """What tells whether the file is still as we left it."""
        held = os.fstat(self._fd)
        return held.st_ino, held.st_size, held.st_mtime_ns

    def remembered(self) -> "_Digest":
        """The digest of its beginning."""
        return _Digest(self.stamp(), self._sha256.copy(), self._digested)

    def recall(self, known: "_Digest | None") -> None:
        """Go on with a digest if the file is as it was then."""
        if known is not None and known.stamp == self.stamp():
            self._sha256, self._digested = known.state.copy(), known.digested

    def close(self) -> None:
        """Close the file; harmless when done before."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Digest(NamedTuple):
    stamp: _Stamp
    state: "hashlib._Hash"
    digested: int


class Parts:
    """The staging folder of one root."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self._root, self._disk = root, disk
        self._digests: OrderedDict[str, _Digest] = OrderedDict()

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[Part]:
        """A whole upload's file for as long as the block lasts; nothing of it remains but what was committed."""
        token = secrets.token_hex(16)
        made: list[Part] = []
        try:
            await self._run(lambda parts: made.append(_create(parts, token)))
            yield made[0]
        finally:
            await self._run(lambda parts: _discard(parts, token, made))

    @contextlib.asynccontextmanager
    async def resumed(self, capture: str, leaf: str) -> AsyncIterator[Part]:
        """The file of an upload in pieces, at its end, for as long as the block lasts; it stays unless removed.

        The caller lets one request at a time do this for one capture and leaf.

        Raises:
            Refused: another process writes to it (503).
        """
        token = _token(capture, leaf)
        opened: list[Part] = []
        known = self._digests.pop(token, None)
        try:
            await self._run(lambda parts: opened.extend(_open(parts, token, known)))
            if not opened:
                raise Refused(503, "Busy", "another collector is taking this upload; try again", retry_after=5)
            yield opened[0]
        finally:
            if opened:
                self._remember(token, await self._run(lambda parts: _leave(parts, opened[0])))

    async def write(self, part: Part, pieces: list[bytes]) -> None:
        """Append to a part."""
        await self._disk.run(lambda: part.write(pieces))

    async def sync(self, part: Part) -> None:
        """Make what was written last."""
        await self._disk.run(part.sync)

    async def digest(self, part: Part) -> None:
        """Digest what a part held when it was opened, some mebibytes a step."""
        while await self._disk.run(part.digest_more):
            pass

    async def discard(self, part: Part) -> None:
        """Take an open part's name away, and with it its bytes unless they were committed."""
        await self._run(lambda parts: parts.remove(part.token + PART))

    async def offset(self, capture: str, leaf: str) -> int:
        """How much of an upload in pieces is on disk."""
        return await self._run(lambda parts: _size(parts, _token(capture, leaf)))

    async def remove(self, capture: str, leaves: Iterable[str]) -> None:
        """Remove what is left of uploads; what another process writes to just now stays."""
        tokens = [_token(capture, leaf) for leaf in leaves]
        for token in tokens:
            self._digests.pop(token, None)
        await self._run(lambda parts: _remove(parts, tokens))

    async def resumable(self) -> list[Resumable]:
        """Every upload in pieces that is not finished."""
        return await self._run(lambda parts: list(_resumable(parts)))

    async def recover(self) -> int:
        """Remove what dead processes left and nobody can go on with; returns how many parts that were."""
        return await self._disk.run(self._recover)

    async def _run(self, step: Callable[[Directory], T]) -> T:
        return await self._disk.run(lambda: self._within(step))

    def _within(self, step: Callable[[Directory], T]) -> T:
        with self._root.enter(FOLDER) as parts:
            return step(parts)

    def _remember(self, token: str, known: "_Digest | None") -> None:
        if known is not None:
            self._digests[token] = known
            if len(self._digests) > _DIGESTS_KEPT:
                self._digests.popitem(last=False)

    def _recover(self) -> int:
        removed = 0
        with self._root.enter(FOLDER, create=True) as parts:
            names = {entry.name for entry in parts.entries()}
            for name in sorted(names, key=lambda name: not name.endswith(PART)):
                if not name.endswith(PART):
                    if name.removesuffix(DRAFT) + PART not in names:
                        parts.remove(name)
                    continue
                with abandoned(parts, name) as dead:
                    if dead and (parse(name) is None or parts.stat(name).st_nlink > 1):
                        removed += parts.remove(name)
                        names.discard(name)
        return removed


def parse(name: str) -> tuple[str, str] | None:
    """Capture and leaf of a resumable part's file name, or None for any other name."""
    capture, _, leaf = name.removesuffix(PART).partition("-")
    return (capture, leaf) if name.endswith(PART) and paths.is_capture_id(capture) and paths.is_leaf(leaf) else None


@contextlib.contextmanager
def abandoned(parts: Directory, name: str) -> Iterator[bool]:
    """Tell whether nobody writes to a part, keeping its lock meanwhile."""
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


def _token(capture: str, leaf: str) -> str:
    return f"{capture}-{leaf}"


def _create(parts: Directory, token: str) -> Part:
    part = Part(token, parts.create(token + PART))
    fcntl.flock(part.path_fd(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    return part


def _discard(parts: Directory, token: str, made: list[Part]) -> None:
    for part in made:
        parts.remove(token + PART)
        part.close()


def _open(parts: Directory, token: str, known: _Digest | None) -> list[Part]:
    """The part, made where there is none; none when somebody else has it."""
    name = token + PART
    for _ in range(_TRIES):
        try:
            fd = parts.create(name)
            parts.sync()
        except FileExistsError:
            try:
                fd = parts.open(name, os.O_RDWR)
            except FileNotFoundError:
                continue  # removed just now
        part = Part(token, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _linked(parts, part):
                part.size = os.lseek(fd, 0, os.SEEK_END)
                part.recall(known)
                return [part]
        except BlockingIOError:
            part.close()
            return []
        except BaseException:
            part.close()
            raise
        part.close()
    raise StoreError("a part cannot be opened")


def _leave(parts: Directory, part: Part) -> _Digest | None:
    try:
        return part.remembered() if _linked(parts, part) else None
    finally:
        part.close()


def _linked(parts: Directory, part: Part) -> bool:
    """Whether the file still has this name and no other; the name of one that was committed is taken away."""
    held = os.fstat(part.path_fd())
    try:
        named = parts.stat(part.token + PART)
    except FileNotFoundError:
        return False
    if named.st_ino != held.st_ino:
        return False
    if held.st_nlink > 1:
        parts.remove(part.token + PART)
        return False
    return True


def _remove(parts: Directory, tokens: list[str]) -> None:
    for token in tokens:
        with abandoned(parts, token + PART) as dead:
            if dead:
                parts.remove(token + PART)


def _size(parts: Directory, token: str) -> int:
    try:
        held = parts.stat(token + PART)
    except FileNotFoundError:
        return 0
    return held.st_size if held.st_nlink == 1 else 0


def _resumable(parts: Directory) -> Iterator[Resumable]:
    for entry in parts.entries():
        named = parse(entry.name)
        if named is not None:
            yield Resumable(*named, _size(parts, "-".join(named)))
