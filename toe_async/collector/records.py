"""The records of captures, on disk: whoever reads one after a crash or in another process reads the truth.

`{root}/.toe/captures/{id}.json`, made by an exclusive link and changed by an atomic rename, each synced before it is
relied on. Nothing is cached, so a second collector on the same volume sees every cancellation. In memory are only the
instants at which records may be forgotten (about 150 bytes each) and how many captures are open.

A record is forgotten an hour after its capture's end: by then no token for it lives, and the manifests beside the
artifacts hold everything that readers need.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from toe_async.apis.meta import encode
from toe_async.collector.captures import Capture, State, decode_capture
from toe_async.collector.disk import Directory, Disk
from toe_async.collector.errors import StoreError
from toe_async.telemetry import log

FORGET_AFTER = timedelta(hours=1)
PRIVATE = ".toe"
"""The collector's own folder; no namespace can be called so."""

_FOLDER = (PRIVATE, "captures")
_LARGEST = 256 << 10
_log = log.get("collector.records")


class Records:
    """Every capture that was registered and not yet forgotten. Changes of one capture are serialised by the caller."""

    def __init__(self, root: Directory, disk: Disk) -> None:
        self._root, self._disk = root, disk
        self._serial = itertools.count()
        self._forget_at: dict[str, datetime] = {}
        self._open: dict[str, datetime] = {}

    async def load(self) -> None:
        """Count what is there and remove what a dead process left half-written."""
        for record in await self._disk.run(self._read_all):
            self._note(record)

    async def get(self, capture_id: str) -> Capture | None:
        """The record as it is on disk now, or None."""
        return await self._disk.run(lambda: self._read(capture_id))

    async def create(self, record: Capture) -> bool:
        """Keep a new record for good; False when another process was first."""
        made = await self._disk.run(lambda: self._write(record, exclusive=True))
        if made:
            self._note(record)
        return made

    async def update(self, record: Capture) -> None:
        """Keep a changed record for good."""
        await self._disk.run(lambda: self._write(record, exclusive=False))
        self._note(record)

    async def forget(self, now: datetime) -> None:
        """Remove the records whose time is over."""
        due = [capture_id for capture_id, at in self._forget_at.items() if at <= now]
        if due:
            await self._disk.run(lambda: self._remove(due, now))
        for capture_id in due:
            self._forget_at.pop(capture_id, None)

    def count_open(self, now: datetime) -> int:
        """How many captures still take uploads."""
        for capture_id in [one for one, end in self._open.items() if end <= now]:
            del self._open[capture_id]
        return len(self._open)

    def _note(self, record: Capture) -> None:
        capture_id, end = record.registration.id, record.registration.expires
        self._forget_at[capture_id] = end + FORGET_AFTER
        self._open.pop(capture_id, None)
        if record.state is State.OPEN:
            self._open[capture_id] = end

    def _read(self, capture_id: str) -> Capture | None:
        with self._root.enter(_FOLDER) as folder:
            try:
                return decode_capture(folder.read(f"{capture_id}.json", _LARGEST))
            except FileNotFoundError:
                return None
            except msgspec.DecodeError as bad:
                raise StoreError(f"the record of capture {capture_id} cannot be read") from bad

    def _read_all(self) -> list[Capture]:
        found = []
        with self._root.enter(_FOLDER, create=True) as folder:
            for name in [entry.name for entry in folder.entries()]:
                if not name.endswith(".json"):
                    folder.remove(name)
                    continue
                try:
                    found.append(decode_capture(folder.read(name, _LARGEST)))
                except (msgspec.DecodeError, FileNotFoundError):
                    _log.warning("a capture record cannot be read and is left alone", file=name)
        return found

    def _write(self, record: Capture, *, exclusive: bool) -> bool:
        name = f"{record.registration.id}.json"
        draft = f"{record.registration.id}.{os.getpid()}.{next(self._serial)}.tmp"
        with self._root.enter(_FOLDER) as folder:
            folder.write(draft, encode(record))
            try:
                if exclusive:
                    folder.link(draft, folder, name)
                else:
                    folder.replace(draft, folder, name)
            except FileExistsError:
                return False
            finally:
                folder.remove(draft)
            folder.sync()
        return True

    def _remove(self, capture_ids: Iterable[str], now: datetime) -> None:
        with self._root.enter(_FOLDER) as folder:
            for capture_id in capture_ids:
                # Another process may have prolonged it: only the file knows. One that cannot be read is left alone.
                with contextlib.suppress(StoreError):
                    held = self._read(capture_id)
                    if held is not None and held.registration.expires + FORGET_AFTER <= now:
                        folder.remove(f"{capture_id}.json")
