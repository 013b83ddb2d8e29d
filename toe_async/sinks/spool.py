"""The spool: every artifact is on this disk before it is anywhere else (D15).

Theory of operation. The folder holds a state file and a data file for each artifact:

    begin    the state without an artifact, durable; then the data file is opened
    write    the data grows, at most 1 MiB of it in memory
    commit   the data durable, then the state with size and sha256, durable
    remove   the state, durably; then the data

So after `kill -9` or power loss at any instant an entry is absent, cut short (it comes back as lost, to be reported)
or whole. Nothing here talks to a network.

The limit counts bytes of data. A capture is refused before it starts when the largest it may become would not fit; many
small ones still share the space, so a write can meet the limit too and then ends that capture alone.
"""

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.captures import ArtifactRecord, CaptureRecord
from toe_async.apis.reasons import Reason
from toe_async.lib.clock import Clock
from toe_async.lib.names import safe_segment
from toe_async.lib.quantities import format_bytes
from toe_async.sinks.errors import AlreadySpooled, SpoolError, SpoolFull
from toe_async.sinks.spoolfolder import SpoolFolder, State
from toe_async.sinks.uninterrupted import in_thread
from toe_async.telemetry import log

_log = log.get(__name__)

T = TypeVar("T")

# One hop to a thread per MiB: a hop for each 32 KiB frame would cost more than the writing.
_BUFFER = 1 << 20
# No capture is begun on a disk emptier than this; a larger one that then does not fit meets ENOSPC in its write.
_DISK_RESERVE = 64 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Lost(Struct, frozen=True):
    """What became of an artifact that cannot be delivered."""

    reason: Reason
    message: str


class SpoolEntry(Struct, frozen=True, kw_only=True):
    """One artifact in the spool; a lost one has the size that was found and an empty sha256.

    `recovered` entries come from an earlier process, which may have delivered them without living to see the answer.
    """

    name: str
    record: CaptureRecord
    artifact: ArtifactRecord
    path: Path
    lost: Lost | None = None
    recovered: bool = False


class SpoolWriter:
    """Takes one artifact's bytes, from one task. `abort` after `commit` does nothing, so it fits a `finally`."""

    def __init__(self, spool: "Spool", name: str, state: State, file: BinaryIO, max_bytes: int) -> None:
        self._spool, self._name, self._state, self._file, self._max_bytes = spool, name, state, file, max_bytes
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()
        self._size = 0
        self._ended = False

    async def write(self, chunk: bytes) -> None:
        """Append bytes; on return at most 1 MiB is not yet written.

        Raises:
            SpoolFull: the spool or the disk is full, or more came than was announced; `abort` is due.
            SpoolError: the disk refuses; likewise.
        """
        self._spool.take(len(chunk), self._size, self._max_bytes)
        self._size += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= _BUFFER:
            await self._flush()

    async def commit(self, verified: bool) -> ArtifactRecord:
        """Make the artifact durable: when this returns it survives power loss and is up for delivery.

        Raises:
            SpoolFull, SpoolError: it is not in the spool; `abort` is due.
        """
        await self._flush()
        state = self._state
        artifact = ArtifactRecord(
            leaf=state.leaf,
            type=state.type,
            size=self._size,
            sha256=self._sha256.hexdigest(),
            captured_at=state.begun_at,
            verified=verified,
        )
        folder, name, file = self._spool.folder, self._name, self._file
        await _disk(lambda: folder.seal(name, file, replace(state, artifact=artifact)))
        self._ended = True
        self._spool.add(SpoolEntry(name=name, record=state.record, artifact=artifact, path=folder.data(name)))
        return artifact

    async def abort(self) -> None:
        """Take every trace of the artifact from the disk, unless it is committed."""
        if self._ended:
            return
        self._ended = True
        folder, name, file = self._spool.folder, self._name, self._file

        def discard() -> None:
            file.close()
            folder.remove(name)

        try:
            await _disk(discard)
        finally:
            self._spool.give_back(name, self._size)

    async def _flush(self) -> None:
        buffer, self._buffer = self._buffer, bytearray()
        await _disk(lambda: self._append(buffer))

    def _append(self, buffer: bytearray) -> None:
        self._sha256.update(buffer)
        view = memoryview(buffer)
        while view:
            view = view[self._file.write(view) :]


class Spool:
    """The spool of one process, which owns the folder `root`. `recover` comes before everything else."""

    def __init__(self, root: Path, limit_bytes: int, clock: Clock) -> None:
        self.folder = SpoolFolder(root)
        self._limit, self._clock = limit_bytes, clock
        self._used = 0
        self._open: set[str] = set()
        self._entries: dict[str, SpoolEntry] = {}
        self._listeners: list[Callable[[SpoolEntry], None]] = []

    @property
    def used_bytes(self) -> int:
        """Bytes received and not yet removed."""
        return self._used

    @property
    def free_bytes(self) -> int:
        """Bytes that the limit still allows; the disk may have fewer."""
        return max(self._limit - self._used, 0)

    def entries(self) -> list[SpoolEntry]:
        """Return what waits for delivery or, when lost, for its report; oldest first."""
        return list(self._entries.values())

    @contextlib.contextmanager
    def listening(self, callback: Callable[[SpoolEntry], None]) -> Iterator[None]:
        """Call back for every entry that there is, then for each new one."""
        for entry in self.entries():
            callback(entry)
        self._listeners.append(callback)
        try:
            yield
        finally:
            self._listeners.remove(callback)

    async def recover(self) -> list[SpoolEntry]:
        """Make the folder usable and return what an earlier process left in it, oldest first.

        Raises:
            SpoolError: the folder cannot be made or read.
        """
        found = await _disk(lambda: list(self.folder.scan()))
        for each in found:
            if each.state is None:
                _log.error("a spool entry cannot be read and is removed", entry=each.name, bytes=each.size)
                await _disk(lambda name=each.name: self.folder.remove(name))  # type: ignore[misc]
        entries = [_entry(self.folder, each.name, each.state, each.size) for each in found if each.state]
        entries.sort(key=lambda entry: entry.artifact.captured_at)
        for entry in entries:
            self._used += entry.artifact.size
            self.add(entry)
        return entries

    async def begin(self, record: CaptureRecord, leaf: str, type_: str, max_bytes: int) -> SpoolWriter:
        """Open the spool for one artifact of at most `max_bytes`.

        Raises:
            SpoolFull: no room for an artifact of that size; nothing was kept.
            AlreadySpooled: this artifact is in the spool, or being received.
            SpoolError: the disk refuses.
        """
        name = safe_segment(f"{record.id}-{leaf}", limit=200)
        if name in self._open or name in self._entries:
            raise AlreadySpooled(f"{leaf} of capture {record.id} is in the spool already")
        if self.free_bytes < max_bytes:
            raise SpoolFull(max_bytes, self.free_bytes, "wait until the sink takes what is there, or enlarge the spool")
        self._open.add(name)
        state = State(record=record, leaf=leaf, type=type_, begun_at=self._clock.now())
        try:
            needed, free = min(max_bytes, _DISK_RESERVE), await _disk(self.folder.free)
            if free < needed:
                raise SpoolFull(needed, free, "its disk is full: free some space or give the spool a larger volume")
            file = await self._begin(name, state)
        except BaseException:
            self._open.discard(name)
            raise
        return SpoolWriter(self, name, state, file, max_bytes)

    async def remove(self, entry: SpoolEntry) -> None:
        """Forget a delivered or reported entry and free its bytes.

        Raises:
            SpoolError: the disk refuses; the entry may come back after a restart.
        """
        if self._entries.pop(entry.name, None) is None:
            return
        try:
            await _disk(lambda: self.folder.remove(entry.name))
        finally:
            self._used -= entry.artifact.size

    async def _begin(self, name: str, state: State) -> BinaryIO:
        opened: list[BinaryIO] = []
        try:
            await _disk(lambda: opened.append(self.folder.begin(name, state)))
        except BaseException:  # a cancellation may come although the thread did open the file
            for file in opened:
                file.close()
            with contextlib.suppress(SpoolError):
                await _disk(lambda: self.folder.remove(name))
            raise
        return opened[0]

    # For the writer.

    def take(self, count: int, have: int, max_bytes: int) -> None:
        """Count bytes about to be written, or refuse them."""
        if have + count > max_bytes:
            raise SpoolFull(have + count, max_bytes, f"more came than the {format_bytes(max_bytes)} announced")
        if count > self.free_bytes:
            raise SpoolFull(count, self.free_bytes, "wait until the sink takes what is there, or enlarge the spool")
        self._used += count

    def give_back(self, name: str, count: int) -> None:
        """Forget an artifact that was never whole."""
        self._open.discard(name)
        self._used -= count

    def add(self, entry: SpoolEntry) -> None:
        """Show an entry to those who deliver."""
        self._open.discard(entry.name)
        self._entries[entry.name] = entry
        for callback in tuple(self._listeners):
            callback(entry)


def _entry(folder: SpoolFolder, name: str, state: State, size: int) -> SpoolEntry:
    artifact, lost = state.artifact, None
    if artifact is None:
        came = f"the operator stopped while it received {state.leaf}; {format_bytes(size)} of it had come"
        lost = Lost(Reason.REPLICA_GONE, came)
    elif artifact.size != size:
        kept = f"the spool's disk kept {size} of the {artifact.size} bytes of {state.leaf}"
        lost = Lost(Reason.SPOOL_DAMAGED, kept)
    if artifact is None or lost:
        artifact = ArtifactRecord(
            leaf=state.leaf, type=state.type, size=size, sha256="", captured_at=state.begun_at, verified=False
        )
    return SpoolEntry(
        name=name, record=state.record, artifact=artifact, path=folder.data(name), lost=lost, recovered=True
    )


async def _disk(work: Callable[[], T]) -> T:
    """Run disk work in a thread to its end; OSError becomes SpoolFull or SpoolError here and nowhere else."""
    try:
        return await in_thread(work)
    except OSError as error:
        if error.errno in _FULL:
            raise SpoolFull(1, 0, "its disk is full: free some space or give the spool a larger volume") from error
        word = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise SpoolError(f"the spool's disk refuses ({word}); see the volume behind --spool-dir") from error
