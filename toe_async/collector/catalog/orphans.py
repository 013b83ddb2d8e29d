"""What crashes leave in a directory store and nobody will ever ask for: found by walking it, a bounded piece a pass.

Everything is left alone for an hour first, counted from its last change, which is longer than any step of a living
process takes. Then go:

- a file of an artifact without its manifest, and a manifest without its file (a commit or deletion cut short);
- parts that nobody writes to, unless their capture may still go on with them; drafts of manifests without a part;
- half-written records and probes; folders that hold nothing.

Other processes may work on the same volume, and the same upload may come again at any moment and build on what lies
there. So halves are not unlinked where they are. One is first moved to the same path below a folder of our own, and the
pass after that looks whether its other half has come meanwhile: then it is put back, and else it goes for good. Nothing
that anybody was told to be stored is lost by that, not even when this process dies in between. What is not of the shape
that this program gives its files is never touched.
"""

import contextlib
import os
import re
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple, Protocol

from toe_async.collector.captures import State
from toe_async.collector.disk import Directory, Disk, remove_empty
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import DRAFT, PART, abandoned, parse
from toe_async.collector.parts import FOLDER as PARTS
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.records import PRIVATE, Records
from toe_async.lib.clock import Clock
from toe_async.lib.names import is_dns1123_label
from toe_async.telemetry import log

LEFT_ALONE = timedelta(hours=1)
WALK_EVERY = timedelta(hours=1)

_TAKEN_FOR = timedelta(seconds=30)
"""Between the two looks at a half; the step of a commit that may build on it takes milliseconds."""
_TAKEN = (PRIVATE, "orphans")
_CAPTURES = (PRIVATE, "captures")
_LOOKED_AT = 1_000
_PASS_SECONDS = 5.0
_DEEPEST = 16
_SHALLOWEST = 3  # namespace, labels, run
_FILE = re.compile(r".+-[a-z2-7]{10}-[A-Za-z0-9][A-Za-z0-9._-]*")
_log = log.get("collector.orphans")


class Recovering(Protocol):
    """A store that can finish what dead processes began."""

    async def recover(self) -> int:
        """Finish commits cut short; returns how many."""


class Half(NamedTuple):
    """What is there of an artifact: its folder and the one of its two files."""

    directory: tuple[str, ...]
    name: str

    @property
    def other(self) -> str:
        """The file that it wants beside it."""
        bare = self.name.removesuffix(MANIFEST_SUFFIX)
        return bare if bare != self.name else self.name + MANIFEST_SUFFIX


Walk = Generator[Half | None, None, None]


class Orphans:
    """One walk after the other over a store, a piece with each pass. `store` is the directory store itself."""

    def __init__(self, root: Directory, disk: Disk, store: Recovering, records: Records, clock: Clock) -> None:
        self._root, self._disk, self._store, self._records, self._clock = root, disk, store, records, clock
        self._walk: Walk | None = None
        self._next_walk = clock.now()

    async def sweep(self) -> int:
        """Look at the next piece of the store, some seconds long; returns how many files were removed.

        Raises:
            StoreError: the walk was given up; the next one begins when it is due.
        """
        now = self._clock.now()
        removed = await self._disk.run(lambda: self._settle(now))
        if self._walk is None and now >= self._next_walk:
            self._next_walk = now + WALK_EVERY
            removed += await self._clear_private(now)
            self._walk = _walk(self._root, (), now - LEFT_ALONE)
        end = self._clock.monotonic() + _PASS_SECONDS
        while (walk := self._walk) is not None:
            # Forgotten first: a walk that failed half-way cannot go on.
            self._walk = None
            if await self._piece(walk):
                self._walk = walk
            if self._clock.monotonic() >= end:
                break
        return removed

    async def close(self) -> None:
        """Give up a walk under way."""
        walk, self._walk = self._walk, None
        if walk is not None:
            await self._disk.run(walk.close)

    async def _clear_private(self, now: datetime) -> int:
        await self._store.recover()
        removed = await self._disk.run(lambda: self._remove_temporary(now - LEFT_ALONE))
        for name in await self._disk.run(lambda: self._old_parts(now - LEFT_ALONE)):
            upload = parse(name)
            if upload is None or not await self._goes_on(upload[0], now):
                removed += await self._remove_part(name, now - LEFT_ALONE)
        return removed

    async def _goes_on(self, capture: str, now: datetime) -> bool:
        try:
            record = await self._records.get(capture)
        except StoreError:
            return True  # it cannot be read, so it cannot be known
        return record is not None and record.state is State.OPEN and now < record.registration.expires

    async def _piece(self, walk: Walk) -> bool:
        return await self._disk.run(lambda: self._look(walk))

    async def _remove_part(self, name: str, before: datetime) -> bool:
        return await self._disk.run(lambda: self._remove_if_dead(name, before))

    # -- halves, each step in a thread ------------------------------------------------------------------------------

    def _look(self, walk: Walk) -> bool:
        """Go on with a walk; whether there may be more of it."""
        looked = 0
        for half in islice(walk, _LOOKED_AT):
            looked += 1
            if half is not None:
                self._take(half)
        return looked == _LOOKED_AT

    def _take(self, half: Half) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._root.enter(half.directory) as folder,
            self._root.enter((*_TAKEN, *half.directory), create=True) as taken,
        ):
            folder.replace(half.name, taken, half.name)
            if _changed(folder, half.other) is not None:
                _put_back(taken, folder, half.name)

    def _settle(self, now: datetime) -> int:
        removed = 0
        with self._root.enter(_TAKEN, create=True) as taken:
            for half in list(islice(_taken(taken, (), now - _TAKEN_FOR), _LOOKED_AT)):
                with contextlib.suppress(FileNotFoundError), taken.enter(half.directory) as held:
                    if not self._wanted(held, half) and held.remove(half.name):
                        removed += 1
                        _log.warning("half an artifact was removed", file=half.name, missing=half.other)
                remove_empty(taken, half.directory)
                remove_empty(self._root, half.directory)
        return removed

    def _wanted(self, held: Directory, half: Half) -> bool:
        try:
            with self._root.enter(half.directory) as folder:
                if _changed(folder, half.other) is None:
                    return False
                _put_back(held, folder, half.name)
                return True
        except FileNotFoundError:
            return False

    # -- the collector's own folders, each step in a thread ---------------------------------------------------------

    def _old_parts(self, before: datetime) -> list[str]:
        with self._root.enter(PARTS, create=True) as parts:
            names = {entry.name for entry in parts.entries()}
            drafts = {name for name in names if name.endswith(DRAFT) and name.removesuffix(DRAFT) + PART not in names}
            ours = drafts | {name for name in names if name.endswith(PART)}
            return [name for name in sorted(ours) if _is_old(parts, name, before)]

    def _remove_if_dead(self, name: str, before: datetime) -> bool:
        with self._root.enter(PARTS) as parts:
            if not name.endswith(PART):
                return parts.remove(name)
            with abandoned(parts, name) as dead:
                return dead and _is_old(parts, name, before) and parts.remove(name)

    def _remove_temporary(self, before: datetime) -> int:
        removed = 0
        for segments, kind in ((_CAPTURES, re.compile(r".+\.tmp")), ((PRIVATE,), re.compile(r"probe-.+"))):
            with self._root.enter(segments, create=True) as folder:
                for name in [entry.name for entry in folder.entries() if kind.fullmatch(entry.name)]:
                    removed += _is_old(folder, name, before) and folder.remove(name)
        return removed


def _walk(root: Directory, at: tuple[str, ...], before: datetime) -> Walk:
    """Halves below a folder that changed last before an instant; None for each other file, so that pieces are even.

    Folders that hold nothing for so long are removed on the way.
    """
    below: list[str] = []
    empty = bool(at)
    # What is not ours to look into is passed by: a volume's lost+found, a folder removed meanwhile.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError), root.enter(at) as folder:
        old = _at(os.fstat(folder.fd)) < before
        for entry in folder.entries():
            empty = False
            if entry.is_dir(follow_symlinks=False):
                if at or is_dns1123_label(entry.name):
                    below.append(entry.name)
            elif len(at) >= _SHALLOWEST:
                half = Half(at, entry.name)
                yield half if _is_half(folder, half, before) else None
        if empty and old:
            remove_empty(root, at)
    for name in below if len(at) < _DEEPEST else ():
        yield from _walk(root, (*at, name), before)


def _taken(folder: Directory, at: tuple[str, ...], before: datetime) -> Iterator[Half]:
    for entry in folder.entries():
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError), folder.enter((entry.name,)) as below:
                yield from _taken(below, (*at, entry.name), before)
        elif _is_old(folder, entry.name, before):
            yield Half(at, entry.name)


def _is_half(folder: Directory, half: Half, before: datetime) -> bool:
    ours = _FILE.fullmatch(half.name.removesuffix(MANIFEST_SUFFIX)) is not None
    return ours and _changed(folder, half.other) is None and _is_old(folder, half.name, before)


def _put_back(taken: Directory, folder: Directory, name: str) -> None:
    # A name that is taken again has its own content by now; or another janitor was faster.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        taken.link(name, folder, name)
        folder.sync()
    taken.remove(name)


def _is_old(folder: Directory, name: str, before: datetime) -> bool:
    changed = _changed(folder, name)
    return changed is not None and changed < before


def _changed(folder: Directory, name: str) -> datetime | None:
    """When an entry was last written, linked or moved; None when it is not there."""
    try:
        return _at(folder.stat(name))
    except FileNotFoundError:
        return None


def _at(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(max(found.st_mtime, found.st_ctime), UTC)
