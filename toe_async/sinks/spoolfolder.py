"""The spool's files. Everything here blocks and belongs into a thread; errors are OSError as they come.

An artifact is `{name}.json` (its state, replaced by rename, so always whole) and `{name}.data`.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from toe_async.apis.captures import ArtifactRecord, CaptureRecord
from toe_async.apis.meta import Wire


class State(Wire, frozen=True, kw_only=True):
    """What the json file holds. `artifact` is absent until the commit."""

    record: CaptureRecord
    leaf: str
    type: str
    begun_at: datetime
    artifact: ArtifactRecord | None = None


class Found(Wire, frozen=True, kw_only=True):
    """One entry as a scan finds it; `state` is None when its json cannot be read, `size` that of its data."""

    name: str
    state: State | None
    size: int


_decode = msgspec.json.Decoder(State).decode


class SpoolFolder:
    """A flat folder, made with mode 0700: profiles may hold secrets of the programs they come from."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def data(self, name: str) -> Path:
        """Return where an entry's bytes are."""
        return self._root / f"{name}.data"

    def free(self) -> int:
        """Return the bytes that the disk still has for us."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def begin(self, name: str, state: State) -> BinaryIO:
        """Write the state durably, then open the empty data file."""
        self._write_state(name, state)
        return self.data(name).open("wb", buffering=0)

    def seal(self, name: str, file: BinaryIO, state: State) -> None:
        """Make the data durable, then the state that says so."""
        os.fsync(file.fileno())
        file.close()
        self._write_state(name, state)

    def remove(self, name: str) -> None:
        """Remove an entry, missing files included. The state goes first and for good: data alone is nobody's."""
        self._json(name).unlink(missing_ok=True)
        self._sync_folder()
        self.data(name).unlink(missing_ok=True)

    def scan(self) -> Iterator[Found]:
        """Make the folder if need be, clear what an interrupted write or removal left, and yield the entries."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in list(self._root.iterdir()):
            if path.suffix == ".tmp" or (path.suffix == ".data" and not path.with_suffix(".json").exists()):
                path.unlink()
        for path in sorted(self._root.glob("*.json")):
            name, state, size = path.name.removesuffix(".json"), None, 0
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                state = _decode(path.read_bytes())
            with contextlib.suppress(FileNotFoundError):
                size = self.data(name).stat().st_size
            yield Found(name=name, state=state, size=size)

    def _json(self, name: str) -> Path:
        return self._root / f"{name}.json"

    def _write_state(self, name: str, state: State) -> None:
        temporary = self._root / f"{name}.tmp"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._json(name))
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
